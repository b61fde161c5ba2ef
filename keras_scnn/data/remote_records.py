"""Face records at a URL, with a cache on this machine.

All labels are fetched when records are opened, and kept as memory-mapped arrays, so that a million
records take hardly any memory. A shard's photos are fetched when one of them is first indexed, and
again if they were removed from a bounded cache. All files are checked against the checksums of the
manifest; damaged or incomplete ones are fetched again.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from keras_scnn.data.records import (
    FORMAT,
    IMAGES,
    LABELS,
    MANIFEST,
    VERSION,
    FaceRecords,
    checksum,
    join_shard_labels,
    load_records,
    read_manifest,
)
from keras_scnn.data.sharded_images import ShardedImages
from keras_scnn.storage import atomic_path, read_npz
from keras_scnn.storage.bounded import FETCHES, Bound, use_whole
from keras_scnn.storage.claims import in_turn
from keras_scnn.storage.guard import FileError, reading
from keras_scnn.storage.remote import Place, RemotePath, place
from keras_scnn.storage.shards import digest
from keras_scnn.storage.text import read_json

NOTE = "labels.json"  # checksums of the joined labels; written last
Arrays = dict[str, np.ndarray]


class CachedFile:
    """A file of a store, with its path in the local cache; it can be pickled.

    Args:
        url: of the file.
        path: on this machine.
        crc32: of its content.
        bound: the limit of the cache; None for no limit.
    """

    def __init__(self, url: RemotePath, path: Path, crc32: int, bound: Bound | None = None):
        self._url, self.path, self._crc32, self.bound = url, path, crc32, bound
        self._lock, self._is_sound = threading.RLock(), False

    def __str__(self) -> str:
        return str(self._url)

    def __reduce__(self) -> tuple:
        return CachedFile, (self._url, self.path, self._crc32, self.bound)

    def local(self) -> Path:
        """The path of the undamaged file, fetched if needed; a bounded cache keeps files in use.

        Raises:
            ValueError: the content in the store does not have the checksum of the manifest.
            OSError: the store is unreachable, or this machine's disk is full.
        """
        with self._lock:  # several threads may need one shard: it is fetched once
            if not self.is_there():
                content = self.content()
                with atomic_path(self.path) as temporary:
                    temporary.write_bytes(content)
        return self.path

    def is_there(self) -> bool:
        """Whether the file is on this machine, and undamaged."""
        with self._lock:
            if not self.path.is_file():
                return False
            self._is_sound = self._is_sound or checksum(self.path) == self._crc32
            return self._is_sound

    def content(self) -> bytes:
        """Fetch the content; errors as ``local``."""
        for _ in range(2):
            content = self._url.read_bytes()
            if zlib.crc32(content) == self._crc32:
                return content
        raise FileError(
            f"{self._url}: damaged, or not the file listed in {MANIFEST}; upload it again"
        )


def open_face_records(
    folder: str | os.PathLike | RemotePath,
    cache: str | os.PathLike,
    cache_bytes: int | None = None,
) -> FaceRecords:
    """Open face records on this machine, or at a URL of fsspec (extra 'remote').

    Args:
        folder: path or URL.
        cache: folder for fetched files; processes may share it.
        cache_bytes: limit on the photos in the cache, of all records together. The least recently
            used files are removed, but none that a process is using. None: no limit.

    Raises:
        FileNotFoundError: the folder contains no (complete) records.
        ValueError: a file is damaged, or of another version.
        ImportError, OSError: as ``RemotePath``.
    """
    home = place(folder)
    if isinstance(home, Path):
        return load_records(home)
    pattern = f"remote-*/[!.]*.{IMAGES}"
    bound = Bound(Path(cache), cache_bytes, pattern) if cache_bytes else None
    return _fetched(home, Path(cache), bound)


def manifest_of(folder: Place) -> dict:
    """The manifest of records at a URL; errors as ``open_face_records``."""
    try:
        return read_manifest(folder / MANIFEST)
    except FileNotFoundError as error:
        why = f"no complete face records ({MANIFEST} is missing); keras-scnn prepare makes them"
        raise FileNotFoundError(f"{folder}: {why}") from error


def _fetched(url: RemotePath, cache: Path, bound: Bound | None) -> FaceRecords:
    manifest = manifest_of(url)
    home = cache / f"remote-{digest([url.url, manifest])[:16]}"
    home.mkdir(parents=True, exist_ok=True)
    with reading(f"{url}/{MANIFEST}", "a manifest of face records"):
        model, config = manifest["face_model"], manifest["config"]
        counts = {str(shard): int(count) for shard, count in manifest["shards"].items()}
        images, labels = (
            [
                CachedFile(url / name, home / name, manifest["crc32"][name], bound_of_kind)
                for name in (f"{shard}.{kind}" for shard in counts)
            ]
            for kind, bound_of_kind in ((IMAGES, bound), (LABELS, None))
        )
    if bound is None:
        use_whole(home)
    arrays = _joined(home, labels, list(counts.values()))
    photos = ShardedImages(images, list(counts.values()))
    with reading(str(url), "face records"):
        return FaceRecords(photos, face_model=model, config=config, **arrays)


def _joined(home: Path, labels: list[CachedFile], counts: list[int]) -> Arrays:
    """The labels of all shards, memory-mapped, fetched if needed."""
    with in_turn(home):  # processes of this machine may fetch at once
        return _read_joined(home) or _fetch_joined(home, labels, counts)


def _fetch_joined(home: Path, labels: list[CachedFile], counts: list[int]) -> Arrays:
    crc32 = _write_joined(home, _each(labels), sum(counts))
    with atomic_path(home / NOTE) as temporary:
        temporary.write_text(json.dumps(crc32) + "\n")
    for file in labels:
        file.path.unlink()
    arrays = _read_joined(home)
    if arrays is None:
        raise FileError(f"{home}: files read back differ from those written; check the disk")
    return arrays


def _each(labels: list[CachedFile]) -> Iterator[Arrays]:
    """The labels of each shard, in order, fetched in parallel."""
    with ThreadPoolExecutor(FETCHES) as pool:
        rest = iter(labels)
        while some := list(itertools.islice(rest, 4 * FETCHES)):
            for path in pool.map(CachedFile.local, some):
                yield read_npz(path, FORMAT, VERSION)


def _write_joined(home: Path, parts: Iterator[Arrays], count: int) -> dict[str, int]:
    """Write an .npy file for each array; return their checksums."""
    paths: dict[str, Path] = {}
    with ExitStack() as stack:

        def path_of(name: str) -> Path:
            if not name.isidentifier():  # untrusted, and used as a file name
                raise FileError(f"{home}: records of a store have an array named '{name}'")
            paths[name] = stack.enter_context(atomic_path(home / f"{name}.npy"))
            return paths[name]

        def empty(name: str, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
            return np.lib.format.open_memmap(path_of(name), "w+", dtype, shape)

        arrays = join_shard_labels(parts, count, empty)
        for name in arrays.keys() - paths.keys():  # text
            np.save(path_of(name), arrays[name], allow_pickle=False)
        del arrays
        return {name: checksum(path) for name, path in paths.items()}


def _read_joined(home: Path) -> Arrays | None:
    """The arrays; None if they are missing or damaged."""
    try:
        crc32 = dict(read_json(home / NOTE))
        if any(checksum(home / f"{name}.npy") != value for name, value in crc32.items()):
            return None
    except (OSError, ValueError):
        return None
    return {
        name: np.load(home / f"{name}.npy", mmap_mode="r", allow_pickle=False).view(np.ndarray)
        for name in crc32
    }
