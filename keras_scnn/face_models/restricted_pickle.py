"""Read pickles of plain arrays without running code from them.

A pickle is a program: it may name any importable function, call it, and set the internal state of
the result. This reader provides only stand-ins for the names that rebuild NumPy arrays; the program
cannot access NumPy's own objects, since the state of a dtype can be forged such that bytes of the
file are taken for addresses. Objects that face models do not need (sparse matrices, torch's
tensors) become empty stand-ins. Any other name is refused before it is imported.

The program is checked before it runs: the lengths that it declares, its number of steps, and the
memo indices at which it stores values, because the unpickler allocates the declared memory. While
it runs, copies of its values are counted: it may name one of them any number of times.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import pickletools
import re
from collections import OrderedDict
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal

import numpy as np

from keras_scnn.storage.arrays import read_npy_header
from keras_scnn.storage.guard import allowed_bytes, check_size, reading

MAX_STEPS = 200_000  # FLAME's files have a few thousand
MAX_DEPTH = 50  # of nested lists
REFUSED_STEPS = {"EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "INST", "OBJ", "NEXT_BUFFER"}
STEPS = {step.code: step for step in pickletools.opcodes}
ITEM_BYTES = 200  # that a set or a table takes for each item, at most
_left: ContextVar[int] = ContextVar("bytes that copies of values may still take")
# Integers, Booleans, floats, complex numbers, bytes and text; O: objects, given as a list.
DTYPE = re.compile(r"[<>=|]?([biufcSU]\d{1,9}|\?|O8?)")


def _spend(size: int) -> None:
    """Count a copy of a value, before it is made."""
    if size > _left.get():
        raise pickle.UnpicklingError("it copies its values to far more than the file's size")
    _left.set(_left.get() - size)


class StandIn:
    """Replaces an object that no reader needs; ignores all arguments and state."""

    def __new__(cls, *_args: Any) -> StandIn:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


class _Object(StandIn):
    """Replaces ``object``, which Python 2's pickles of objects name."""


class _NdArray(StandIn):
    """Replaces ``numpy.ndarray``, an argument of ``_reconstruct``."""


class ChumpyArray(StandIn):
    """Replaces ``chumpy.ch.Ch``; keeps only its plain array."""

    x: Any = None

    def __setstate__(self, state: Any) -> None:
        self.x = state.get("x") if isinstance(state, dict) else None


class _Dtype(StandIn):
    """Replaces ``numpy.dtype``, for numbers, text and objects; of its state uses the byte order."""

    def __new__(cls, name: str = "", *_args: Any) -> _Dtype:
        made = object.__new__(cls)
        if not isinstance(name, str) or not DTYPE.fullmatch(name):
            raise pickle.UnpicklingError(f"a dtype {name!r}; only numbers and text are allowed")
        made.name, made.order = name.lstrip("<>=|"), "=" if name[0] not in "<>" else name[0]
        return made

    name: str
    order: str

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">"):
            self.order = state[1]

    @property
    def is_object(self) -> bool:
        return self.name in ("O", "O8")

    def dtype(self) -> np.dtype:
        """The dtype as NumPy's, created here."""
        return np.dtype(self.name).newbyteorder(self.order)  # type: ignore[arg-type]


