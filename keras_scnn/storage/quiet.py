"""TensorFlow's and LiteRT's notices on stderr, which have no option against them."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator


class _Stderr:
    """The process's stderr, which its threads share: the first redirects it, the last restores."""

    def __init__(self) -> None:
        self._lock, self._users = threading.Lock(), 0
        self._kept: int | None = None  # of the process's stderr, while it is redirected

    @contextlib.contextmanager
    def dropped(self) -> Iterator[None]:
        """Lost while any thread is in the block."""
        with self._lock:
            if not self._users:
                self._redirect()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._restore()

    def _redirect(self) -> None:
        with contextlib.suppress(OSError):  # a process without stderr
            os.fstat(2)
            with open(os.devnull, "wb") as nowhere:
                self._kept = os.dup(2)
                os.dup2(nowhere.fileno(), 2)

    def _restore(self) -> None:
        if self._kept is not None:
            os.dup2(self._kept, 2)
            os.close(self._kept)
            self._kept = None


STDERR = _Stderr()


def without_native_lines() -> contextlib.AbstractContextManager[None]:
    """Drop what the block's libraries write on the process's stderr, below Python's own.

    They raise what goes wrong as Python exceptions. Python's warnings are dropped too, and so is
    what other threads write meanwhile.
    """
    return STDERR.dropped()
