"""Opening .tflite files, and the named metadata inside them.

Needs only ai-edge-litert.
"""

from __future__ import annotations

import functools
import hashlib
import json
import numbers
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from keras_scnn.storage.guard import existing_file, reading
from keras_scnn.storage.quiet import without_native_lines

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

ENTRY = "keras_scnn"
# Key in the metadata of the SHA-256 of the file with BLANK in place of its digits; older files have
# none.
CHECKSUM, BLANK = "sha256", "0" * 64
T = TypeVar("T")


class PerThread(Generic[T]):
    """A value for each thread, made at the thread's first call; other processes make their own.

    An interpreter stores the inputs and outputs of one call; threads sharing one would mix them.

    Args:
        make: makes the value; its errors are raised in the calling thread.
    """

    def __init__(self, make: Callable[[], T]):
        self._make, self._own = make, threading.local()

    def __call__(self) -> T:
        """This thread's value."""
        if not hasattr(self._own, "value"):
            self._own.value = self._make()
        return self._own.value

    def __reduce__(self) -> tuple:
        return PerThread, (self._make,)


def checked_threads(threads: int) -> int:
    """A number of threads for a runtime, of Python's or NumPy's integers, as int.

    ``settings.whole`` needs packages that are not installed on devices.

    Raises:
        ValueError: it is not a whole number of 1 or more.
    """
    if isinstance(threads, bool) or not isinstance(threads, numbers.Integral) or threads < 1:
        raise ValueError(f"threads is {threads!r}; it must be a whole number, 1 or more")
    return int(threads)


def open_interpreter(content: bytes, threads: int = 1) -> Interpreter:
    """A LiteRT interpreter with its tensors allocated, without LiteRT's lines on stderr.

    Args:
        content: of a .tflite file.
        threads: number that it may use.

    Raises:
        ValueError, RuntimeError: LiteRT cannot run the file.
    """
    # Imported late, so that commands start, and other detectors work, without the runtime.
    from ai_edge_litert.interpreter import Interpreter

    with without_native_lines():
        interpreter = Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
    return interpreter


def per_thread_interpreter(content: bytes) -> PerThread[Interpreter]:
    """``open_interpreter`` for each thread."""
    return PerThread(functools.partial(open_interpreter, content))


def per_thread_runner(
    path: str | os.PathLike, threads: int, signature: str
) -> tuple[PerThread[Any], dict]:
    """A signature runner, for each thread, of a .tflite file that this package wrote; its metadata.

    The runner is opened at its first call, with errors as ``open_interpreter``. Other errors are
    those of ``checked_threads`` and ``read_lite_file``.
    """
    threads = checked_threads(threads)
    content, metadata = read_lite_file(path)
    return PerThread(functools.partial(_open_runner, content, threads, signature)), metadata


def _open_runner(content: bytes, threads: int, signature: str) -> Any:
    return open_interpreter(content, threads).get_signature_runner(signature)


def read_lite_file(path: str | os.PathLike) -> tuple[bytes, dict]:
    """The bytes and the metadata of a .tflite file that this package wrote.

    Raises:
        FileNotFoundError, IsADirectoryError: there is no such file.
        ValueError: the file is damaged, or was not written by this package.
    """
    what = "a .tflite file of keras_scnn"
    path = existing_file(path, what)
    with reading(path, what):
        content = path.read_bytes()
        return content, read_metadata(content)


def with_metadata(content: bytes, metadata: dict) -> bytes:
    """A .tflite file's bytes with a JSON dictionary added or replaced, and a checksum."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    from keras_scnn.storage.text import finite_or_none  # needs YAML, which readers do not

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    text = json.dumps(finite_or_none({**metadata, CHECKSUM: BLANK})).encode()
    entries = [entry for entry in model.metadata or [] if entry.name != ENTRY.encode()]
    model.metadata = [*entries, schema.MetadataT(ENTRY, len(model.buffers))]
    model.buffers = [*model.buffers, schema.BufferT(np.frombuffer(text, np.uint8))]
    for buffer in model.buffers:
        if buffer.data is not None:  # other types are packed byte by byte in Python, which is slow
            buffer.data = np.frombuffer(buffer.data, np.uint8)
    blank = bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    return blank.replace(_noted(BLANK), _noted(hashlib.sha256(blank).hexdigest()))


def read_metadata(content: bytes) -> dict:
    """The JSON dictionary of a .tflite file that this package exported.

    Raises:
        ValueError: the bytes are not a .tflite file, not one of this package, or damaged.
    """
    from ai_edge_litert import schema_py_generated as schema

    if bytes(content[4:8]) != b"TFL3":
        raise ValueError("not a .tflite file")
    try:
        model = schema.Model.GetRootAs(content, 0)
        for i in range(model.MetadataLength()):
            if model.Metadata(i).Name() == ENTRY.encode():
                data = model.Buffers(model.Metadata(i).Buffer()).DataAsNumpy()
                return _checked(json.loads(bytes(data)), content)
    except Exception as error:  # struct.error, IndexError, TypeError, ...: the bytes are damaged
        raise ValueError(f"damaged .tflite file ({error!r})") from error
    raise ValueError(f"a .tflite file without the entry '{ENTRY}', so not one of keras_scnn's")


def _noted(checksum: str) -> bytes:
    """A checksum as it is written in the file."""
    return f'"{CHECKSUM}": "{checksum}"'.encode()


def _checked(metadata: dict, content: bytes) -> dict:
    """The metadata without the checksum, if any; raises a ValueError if it does not match."""
    given = metadata.pop(CHECKSUM, None)
    if given is not None:
        blank = bytes(content).replace(_noted(given), _noted(BLANK))
        if hashlib.sha256(blank).hexdigest() != given:
            raise ValueError("its checksum does not match; copy it or export it again")
    return metadata
