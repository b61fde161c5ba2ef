"""Plain numeric arrays of MATLAB 5 files (.mat, "-v6" and "-v7").

The layout is from MathWorks' "MAT-File Format". Only plain real arrays are read: SciPy's reader of
the whole format crashes on some damaged files, and allocates whatever size a file declares.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_scnn.storage.guard import allowed_bytes, check_size, reading

MAT = "a readable .mat file"
HEADER, MATRIX, COMPRESSED = 128, 14, 15
# Data types of elements; UTF-8 and others are not needed.
TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
NUMERIC_CLASSES = range(6, 16)  # double, single, and integers of 8 to 64 bits
OTHER_CLASSES = {1: "cell array", 2: "struct", 3: "object", 4: "text", 5: "sparse matrix"}
COMPLEX = 0x0800
LONGEST_HEAD = 1024  # flags, dimensions and name of a matrix, bytes
MAX_DIMENSIONS = 32  # NumPy's


@dataclass(frozen=True)
class _Matrix:
    """The header of an array.

    Attributes:
        name: of the variable.
        kind: the type of an array that is not plain and real; '' for one that is.
        shape: of the array.
        start: offset of the element with the numbers from the header's start, bytes.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    start: int


def read_mat_arrays(
    path: str | os.PathLike, names: Collection[str] | None = None, what: str = MAT
) -> dict[str, np.ndarray]:
    """Plain real arrays of a MATLAB 5 file, in their stored dtypes, with two or more axes.

    Args:
        path: the file.
        names: of the arrays to read; None reads all plain real ones. Missing ones are left out.
        what: what the file should be, with its article, for the message.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or of another version, an array in ``names`` is not plain
            and real, or the arrays unpack to far more than the file's size.
    """
    path = Path(path)
    with reading(path, what):
        content = memoryview(path.read_bytes())
        order = _byte_order(content)
        arrays: dict[str, np.ndarray] = {}
        allowed = allowed_bytes(len(content))
        for kind, element in _elements(content[HEADER:], order):
            array = _read_matrix(kind, element, order, names, allowed)
            if array is not None:
                allowed -= array[1].nbytes
                arrays[array[0]] = array[1]
        return arrays


def _byte_order(content: memoryview) -> str:
    mark = bytes(content[126:128])
    if bytes(content[:10]) == b"MATLAB 7.3":
        raise ValueError("of MATLAB 7.3; save it with -v7")
    if len(content) < HEADER or mark not in (b"IM", b"MI"):
        raise ValueError("not a MATLAB 5 file")
    return "<" if mark == b"IM" else ">"


def _elements(content: memoryview, order: str):
    """Type and data of each element; elements are padded to 8 bytes, unless compressed."""
    at = 0
    while at < len(content):
        kind, data, after = _element(content, at, order)
        yield kind, data
        at = after


def _element(content: memoryview, at: int, order: str) -> tuple[int, memoryview, int]:
    """Type and data of the element at offset ``at``, and the offset of the next one."""
    first, size = (int(n) for n in np.frombuffer(content[at : at + 8], f"{order}u4", 2))
    start = at + 8
    if first >> 16:  # small: the size is in the type's upper half, the data in the next 4 bytes
        first, size, start = first & 0xFFFF, first >> 16, at + 4
        if size > 4:
            raise ValueError("a small element of more than 4 bytes")
    data = content[start : start + size]
    if len(data) != size:
        raise ValueError(f"cut off: an element of {size:,} bytes has {len(data):,}")
    padding = 0 if first == COMPRESSED else -size % 8
    return first, data, at + 8 if start == at + 4 else start + size + padding


def _read_matrix(
    kind: int, element: memoryview, order: str, names: Collection[str] | None, allowed: int
) -> tuple[str, np.ndarray] | None:
    """Name and array of a top-level element; None if it is not to be read."""
    unpack = None
    size = len(element)
    if kind == COMPRESSED:
        unpack = zlib.decompressobj()
        kind, size = (int(n) for n in np.frombuffer(unpack.decompress(element, 8), f"{order}u4", 2))
        most = min(max(size, 1), LONGEST_HEAD)  # 0 would mean no limit
        element = memoryview(unpack.decompress(unpack.unconsumed_tail, most))
    if kind != MATRIX:
        return None
    matrix = _head(element, order)
    if matrix is None or (names is not None and matrix.name not in names):
        return None
    if matrix.kind:
        if names is None:
            return None
        raise ValueError(f"{matrix.name} is a {matrix.kind}; expected plain numbers")
    check_size(matrix.name, size, allowed)
    if unpack is not None:
        rest = unpack.decompress(unpack.unconsumed_tail, size - len(element) + 1)
        if not unpack.eof or len(element) + len(rest) != size:  # zlib compares the checksum there
            raise ValueError(f"{matrix.name}: its compressed data is damaged, or of another length")
        element = memoryview(bytes(element) + rest)
    return matrix.name, _numbers(element, matrix, order)


def _head(element: memoryview, order: str) -> _Matrix | None:
    """The header of a matrix; None for an opaque object, whose header differs."""
    _, flags, at = _element(element, 0, order)
    word = int(np.frombuffer(flags, f"{order}u4")[0])
    if word & 0xFF not in [*NUMERIC_CLASSES, *OTHER_CLASSES]:
        return None
    _, dimensions, at = _element(element, at, order)
    _, name, at = _element(element, at, order)
    shape = tuple(int(n) for n in np.frombuffer(dimensions, f"{order}i4"))
    kind = OTHER_CLASSES.get(word & 0xFF, "complex array" if word & COMPLEX else "")
    if not 2 <= len(shape) <= MAX_DIMENSIONS or min(shape) < 0:
        raise ValueError(f"an array of the shape {shape}")
    return _Matrix(bytes(name).decode("latin1"), kind, shape, at)


def _numbers(element: memoryview, matrix: _Matrix, order: str) -> np.ndarray:
    kind, data, _ = _element(element, matrix.start, order)
    if kind not in TYPES:
        raise ValueError(f"{matrix.name} has data of the type {kind}")
    dtype = np.dtype(order + TYPES[kind])
    if math.prod(matrix.shape) * dtype.itemsize != len(data):
        raise ValueError(f"{matrix.name} is {matrix.shape}, but has {len(data):,} bytes of {dtype}")
    array = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="))
    return array.reshape(matrix.shape, order="F")
