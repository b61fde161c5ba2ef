import os
import pickle
import struct
import subprocess

import numpy as np
import pytest
import scipy.sparse

from keras_scnn.face_models.restricted_pickle import ADMITTED, StandIn, _FromBuffer, load_pickle


class Call:
    """Pickles as a call of any function, as an attacker's file would."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def dump(path, content, protocol=2):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_arrays_are_read_and_other_objects_are_left_empty(tmp_path, protocol):
    content = {
        "floats": np.random.default_rng(0).normal(size=(3, 4)),
        "strided": np.arange(12, dtype=np.uint32).reshape(3, 4)[:, ::2],
        "transposed": np.arange(12.0).reshape(3, 4).T,
        "permuted": np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1),
        "empty": np.zeros((0, 3)),
        "scalar": np.float32(2.5),
        "sparse": scipy.sparse.csc_matrix([[0.0, 1.5], [0.0, 0.0]]),
        "text": "naïve",
        "list": [1, None, True, (2.5, {3})],
    }
    back = load_pickle(dump(tmp_path / "a.pkl", content, protocol))
    for key in ("floats", "strided", "transposed", "permuted", "empty", "scalar"):
        np.testing.assert_array_equal(back[key], content[key])
        assert back[key].dtype == content[key].dtype
    assert type(back["sparse"]) is StandIn and not vars(back["sparse"])
    assert (back["text"], back["list"]) == (content["text"], content["list"])


def test_an_array_written_by_python_2_comes_back(tmp_path):
    # The opcodes that Python 2.7 with NumPy 1.x writes at protocol 2: data is a byte string (U).
    values = np.array([np.pi, -1e300])
    pickled = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85q\x03"
        b"U\x01bq\x04\x87q\x05Rq\x06(K\x01K\x02\x85q\x07cnumpy\ndtype\nq\x08U\x02f8q\tK\x00K\x01"
        b"\x87q\nRq\x0b(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0cb\x89U\x10"
        + values.tobytes()
        + b"q\rtq\x0eb."
    )
    (tmp_path / "a.pkl").write_bytes(pickled)
    np.testing.assert_array_equal(load_pickle(tmp_path / "a.pkl"), values)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_os_system_is_refused_and_not_run(tmp_path, protocol):
    marker = tmp_path / "marker"
    content = {"v_template": np.zeros((2, 3)), "extra": [Call(os.system, f"touch {marker}")]}
    with pytest.raises(ValueError, match=r"a.pkl: .* asks for (posix|nt).system; .* nothing"):
        load_pickle(dump(tmp_path / "a.pkl", content, protocol))
    assert not marker.exists()


@pytest.mark.parametrize(
    "call",
    [
        Call(eval, "1 + 1"),
        Call(getattr, "text", "upper"),
        Call(__import__, "os"),
        Call(subprocess.run, ["true"]),
        Call(np.load, "file.npy"),
        Call(np.loadtxt, "file.txt"),
    ],
    ids=lambda call: call.call[0].__name__,
)
def test_other_functions_are_refused_even_those_of_numpy(tmp_path, call):
    with pytest.raises(ValueError, match="a.pkl: .* asks for "):
        load_pickle(dump(tmp_path / "a.pkl", call))


def test_a_name_reached_through_an_admitted_one_is_refused(tmp_path):
    # Protocol 4 may name attributes with dots: numpy, "ndarray.__class__" would be type.
    pickled = b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93."
    (tmp_path / "a.pkl").write_bytes(pickled)
    with pytest.raises(ValueError, match="asks for numpy.ndarray.__class__"):
        load_pickle(tmp_path / "a.pkl")


@pytest.mark.parametrize("name", ["a.npy", "a.NPY"])
def test_an_npy_file_of_one_object_is_read_as_carefully(tmp_path, name):
    path = tmp_path / name

    def save(content):
        with path.open("wb") as file:
            np.save(file, content)

    save({"lmk_face_idx": np.arange(3)})
    np.testing.assert_array_equal(load_pickle(path)[()]["lmk_face_idx"], np.arange(3))
    save(np.array([Call(os.system, "true")]))
    with pytest.raises(ValueError, match="asks for (posix|nt).system"):
        load_pickle(path)
    save(np.zeros(3))
    with pytest.raises(ValueError, match="not of objects"):
        load_pickle(path)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"<html>" + b, bytes])
def test_a_damaged_file_is_refused(tmp_path, damage):
    path = dump(tmp_path / "a.pkl", {"a": np.arange(100.0)})
    path.write_bytes(damage(path.read_bytes()) if damage is not bytes else b"")
    with pytest.raises(ValueError, match="a.pkl: not a pickle of plain arrays"):
        load_pickle(path)


def reconstructed(state: str, dtype: str = "f8") -> bytes:
    """An array as NumPy rebuilds it, in text steps: its dtype (named d), then its state."""
    head = f"cnumpy\ndtype\n(V{dtype}\nI0\nI1\ntRp0\n0cnumpy.core.multiarray\n_reconstruct\n"
    return (head + "(cnumpy\nndarray\n(I0\nt" + "Vb\ntR" + state).encode() + b"."


HOSTILE = {
    # The dtype's flags say that its bytes are objects: addresses of the file's choice.
    "objects from bytes": (
        reconstructed("(I1\n(I2\ntg0\nI00\nVxxxxxxxxxxxxxxxx\ntb", "O8"),
        "without a list of as many",
    ),
    "a forged dtype": (
        b"cnumpy\ndtype\n(VV8\nI0\nI1\ntR(I4\nV|\nNNNI8\nI1\nI63\ntb.", "dtype 'V8'"
    ),
    "fields": (b"cnumpy\ndtype\n(VO,O\nI0\nI1\ntR.", "dtype 'O,O'"),
    "a shape that is too large": (
        reconstructed("(I1\n(I9999999999\ntg0\nI00\nVx\ntb"), "without as many bytes"
    ),
    "a negative shape": (
        reconstructed("(I1\n(I-2\ntg0\nI00\nVx\ntb"), "without a valid shape and dtype"
    ),
    "no dtype": (reconstructed("(I1\n(I2\ntNI00\nVx\ntb"), "without a valid shape and dtype"),
    "elements without bytes": (
        reconstructed("(I1\n(I2\ntg0\nI00\nV\ntb", "S0"), "whose elements have no bytes"
    ),
    # Its bytes would be others than the writer's.
    "another encoding": (b"c_codecs\nencode\n(V\\u00e9\nVutf-8\ntR.", "'latin1' only"),
    "no encoding": (b"c_codecs\nencode\n(V\\u00e9\ntR.", "'latin1' only"),
    "bytes of any size": (b"c__builtin__\nbytes\n(I999999999999\ntR.", "without arguments only"),
    "bytes to encode": (b"c_codecs\nencode\n(I1\nVlatin1\ntR.", "'latin1' only"),
    "no state": (reconstructed(""), "without a state"),
    "state of a class": (b"cnumpy\nndarray\n}b.", "missing"),
    "a subclass": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(I0\ntVb\ntR.", "subclass"
    ),
    "a persistent object": (b"Pfile\n.", "PERSID"),
    "an extension": (b"\x82\x01.", "EXT1"),
    "old classes": (b"(inumpy\nndarray\n.", "INST"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_forged_array_is_refused(tmp_path, what):
    content, message = HOSTILE[what]
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=f"a.pkl: .*{message}"):
        load_pickle(tmp_path / "a.pkl")


@pytest.mark.parametrize("rest", [(), (None,), ((1, 0), (0, 1))])
def test_permuted_axes_without_their_order_are_refused(rest):
    """All axes were reversed, so a damaged file was read as other data."""
    data = np.arange(6.0)
    with pytest.raises(pickle.UnpicklingError, match="permuted axes without their order"):
        _FromBuffer(data.tobytes(), data.dtype, (2, 3), "K", *rest)


def text(value: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value


NUMBERS = b"](" + b"K\1" * 1000 + b"e"  # a list of 1,000 numbers
# What is stored first, and what then copies it: 100 kB, or a list.
COPIES = {
    "bytes of a text": (
        b"c_codecs\nencode\nq\1" + text(bytes(100_000)) + b"q\2" + text(b"latin1") + b"q\3",
        b"h\1h\2h\3\x86R",
    ),
    "an array of a text": (
        b"cnumpy\ndtype\n" + text(b"u1") + b"\x85Rq\1cnumpy.core.multiarray\nscalar\nq\2"
        + text(b"S100000") + b"q\3cnumpy\ndtype\nh\3\x85Rq\4" + text(bytes(100_000)) + b"q\5",
        b"h\2h\4h\5\x86R",
    ),
    "a set of a list": (b"c__builtin__\nset\nq\1" + NUMBERS + b"q\2", b"h\1h\2\x85R"),
    "an array of a list": (
        b"cnumpy.core.numeric\n_frombuffer\nq\1" + NUMBERS + b"q\2cnumpy\ndtype\n" + text(b"O8")
        + b"\x85Rq\3M\xe8\3\x85q\4" + text(b"C") + b"q\5",
        b"(h\2h\3h\4h\5tq\6h\1h\6R",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", COPIES)
def test_a_value_that_is_copied_a_thousand_times_is_refused(tmp_path, what):
    """A file of 0.5 MB took 1.5 GB and 15 s; one copy is read."""
    first, copy = COPIES[what]
    (tmp_path / "a.pkl").write_bytes(b"\x80\2](" + first + copy + b"e.")
    load_pickle(tmp_path / "a.pkl")
    (tmp_path / "a.pkl").write_bytes(b"\x80\2](" + first + 1000 * copy + b"e.")
    with pytest.raises(ValueError, match=r"a\.pkl: .*copies its values to far more than the file"):
        load_pickle(tmp_path / "a.pkl")


def test_no_admitted_name_is_an_object_of_numpy_or_a_function():
    for stand_in in ADMITTED.values():
        assert isinstance(stand_in, type) and issubclass(stand_in, StandIn)


def test_the_state_of_a_stand_in_cannot_be_changed_for_the_next_file(tmp_path):
    # (None, {"__new__": ...}) as state sets attributes, of a class too, unless it refuses.
    (tmp_path / "a.pkl").write_bytes(b"cnumpy\nndarray\n(N}(Vx\nI1\nutb.")
    with pytest.raises(ValueError, match=r"a\.pkl"):
        load_pickle(tmp_path / "a.pkl")
    assert not hasattr(ADMITTED["numpy", "ndarray"], "x")


def test_strings_of_python_2s_first_protocol_are_read(tmp_path):
    content = reconstructed("(I1\n(I1\ntg0\nI00\nS'\\x00\\x00\\x00\\x00\\x00\\x00\\xf8?'\ntb")
    (tmp_path / "a.pkl").write_bytes(content)
    np.testing.assert_array_equal(load_pickle(tmp_path / "a.pkl"), [1.5])
