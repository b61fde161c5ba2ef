"""One process of a folder job: detect, reconstruct, write one part."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from keras_scnn.folders.table import columns, joined, vector_sizes, write_part
from keras_scnn.geometry.crops import SQUARE_TOLERANCE
from keras_scnn.io import read_image
from keras_scnn.meshes.files import mesh_files
from keras_scnn.meshes.options import MeshOptions
from keras_scnn.models.inference import MAX_BATCH
from keras_scnn.photos.cropping import FaceBox
from keras_scnn.photos.detection import FaceDetector
from keras_scnn.reconstruction.faces import Faces
from keras_scnn.reconstruction.reconstructor import (
    PASSES,
    Reconstructor,
)
from keras_scnn.settings import DEFAULT_PRESET
from keras_scnn.storage import short_name

SHARD_PHOTOS = 256
GROUP_FACES = 8 * MAX_BATCH
GROUP_PIXELS = 50_000_000  # 150 MB of photos wait for the network at most, but for a larger one
FACES, MESHES = "faces", "meshes"


@dataclass(frozen=True)
class BatchSettings:
    """Settings on which the results depend.

    Attributes:
        preset: name or folder.
        crops: the photos are standard crops of one face; nothing is detected.
        tiles: look for small faces too, see ``FaceDetector``.
        meshes: 'obj', 'ply', 'glb', or None for no meshes.
        mesh_options: what is written of each face.
        shard_photos: in one Parquet file.
    """

    preset: str = DEFAULT_PRESET
    crops: bool = False
    tiles: bool = True
    meshes: str | None = None
    mesh_options: MeshOptions = MeshOptions()
    shard_photos: int = SHARD_PHOTOS


@dataclass(frozen=True, eq=False)
class FoundFaces:
    """A photo, (H, W, 3) uint8 RGB, and its boxes; ``name`` is its path within the folder."""

    name: str
    image: np.ndarray
    boxes: list[FaceBox]


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
        failures: list[tuple[str, str]] = []
        if self.settings.meshes:
            for name in names:
                self._remove_meshes(name)
        tables = [self._table(group) for group in self._groups(names, failures)]
        preset = self.reconstructor.preset
        layout = preset.layout
        sizes = vector_sizes(layout.n_identity, layout.n_expression, preset.feature_size)
        table = joined(tables, sizes)
        about = {**self.about, "part": number, "photos": len(names), "key": self.keys[number]}
        write_part(part_path(self.out, number), table, sizes, about, failures)
        return failures, len(table["photo"])

    @cached_property
    def reconstructor(self) -> Reconstructor:
        detector = None if self.settings.crops else FaceDetector(tiles=self.settings.tiles)
        return Reconstructor.from_preset(self.settings.preset, detector)

    def _groups(self, names: list[str], failures: list) -> Iterator[list[FoundFaces]]:
        """Photos that together have some batches of faces, or are as large as may be."""
        group, faces, pixels = [], 0, 0
        for name in names:
            try:
                photo = self._find(name)
            except Exception as error:  # one photo's failure, whatever its decoder raises
                failures.append((name, _reason(error, self.folder / name)))
                continue
            group.append(photo)
            faces, pixels = faces + len(photo.boxes), pixels + photo.image.size // 3
            if faces >= GROUP_FACES or pixels >= GROUP_PIXELS:
                yield group
                group, faces, pixels = [], 0, 0
        if group:
            yield group

    def _find(self, name: str) -> FoundFaces:
        _check_name(name)
        image = read_image(self.folder / name)
        if self.settings.crops:
            height, width = image.shape[:2]
            if abs(width / height - 1) > SQUARE_TOLERANCE:
                raise ValueError(f"{width} x {height} px; a face crop is square")
            return FoundFaces(name, image, [FaceBox(0, 0, width, height)])
        boxes = self.reconstructor.detect(image)
        if not boxes:
            raise ValueError("no face found; it should show one at least 40 px wide")
        return FoundFaces(name, image, boxes)

    def _table(self, group: list[FoundFaces]) -> dict[str, np.ndarray | list]:
        homes = [(photo, i) for photo in group for i in range(len(photo.boxes))]
        images = [photo.image for photo, _ in homes]
        boxes = [photo.boxes[i] for photo, i in homes]
        crops = self.settings.crops
        faces = self.reconstructor.reconstruct_many(images, boxes, 1 if crops else PASSES)
        if self.settings.meshes:
            self._write_meshes(faces, homes)
        return {
            "photo": [photo.name for photo, _ in homes],
            "face": np.array([i for _, i in homes], np.int32),
            "width": np.array([image.shape[1] for image in images], np.int32),
            "height": np.array([image.shape[0] for image in images], np.int32),
            **columns(faces, scored=not crops),
        }

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


def _check_name(name: str) -> None:
    """Parquet and JSON hold text, and a file's name may be any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ValueError("its name is not UTF-8; rename it") from error


def _reason(error: Exception, path: Path) -> str:
    text = str(error) or type(error).__name__
    return text.removeprefix(f"{path}: ")


def part_path(out: Path, number: int) -> Path:
    """The Parquet file of a shard."""
    return out / FACES / f"part-{number:05d}.parquet"
