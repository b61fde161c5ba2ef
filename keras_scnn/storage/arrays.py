"""Arrays of .npz and .npy files, read without trusting them.

Sizes are checked against the file's before memory is allocated, only the requested arrays are
read, and nothing is ever unpickled.
"""

from __future__ import annotations

import math
import os
import sys
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO

import numpy as np

from keras_scnn.storage.guard import allowed_bytes, check_size, reading

NPZ = "a readable .npz file"
KINDS = "biufcSU"  # of dtypes: numbers and text
# NumPy's; decompressors of other methods allocate what the data declare.
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_arrays(
    path: str | os.PathLike, names: Collection[str] | None = None, what: str = NPZ
) -> dict[str, np.ndarray]:
    """Arrays of an .npz file.

    Args:
        path: the file.
        names: of the arrays to read; None reads all. Missing ones are left out.
        what: what the file should be, with its article, for the message.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, contains objects, or unpacks to far more than its size.
    """
    path = Path(path)
    with reading(path, what), path.open("rb") as file, _archive(file) as archive:
        members = {
            info.filename[:-4]: info
            for info in archive.infolist()
            if info.filename.endswith(".npy") and (names is None or info.filename[:-4] in names)
        }
        allowed = allowed_bytes(path.stat().st_size)
        check_size("the archive", sum(info.file_size for info in members.values()), allowed)
        return {name: _read_member(archive, info) for name, info in members.items()}


def array_names(path: str | os.PathLike) -> list[str]:
    """The names of the arrays of an .npz file; errors as ``read_arrays``."""
    path = Path(path)
    with reading(path, NPZ), path.open("rb") as file, _archive(file) as archive:
        return [name[:-4] for name in archive.namelist() if name.endswith(".npy")]


def _archive(file: IO[bytes]) -> zipfile.ZipFile:
    if not zipfile.is_zipfile(file):
        raise ValueError("it is not a zip archive, or its end is missing")
    return zipfile.ZipFile(file)


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    if info.compress_type not in COMPRESSIONS:
        raise ValueError(f"{info.filename} is compressed by a method that NumPy does not use")
    with archive.open(info) as stream:
        array = _read_npy(stream, info.filename, info.file_size)
        stream.read(1)  # zipfile verifies the checksum at the end
    return array


def read_npy(path: str | os.PathLike) -> np.ndarray:
    """The array of an .npy file; errors as ``read_arrays``."""
    path = Path(path)
    with reading(path, "a readable .npy file"), path.open("rb") as stream:
        return _read_npy(stream, "the array", path.stat().st_size)


def read_npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran order, and dtype of an .npy file; leaves the stream at the data.

    Raises:
        ValueError: it is not an .npy file of version 1 or 2.
    """
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an .npy file of version {version}, not (1, 0) or (2, 0)")
    read = np.lib.format.read_array_header_1_0
    return (read if version == (1, 0) else np.lib.format.read_array_header_2_0)(stream)


def _read_npy(stream: IO[bytes], name: str, available: int) -> np.ndarray:
    shape, is_fortran, dtype = read_npy_header(stream)
    if dtype.kind not in KINDS or dtype.names or dtype.subdtype or dtype.itemsize == 0:
        raise ValueError(f"{name} holds {dtype}; only numbers and text are read")
    if any(n < 0 for n in shape):
        raise ValueError(f"{name} has the shape {shape}")
    declared = math.prod(shape) * dtype.itemsize
    check_size(name, declared, available)
    content = bytearray(stream.read(declared))  # writable, as NumPy's own arrays are
    if len(content) != declared:
        raise ValueError(f"{name} has only {len(content):,} of the {declared:,} bytes it declares")
    array = np.frombuffer(content, dtype)
    if dtype.kind == "U":
        codes = np.frombuffer(content, np.dtype(np.uint32).newbyteorder(dtype.byteorder))
        if codes.max(initial=0) > sys.maxunicode:  # a SystemError, once it becomes a str
            raise ValueError(f"{name} contains characters beyond those of Unicode")
    return array.reshape(shape, order="F" if is_fortran else "C")
