"""Face records: crops with their parameters, landmarks and identity, in one folder on disk.

A folder has numbered shards of a few hundred photos each, and ``manifest.json``, which is written
last and records how they were made, and their checksums:

    00000.images.npy   (m, S, S, 3) uint8 RGB, memory-mapped when read
    00000.labels.npz   the other arrays of ``FaceRecords``, read into memory
    00000.json         number of photos, checksums, and photos left out with the reasons; written
                       when the shard is complete, so that an interrupted run continues after it

So a folder larger than the memory is streamed from disk, and written in constant memory.
"""

from __future__ import annotations

import dataclasses
import os
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from keras_scnn.data.sharded_images import ShardedImages
from keras_scnn.settings import whole
from keras_scnn.storage import atomic_path, read_npz, write_npz
from keras_scnn.storage.guard import FileError, reading
from keras_scnn.storage.remote import RemotePath, local_path
from keras_scnn.storage.text import counted, read_json, write_json

FORMAT, VERSION = "keras_scnn.face_records", 2
IMAGES, LABELS, SHARD, MANIFEST = "images.npy", "labels.npz", "{:05d}", "manifest.json"
LABEL_SHAPES: dict[str, tuple[tuple[int | None, ...], str]] = {
    "parameters": ((None,), "(n, P)"),
    "landmarks": ((68, 3), "(n, 68, 3): x, y and depth"),
    "identity": ((), "(n,)"),
    "weight": ((68,), "(n, 68)"),
    "mirror": ((), "(n,)"),
    "name": ((), "(n,)"),
    "crop_from_image": ((2, 3), "(n, 2, 3)"),
    "embedding": ((None,), "(n, E)"),
}
"""For each array: shape per photo, None for any size; and the shape of the array as text."""
REQUIRED = ("images", "parameters", "landmarks", "identity")
OPTIONAL = ("weight", "mirror", "name", "crop_from_image", "embedding")
CHECK_BLOCK = 1 << 24
CHUNK = 4096  # photos whose angles are computed at once


class NoRecordsError(ValueError):
    """All photos were left out; ``left_out`` has the reasons by name."""

    def __init__(self, folder: Path, left_out: dict[str, str]):
        first = "".join(f"; the first: {why}" for why in [*left_out.values()][:1])
        super().__init__(f"{folder}: no records to write: {len(left_out)} left out{first}")
        self.left_out = left_out


@dataclass(frozen=True, eq=False)
class FaceRecords:
    """n crops with their labels.

    Attributes:
        images: (n, S, S, 3) uint8 RGB, an array or ``ShardedImages``.
        parameters: (n, P) float32, unwhitened, pose crop_from_model.
        landmarks: (n, 68, 3) float32, crop px and depth.
        identity: (n,) int32: equal for photos of one person.
        face_model: name of the parameters' face model.
        config: settings with which the records were made.
        weight: (n, 68) float32, 0 to 1: reliability of each landmark's label; None: 1.
        mirror: (n,) int32, the identity of the person's mirror image, -1 if there is none: the two
            are neither the same person nor different people. None: nobody has one.
        name: (n,) str, source files.
        crop_from_image: (n, 2, 3) float32, px of the source photo to px of the crop.
        embedding: (n, E) float32, a face recognizer's embedding of the photo; NaN if unknown.

    Raises:
        ValueError: the arrays' lengths differ, one is not an array or has another shape or kind of
            dtype, a weight is negative, a parameter or a landmark with a weight above
            0 is not finite, or a person's number is not a whole number or does not fit into int32.
    """

    images: np.ndarray | ShardedImages
    parameters: np.ndarray
    landmarks: np.ndarray
    identity: np.ndarray
    face_model: str
    config: dict = field(default_factory=dict)
    weight: np.ndarray | None = None
    mirror: np.ndarray | None = None
    name: np.ndarray | None = None
    crop_from_image: np.ndarray | None = None
    embedding: np.ndarray | None = None

    def __post_init__(self) -> None:
        shape, dtype = np.shape(self.images), getattr(self.images, "dtype", "no array")
        if len(shape) != 4 or shape[2:] != (shape[1], 3) or dtype != np.uint8:
            raise ValueError(
                f"images are {shape} of {dtype}; they must be (n, S, S, 3) of uint8, RGB, 0 to 255"
            )
        for name in self.arrays()[1:]:
            _check_label(name, getattr(self, name))
        sizes = {name: len(getattr(self, name)) for name in self.arrays()}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"the arrays differ in length: {sizes}")
        if self.weight is not None and not (self.weight >= 0).all():
            raise ValueError(
                f"weight: the smallest is {np.min(self.weight)}; every landmark needs 0 or more"
            )
        counts = True if self.weight is None else (self.weight > 0)[..., None]
        _check_finite("parameters", np.isfinite(self.parameters))
        _check_finite("landmarks", np.isfinite(self.landmarks) | ~np.asarray(counts))
        for name in ("identity", "mirror"):
            _check_person_numbers(name, getattr(self, name))

    def __len__(self) -> int:
        return len(self.identity)

    def arrays(self) -> list[str]:
        """The names of the arrays that are not None."""
        return [*REQUIRED, *(name for name in OPTIONAL if getattr(self, name) is not None)]

    def weights(self, rows=slice(None)) -> np.ndarray:
        """(..., 68) float32, ``weight`` of the photos at an index, indices or a slice; None: 1."""
        every = np.broadcast_to(np.float32(1), (len(self), 68))
        return (every if self.weight is None else self.weight)[rows]

    def either_side(self) -> np.ndarray:
        """(n,) int: the person in each photo; a person and the mirror image share a number."""
        groups = _with_mirror_images(self.identity, self.mirror)
        return np.array([min(groups[int(person)]) for person in self.identity])

    def euler_degrees(self) -> np.ndarray:
        """(n, 3) float64 pitch, yaw, roll of the poses, degrees; see ``euler_from_rotation``."""
        from keras_scnn.geometry.camera import euler_from_camera  # imports SciPy and numba
        from keras_scnn.parameters import POSE_SIZE

        euler = np.empty((len(self), 3))
        for start in range(0, len(self), CHUNK):
            chunk = slice(start, start + CHUNK)
            pose = self.parameters[chunk, :POSE_SIZE].astype(np.float64).reshape(-1, 3, 4)
            euler[chunk] = np.rad2deg(euler_from_camera(pose))
        return euler


