"""Files that are written atomically, and .npz files that are read without trusting them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from pathlib import Path
from typing import Any

import numpy as np

from keras_scnn.storage.arrays import read_arrays
from keras_scnn.storage.atomic import atomic_path
from keras_scnn.storage.guard import existing_file

MAX_NAME = 200  # bytes of a file's name that leave room for endings; file systems end at 255


def short_name(name: str) -> str:
    """The name; if it is longer than ``MAX_NAME`` bytes, its beginning and a digest of it."""
    encoded = os.fsencode(name)
    if len(encoded) <= MAX_NAME:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:16]
    return f"{encoded[: MAX_NAME - 17].decode('utf-8', 'ignore')}-{digest}"


def write_npz(path: str | os.PathLike, kind: str, version: int, **arrays: np.ndarray) -> None:
    """Write a compressed .npz file that contains its format's name and version."""
    contents: dict[str, Any] = {"format": kind, "version": version, **arrays}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **contents)


def read_npz(path: str | os.PathLike, kind: str, version: int) -> dict[str, np.ndarray]:
    """Read the arrays of a file written by ``write_npz``; nothing in it is ever unpickled.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or has another format or version.
    """
    path = existing_file(path, f"a '{kind}' .npz file")
    arrays = read_arrays(path)
    stored_kind, stored_version = (_label(arrays.pop(key, None)) for key in ("format", "version"))
    if (stored_kind, stored_version) != (kind, str(version)):
        raise ValueError(
            f"{path}: format {stored_kind}, version {stored_version}; "
            f"expected '{kind}' version {version}"
        )
    return arrays


def _label(array: np.ndarray | None) -> str:
    """A scalar array as text; for a missing or other one, a description of it."""
    if array is None:
        return "none"
    return str(array)[:80] if array.ndim == 0 else f"of the shape {array.shape}"


def packaged_file(package: str, name: str, advice: str) -> Path:
    """The path of a file in an installed package, which is not imported.

    Args:
        package: its name in the package index.
        name: of the file, without folders.
        advice: how to install the package, for the error.

    Raises:
        FileNotFoundError: the package is not installed, or lacks the file.
    """
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == name and Path(str(file.locate())).is_file():
            return Path(str(file.locate()))
    what = f"{name} of the package {package} is not installed; {advice}"
    raise FileNotFoundError(what) from ImportError(package)  # see ``shards.is_of_package``