class _Array(StandIn):
    """An array whose value follows as its state, with as many bytes as its shape needs."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise pickle.UnpicklingError("the state of an array must be a tuple of 4 or 5")
        self.value = _filled(*state[-4:])


def _filled(shape: Any, dtype: Any, is_fortran: Any, data: Any) -> np.ndarray:
    """An array of numbers from bytes, or of objects from a list."""
    if not isinstance(dtype, _Dtype) or not _is_shape(shape):
        raise pickle.UnpicklingError(f"an array without a valid shape and dtype: {str(shape)[:80]}")
    order: Literal["C", "F"] = "F" if is_fortran else "C"
    data = _Encode(data, "latin1") if isinstance(data, str) else data
    count = math.prod(shape)
    if dtype.is_object:
        if not isinstance(data, list) or len(data) != count:
            raise pickle.UnpicklingError(f"an array of {count:,} objects without a list of as many")
        _spend(ITEM_BYTES * count)
        return _objects(data).reshape(shape, order=order)
    plain = dtype.dtype()
    if not isinstance(data, bytes | bytearray) or len(data) != count * plain.itemsize:
        raise pickle.UnpicklingError(f"an array {shape} of {plain} without as many bytes")
    if not plain.itemsize:
        raise pickle.UnpicklingError(f"an array of {plain}, whose elements have no bytes")
    _spend(len(data))
    return np.frombuffer(bytearray(data), plain).reshape(shape, order=order)


def _objects(items: list) -> np.ndarray:
    """(n,) an array of the items themselves, even if they are sequences."""
    array = np.empty(len(items), object)
    for i, item in enumerate(items):
        array[i] = item
    return array


def _is_shape(shape: Any) -> bool:
    return (
        isinstance(shape, tuple)
        and len(shape) <= 32
        and all(type(n) is int and 0 <= n < 1 << 40 for n in shape)
    )


class _Reconstruct(StandIn):
    """Replaces ``_reconstruct(ndarray, (0,), b'b')``: an array whose state follows."""

    def __new__(cls, kind: Any = None, *_args: Any) -> Any:
        if kind is not _NdArray:
            raise pickle.UnpicklingError("a subclass of numpy.ndarray is not allowed")
        return _Array()


class _FromBuffer(StandIn):
    """Replaces ``_frombuffer(bytes, dtype, shape, order, axis_order)``.

    The order is 'C' or 'F'; or 'K' (NumPy 2.4) for an array with permuted axes: its bytes and shape
    are then those of an array in C order, whose axes are put in the given order.
    """

    def __new__(cls, *args: Any) -> Any:
        data, dtype, shape, order, *rest = args
        if len(rest) > 1 or (order == "K" and not (rest and isinstance(rest[0], tuple))):
            raise pickle.UnpicklingError("an array of permuted axes without their order")
        made = _Array()
        value = _filled(shape, dtype, order == "F", data)
        made.value = value.transpose(rest[0]) if order == "K" else value
        return made


class _Scalar(StandIn):
    """Replaces ``scalar(dtype, bytes)``."""

    def __new__(cls, *args: Any) -> Any:
        dtype, data = args
        made = _Array()
        made.value = _filled((), dtype, False, data)
        return made


class _Rebuild(StandIn):
    """Replaces ``_reconstructor(class, object, None)``: a stand-in whose state follows."""

    def __new__(cls, kind: Any = None, *_args: Any) -> Any:
        if kind not in (ChumpyArray, StandIn):
            raise pickle.UnpicklingError("an object of a class that is not allowed")
        return kind()


class _Encode(StandIn):
    """Replaces ``_codecs.encode(text, 'latin1')``, which gives bytes in protocols 0 to 2."""

    def __new__(cls, text: Any = None, encoding: Any = None) -> Any:
        if not isinstance(text, str) or encoding != "latin1":
            raise pickle.UnpicklingError("_codecs.encode is allowed for a text and 'latin1' only")
        _spend(len(text))
        return text.encode("latin1")


class _NoBytes(StandIn):
    """Replaces ``bytes()``, by which Python 3 writes an empty array's data in protocols 0 to 2."""

    def __new__(cls, *args: Any) -> Any:
        if args:
            raise pickle.UnpicklingError("bytes() is allowed without arguments only")
        return b""


class _Set(StandIn):
    """Replaces ``set([...])`` of Python 2's protocols."""

    def __new__(cls, items: Any = (), *_args: Any) -> Any:
        _spend(ITEM_BYTES * len(items))
        return frozenset(items)


class _Table(StandIn):
    """Replaces ``OrderedDict``."""

    def __new__(cls, items: Any = (), *_args: Any) -> Any:
        _spend(ITEM_BYTES * len(items))
        return OrderedDict(items)