def _check_label(name: str, array: np.ndarray) -> None:
    is_array, shape = isinstance(array, np.ndarray), np.shape(array)
    wanted, words = LABEL_SHAPES[name]
    fits = len(shape) == 1 + len(wanted) and all(
        size in (None, found) for size, found in zip(wanted, shape[1:], strict=True)
    )
    if not (is_array and fits):
        what = shape if is_array else f"of the type {type(array).__name__}"
        raise ValueError(f"{name} are {what}; they must be an array {words}")
    if (array.dtype.kind == "U") != (name == "name") or array.dtype.kind not in "Ubiuf":
        kind = "text" if name == "name" else "numbers"
        raise ValueError(f"{name} are of the dtype {array.dtype}; they must be {kind}")


def _check_finite(name: str, is_usable: np.ndarray) -> None:
    """Raise a ValueError that names the first photo with an unusable value."""
    photos = np.flatnonzero(~is_usable.reshape(len(is_usable), -1).all(axis=1))
    if len(photos):
        raise ValueError(
            f"{name} of {len(photos)} of {len(is_usable)} photos, first {photos[0]}, are not finite"
        )


def _check_person_numbers(name: str, numbers: np.ndarray | None) -> None:
    if numbers is None or not len(numbers):
        return
    limits = np.iinfo(np.int32)
    is_whole = np.issubdtype(np.asarray(numbers).dtype, np.integer)
    if not is_whole or not limits.min <= np.min(numbers) <= np.max(numbers) <= limits.max:
        raise ValueError(
            f"{name}: people's numbers must be whole and fit into int32; "
            "np.unique(numbers, return_inverse=True)[1] counts people from 0"
        )


def model_digests(config: dict) -> set[str]:
    """Digests of the face models in the settings of records; none in those of versions before 0.3.

    Two face models may have the same name, such as two editions of FLAME.
    """
    of_each = config.get("joined", [config])
    return {str(one["face_model_digest"]) for one in of_each if "face_model_digest" in one}


def photos_of_each(identity: np.ndarray) -> np.ndarray:
    """(n,) int: how many photos the person in each photo has; any integers may number people."""
    _, place, counts = np.unique(identity, return_inverse=True, return_counts=True)
    return counts[place]


