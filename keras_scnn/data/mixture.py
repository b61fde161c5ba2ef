"""Several folders of face records as one."""

from __future__ import annotations

import dataclasses
import os
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_scnn.data.records import REQUIRED, FaceRecords, model_digests, part_of
from keras_scnn.data.remote_records import open_face_records
from keras_scnn.data.sharded_images import ShardedImages
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import ParameterLayout
from keras_scnn.settings import folders_of
from keras_scnn.storage.outputs import real_path
from keras_scnn.storage.remote import place

BLENDS = "blends"  # the name of this source of records in ``prepare``
FILL = {"weight": 1.0, "mirror": -1, "embedding": np.nan, "crop_from_image": np.nan, "name": ""}


@dataclass(frozen=True, eq=False)
class Mixture:
    """Records from one or several folders.

    Attributes:
        records: of all folders, joined.
        source: (n,) int64 the index of each photo's folder.
        weights: (S,) how often each folder is drawn from; None: by its number of people.
    """

    records: FaceRecords
    source: np.ndarray
    weights: np.ndarray | None = None

    def sampling(self) -> dict:
        """Arguments for ``PairSampler`` and ``GroupSampler``, besides the identities.

        In records made with ``prepare --authors-identity`` a mirror image is a different person,
        with whom a sampler may pair the original, as in the code that the paper's authors released:
        it takes the data set from the file name, so that HELEN_Flip is a data set of its own.
        """
        mirror = self.records.mirror
        if mirror is not None:
            mirror = np.where(self._noted("authors_identity"), -1, mirror)
        return {"mirror": mirror, "source": self.source, "source_weights": self.weights}

    def photographed(self) -> np.ndarray:
        """(n,) bool: False for blends of two people; see ``data.sources.blends``."""
        return self._noted("source") != BLENDS

    def without_mirror_images(self) -> Mixture:
        """A mixture without mirror images of people whose original photos it has."""
        keep = self.records.either_side() == self.records.identity
        if keep.all():
            return self
        return Mixture(part_of(self.records, np.flatnonzero(keep)), self.source[keep], self.weights)

    def _noted(self, key: str) -> np.ndarray:
        """(n,) value of a key in the settings of each photo's folder; None where there is none."""
        config = self.records.config
        noted = [one.get(key) for one in config.get("joined", [config])]
        return np.array(noted, object)[self.source]

    def annotated(self, model: MorphableModel) -> MorphableModel:
        """The face model with the landmark offsets with which the records were fitted.

        Raises:
            ValueError: the records were made with another face model.
        """
        width = ParameterLayout(model.n_identity, model.n_expression).size
        if (model.name, width) != (self.records.face_model, self.records.parameters.shape[1]):
            raise ValueError(
                f"face_model is '{model.name}' with {width} parameters, but the records are for "
                f"'{self.records.face_model}' with {self.records.parameters.shape[1]}; give the "
                "face_model.npz in their folder"
            )
        if not model_digests(self.records.config) <= {model.digest}:
            raise ValueError(
                f"face_model is '{model.name}', but not the one of this name that the records were "
                "made with; give the face_model.npz in their folder, or make the records again"
            )
        offsets = self.records.config.get("landmark_offsets")
        return model if offsets is None else model.replace(landmark_offsets=np.float32(offsets))


def open_mixture(
    folders: str,
    weights: str = "",
    cache: str | os.PathLike = "",
    cache_bytes: int | None = None,
) -> Mixture:
    """Open folders of face records.

    Args:
        folders: one, or several separated by commas; paths, or fsspec URLs.
        weights: how often each is drawn from, separated by commas; '': by its number of people.
        cache, cache_bytes: for data from URLs, see ``open_face_records``.

    Raises:
        FileNotFoundError, ValueError: see ``open_face_records`` and ``join_records``; or the
            weights are not numbers, or not one per folder; or there is no folder, or one twice.
        ImportError, OSError: for a URL, see ``open_face_records``.
    """
    names = folders_of(folders)
    try:
        numbers = np.array([float(word) for word in weights.split(",")]) if weights else None
    except ValueError as error:
        message = f"weights are '{weights}'; they must be numbers separated by commas"
        raise ValueError(message) from error
    if numbers is not None and len(numbers) != len(names):
        raise ValueError(f"{len(numbers)} weights for {len(names)} folders; give one for each")
    _check_different(names)
    records, source = join_records([open_face_records(n, cache, cache_bytes) for n in names], names)
    return Mixture(records, source, numbers)


def _check_different(folders: Sequence[str]) -> None:
    """Raise a ValueError for a folder given twice, whose people would count as different ones."""
    if not folders:
        raise ValueError("no folder of face records is given")
    known: dict[str, str] = {}
    for folder in folders:
        real = _real(folder)
        if real in known:
            raise ValueError(f"{folder}: the same face records as {known[real]}; give them once")
        known[real] = folder


