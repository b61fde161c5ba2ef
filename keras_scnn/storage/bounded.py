"""A cache of bounded size for files that can be fetched again; the least recently used go first.

Threads and processes of this machine may share it. Files in use are locked, and kept; locks end
with the process that holds them.
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

from keras_scnn.storage.atomic import atomic_path, fcntl
from keras_scnn.storage.claims import in_turn

FETCHES = 16  # files that are fetched at once
PATIENCE, PAUSE = 60.0, 0.05  # seconds to wait for files in use, and between two checks
LOCK = "whole.lock"  # locked in a folder while a process without a bound may use any of its files
_whole: dict[Path, IO] = {}


class FetchedFile(Protocol):
    """A file that can be fetched again."""

    path: Path

    def is_there(self) -> bool:
        """Whether it is on this machine, and undamaged."""

    def content(self) -> bytes:
        """Fetch it."""


@dataclass(frozen=True)
class Bound:
    """A limit on the total size of a folder's files.

    Args:
        folder: of the files. limit: bytes. pattern: of the files, for ``Path.glob``.

    Raises:
        OSError: (in ``in_use``) this system has no file locks.
    """

    folder: Path
    limit: int
    pattern: str

    @contextlib.contextmanager
    def in_use(self, files: Sequence[FetchedFile]) -> Iterator[None]:
        """Within the block the files are there, fetched if missing, and no process removes them.

        Raises:
            ValueError: they are larger than the limit.
            OSError: files in use elsewhere leave no room for a minute; or as
                ``FetchedFile.content``.
        """
        if fcntl is None:
            raise OSError(f"{self.folder}: a limit on its size needs Linux or macOS")
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
        """Time of last use (ns), bytes and path of each file, least recently used first."""
        stats = [(path.stat(), path) for path in self.folder.glob(self.pattern)]
        return sorted((stat.st_atime_ns, stat.st_size, path) for stat, path in stats)


class _Held:
    """The files in use by one reader, until its stack is closed."""

    def __init__(self, bound: Bound, stack: contextlib.ExitStack):
        self._bound, self._stack = bound, stack
        self._lock, self._size = threading.Lock(), 0
        self._deadline = math.inf  # for all files that wait for room

    def take(self, path: Path) -> None:
        """Lock a file, and set its access time, which not all systems update on reading."""
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
                f"{self._bound.folder}: {self._size + size} bytes are needed at once, more than "
                f"the limit of the cache, {limit}; increase it"
            )
        while _over(self._bound, size):
            self._deadline = min(self._deadline, time.monotonic() + PATIENCE)
            if time.monotonic() > self._deadline:
                raise OSError(
                    f"{self._bound.folder}: its {limit} bytes are full and in use by other runs; "
                    "increase the limit, or choose another folder"
                )
            time.sleep(PAUSE)
        self._deadline = math.inf


def _over(bound: Bound, size: int) -> bool:
    """Remove files not in use until ``size`` bytes fit; return whether they still do not."""
    files = bound.used()
    over = sum(size for _, size, _ in files) + size - bound.limit
    for _, freed, path in files:
        if over <= 0:
            break
        over -= freed * _removed(path)
    return over > 0


def _removed(path: Path) -> bool:
    """Remove a file unless it is in use; return whether it was removed."""
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
    """Keep other processes from removing any file of a folder until this process ends."""
    if fcntl is not None and folder not in _whole:
        with contextlib.suppress(OSError):  # a read-only folder, or a file system without locks
            _whole[folder] = (folder / LOCK).open("ab")
            fcntl.flock(_whole[folder], fcntl.LOCK_SH)