def split_people(
    identity: np.ndarray, held_out: int, mirror: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the photos to train on, and of those of held-out people.

    A person and that person's mirror image are held out together: a network trained on one of them
    has seen the other. If people have mirror images, people are drawn at random, since their
    numbers follow the data sets, but the same ones for all runs; otherwise the last people are held
    out. If ``mirror`` has numbers of mirror images without photos, as in a pack, people are drawn
    in the same order; only people with photos count, so more of them are drawn.

    Args:
        identity: (n,) int, the person in each photo.
        held_out: number of people; one more if the last one drawn has a mirror image with photos.
        mirror: (n,) int, the number of each person's mirror image; -1 for none.

    Raises:
        ValueError: ``held_out`` is not a whole number of 0 or more, or nobody would be left to
            train on.
    """
    held_out, people = whole("held_out", held_out, 0), np.unique(identity)
    if held_out >= len(people):
        raise ValueError(
            f"held_out is {held_out}, but the data has only {counted(len(people), 'person')}"
        )
    groups = _with_mirror_images(identity, mirror)
    drawn = list(dict.fromkeys(groups[person] for person in people))
    if mirror is not None and (mirror >= 0).any():
        drawn = [drawn[i] for i in np.random.default_rng(0).permutation(len(drawn))]
    unseen: set[int] = set()
    while len(unseen) < held_out:
        unseen |= set(drawn.pop())
    is_unseen = np.isin(identity, list(unseen))
    if is_unseen.all():
        raise ValueError(f"held_out is {held_out}, which leaves nobody: mirror images go together")
    return np.flatnonzero(~is_unseen), np.flatnonzero(is_unseen)


def _with_mirror_images(
    identity: np.ndarray, mirror: np.ndarray | None
) -> dict[int, tuple[int, ...]]:
    """By person: the numbers of the person and, if the data has it, of the mirror image."""
    groups: dict[int, tuple[int, ...]] = {int(p): (int(p),) for p in np.unique(identity)}
    rows = () if mirror is None else np.unique(np.column_stack([identity, mirror]), axis=0)
    for person, partner in rows:
        is_there = partner >= 0 and partner in groups and partner != person
        if is_there and len(groups[person]) == 1:
            groups[person] = groups[partner] = tuple(sorted((int(person), int(partner))))
    return groups


def part_of(records: FaceRecords, index: np.ndarray) -> FaceRecords:
    """The records at some indices, in memory."""
    parts = {name: getattr(records, name)[index] for name in records.arrays()}
    return dataclasses.replace(records, **parts)


def is_records(folder: str | os.PathLike) -> bool:
    """Whether a folder holds complete face records (of any version)."""
    return (Path(folder) / MANIFEST).is_file()


def write_shard(
    folder: Path,
    number: int,
    records: FaceRecords | None,
    left_out: dict[str, str] | None = None,
    key: str = "",
) -> None:
    """Write one shard; it is valid once all its files exist.

    Args:
        folder: of the records.
        number: of the shard, from 0.
        records: its photos; None if all were left out.
        left_out: by name, the reason why a photo was left out.
        key: identifies the shard's inputs; ``read_shard`` compares it.
    """
    stem = SHARD.format(number)
    entry = {"count": 0, "crc32": {}, "left_out": left_out or {}, "key": key}
    if records is not None:
        with atomic_path(folder / f"{stem}.{IMAGES}") as temporary, temporary.open("wb") as file:
            np.save(file, np.ascontiguousarray(records.images), allow_pickle=False)
        labels = {name: getattr(records, name) for name in records.arrays() if name != "images"}
        write_npz(folder / f"{stem}.{LABELS}", FORMAT, VERSION, **labels)
        names = [f"{stem}.{kind}" for kind in (IMAGES, LABELS)]
        entry["crc32"] = {name: checksum(folder / name) for name in names}
        entry["count"] = len(records)
    write_json(folder / f"{stem}.json", entry)


def read_shard(folder: Path, number: int, key: str | None = None) -> dict | None:
    """The entry that ``write_shard`` wrote for a shard.

    Returns:
        the entry; None if the shard is missing or damaged, or has another key than ``key``.
    """
    path = folder / f"{SHARD.format(number)}.json"
    try:
        with reading(path, "the note of a shard"):
            entry = read_json(path)
            sound = all(checksum(folder / name) == crc for name, crc in entry["crc32"].items())
            return entry if sound and key in (None, entry.get("key")) else None
    except (OSError, ValueError):
        return None


def finish_records(folder: Path, shards: int, face_model: str, config: dict) -> dict:
    """Write the manifest of a folder whose shards 0 to ``shards`` - 1 are complete; return it.

    Raises:
        NoRecordsError: all photos were left out.
        ValueError: a shard is missing or damaged.
    """
    entries = {}
    for number in range(shards):
        entry = read_shard(folder, number)
        if entry is None:
            raise ValueError(f"{folder}: shard {number} is missing or damaged; make it again")
        entries[SHARD.format(number)] = entry
    counts = {name: entry["count"] for name, entry in entries.items() if entry["count"]}
    left_out = {n: why for entry in entries.values() for n, why in entry["left_out"].items()}
    if not counts:
        raise NoRecordsError(folder, left_out)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "count": sum(counts.values()),
        "face_model": face_model,
        "config": config,
        "shards": counts,
        "crc32": {n: crc for entry in entries.values() for n, crc in entry["crc32"].items()},
        "left_out": left_out,
    }
    write_json(folder / MANIFEST, manifest)
    return manifest


def save_records(folder: str | os.PathLike, records: FaceRecords) -> None:
    """Write records as a folder of one shard, which is complete only once everything is written.

    Existing records in the folder are replaced.
    """
    folder = local_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    write_shard(folder, 0, records)
    finish_records(folder, 1, records.face_model, records.config)
    for path in folder.iterdir():  # further shards of the replaced records
        stem, _, kind = path.name.partition(".")
        is_shards = stem.isdecimal() and kind in ("json", IMAGES, LABELS)
        if is_shards and stem != SHARD.format(0):
            path.unlink()


def load_records(folder: str | os.PathLike) -> FaceRecords:
    """Open a folder of records; images are read from disk only when indexed.

    Raises:
        FileNotFoundError: the folder has no (complete) records.
        ValueError: a file is damaged, or of another version.
    """
    folder = Path(folder)
    if not is_records(folder):
        raise FileNotFoundError(
            f"{folder}: no complete face records ({MANIFEST} is missing); keras-scnn prepare makes "
            "them"
        )
    manifest = read_manifest(folder / MANIFEST)
    with reading(folder / MANIFEST, "a manifest of face records"):
        for name, expected in manifest["crc32"].items():
            if not (folder / name).is_file() or checksum(folder / name) != expected:
                raise FileError(
                    f"{folder / name}: missing or damaged; delete {folder} and remake it"
                )
        images = ShardedImages([folder / f"{stem}.{IMAGES}" for stem in manifest["shards"]])
        paths = [folder / f"{stem}.{LABELS}" for stem in manifest["shards"]]
        joined = join_shard_labels((read_npz(path, FORMAT, VERSION) for path in paths), len(images))
        return FaceRecords(
            images, face_model=manifest["face_model"], config=manifest["config"], **joined
        )


def _in_memory(name: str, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    return np.empty(shape, dtype)


def join_shard_labels(
    parts: Iterable[dict[str, np.ndarray]],
    count: int,
    empty: Callable[[str, np.dtype, tuple[int, ...]], np.ndarray] = _in_memory,
) -> dict[str, np.ndarray]:
    """The labels of all shards, joined without holding them in memory twice.

    Args:
        parts: the arrays of each shard.
        count: total number of photos.
        empty: allocates the joined array of a given name, dtype and shape.

    Raises:
        ValueError: the shards have different arrays, or not ``count`` photos.
    """
    joined: dict[str, np.ndarray] = {}
    text: dict[str, list[np.ndarray]] = {}  # whose width is known only once all shards are read
    start = 0
    for part in parts:
        size = len(part["identity"])
        if start and part.keys() != joined.keys() | text.keys():
            raise ValueError("the shards have different labels")
        for name, array in part.items():
            if array.dtype.kind == "U":
                text.setdefault(name, []).append(array)
                continue
            if name not in joined:
                joined[name] = empty(name, array.dtype, (count, *array.shape[1:]))
            joined[name][start : start + size] = array
        start += size
    if start != count:
        raise ValueError(f"{start} labels for {count} photos")
    return {**joined, **{name: np.concatenate(several) for name, several in text.items()}}


def read_manifest(path: Path | RemotePath) -> dict:
    """The manifest of face records.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or of another version.
    """
    what = "a manifest of face records"
    manifest = read_json(path, what)
    with reading(str(path), what):
        kind = manifest["format"], manifest["version"]
        shards = [str(name) for name in manifest["shards"]]
    if odd := [name for name in shards if not re.fullmatch(r"\w+", name)]:
        raise FileError(f"{path}: '{odd[0]}' is not a valid shard name")
    if kind != (FORMAT, VERSION):
        raise ValueError(f"{path}: {kind[0]} version {kind[1]}; expected {FORMAT} {VERSION}")
    return manifest


def checksum(path: Path) -> int:
    """CRC-32 of a file."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(CHECK_BLOCK):
            value = zlib.crc32(block, value)
    return value
