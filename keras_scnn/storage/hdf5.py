"""Datasets of HDF5 files that contain all their data themselves."""

from __future__ import annotations

import math
import mmap
import os
import zlib
from collections.abc import Collection
from pathlib import Path

import h5py
import numpy as np

from keras_scnn.storage.guard import allowed_bytes, check_size, reading

CHECKSUM = 4  # bytes that Fletcher's filter adds to a chunk
FILTERS = (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32)


def read_datasets(
    path: str | os.PathLike, names: Collection[str], what: str = "a readable HDF5 file"
) -> dict[str, np.ndarray]:
    """Datasets of numbers or text of an HDF5 file; no others are opened.

    Args:
        path: the file.
        names: of the datasets, with slashes. Missing ones are left out.
        what: what the file should be, with its article, for the message.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, a dataset has another type or compression, its data are
            (or may be) in another file, or it unpacks to far more than the file's size.
    """
    path = Path(path)
    with reading(path, what):
        allowed = allowed_bytes(path.stat().st_size)
        _check_heaps(path)
        with h5py.File(path, "r") as file:
            datasets = {name: data for name in names if (data := _find(file, name)) is not None}
            for name, dataset in datasets.items():
                _check(name, dataset, allowed)
                _check_chunks(path, name, dataset)
                if dataset.dtype.kind == "O":
                    _check_text(path, name, dataset)
                allowed -= dataset.size * dataset.dtype.itemsize
            return {name: np.asarray(dataset[()]) for name, dataset in datasets.items()}


def _check_heaps(path: Path) -> None:
    """Refuse heaps larger than the file: the library allocates the size that they declare.

    Heaps store names (HEAP, version 0) and strings (GCOL, version 1). After each signature and
    version, 8 bytes give its size.
    """
    size = path.stat().st_size
    if not size:
        raise ValueError("the file is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for signature in (b"HEAP\0\0\0\0", b"GCOL\1\0\0\0"):
            at = content.find(signature)
            while at >= 0:
                check_size("a heap", int.from_bytes(content[at + 8 : at + 16], "little"), size)
                at = content.find(signature, at + 1)


def _find(file: h5py.File, name: str) -> h5py.Dataset | None:
    """A dataset, reached by hard links only: other links may lead into other files."""
    place = file
    for part in name.split("/"):
        if not isinstance(place, h5py.Group):
            return None
        if (link := place.get(part, getlink=True)) is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"{name}: a {type(link).__name__} instead of data")
        place = place[part]
    return place if isinstance(place, h5py.Dataset) else None


def _check_text(path: Path, name: str, dataset: h5py.Dataset) -> None:
    """Refuse a string that is longer than the file; its length precedes its address in a heap."""
    offset = dataset.id.get_offset()
    if offset is None:
        raise ValueError(f"{name}: a string stored in chunks; write it without chunks")
    with path.open("rb") as file:
        file.seek(offset)
        check_size(name, int.from_bytes(file.read(4), "little"), path.stat().st_size)


def _filters(dataset: h5py.Dataset) -> list[int]:
    """The numbers of a dataset's filters, in the order in which they are applied on writing."""
    creation = dataset.id.get_create_plist()
    return [creation.get_filter(i)[0] for i in range(creation.get_nfilters())]


def _check_chunks(path: Path, name: str, dataset: h5py.Dataset) -> None:
    """Refuse chunks that gzip unpacks to more than a chunk: the library has no limit there."""
    filters, size = _filters(dataset), path.stat().st_size
    if h5py.h5z.FILTER_DEFLATE not in filters:
        return
    if len(set(filters)) < len(filters):
        raise ValueError(f"{name}: compressed twice")
    skipped = 1 << filters.index(h5py.h5z.FILTER_DEFLATE)  # in a chunk's mask
    most = math.prod(dataset.chunks) * dataset.dtype.itemsize + CHECKSUM
    stored: list[h5py.h5d.StoreInfo] = []
    dataset.id.chunk_iter(stored.append)
    for chunk in stored:
        check_size(name, chunk.size, size)
        mask, content = dataset.id.read_direct_chunk(chunk.chunk_offset)
        if not mask & skipped and len(zlib.decompressobj().decompress(content, most + 1)) > most:
            raise ValueError(f"{name}: a chunk unpacks to more than {most:,} bytes")


def _check(name: str, dataset: h5py.Dataset, allowed: int) -> None:
    creation = dataset.id.get_create_plist()
    layouts = (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED)
    if creation.get_layout() not in layouts or creation.get_external_count():
        raise ValueError(f"{name}: its data are in other files; write them into this one")
    used = _filters(dataset)
    if unknown := set(used) - set(FILTERS):
        raise ValueError(f"{name}: compressed by the filters {sorted(unknown)}; use gzip")
    if dataset.shape is None:
        raise ValueError(f"{name}: has no values")
    if dataset.dtype.kind not in "iufSO":
        raise ValueError(f"{name}: holds {dataset.dtype}; expected numbers or text")
    is_text = h5py.check_string_dtype(dataset.dtype) is not None and dataset.size == 1
    if dataset.dtype.kind == "O" and not is_text:
        raise ValueError(f"{name}: holds {dataset.dtype}; expected numbers or one text")
    chunk = int(np.prod(dataset.chunks or (0,), dtype=object))
    itemsize = dataset.dtype.itemsize
    check_size(name, max(int(dataset.size), chunk) * itemsize, allowed)
