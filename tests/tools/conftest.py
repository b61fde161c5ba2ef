"""Scripts of tools/ as modules."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from keras_scnn.models import Preset, load_preset

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


@pytest.fixture
def refused(monkeypatch, capsys) -> Callable[..., str]:
    """Runs a script with arguments that it refuses, and returns what it prints on stderr."""

    def run(script: ModuleType, *arguments: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, arguments)])
        try:
            status = script.main()
        except SystemExit as stop:  # argparse
            status = stop.code
        assert status == 2
        return capsys.readouterr().err

    return run


@pytest.fixture(params=["mobile", "identity"])
def preset(request) -> Preset:
    """A preset without and one with recognizers, whose packages are an extra."""
    try:
        return load_preset(request.param)
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture
def crops() -> np.ndarray:
    """Three crops of noise."""
    return np.random.default_rng(0).integers(0, 255, (3, 120, 120, 3)).astype(np.uint8)
