"""A state of the whole process that several of its threads may need at once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


class SharedState:
    """Set by the first thread that needs it, and put back by the last.

    Args:
        begin: sets it, and returns what puts it back.
    """

    def __init__(self, begin: Callable[[], Callable[[], None]]):
        self._begin, self._lock, self._users = begin, threading.Lock(), 0

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """The state lasts while any thread is in the block."""
        with self._lock:
            if not self._users:
                self._end = self._begin()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._end()
