import errno
import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse

from keras_scnn.face_models.restricted_pickle import load_pickle
from keras_scnn.io import read_image
from keras_scnn.settings import read_yaml
from keras_scnn.storage import atomic_path, short_name
from keras_scnn.storage.arrays import read_arrays, read_npy
from keras_scnn.storage.guard import FREE_BYTES, FileError, is_of_content, reading
from keras_scnn.storage.hdf5 import read_datasets
from keras_scnn.storage.matlab import read_mat_arrays
from keras_scnn.storage.text import json_text, read_json, read_plain_yaml, utf8_text


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyError("x"), "KeyError: 'x'"),
        (RuntimeError("h5"), "RuntimeError: h5"),
        (RecursionError(), "RecursionError"),
        (MemoryError(), "MemoryError"),
        (struct.error("s"), "error: s"),
        (ValueError("two\n  lines"), "two lines"),
    ],
)
def test_whatever_a_block_raises_names_the_file(error, reason):
    with (
        pytest.raises(ValueError, match=f"^a.bin: not a thing, or damaged: {reason}$"),
        reading("a.bin", "a thing"),
    ):
        raise error


def test_an_error_that_names_a_file_already_is_passed_on():
    with (
        pytest.raises(FileError, match="^b.bin"),
        reading("a.bin", "a thing"),
        reading("b.bin", "another"),
    ):
        raise KeyError("x")
    with pytest.raises(PermissionError), reading("a.bin", "a thing"):
        raise PermissionError(errno.EACCES, "no", "b.bin")
    with pytest.raises(ValueError, match=r"^a.bin: too short$"), reading("a.bin", "a thing"):
        raise ValueError("a.bin: too short")


# --- sizes: each file is small, and declares gigabytes


def npy_header(shape, dtype="<f8") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


