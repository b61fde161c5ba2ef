"""Photos in several .npy files, accessed as one array; only indexed photos are read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np

from keras_scnn.storage.bounded import FETCHES, Bound, FetchedFile
from keras_scnn.storage.guard import FileError, reading

HEADER = 128  # bytes of an .npy file before its data
MAPS = 128  # files kept open, memory-mapped; the usual limit for a process is 1,024


class LocalFile(FetchedFile, Protocol):
    """A file that may have to be fetched first; it can be pickled."""

    bound: Bound | None
    """The limit of its cache; None if it is kept once fetched."""

    def local(self) -> Path:
        """Fetch the file if needed, and return its path on this machine."""


class ShardedImages:
    """Photos (n, S, S, 3) in several .npy files, of which only the indexed ones are read.

    Indexing works as in NumPy, with a number, a slice or an array of numbers or booleans along the
    first axis, and returns arrays. Objects can be pickled, and used from several threads. Some
    files stay open. The others are opened for each read, since a million photos need more files
    than a process may have open; it is an error if one has changed in between. Files of a bounded
    cache do not stay open, and each may be fetched again for each read.

    Args:
        files: in order; only their numbers of photos may differ.
        counts: photos in each file, if known: a file is then opened, and fetched, only when one of
            its photos is indexed.

    Raises:
        ValueError: a file is not an .npy file, or its photos have another shape or dtype than those
            of the first.
    """

    def __init__(self, files: Sequence[Path | LocalFile], counts: Sequence[int] | None = None):
        self._files = list(files)
        # Of inspected files: path, offset of the photos, and the file's state.
        self._homes: dict[int, tuple[str, int, tuple]] = {}
        self._maps: dict[int, np.ndarray] = {}
        bounds = [bound for file in self._files if (bound := _bound(file)) is not None]
        self.bound = bounds[0] if bounds else None
        with self._in_use([0]):
            first = _mapped(_local(self._files[0]))
        self.dtype, self.shape, self.ndim = first.dtype, first.shape, first.ndim
        if counts is None:
            counts = [self._inspect(number) for number in range(len(self._files))]
        self._counts = list(counts)
        self._ends = np.cumsum(self._counts)
        self.shape = (int(self._ends[-1]), *first.shape[1:])
        self._positions = np.arange(len(self))

    def _inspect(self, number: int) -> int:
        """Record where a file stores its photos; return their number."""
        path = _local(self._files[number])
        photos = _mapped(path)
        kinds = (self.shape[1:], self.dtype), (photos.shape[1:], photos.dtype)
        if kinds[0] != kinds[1] or not photos.flags.c_contiguous:
            raise ValueError(f"{path}: the shards' photos differ in shape, dtype or order: {kinds}")
        self._homes[number] = str(path), photos.offset, _state(os.stat(path))
        if len(self._maps) < MAPS and not _bound(self._files[number]):
            # A plain view: indexing np.memmap itself costs more than copying a small photo.
            self._maps[number] = photos.view(np.ndarray)
        return len(photos)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index) -> np.ndarray:
        wanted = self._positions[index]  # NumPy's own rules and errors
        flat = wanted.ravel()
        shard = np.searchsorted(self._ends, flat, side="right")
        place = flat - np.concatenate([[0], self._ends])[shard]
        photos = np.empty((len(flat), *self.shape[1:]), self.dtype)
        order = np.argsort(shard, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(shard[order])) + 1) if len(order) else []
        step = max(1, self._at_once(len(groups)))
        for some in (groups[i : i + step] for i in range(0, len(groups), step)):
            numbers = [int(shard[rows[0]]) for rows in some]
            with self._in_use(numbers):
                self._fetch(numbers)
                for number, rows in zip(numbers, some, strict=True):
                    self._read(number, place[rows], photos, rows)
        return photos.reshape(*np.shape(wanted), *self.shape[1:])

    def most_bytes(self, count: int) -> int:
        """Upper limit on the bytes of the cached files that ``count`` photos are in."""
        photo = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        fetched = zip(self._counts, self._files, strict=True)
        counts = sorted((n for n, file in fetched if _bound(file) is not None), reverse=True)
        return sum(HEADER + photo * n for n in counts[:count])

    def _at_once(self, count: int) -> int:
        """How many of ``count`` files are used at once."""
        if self.bound is None:
            return count
        return min(count, FETCHES, self.bound.limit // self.most_bytes(1))

    @contextlib.contextmanager
    def _in_use(self, numbers: list[int]) -> Iterator[None]:
        """Within the block, the files that belong to a bounded cache are kept in it."""
        files = [f for n in numbers if not isinstance(f := self._files[n], Path) and f.bound]
        with self.bound.in_use(files) if self.bound and files else contextlib.nullcontext():
            yield

    def _is_known(self, number: int) -> bool:
        """Whether a file was inspected, and has not been fetched again since."""
        if number not in self._homes:
            return False
        path, _, state = self._homes[number]
        return not _bound(self._files[number]) or _state(os.stat(path)) == state

    def _fetch(self, numbers: list[int]) -> None:
        """Inspect files that are not known yet, after fetching them, several at once."""
        new = [number for number in numbers if not self._is_known(number)]
        if len(new) > 1 and not isinstance(self._files[new[0]], Path):
            with ThreadPoolExecutor(FETCHES) as pool:
                list(pool.map(lambda number: _local(self._files[number]), new))
        for number in new:
            if (count := self._inspect(number)) != self._counts[number]:
                expected = f"{count} photos; the manifest says {self._counts[number]}"
                raise FileError(f"{self._files[number]}: {expected}")

    def _read(self, number: int, places: np.ndarray, photos: np.ndarray, rows: np.ndarray) -> None:
        """Copy the photos at positions ``places`` of a file to ``rows`` of ``photos``."""
        if (part := self._maps.get(number)) is not None:
            for place, row in zip(places, rows, strict=True):
                photos[row] = part[place]
            return
        path, offset, state = self._homes[number]
        size = photos[0].nbytes
        with open(path, "rb", buffering=0) as file:
            if _state(os.fstat(file.fileno())) != state:
                raise FileError(f"{path}: changed since it was opened; restart")
            for place, row in zip(places.tolist(), rows.tolist(), strict=True):
                file.seek(offset + place * size)
                if file.readinto(photos[row]) != size:
                    raise FileError(f"{path}: truncated while it was read")

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __getstate__(self) -> dict:
        return {"files": self._files, "counts": self._counts}

    def __setstate__(self, state: dict) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @classmethod
    def joined(cls, several: Sequence[ShardedImages]) -> ShardedImages:
        """The photos of several objects, concatenated."""
        files = [file for images in several for file in images._files]
        if len({(images.shape[1:], images.dtype) for images in several}) > 1:
            raise ValueError("photos of different sizes or dtypes cannot be joined")
        joined = cls(files, [count for images in several for count in images._counts])
        starts = np.cumsum([0, *(len(images._files) for images in several)]).tolist()
        for start, images in zip(starts, several, strict=False):
            joined._homes |= {start + number: home for number, home in images._homes.items()}
            maps = {start + number: part for number, part in images._maps.items()}
            joined._maps |= dict(list(maps.items())[: max(0, MAPS - len(joined._maps))])
        return joined


def _state(stat: os.stat_result) -> tuple:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _local(file: Path | LocalFile) -> Path:
    return file if isinstance(file, Path) else file.local()


def _bound(file: Path | LocalFile) -> Bound | None:
    return None if isinstance(file, Path) else file.bound


def _mapped(path: Path) -> np.memmap:
    with reading(path, "a readable .npy file"):
        return np.load(path, mmap_mode="r", allow_pickle=False)
