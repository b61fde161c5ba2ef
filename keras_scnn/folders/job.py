"""One process of a folder job: detect, reconstruct, write one part."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from keras_scnn.folders.batch import BatchReconstructor, BatchSettings, FoundFaces
from keras_scnn.folders.table import write_part
from keras_scnn.io import read_image
from keras_scnn.meshes.files import mesh_files
from keras_scnn.reconstruction.faces import Faces
from keras_scnn.storage import short_name

FACES, MESHES = "faces", "meshes"


@dataclass(eq=False)
class FolderJob:
    """All that a worker needs to make any part.

    Attributes:
        folder, out: photos and results.
        settings: how.
        about: for the metadata of each part.
        keys: by part: what it must be of.
    """

    folder: Path
    out: Path
    settings: BatchSettings
    about: dict
    keys: list[str]

    def make(self, number: int, names: list[str]) -> tuple[list[tuple[str, str]], int]:
        """Write one part; its failures and its number of faces."""
        if self.settings.meshes:
            for name in names:
                self._remove_meshes(name)
        batch = self._reconstruct((name, partial(self._read, name)) for name in names)
        failures = [(names[row], reason) for row, reason in batch.failures.items()]
        about = {**self.about, "part": number, "photos": len(names), "key": self.keys[number]}
        write_part(part_path(self.out, number), batch.table, batch.sizes, about, failures)
        return failures, len(batch.rows)

    @cached_property
    def _reconstruct(self) -> BatchReconstructor:
        with_faces = self._write_meshes if self.settings.meshes else None
        return BatchReconstructor(self.settings, with_faces)

    def _read(self, name: str) -> np.ndarray:
        return read_image(self.folder / name)

    def _write_meshes(self, faces: Faces, homes: list[tuple[FoundFaces, int]]) -> None:
        for face, (photo, i) in zip(faces, homes, strict=True):
            path = self._mesh_path(photo.name, i)
            path.parent.mkdir(parents=True, exist_ok=True)
            face.write_mesh(path, photo.image, self.settings.mesh_options)

    def _mesh_path(self, photo: str, face: int) -> Path:
        place = self.out / MESHES / photo
        return place.with_name(f"{short_name(f'{place.name}_{face}')}.{self.settings.meshes}")

    def _remove_meshes(self, photo: str) -> None:
        """Delete what an earlier run wrote: the photo may have had more faces then."""
        for face in itertools.count():
            files = [path for path in mesh_files(self._mesh_path(photo, face)) if path.exists()]
            if not files:
                return
            for path in files:
                path.unlink()


def part_path(out: Path, number: int) -> Path:
    """The Parquet file of a shard."""
    return out / FACES / f"part-{number:05d}.parquet"
