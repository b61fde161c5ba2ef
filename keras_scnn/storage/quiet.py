"""TensorFlow's and LiteRT's notices on stderr, which have no option against them."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def without_native_lines() -> Iterator[None]:
    """Drop what the block's libraries write on the process's stderr, below Python's own.

    They raise what goes wrong as Python exceptions. Python's warnings are dropped too.
    """
    try:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except OSError:  # a process without stderr
        yield
        return
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def start_keras() -> None:
    """Import Keras and its backend without their notices; of no effect where that is done."""
    if "keras" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with without_native_lines():
        import keras  # noqa: F401
