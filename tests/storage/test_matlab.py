"""Parts of "MAT-File Format" (MathWorks) that SciPy does not write."""

import struct

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from keras_scnn.storage.guard import FileError
from keras_scnn.storage.matlab import read_mat_arrays

MATRIX, INT8, INT32, UINT32, DOUBLE = 14, 1, 5, 6, 9  # data types
HEAD = b"MATLAB 5.0".ljust(124) + struct.pack("<H", 0x0100) + b"IM"


def element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(name: bytes, numbers: bytes, number_class: int = 6, shape: bytes = b"") -> bytes:
    flags = element(UINT32, struct.pack("<II", number_class, 0))
    shape = shape or element(INT32, struct.pack("<ii", 1, 2))
    return element(MATRIX, flags + shape + element(INT8, name) + numbers)


NUMBERS = element(DOUBLE, struct.pack("<dd", 1.5, -2))


@pytest.mark.parametrize("its_class", [16, 17], ids=["a function", "an object such as a table"])
def test_variables_of_newer_classes_are_skipped(tmp_path, its_class):
    """Those have no dimensions: the name of their type comes next (SciPy's mio5)."""
    flags = element(UINT32, struct.pack("<II", its_class, 0))
    names = b"".join(element(INT8, name) for name in (b"a", b"MCOS", b"table"))
    opaque = element(MATRIX, flags + names + matrix(b"", NUMBERS))
    (tmp_path / "a.mat").write_bytes(HEAD + opaque + matrix(b"b", NUMBERS))
    for names in (None, ["a", "b"]):
        back = read_mat_arrays(tmp_path / "a.mat", names)
        assert back.keys() == {"b"} and back["b"].tolist() == [[1.5, -2]]


def test_what_is_not_plain_numbers_is_named(tmp_path):
    content = {
        "a text": "words",
        "a sparse matrix": scipy.sparse.csc_matrix(np.eye(2)),
        "a cell array": np.array([1, "a"], object),
        "a struct": {"x": 1.0},
        "a complex array": np.array([[1j]]),
    }
    variables = {f"v{i}": value for i, value in enumerate(content.values())}
    scipy.io.savemat(tmp_path / "a.mat", variables)
    for name, kind in zip(variables, content, strict=True):
        with pytest.raises(FileError, match=rf"a\.mat: .*{name} is {kind}; expected plain numbers"):
            read_mat_arrays(tmp_path / "a.mat", [name])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (matrix(b"a", struct.pack("<II", 8 << 16 | DOUBLE, 0)), "small element of more than 4"),
        (matrix(b"a", element(16, b"words")), "a has data of the type 16"),
        (matrix(b"a", element(DOUBLE, bytes(8))), r"a is \(1, 2\), but has 8 bytes of float64"),
        (matrix(b"a", NUMBERS, shape=element(INT32, struct.pack("<ii", -1, -2))), r"\(-1, -2\)"),
        (matrix(b"a", NUMBERS, shape=element(INT32, struct.pack("<i", 2))), r"shape \(2,\)"),
        (matrix(b"a", NUMBERS, shape=element(INT32, bytes(4 * 33))), r"shape \(0, 0, 0"),
        (matrix(b"a", NUMBERS)[:-1], "cut off: an element of 72 bytes has 71"),
    ],
    ids=["small", "type", "short", "negative", "one axis", "33 axes", "cut"],
)
def test_a_damaged_matrix_is_refused(tmp_path, content, message):
    (tmp_path / "a.mat").write_bytes(HEAD + content)
    with pytest.raises(FileError, match=rf"a\.mat: .*{message}"):
        read_mat_arrays(tmp_path / "a.mat")