def _real(folder: str) -> str:
    """A folder's canonical path or URL, with links resolved."""
    home = place(folder)
    if isinstance(home, Path):
        return str(real_path(home))
    return f"{home.protocol}://{posixpath.normpath(home.url.partition('://')[2])}"


def join_records(
    several: Sequence[FaceRecords], folders: Sequence[str] = ()
) -> tuple[FaceRecords, np.ndarray]:
    """Concatenate records; sharded images are not copied.

    People are renumbered, so that those of different folders are different people. Arrays that
    only some records have are filled for the others: weights with 1, mirror images with -1, names
    with '', other arrays with NaN.

    Args:
        several: the records.
        folders: of each, for messages; () to number them.

    Returns:
        the joined records, and the index of each photo's folder, (n,) int64, which
        ``PairSampler`` and ``GroupSampler`` take as ``source``.

    Raises:
        ValueError: the records differ in face model, crop size, number of parameters, landmark
            offsets, or the size of an optional array.
    """
    _check_alike(several, folders)
    source = np.repeat(np.arange(len(several)), [len(r) for r in several])
    if len(several) == 1:  # copy nothing: labels may be larger than the memory
        return several[0], source
    several = _numbered_apart(several)
    joined = set(REQUIRED) - {"images"}
    arrays = {name: np.concatenate([getattr(r, name) for r in several]) for name in joined}
    for name in FILL:
        if any(getattr(r, name) is not None for r in several):
            arrays[name] = _filled(several, name)
    images = _join_images([r.images for r in several])
    config: dict = {"joined": [r.config for r in several]}
    if "landmark_offsets" in several[0].config:
        config["landmark_offsets"] = several[0].config["landmark_offsets"]
    return FaceRecords(images, face_model=several[0].face_model, config=config, **arrays), source


def _check_alike(several: Sequence[FaceRecords], folders: Sequence[str]) -> None:
    """Raise a ValueError that names two folders whose records cannot be joined."""
    kinds: dict[str, list] = {
        "face models": [r.face_model for r in several],
        "face models of one name": [model_digests(r.config) or None for r in several],
        "crop sizes": [r.images.shape[1:] for r in several],
        "numbers of parameters": [r.parameters.shape[1] for r in several],
        "landmark offsets": [str(r.config.get("landmark_offsets")) for r in several],
    }
    for what, values in kinds.items():
        known = [i for i, value in enumerate(values) if value is not None]
        odd = [i for i in known if values[i] != values[known[0]]]
        if not odd:
            continue
        pair = known[0], odd[0]
        named = " and ".join(folders[i] if folders else f"number {i}" for i in pair)
        details = ": " + " and ".join(str(values[i]) for i in pair)
        if what == "landmark offsets":  # 68 rows of numbers each
            details = "; prepare both with the same --offsets"
        raise ValueError(f"{named}: records of different {what} cannot be joined{details}")


def _numbered_apart(several: Sequence[FaceRecords]) -> list[FaceRecords]:
    """The records with people renumbered from 0, consecutively over all records."""
    numbered, first = [], 0
    for records in several:
        people, identity = np.unique(records.identity, return_inverse=True)
        changes: dict[str, Any] = {"identity": np.int32(first + identity)}
        if records.mirror is not None:
            at = np.minimum(np.searchsorted(people, records.mirror), len(people) - 1)
            is_there = (records.mirror >= 0) & (people[at] == records.mirror)
            changes["mirror"] = np.int32(np.where(is_there, first + at, -1))
        numbered.append(dataclasses.replace(records, **changes))
        first += len(people)
    return numbered


def _filled(several: Sequence[FaceRecords], name: str) -> np.ndarray:
    """(n, ...) the concatenated arrays of a name, with ``FILL`` for records that have none."""
    known = [getattr(r, name) for r in several if getattr(r, name) is not None]
    if len({array.shape[1:] for array in known}) != 1:
        raise ValueError(f"records with {name} of different sizes cannot be joined")
    parts = []
    for records in several:
        array = getattr(records, name)
        shape = (len(records), *known[0].shape[1:])
        parts.append(np.full(shape, FILL[name], known[0].dtype) if array is None else array)
    return np.concatenate(parts)


def _join_images(images: Sequence[np.ndarray | ShardedImages]) -> np.ndarray | ShardedImages:
    sharded = [part for part in images if isinstance(part, ShardedImages)]
    if len(sharded) == len(images):
        return ShardedImages.joined(sharded)
    return np.concatenate([np.asarray(part) for part in images])