def large_npz(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("a.npy", npy_header((150_000_000,)) + bytes(1_200_000_000))


def declared_npz(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", npy_header((1 << 37,)) + bytes(8))


def lzma_npz(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.npy", npy_header((1,)) + bytes(8))


def element(kind, data) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def mat_header() -> bytes:
    return b"MATLAB 5.0".ljust(124) + struct.pack("<H", 0x0100) + b"IM"


def mat_bomb(path):
    zeros = 300_000
    head = element(6, struct.pack("<II", 6, 0)) + element(5, struct.pack("<ii", 1000, zeros))
    body = head + element(1, b"a") + struct.pack("<II", 9, 8000 * zeros)
    pressed = zlib.compressobj(9)
    content = pressed.compress(struct.pack("<II", 14, len(body) + 8000 * zeros) + body)
    content += pressed.compress(bytes(1 << 20)) + pressed.flush()
    path.write_bytes(mat_header() + struct.pack("<II", 15, len(content)) + content)


def mat_declared(path):
    head = element(6, struct.pack("<II", 6, 0)) + element(5, struct.pack("<ii", 1 << 20, 1 << 20))
    path.write_bytes(mat_header() + element(14, head + element(1, b"a") + element(9, bytes(8))))


def large_h5(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (400_000_000,), "f8", chunks=(1000,), compression="gzip")


def large_chunk_h5(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (4,), "f8", maxshape=(None,), chunks=(100_000_000,))


def large_heap_h5(path):
    with h5py.File(path, "w") as file:
        file["a"] = "text"
    content = bytearray(path.read_bytes())
    at = content.index(b"GCOL")
    content[at + 8 : at + 16] = (1 << 31).to_bytes(8, "little")
    path.write_bytes(content)


def long_text_h5(path):
    with h5py.File(path, "w") as file:
        file["a"] = "text"
        place = file["a"].id.get_offset()
    content = bytearray(path.read_bytes())
    content[place : place + 4] = (3_000_000_000).to_bytes(4, "little")
    path.write_bytes(content)


LARGE = {
    "npz": (large_npz, read_arrays, "unpack to"),
    "npz declared": (declared_npz, read_arrays, "declares"),
    "npz lzma": (lzma_npz, read_arrays, "by a method that NumPy does not use"),
    "npy": (lambda p: p.write_bytes(npy_header((1 << 40,))), read_npy, "declares"),
    "mat": (mat_bomb, read_mat_arrays, "declares 2,400,000"),
    "mat declared": (mat_declared, read_mat_arrays, "but has 8 bytes"),
    "h5": (large_h5, lambda p: read_datasets(p, ["a"]), "declares 3,200,000,000"),
    "h5 chunk": (large_chunk_h5, lambda p: read_datasets(p, ["a"]), "declares 800,000,000"),
    "h5 heap": (large_heap_h5, lambda p: read_datasets(p, ["a"]), "a heap declares"),
    "h5 text": (long_text_h5, lambda p: read_datasets(p, ["a"]), "a declares 3,000,000,000"),
    "pickle of 1 GB": (lambda p: p.write_bytes(b"\x80\x03B\0\0\0\x40."), load_pickle, "expected"),
    "pickle's places": (
        lambda p: p.write_bytes(b"\x80\x02Nr\0\0\0\x40."), load_pickle, "at the memo index"
    ),
    "pickle's steps": (
        lambda p: p.write_bytes(b"\x80\x04(" + b"\x8f" * 300_000 + b"t."), load_pickle, "steps"
    ),
    "pickle of itself": (
        lambda p: p.write_bytes(b"\x80\x02]q\0h\0a."), load_pickle, "within itself"
    ),
}  # fmt: skip


@pytest.mark.integration
@pytest.mark.parametrize("case", LARGE)
def test_a_small_file_that_declares_gigabytes_is_refused_before_allocation(tmp_path, case):
    write, read, message = LARGE[case]
    write(tmp_path / "a.bin")
    import tracemalloc

    tracemalloc.start()
    try:
        with pytest.raises(FileError, match=f"a.bin: .*{message}"):
            read(tmp_path / "a.bin")
        assert tracemalloc.get_traced_memory()[1] < FREE_BYTES
    finally:
        tracemalloc.stop()


def test_a_pickle_that_names_one_list_billions_of_times_is_read_at_once(tmp_path):
    content = ["x"] * 10
    for _ in range(30):
        content = [content] * 10
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    back = load_pickle(tmp_path / "a.pkl")
    assert len(back) == 10 and back[0] is back[9]


# --- other files


def test_data_in_other_files_are_refused(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["a"] = np.arange(3.0)
    (tmp_path / "raw.bin").write_bytes(bytes(24))
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(tmp_path / "secret.h5", "a", (3,))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["link"] = h5py.ExternalLink("secret.h5", "a")
        file["group"] = h5py.ExternalLink("secret.h5", "/")
        file["soft"] = h5py.SoftLink("/link")
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("outside", (3,), "f8", external=[(str(tmp_path / "raw.bin"), 0, 24)])
        file["own"] = np.arange(3.0)
    np.testing.assert_array_equal(read_datasets(tmp_path / "a.h5", ["own"])["own"], [0, 1, 2])
    for name in ("link", "group/a", "soft", "virtual", "outside"):
        with pytest.raises(FileError, match=f"a.h5: .*{name.split('/')[0]}"):
            read_datasets(tmp_path / "a.h5", [name])


def test_missing_datasets_and_arrays_are_left_out(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a/b"] = 1.0
    assert list(read_datasets(tmp_path / "a.h5", ["a/b", "a/c", "a/b/d", "a"])) == ["a/b"]
    np.savez(tmp_path / "a.npz", a=1, b=np.array([{}], dtype=object))
    assert list(read_arrays(tmp_path / "a.npz", ["a", "c"])) == ["a"]


# --- MATLAB files: SciPy's own writer and reader are the other implementation


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_mat_file_is_read_as_scipy_reads_it(tmp_path, compressed, order):
    rng = np.random.default_rng(0)
    kinds = ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]
    arrays = {
        f"a_{kind}": np.asarray(rng.integers(0, 100, (3, 5, 2)[: 2 + i % 2]), kind, order=order)
        for i, kind in enumerate(kinds)
    }
    arrays |= {"scalar": np.array([[2.5]]), "tiny": np.uint8([[1, 2]]), "none": np.zeros((0, 3))}
    arrays["a_name_that_is_longer_than_eight"] = rng.normal(size=(300, 7))
    others = {"text": "words", "sparse": scipy.sparse.csc_matrix(np.eye(2)), "cells": [1, "a"]}
    others |= {"struct": {"a": 1.0}, "complex": np.array([[1j]])}
    scipy.io.savemat(tmp_path / "a.mat", others | arrays, do_compression=compressed)
    back = read_mat_arrays(tmp_path / "a.mat")
    assert back.keys() >= arrays.keys() and not back.keys() & {"text", "sparse", "struct"}
    expected = scipy.io.loadmat(tmp_path / "a.mat", variable_names=list(arrays))
    for name in arrays:
        np.testing.assert_array_equal(back[name], expected[name])
        assert back[name].dtype == expected[name].dtype
    assert list(read_mat_arrays(tmp_path / "a.mat", ["scalar", "nobody"])) == ["scalar"]
    with pytest.raises(FileError, match="a.mat: .*sparse is a sparse matrix"):
        read_mat_arrays(tmp_path / "a.mat", ["sparse"])


def test_a_flipped_bit_in_compressed_numbers_never_gives_other_numbers(tmp_path):
    """All bits of every seventh byte; zlib's checksum is the judge."""
    numbers = np.random.default_rng(0).normal(size=(5, 4))
    scipy.io.savemat(tmp_path / "a.mat", {"a": numbers}, do_compression=True)
    content, outcomes = (tmp_path / "a.mat").read_bytes(), []
    start = 128 + 8  # the header, and the tag of the compressed element
    for place in range(8 * start, 8 * len(content), 7 * 8):
        for bit in range(place, place + 8):
            damaged = bytearray(content)
            damaged[bit // 8] ^= 1 << bit % 8
            (tmp_path / "a.mat").write_bytes(damaged)
            try:
                back = read_mat_arrays(tmp_path / "a.mat")
            except FileError:
                outcomes.append("refused")
                continue
            assert back.keys() == {"a"}, f"bit {bit}"
            np.testing.assert_array_equal(back["a"], numbers, err_msg=f"bit {bit}")
            outcomes.append("the same")
    assert outcomes.count("refused") > 0.9 * len(outcomes) > 100


def test_a_mat_file_of_another_byte_order_is_read(tmp_path):
    head = struct.pack(">IIII", 6, 8, 6, 0) + struct.pack(">IIii", 5, 8, 1, 2)
    body = head + struct.pack(">HHcxxx", 1, 1, b"a") + struct.pack(">IIdd", 9, 16, 1.5, -2)
    content = b"MATLAB 5.0".ljust(124) + b"\x01\x00MI" + struct.pack(">II", 14, len(body)) + body
    (tmp_path / "a.mat").write_bytes(content)
    np.testing.assert_array_equal(read_mat_arrays(tmp_path / "a.mat")["a"], [[1.5, -2]])


@pytest.mark.parametrize("head", [b"", b"MATLAB 7.3 MAT-file", bytes(200)])
def test_mat_files_of_other_versions_are_refused(tmp_path, head):
    (tmp_path / "a.mat").write_bytes(head)
    with pytest.raises(FileError, match="a.mat: not a readable .mat file"):
        read_mat_arrays(tmp_path / "a.mat")


# --- text


BILLION_LAUGHS = "a0: &a0 x\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run: [[" + "[" * 5000, "nested"),
        ("a: &a [*a]", "alias .a contains itself"),
        ("".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(9)), "alias"),
        (BILLION_LAUGHS, "100,000 values"),
        ("steps: !!int ''", "IndexError"),
        ("flip: !!bool 'x'", "KeyError"),
        ("a: 1" + " " * 70_000, "longer"),
        ("base: a", "base is 'a'"),
        ("base: [1]", "base is"),
        ("base: ../a", "base is"),
        ("- 1", "must have lines"),
        ("steps: 5\nseed: 1\nsteps: 6", "line 3 gives 'steps' again; give it once"),
        ("a: {b: 1, b: 1}", "line 1 gives 'b' again"),
    ],
)
def test_yaml_that_is_costly_or_empty_is_refused_by_name(tmp_path, text, message):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=f"a.yaml: .*{message}"):
        read_yaml(tmp_path / "a.yaml")


