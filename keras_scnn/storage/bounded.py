"""Files that can be fetched again, kept below a size: the least recently used are removed first.

Threads and processes of this machine may share them. What is in use is locked, and stays; the locks
end with the process that has them.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from keras_scnn.storage.atomic import atomic_path
from keras_scnn.storage.claims import in_turn

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FETCHES = 16  # files that are fetched at once
PATIENCE, PAUSE = 60.0, 0.05  # seconds to wait for files that others use, and between two looks
LOCK = "whole.lock"  # in a folder of which a process without a bound may use any file
_whole: dict[Path, IO] = {}


class FetchedFile(Protocol):
    """A file that can be fetched again."""

    path: Path

    def is_there(self) -> bool:
        """Whether it is on this machine, and sound."""

    def content(self) -> bytes:
        """Fetch it."""


@dataclass(frozen=True)
class Bound:
    """How many bytes the files of a folder may have.

    Args:
        folder: of the files. limit: bytes. pattern: of the files, for ``Path.glob``.

    Raises:
        OSError: (when used) this system has no locks.
    """

    folder: Path
    limit: int
    pattern: str

    @contextlib.contextmanager
    def in_use(self, files: Sequence[FetchedFile]) -> Iterator[None]:
        """In the block the files are there, fetched where they were not, and nobody removes them.

        Raises:
            ValueError: they are more than the bound.
            OSError: others use so much of it, for a minute, that there is no room; or as
                ``FetchedFile.content``.
        """
        if fcntl is None:
            raise OSError(f"{self.folder}: a bound of its size needs Linux or macOS")
        with contextlib.ExitStack() as stack:
            held = _Held(self, stack)
            with in_turn(self.folder):
                missing = [file for file in files if not file.is_there()]
                for file in files:
                    if file not in missing:
                        held.take(file.path)
                with ThreadPoolExecutor(FETCHES) as pool:
                    list(pool.map(held.fetch, missing))
            yield

    def used(self) -> list[tuple[int, int, Path]]:
        """Time of last use, bytes, and path of each file; in the order in which they are used."""
        stats = [(path.stat(), path) for path in self.folder.glob(self.pattern)]
        return sorted((stat.st_atime_ns, stat.st_size, path) for stat, path in stats)


class _Held:
    """The files that one reader uses, until its stack is closed."""

    def __init__(self, bound: Bound, stack: contextlib.ExitStack):
        self._bound, self._stack = bound, stack
        self._lock, self._size = threading.Lock(), 0
        self._deadline = math.inf  # of all files that wait for room

    def take(self, path: Path) -> None:
        """Lock a file, and note the time: not all systems note when a file is read."""
        descriptor = os.open(path, os.O_RDONLY)
        self._stack.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        stat = os.fstat(descriptor)
        os.utime(descriptor, ns=(time.time_ns(), stat.st_mtime_ns))
        self._size += stat.st_size

    def fetch(self, file: FetchedFile) -> None:
        content = file.content()
        with self._lock:
            self._make_room(len(content))
            with atomic_path(file.path) as temporary:
                temporary.write_bytes(content)
            self.take(file.path)

    def _make_room(self, size: int) -> None:
        limit = self._bound.limit
        if self._size + size > limit:
            raise ValueError(
                f"{self._bound.folder}: {self._size + size} bytes are needed at once, and the "
                f"bound of the cache is {limit}; give more"
            )
        while _over(self._bound, size):
            self._deadline = min(self._deadline, time.monotonic() + PATIENCE)
            if time.monotonic() > self._deadline:
                raise OSError(
                    f"{self._bound.folder}: its {limit} bytes are full, and other runs use all of "
                    "them; give more, or another folder"
                )
            time.sleep(PAUSE)
        self._deadline = math.inf


def _over(bound: Bound, size: int) -> bool:
    """Remove what is not in use; whether there still is no room for so many bytes more."""
    files = bound.used()
    over = sum(size for _, size, _ in files) + size - bound.limit
    for _, freed, path in files:
        if over <= 0:
            break
        over -= freed * _removed(path)
    return over > 0


def _removed(path: Path) -> bool:
    """Remove a file that nobody uses."""
    with contextlib.ExitStack() as stack:
        for one in (path.with_name(LOCK), path):
            with contextlib.suppress(FileNotFoundError):
                file = stack.enter_context(one.open("rb"))
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
        path.unlink(missing_ok=True)
    return True


def use_whole(folder: Path) -> None:
    """Keep others from removing any file of a folder, until this process ends."""
    if fcntl is not None and folder not in _whole:
        with contextlib.suppress(OSError):  # a folder where nothing is written, or without locks
            _whole[folder] = (folder / LOCK).open("ab")
            fcntl.flock(_whole[folder], fcntl.LOCK_SH)
