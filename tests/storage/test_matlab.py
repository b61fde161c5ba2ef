"""Parts of "MAT-File Format" (MathWorks) that SciPy does not write."""

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from keras_scnn.storage.guard import FileError
from keras_scnn.storage.matlab import read_mat_arrays

INT8, INT32, UINT32, DOUBLE, MATRIX, COMPRESSED = 1, 5, 6, 9, 14, 15  # data types
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


def test_elements_that_are_no_matrix_are_skipped(tmp_path):
    (tmp_path / "a.mat").write_bytes(HEAD + element(DOUBLE, bytes(80)) + matrix(b"b", NUMBERS))
    assert read_mat_arrays(tmp_path / "a.mat")["b"].tolist() == [[1.5, -2]]


def test_a_file_of_matlab_7_3_is_named_with_what_to_do(tmp_path):
    """An HDF5 file behind 512 bytes that begin with this text."""
    head = b"MATLAB 7.3 MAT-file".ljust(124) + struct.pack("<H", 0x0200) + b"IM"
    (tmp_path / "a.mat").write_bytes(head.ljust(512) + b"\x89HDF\r\n\x1a\n")
    with pytest.raises(FileError, match=r"a\.mat: .*of MATLAB 7\.3; save it with -v7$"):
        read_mat_arrays(tmp_path / "a.mat")


@pytest.mark.parametrize("declared", [0, 8, 1000])
def test_a_compressed_matrix_is_not_unpacked_beyond_its_declared_size(tmp_path, declared):
    """60 MB of zeros; declared as 0 bytes, all were unpacked."""
    head = matrix(b"a", b"", shape=element(INT32, struct.pack("<ii", 1, 100)))[8:]
    pressed = zlib.compressobj()
    content = pressed.compress(struct.pack("<II", MATRIX, declared) + head)
    for _ in range(60):
        content += pressed.compress(bytes(1_000_000))
    (tmp_path / "a.mat").write_bytes(HEAD + element(COMPRESSED, content + pressed.flush()))
    tracemalloc.start()
    try:
        with pytest.raises(FileError, match=r"a\.mat: "):
            read_mat_arrays(tmp_path / "a.mat")
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


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