def test_yaml_numbers_of_other_bases_are_text(tmp_path):
    text = "a: [010, -07, 10:30, 1:30.5]\nb: [0, 10, -1.5, 0.5, 1_000, 0x10]\n"
    (tmp_path / "a.yaml").write_text(text)
    assert read_plain_yaml(tmp_path / "a.yaml") == {
        "a": ["010", "-07", "10:30", "1:30.5"],  # YAML 1.1: 8, -7, 630 and 90.5
        "b": [0, 10, -1.5, 0.5, 1000, 16],
    }


def test_circular_bases_are_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("base: b")
    (tmp_path / "b.yaml").write_text("base: a")
    with pytest.raises(ValueError, match="cycle"):
        read_yaml(tmp_path / "a.yaml")


def test_yaml_and_json_are_read_back(tmp_path):
    (tmp_path / "a.yaml").write_text("a: [1, {b: 2.5}]\nc: text\n")
    assert read_plain_yaml(tmp_path / "a.yaml") == {"a": [1, {"b": 2.5}], "c": "text"}
    (tmp_path / "a.yaml").write_text("a: &a {b: 1, c: [2, 3]}\nd: {<<: *a, b: 4}\ne: [*a, *a]\n")
    a = {"b": 1, "c": [2, 3]}
    assert read_plain_yaml(tmp_path / "a.yaml") == {"a": a, "d": {**a, "b": 4}, "e": [a, a]}
    (tmp_path / "a.json").write_text(json.dumps([1, {"a": None}]))
    assert read_json(tmp_path / "a.json") == [1, {"a": None}]
    (tmp_path / "a.json").write_text("[1]", encoding="utf-8-sig")  # as some editors save it
    assert read_json(tmp_path / "a.json") == [1]
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(FileError, match="a.json: not a readable JSON file"):
        read_json(tmp_path / "a.json")


