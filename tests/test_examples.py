"""The examples in docstrings run, and give the documented output."""

import doctest
import importlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "keras_scnn"
MODULES = [
    ".".join(("keras_scnn", *path.relative_to(PACKAGE).with_suffix("").parts))
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text()
]


@pytest.mark.parametrize("name", [name.removesuffix(".__init__") for name in MODULES])
def test_examples_of(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted and not result.failed
