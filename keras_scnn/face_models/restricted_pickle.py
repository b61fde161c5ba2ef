"""Reads pickles of plain arrays, and runs no code of theirs.

A pickle is a program: it may name any importable function and call it. This reader admits the
names that rebuild NumPy arrays and SciPy sparse matrices. In place of chumpy's arrays, which
published body and face models hold, it puts a stand-in that only keeps the plain array; in place of
torch's tensors, an empty stand-in. Any other name is refused before it is imported.
"""

from __future__ import annotations

import copyreg
import io
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

_SPARSE = ("csc", "csr", "coo")


class ChumpyArray:
    """Stands in for chumpy.ch.Ch: keeps its plain array ``x``."""

    x: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        self.x = state.get("x") if isinstance(state, dict) else None

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        if not isinstance(self.x, np.ndarray):
            raise ValueError("a chumpy object that holds no plain array")
        return np.array(self.x, dtype=dtype)


class Ignored:
    """Stands in for an object that no reader needs, such as a torch tensor; holds nothing."""

    def __init__(self, *_args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


# Taken from NumPy itself, because the modules that pickles name moved in NumPy 2.
_NUMPY = {
    ("multiarray", "_reconstruct"): np.zeros(1).__reduce__()[0],
    ("multiarray", "scalar"): np.float64(0).__reduce__()[0],
    ("numeric", "_frombuffer"): np.zeros(1).__reduce_ex__(5)[0],
}
ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): lambda text, encoding="latin1": text.encode("latin1"),
    ("copy_reg", "_reconstructor"): copyreg._reconstructor,  # type: ignore[attr-defined]
    ("copyreg", "_reconstructor"): copyreg._reconstructor,  # type: ignore[attr-defined]
    ("collections", "OrderedDict"): OrderedDict,
    ("chumpy.ch", "Ch"): ChumpyArray,
    ("torch._utils", "_rebuild_tensor_v2"): Ignored,
    ("torch.storage", "_load_from_bytes"): Ignored,
    **{
        (f"numpy.{core}.{module}", name): value
        for core in ("core", "_core")
        for (module, name), value in _NUMPY.items()
    },
    **{
        (module, name): value
        for module in ("__builtin__", "builtins")
        for name, value in (("object", object), ("set", set))
    },
    **{
        (f"scipy.sparse.{private}{kind}", f"{kind}_matrix"): getattr(scipy.sparse, f"{kind}_matrix")
        for private in ("", "_")
        for kind in _SPARSE
    },
}


class RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that looks names up in ``ADMITTED`` and imports nothing."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}; only NumPy arrays and SciPy sparse matrices are "
                "admitted, so nothing of it was run"
            ) from None


def load_pickle(path: str | os.PathLike) -> Any:
    """The content of a pickle of plain arrays, of Python 2 or 3, or of an .npy file of one object.

    Raises:
        ValueError: the file is damaged, or asks for anything else than arrays.
    """
    path = Path(path)
    data = io.BytesIO(path.read_bytes())
    try:
        if path.suffix == ".npy":
            _skip_npy_header(data)
        # latin1 maps bytes to characters one to one: strings of Python 2 hold array data.
        return RestrictedUnpickler(data, encoding="latin1").load()
    except Exception as error:  # a broken pickle raises nearly any type
        raise ValueError(f"{path}: not a pickle of plain arrays: {error}") from error


def _skip_npy_header(data: io.BytesIO) -> None:
    version = np.lib.format.read_magic(data)
    read = np.lib.format.read_array_header_1_0
    _, _, dtype = (read if version == (1, 0) else np.lib.format.read_array_header_2_0)(data)
    if not dtype.hasobject:
        raise ValueError(f"an array of {dtype}, not of objects")
