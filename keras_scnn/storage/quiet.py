"""Drops the messages of TensorFlow and LiteRT on stderr, which no option turns off."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from keras_scnn.storage.shared_state import SharedState


def _drop_stderr() -> Callable[[], None]:
    try:
        kept = os.dup(2)
    except OSError:  # a process without stderr, or with too many files
        return lambda: None
    with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)

    def restore() -> None:
        os.dup2(kept, 2)
        os.close(kept)

    return restore


_STDERR_DROPPED = SharedState(_drop_stderr)


def without_native_lines() -> contextlib.AbstractContextManager[None]:
    """Drop what native libraries write to the process's stderr during the block.

    Their errors are still raised as Python exceptions. Python's warnings are dropped too, and so
    is what other threads write meanwhile.
    """
    return _STDERR_DROPPED.held()
