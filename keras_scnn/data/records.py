"""Face records: crops with their parameters, landmarks and identity, in one folder on disk.

``images.npy`` is memory-mapped, so a folder larger than the memory streams from disk;
``labels.npz`` is read whole; ``manifest.json``, written last, says what made them and carries
checksums.
"""

from __future__ import annotations

import dataclasses
import json
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from keras_scnn.storage import atomic_path, read_npz, write_npz

FORMAT, VERSION = "keras_scnn.face_records", 1
IMAGES, LABELS, MANIFEST = "images.npy", "labels.npz", "manifest.json"
CHECK_BLOCK = 1 << 24


@dataclass(frozen=True, eq=False)
class FaceRecords:
    """n crops and what is known of them.

    Attributes:
        images: (n, S, S, 3) uint8 RGB, perhaps a memory map.
        parameters: (n, P) float32, unwhitened, pose crop_from_model.
        landmarks: (n, 68, 3) float32, crop px and depth.
        identity: (n,) int32: equal for photos of one person.
        face_model: name of the face model of the parameters.
        config: what made the records.

    Raises:
        ValueError: the arrays' lengths differ.
    """

    images: np.ndarray
    parameters: np.ndarray
    landmarks: np.ndarray
    identity: np.ndarray
    face_model: str
    config: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes = {len(a) for a in (self.images, self.parameters, self.landmarks, self.identity)}
        if len(sizes) != 1:
            raise ValueError(
                f"images, parameters, landmarks and identity differ in length: {sizes}"
            )

    def __len__(self) -> int:
        return len(self.identity)


def split_people(identity: np.ndarray, held_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the photos to train on, and of those of the last ``held_out`` people.

    Raises:
        ValueError: nobody would be left to train on.
    """
    people = np.unique(identity)
    if held_out >= len(people):
        raise ValueError(f"held_out is {held_out}, but the data has only {len(people)} people")
    is_unseen = identity >= people[-held_out]
    return np.flatnonzero(~is_unseen), np.flatnonzero(is_unseen)


def part_of(records: FaceRecords, index: np.ndarray) -> FaceRecords:
    """The records at some positions, in memory."""
    names = ("images", "parameters", "landmarks", "identity")
    return dataclasses.replace(records, **{name: getattr(records, name)[index] for name in names})


def is_records(folder: str | os.PathLike) -> bool:
    """Whether a folder holds complete face records (of any version)."""
    return (Path(folder) / MANIFEST).is_file()


def finish_records(folder: Path, records: FaceRecords) -> None:
    """Write the labels and the manifest beside ``images.npy``, which is already in its place."""
    labels = {name: getattr(records, name) for name in ("parameters", "landmarks", "identity")}
    write_npz(folder / LABELS, FORMAT, VERSION, **labels)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "count": len(records),
        "face_model": records.face_model,
        "config": records.config,
        "crc32": {name: checksum(folder / name) for name in (IMAGES, LABELS)},
    }
    with atomic_path(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=2) + "\n")


def save_records(folder: str | os.PathLike, records: FaceRecords) -> None:
    """Write a folder of records; it counts as complete only once everything is there."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    with atomic_path(folder / IMAGES) as temporary, temporary.open("wb") as file:
        np.save(file, np.asarray(records.images), allow_pickle=False)
    finish_records(folder, records)


def load_records(folder: str | os.PathLike) -> FaceRecords:
    """Open a folder of records; the images stay on disk until they are asked for.

    Raises:
        FileNotFoundError: the folder holds no (complete) records.
        ValueError: a file is damaged, or of another version.
    """
    folder = Path(folder)
    if not is_records(folder):
        raise FileNotFoundError(f"{folder}: no complete face records; they end with {MANIFEST}")
    manifest = _manifest(folder / MANIFEST)
    for name, expected in manifest["crc32"].items():
        if not (folder / name).is_file() or checksum(folder / name) != expected:
            raise ValueError(f"{folder / name}: missing or damaged; delete {folder} and remake it")
    images = np.load(folder / IMAGES, mmap_mode="r", allow_pickle=False)
    labels = read_npz(folder / LABELS, FORMAT, VERSION)
    return FaceRecords(
        images, face_model=manifest["face_model"], config=manifest["config"], **labels
    )


def _manifest(path: Path) -> dict:
    try:
        manifest = json.loads(path.read_text())
        found = manifest["format"], manifest["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a manifest of face records ({error!r})") from error
    if found != (FORMAT, VERSION):
        raise ValueError(f"{path}: {found[0]} version {found[1]}; expected {FORMAT} {VERSION}")
    return manifest


def checksum(path: Path) -> int:
    """CRC-32 of a file."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(CHECK_BLOCK):
            value = zlib.crc32(block, value)
    return value
