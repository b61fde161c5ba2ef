"""A process-wide state that several threads may need at once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


class SharedState:
    """A state that the first thread that needs it sets, and the last one restores.

    Args:
        begin: sets the state, and returns a function that restores the previous one.
    """

    def __init__(self, begin: Callable[[], Callable[[], None]]):
        self._begin, self._lock, self._users = begin, threading.Lock(), 0

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the state during the block; it lasts while any thread is in such a block."""
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