ADMITTED: dict[tuple[str, str], type] = {
    ("numpy", "ndarray"): _NdArray,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Encode,
    ("copy_reg", "_reconstructor"): _Rebuild,
    ("copyreg", "_reconstructor"): _Rebuild,
    ("collections", "OrderedDict"): _Table,
    ("chumpy.ch", "Ch"): ChumpyArray,
    ("torch._utils", "_rebuild_tensor_v2"): StandIn,
    ("torch.storage", "_load_from_bytes"): StandIn,
    **{
        (f"numpy.{core}.{module}", name): kind
        for core in ("core", "_core")
        for module, name, kind in (
            ("multiarray", "_reconstruct", _Reconstruct),
            ("multiarray", "scalar", _Scalar),
            ("numeric", "_frombuffer", _FromBuffer),
        )
    },
    **{
        (module, name): kind
        for module in ("__builtin__", "builtins")
        for name, kind in (("object", _Object), ("set", _Set), ("bytes", _NoBytes))
    },
    **{
        (f"scipy.sparse.{private}{kind}", f"{kind}_{end}"): StandIn
        for private in ("", "_")
        for kind in ("csc", "csr", "coo")
        for end in ("matrix", "array")
    },
}


class RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that looks up names in ``ADMITTED`` and imports nothing."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}; only NumPy arrays are allowed, so nothing was run"
            ) from None


def load_pickle(path: str | os.PathLike) -> Any:
    """Read a pickle of plain arrays, from Python 2 or 3, or an .npy file with a pickled object.

    Returns:
        arrays of numbers and text, and lists, dicts and tuples of them; objects that are not
        needed are empty stand-ins.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or names anything other than arrays.
    """
    path = Path(path)
    with reading(path, "a pickle of plain arrays"):
        content = path.read_bytes()
        data = io.BytesIO(content)
        if path.suffix.lower() == ".npy":
            _skip_npy_header(data)
        start = data.tell()
        _check_steps(data, allowed := allowed_bytes(len(content)))
        data.seek(start)
        _left.set(allowed)
        # latin1 maps bytes to characters one to one: array data are strings in Python 2's pickles.
        return _plain(RestrictedUnpickler(data, encoding="latin1").load(), {}, 0)


def _skip_npy_header(data: io.BytesIO) -> None:
    _, _, dtype = read_npy_header(data)
    if not dtype.hasobject:
        raise ValueError(f"an array of {dtype}, not of objects")


def _check_steps(data: io.BytesIO, allowed: int) -> None:
    """Check the program's steps without running them, and refuse excessive use of memory."""
    copied = 0
    for number, (step, argument) in enumerate(_steps(data)):
        if step in REFUSED_STEPS:
            raise pickle.UnpicklingError(f"the step {step} is not allowed")
        if number > MAX_STEPS:
            raise pickle.UnpicklingError(f"more than {MAX_STEPS:,} steps")
        if step in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= argument <= MAX_STEPS:
            raise pickle.UnpicklingError(f"a value is stored at the memo index {argument:,}")
        if isinstance(argument, str | bytes | bytearray):
            copied += len(argument)
            check_size("its text", copied, allowed)


def _steps(data: io.BytesIO) -> Iterator[tuple[str, Any]]:
    """Names and arguments of the steps up to STOP.

    STRING is read here, since ``pickletools`` fails on non-ASCII strings of Python 2.
    """
    name = ""
    while name != "STOP":
        code = data.read(1).decode("latin1")
        if code not in STEPS:
            raise pickle.UnpicklingError(f"unknown step {code!r}" if code else "truncated")
        step = STEPS[code]
        name = step.name
        if step.arg is None:
            yield name, None
        elif name == "STRING":
            yield name, data.readline()
        else:
            yield name, step.arg.reader(data)


def _plain(value: Any, known: dict[int, Any], depth: int) -> Any:
    """The value with arrays in place of their stand-ins; shared objects are converted once."""
    if depth > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} deep, or within itself")
    if id(value) in known:
        return known[id(value)][1]
    made = value
    if isinstance(value, ChumpyArray):
        made = _plain(value.x, known, depth + 1)
    elif isinstance(value, _Array):
        made = _plain_array(value.value, known, depth)
    elif isinstance(value, dict):
        made = {key: _plain(item, known, depth + 1) for key, item in dict.items(value)}
    elif isinstance(value, list | tuple):
        made = type(value)(_plain(item, known, depth + 1) for item in value)
    known[id(value)] = value, made  # keep the value alive, so that its id is not reused
    return made


def _plain_array(array: np.ndarray | None, known: dict[int, Any], depth: int) -> Any:
    if array is None:
        raise ValueError("an array without a state")
    if array.dtype != object:
        return array if array.ndim else array[()]
    items = [_plain(item, known, depth + 1) for item in array.ravel()]
    return _objects(items).reshape(array.shape)
