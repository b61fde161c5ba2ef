"""Images of many files as if they were one array."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


class ShardedImages:
    """Photos (n, S, S, 3) in several .npy files, of which only what is asked for is read.

    Indexing gives arrays, as NumPy's own does, by a number, a slice or an array of numbers or
    booleans along the first axis. It can be pickled, and used from several threads.

    Args:
        paths: the files, in order; they differ in the number of photos alone.

    Raises:
        ValueError: a file is no .npy file, or of another shape or dtype than the first.
    """

    def __init__(self, paths: Sequence[Path]):
        self._paths = list(paths)
        self._open()

    def _open(self) -> None:
        maps = [np.load(path, mmap_mode="r", allow_pickle=False) for path in self._paths]
        # Plain views: indexing np.memmap itself costs more than copying a small photo.
        self._parts = [part.view(np.ndarray) for part in maps]
        kinds = {(part.shape[1:], part.dtype) for part in self._parts}
        if len(kinds) != 1:
            raise ValueError(f"{self._paths[0].parent}: the shards' photos differ: {kinds}")
        self._ends = np.cumsum([len(part) for part in self._parts])
        self.dtype = self._parts[0].dtype
        self.shape = (int(self._ends[-1]), *self._parts[0].shape[1:])
        self.ndim = len(self.shape)
        self._positions = np.arange(len(self))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index) -> np.ndarray:
        wanted = self._positions[index]  # NumPy's own rules and errors
        flat = wanted.ravel()
        shard = np.searchsorted(self._ends, flat, side="right")
        place = flat - np.concatenate([[0], self._ends])[shard]
        found = np.empty((len(flat), *self.shape[1:]), self.dtype)
        for i in range(len(flat)):
            found[i] = self._parts[shard[i]][place[i]]
        return found.reshape(*np.shape(wanted), *self.shape[1:])

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        whole = np.concatenate(self._parts)
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __getstate__(self) -> dict:
        return {"paths": self._paths}

    def __setstate__(self, state: dict) -> None:
        self._paths = state["paths"]
        self._open()

    @classmethod
    def joined(cls, several: Sequence[ShardedImages]) -> ShardedImages:
        """The photos of several, one after the other."""
        return cls([path for images in several for path in images._paths])
