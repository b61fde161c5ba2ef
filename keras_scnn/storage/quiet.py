"""TensorFlow's and LiteRT's notices on stderr, which have no option against them."""

from __future__ import annotations

import contextlib
import os
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