def refused(name: str):
    raise ValueError(f"{name} is no JSON")


def test_json_is_written_without_nan_and_infinities():
    """Checked with a reader that refuses NaN; the words are kept in names and texts."""
    nan, inf = float("nan"), np.float64("inf")
    content = {"NaN": [1.5, nan, (inf, -inf)], "b": {"Infinity": -inf}, "c": "NaN", "d": [True, 3]}
    result = json.loads(json_text(content), parse_constant=refused)
    expected = {"NaN": [1.5, None, [None, None]], "b": {"Infinity": None}, "c": "NaN"}
    assert result == expected | {"d": [True, 3]}


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (np.int64(-3), "-3"),
        (np.uint8(200), "200"),
        (np.float32(0.25), "0.25"),
        (np.float32("nan"), "null"),
        (np.float16("-inf"), "null"),
        (np.bool_(False), "false"),
        (np.str_("a"), '"a"'),
    ],
)
def test_numbers_of_numpy_are_written_as_pythons(value, written):
    assert json_text(value) == written + "\n"
    assert json_text({"a": (value,)}) == f'{{\n  "a": [\n    {written}\n  ]\n}}\n'


@pytest.mark.parametrize("value", [{1}, np.zeros(2), b"a", object(), {(1, 2): 3}, [{"a": {2}}]])
def test_values_that_json_cannot_represent_are_refused(value):
    with pytest.raises(ValueError, match="a value cannot be written as JSON"):
        json_text(value)


# --- names


@pytest.mark.skipif(sys.platform != "linux", reason="names are any bytes on Linux alone")
def test_files_with_long_names_and_names_that_are_no_text_are_written(tmp_path):
    for name in ("x" * 251 + ".txt", "caf\udce9.txt"):
        with atomic_path(tmp_path / name) as temporary:
            temporary.write_text("a")
        assert (tmp_path / name).read_text() == "a"
    assert short_name("a photo") == "a photo"
    first, second = (short_name("x" * 240 + end) for end in "ab")
    assert first != second and len(first) <= 200


@pytest.mark.skipif(sys.platform != "linux", reason="names are any bytes on Linux alone")
def test_an_image_of_a_name_that_is_no_text_is_written_and_read(tmp_path):
    # In a process of its own: OpenCV ended it.
    code = (
        "import sys, numpy as np; from keras_scnn.io import read_image, write_image;"
        "name = sys.argv[1] + '/caf\\udce9.png'; write_image(name, np.zeros((2, 3, 3), np.uint8));"
        "print(read_image(name).shape)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "(2, 3, 3)\n"), done.stderr


def raised(error: Exception, cause: Exception | None) -> Exception:
    """The error as a reader of a photo passes it on."""
    with pytest.raises((ValueError, OSError)) as caught, reading("a.heic", "a photo"):
        raise error from cause
    return caught.value


@pytest.mark.parametrize(
    ("error", "cause", "of_content"),
    [
        (ValueError("no photo"), None, True),
        (KeyError("x"), None, True),
        (ValueError("cut off"), OSError("image file is truncated"), True),  # a parser's
        (ValueError("HEIC"), ImportError("no pillow_heif"), False),
        (ValueError("large"), MemoryError(), False),
        (ValueError("read"), OSError(errno.EIO, "Input/output error"), False),
        (PermissionError(errno.EACCES, "Permission denied", "a.heic"), None, False),
        (FileNotFoundError("a.heic: no such photo"), None, False),
    ],
)
def test_a_failure_is_of_the_file_or_of_the_machine(error, cause, of_content):
    assert is_of_content(raised(error, cause)) == of_content


def test_a_missing_package_is_of_the_machine_and_a_cut_photo_is_not(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    file = tmp_path / "a.heic"
    for content, of_content in (
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", False),
        (b"\xff\xd8 no photo", True),
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.heic: ") as caught:
            read_image(file)
        assert is_of_content(caught.value) == of_content


def test_text_in_another_encoding_is_named_with_the_right_one(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_bytes("first,second\r\nä\n".encode("utf-8-sig"))
    assert utf8_text(path) == "first,second\r\nä\n"
    path.write_text("first,second", encoding="utf-16")
    with pytest.raises(ValueError, match=r"pairs\.csv: not a text file in UTF-8; save it as such"):
        utf8_text(path)
