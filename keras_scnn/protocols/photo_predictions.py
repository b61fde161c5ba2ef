"""Reconstructs each photo of a measurement once, as a user would, and caches the predictions.

The largest face of a photo is found by the product's own detector and reconstructed by
``Reconstructor``, in two passes. Predictions are cached in a file beside the results, by the
preset's digest and the photo's content: the next measurement with the same weights reuses them,
also after an interrupted one. Failures are cached too, unless their cause is this machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from keras_scnn.geometry.camera import euler_from_camera, project
from keras_scnn.io import read_image
from keras_scnn.models import Preset
from keras_scnn.models.preset_network import PresetData
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import FaceParameters
from keras_scnn.photos.cropping import FaceBox
from keras_scnn.reconstruction.reconstructor import Reconstructor, provenance
from keras_scnn.storage import read_npz, write_npz
from keras_scnn.storage.guard import is_of_content
from keras_scnn.storage.shards import digest, file_digest
from keras_scnn.storage.text import counted

FORMAT, VERSION = "keras_scnn.photo_predictions", 2
BATCH = 64
GROUP_PIXELS = 50_000_000  # the network runs whenever 150 MB of photos are waiting for it
KEPT_EVERY = 16  # batches between writes of the cache
NOT_FINITE = "the network's numbers for it are not finite"
Row = np.ndarray | str
"""(width,) float32 parameters and features of a photo, or the reason why it has none."""


@dataclass(frozen=True, eq=False)
class PhotoPredictions:
    """The faces of those n of N photos in which one was found.

    Attributes:
        face_model: of the parameters.
        kept: (n,) indices of these photos among the N, ascending.
        parameters: pose (n, 3, 4) image_from_model, px of the photo per mm; identity (n, K);
            expression (n, L).
        features: (n, F) float32 of unit length, or None where the preset has no feature head.
        n_photos: N.
        left_out: path and reason for each of the other photos.
    """

    face_model: MorphableModel
    kept: np.ndarray
    parameters: FaceParameters
    features: np.ndarray | None
    n_photos: int
    left_out: tuple[str, ...] = ()

    @property
    def position(self) -> np.ndarray:
        """(N,) the row of each photo; -1 if it has none."""
        rows = np.full(self.n_photos, -1)
        rows[self.kept] = np.arange(len(self.kept))
        return rows

    @property
    def landmarks(self) -> np.ndarray:
        """(n, 68, 3) px and depth, image frame, landmark offsets included."""
        points = self.face_model.landmarks(self.parameters.identity, self.parameters.expression)
        return project(self.parameters.pose, points)

    @property
    def yaw_degrees(self) -> np.ndarray:
        """(n,) predicted yaw."""
        return np.degrees(euler_from_camera(self.parameters.pose)[..., 1])


@dataclass(eq=False)
class PhotoPredictor:
    """Reconstructs the largest face of photos, each photo once.

    Args:
        reconstructor: of the preset.
        digest: of the predictions' ``provenance``; a cache with another digest is not used.
        cache: the file of predictions; None keeps them in memory only.
        find_face: from a photo to a box; None for the reconstructor's ``find_largest``.
    """

    reconstructor: Reconstructor
    digest: str = ""
    cache: Path | None = None
    find_face: Callable[[np.ndarray], FaceBox] | None = None
    _known: dict[str, Row] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.cache is not None and self.cache.is_file():
            self._known = _read_cache(self.cache, self.digest, self._width)

    @classmethod
    def from_preset(
        cls, name_or_path: str | os.PathLike, folder: Path | None = None
    ) -> PhotoPredictor:
        """For a preset by name or folder; predictions are cached in ``folder``, if given.

        Raises:
            FileNotFoundError, ValueError: as ``Reconstructor.from_preset``; or the file of
                predictions is damaged.
        """
        key = digest(provenance(name_or_path))
        reconstructor = Reconstructor.from_preset(name_or_path)
        if folder is None:
            return cls(reconstructor, key)
        return cls(reconstructor, key, folder / f"predictions-{key[:16]}.npz")

    @property
    def preset(self) -> Preset | PresetData:
        """The preset that makes the predictions."""
        return self.reconstructor.preset

    @property
    def _width(self) -> int:
        return self.preset.layout.size + self.preset.feature_size

    def __call__(self, paths: Sequence[Path], missing_ok: bool = False) -> PhotoPredictions:
        """The faces of photos; one that was predicted before is not processed again.

        Args:
            paths: N photos.
            missing_ok: leave out photos that do not exist, instead of raising.

        Raises:
            FileNotFoundError: a photo, or the face detector's package, is missing.
            ValueError: no photo shows a face for which the network predicts finite numbers.
        """
        keys = [_key(path, missing_ok) for path in paths]
        todo = {k: p for (k, _), p in zip(keys, paths, strict=True) if k and k not in self._known}
        transient = self._measure(list(todo.items())) if todo else {}
        known = self._known | transient
        rows = [known[key] if key else why for key, why in keys]
        return self._assembled(rows, paths)

    def _measure(self, todo: list[tuple[str, Path]]) -> dict[str, Row]:
        """Predict the rows of photos and cache them, also on an interrupt.

        Returns:
            rows that are not cached, see ``_reconstruct``.
        """
        self.find_face = self.find_face or self.reconstructor.find_largest
        transient: dict[str, Row] = {}
        bar = tqdm(total=len(todo), desc="measuring photos", leave=False, delay=1)
        try:
            with bar:
                for number, start in enumerate(range(0, len(todo), BATCH), 1):
                    part = todo[start : start + BATCH]
                    self._known |= self._reconstruct(part, self.find_face, transient)
                    bar.update(len(part))
                    if number % KEPT_EVERY == 0:
                        self._keep()
        finally:
            self._keep()
        return transient

    def _keep(self) -> None:
        if self.cache is not None and self._known:
            _write_cache(self.cache, self.digest, self._known, self._width)

    def _reconstruct(
        self, batch: list[tuple[str, Path]], find_face: Callable, transient: dict[str, Row]
    ) -> dict[str, Row]:
        """The row of each photo; failures caused by this machine go to ``transient`` instead."""
        rows: dict[str, Row] = {}
        faces: list[tuple[str, np.ndarray, FaceBox]] = []
        pixels = 0
        for key, path in batch:
            try:
                image = read_image(path)
                faces.append((key, image, find_face(image)))
                pixels += image.size // 3
            except (OSError, ValueError) as error:  # not a readable photo, or no face
                failures = rows if is_of_content(error) else transient
                reason = str(error).removeprefix(f"{path}: ")
                failures[key] = reason or type(error).__name__  # '' stands for a row in the cache
            if pixels >= GROUP_PIXELS:
                rows |= self._rows_of(faces)
                faces, pixels = [], 0
        return rows | self._rows_of(faces)

    def _rows_of(self, faces: list[tuple[str, np.ndarray, FaceBox]]) -> dict[str, Row]:
        """Parameters and features of faces, each given as key of the photo, photo, and box."""
        if not faces:
            return {}
        keys, images, boxes = zip(*faces, strict=True)
        outputs = self.reconstructor.reconstruct_many(images, boxes)
        parts = [outputs.parameters.to_vector()]
        parts += [] if outputs.features is None else [outputs.features]
        rows = np.float32(np.concatenate(parts, axis=1))
        known = np.isfinite(rows).all(axis=1)  # in some measures NaN would mean 'no face found'
        return {
            key: row if finite else NOT_FINITE
            for key, row, finite in zip(keys, rows, known, strict=True)
        }

    def _assembled(self, rows: list[Row], paths: Sequence[Path]) -> PhotoPredictions:
        named = list(zip(paths, rows, strict=True))
        left_out = tuple(f"{path}: {row}" for path, row in named if isinstance(row, str))
        kept = [i for i, row in enumerate(rows) if not isinstance(row, str)]
        if not kept:
            photos = counted(len(paths), "photo")
            raise ValueError(f"none of {photos} can be measured; the first: {left_out[0]}")
        table, layout = np.stack([rows[i] for i in kept]), self.preset.layout
        parameters = FaceParameters.from_vector(table[:, : layout.size], layout)
        features = table[:, layout.size :] if self.preset.feature_size else None
        model = self.preset.face_model
        return PhotoPredictions(model, np.array(kept), parameters, features, len(paths), left_out)


def _key(path: Path, missing_ok: bool) -> tuple[str, str]:
    """SHA-256 of a photo's content, so that moving a photo has no effect and changing it has.

    Returns:
        64 hexadecimal digits and ""; or "" and the reason: the photo cannot be opened, or is
        missing and ``missing_ok``.
    """
    try:
        if path.is_file():
            return file_digest(path), ""
    except OSError as error:
        return "", f"cannot be opened ({error.strerror})"
    if not missing_ok:
        raise FileNotFoundError(f"{path}: no such photo, but the list of photos names it")
    return "", "no such photo"


def _read_cache(path: Path, digest: str, width: int) -> dict[str, Row]:
    """Rows by key; {} if the file is for other weights or another procedure."""
    try:
        arrays = read_npz(path, FORMAT, VERSION)
    except ValueError as error:
        raise ValueError(f"{error}; delete it to measure anew") from error
    try:
        if str(arrays["digest"]) != digest:
            return {}
        keys, reasons, rows = arrays["key"].tolist(), arrays["reason"], arrays["row"]
        if rows.shape != (len(keys), width) or reasons.shape != (len(keys),):
            raise ValueError(f"rows are {rows.shape}, not {(len(keys), width)}")
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: damaged ({error}); delete it to measure anew") from error
    return {k: str(why) or row for k, why, row in zip(keys, reasons, rows, strict=True)}


def _write_cache(path: Path, digest: str, known: dict[str, Row], width: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    none = np.zeros(width, np.float32)
    write_npz(
        path,
        FORMAT,
        VERSION,
        digest=np.array(digest),
        key=np.array(list(known)),
        reason=np.array([row if isinstance(row, str) else "" for row in known.values()]),
        row=np.stack([none if isinstance(row, str) else row for row in known.values()]),
    )
