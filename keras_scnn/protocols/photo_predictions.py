"""Every photo of a measurement reconstructed once, as a user would, and kept for the next one.

The largest face of a photo is found by the product's own detector and reconstructed by
``Reconstructor``, in two passes. Results are kept in a file beside the results, by the preset's
digest and the photo's content: the next measurement with the same weights takes them up.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from keras_scnn.geometry.camera import decompose, project
from keras_scnn.geometry.rotations import euler_from_rotation
from keras_scnn.io import read_image
from keras_scnn.models import Preset
from keras_scnn.models.presets import PresetData, preset_digest
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import FaceParameters
from keras_scnn.photos.cropping import FaceBox
from keras_scnn.photos.detection import LargestFaceDetector
from keras_scnn.reconstruction.reconstructor import Reconstructor
from keras_scnn.storage import read_npz, write_npz

FORMAT, VERSION = "keras_scnn.photo_predictions", 1
BATCH = 64


@dataclass(frozen=True, eq=False)
class PhotoPredictions:
    """The faces of the n photos that show one, of N given ones.

    Attributes:
        face_model: of the parameters.
        kept: (n,) positions of these photos among the given ones, ascending.
        parameters: pose (n, 3, 4) image_from_model, px of the photo per mm; identity (n, K);
            expression (n, L).
        features: (n, F) float32 of unit length, or None where the preset has no feature head.
        n_photos: N.
        left_out: why the other photos are missing, each with its path.
    """

    face_model: MorphableModel
    kept: np.ndarray
    parameters: FaceParameters
    features: np.ndarray | None
    n_photos: int
    left_out: tuple[str, ...] = ()

    @property
    def position(self) -> np.ndarray:
        """(N,) the row of each given photo; -1 where it has none."""
        rows = np.full(self.n_photos, -1)
        rows[self.kept] = np.arange(len(self.kept))
        return rows

    @property
    def coverage_percent(self) -> float:
        """Share of the photos in which a face was found."""
        return 100 * len(self.kept) / self.n_photos

    @property
    def landmarks(self) -> np.ndarray:
        """(n, 68, 3) px and depth, image frame, landmark offsets included."""
        points = self.face_model.landmarks(self.parameters.identity, self.parameters.expression)
        return project(self.parameters.pose, points)

    @property
    def yaw_degrees(self) -> np.ndarray:
        """(n,) predicted yaw."""
        return np.degrees(euler_from_rotation(decompose(self.parameters.pose)[0])[..., 1])


@dataclass(eq=False)
class PhotoPredictor:
    """Reconstructs the largest face of photos, each once.

    Args:
        reconstructor: of the preset.
        digest: of the preset (``preset_digest``), so that no file of other weights is taken up.
        cache: the file of results; None keeps them in memory only.
        find_face: from a photo to a box; None for ``LargestFaceDetector()``.
    """

    reconstructor: Reconstructor
    digest: str
    cache: Path | None = None
    find_face: LargestFaceDetector | None = None
    _known: dict[str, np.ndarray | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.cache is not None and self.cache.is_file():
            self._known = _read_cache(self.cache, self.digest, self._width)

    @classmethod
    def from_preset(cls, name_or_path: str | os.PathLike, folder: Path) -> PhotoPredictor:
        """Of a preset by name or folder; results are kept in ``folder``.

        Raises:
            FileNotFoundError, ValueError: as ``Reconstructor.from_preset``; or the file of
                results is damaged.
        """
        digest = preset_digest(name_or_path)
        folder.mkdir(parents=True, exist_ok=True)
        reconstructor = Reconstructor.from_preset(name_or_path)
        return cls(reconstructor, digest, folder / f"predictions-{digest[:16]}.npz")

    @property
    def preset(self) -> Preset | PresetData:
        """Whose predictions these are."""
        return self.reconstructor.preset

    @property
    def _width(self) -> int:
        return self.preset.layout.size + self.preset.feature_size

    def __call__(self, paths: Sequence[Path]) -> PhotoPredictions:
        """The faces of photos; one that was seen before is not looked at again.

        Raises:
            FileNotFoundError: a photo, or the face detector's package, is missing.
            ValueError: no photo shows a face.
        """
        keys = [_key(path) for path in paths]
        todo = {k: p for k, p in zip(keys, paths, strict=True) if k not in self._known}
        batches = _batches(list(todo.items()))
        with tqdm(total=len(todo), desc="measuring photos", leave=False, delay=1) as progress:
            for batch in batches:
                self._known |= self._reconstruct(batch)
                progress.update(len(batch))
        if todo and self.cache is not None:
            _write_cache(self.cache, self.digest, self._known, self._width)
        return self._assembled(keys, paths)

    def _reconstruct(self, batch: list[tuple[str, Path]]) -> dict[str, np.ndarray | None]:
        """A row of numbers for each photo; None where no face is found."""
        rows: dict[str, np.ndarray | None] = {}
        found: list[tuple[str, np.ndarray, FaceBox]] = []
        self.find_face = self.find_face or LargestFaceDetector()
        for key, path in batch:
            try:
                image = read_image(path)
                found.append((key, image, self.find_face(image)))
            except ValueError:  # no face, or no photo
                rows[key] = None
        if found:
            keys, images, boxes = zip(*found, strict=True)
            faces = self.reconstructor.reconstruct_many(images, boxes)
            parts = [faces.parameters.to_vector()]
            parts += [] if faces.features is None else [faces.features]
            rows |= dict(zip(keys, np.float32(np.concatenate(parts, axis=1)), strict=True))
        return rows

    def _assembled(self, keys: list[str], paths: Sequence[Path]) -> PhotoPredictions:
        kept, rows, left_out = [], [], []
        for i, (key, path) in enumerate(zip(keys, paths, strict=True)):
            if (row := self._known[key]) is None:
                left_out.append(f"{path}: no face found")
            else:
                kept.append(i)
                rows.append(row)
        if not kept:
            raise ValueError(f"none of {len(paths)} photos shows a face; the first: {paths[0]}")
        table, layout = np.stack(rows), self.preset.layout
        parameters = FaceParameters.from_vector(table[:, : layout.size], layout)
        features = table[:, layout.size :] if self.preset.feature_size else None
        model = self.preset.face_model
        return PhotoPredictions(
            model, np.array(kept), parameters, features, len(paths), tuple(left_out)
        )


def _key(path: Path) -> str:
    """SHA-256 of a photo's content: a moved photo is the same, a changed one is another."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such photo")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _batches(items: list[tuple[str, Path]]) -> Iterator[list[tuple[str, Path]]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def _read_cache(path: Path, digest: str, width: int) -> dict[str, np.ndarray | None]:
    """Rows by key; none where the file is of other weights."""
    arrays = read_npz(path, FORMAT, VERSION)
    try:
        if str(arrays["digest"]) != digest:
            return {}
        keys, found, rows = arrays["key"].tolist(), arrays["found"], arrays["row"]
        if rows.shape != (len(keys), width) or found.shape != (len(keys),):
            raise ValueError(f"rows are {rows.shape}, not {(len(keys), width)}")
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: damaged ({error}); delete it to measure anew") from error
    return {k: row if there else None for k, there, row in zip(keys, found, rows, strict=True)}


def _write_cache(path: Path, digest: str, known: dict, width: int) -> None:
    rows = [np.zeros(width, np.float32) if row is None else row for row in known.values()]
    found = np.array([row is not None for row in known.values()])
    table = {"key": np.array(list(known)), "found": found, "row": np.stack(rows)}
    write_npz(path, FORMAT, VERSION, digest=np.array(digest), **table)
