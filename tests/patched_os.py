"""Functions of ``os`` replaced in tests."""

import os
import pathlib
from collections.abc import Callable


def patch_os(monkeypatch, name: str, function: Callable) -> None:
    """Replace a function of ``os``, also where ``pathlib`` of Python 3.10 keeps it."""
    monkeypatch.setattr(os, name, function)
    if kept := getattr(pathlib, "_NormalAccessor", None):
        monkeypatch.setattr(kept, name, staticmethod(function))
