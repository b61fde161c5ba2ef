"""Scripts of tools/ as modules."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def tools(monkeypatch) -> Iterator[None]:
    """The scripts can be imported by name, as they import each other."""
    monkeypatch.syspath_prepend(TOOLS)
    yield
    for script in TOOLS.glob("*.py"):
        sys.modules.pop(script.stem, None)


@pytest.fixture
def tool(tools, request) -> ModuleType:
    """The script NAME.py of a test module test_NAME.py."""
    return importlib.import_module(request.module.__name__.removeprefix("test_"))
