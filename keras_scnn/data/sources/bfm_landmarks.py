"""The Basel Face Model at its 68 landmarks, to which the parameters of 300W-LP refer.

The annotation of 300W-LP and AFLW2000-3D (Zhu et al., "Face Alignment Across Large Poses: A 3D
Solution", 2016) is, with R of ``geometry.rotations`` and Pose_Para = pitch, yaw, roll, tx, ty, tz,
f: ::

    P = f R (mean + identity_basis Shape_Para + expression_basis Exp_Para) + t

in pixels that count from 1 with y up; y := 451 - y gives pt3d_68. The three arrays can be recovered
from the 68 points of annotated faces, so the whole model need not be downloaded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from keras_scnn.data.sources.mat_files import IMAGE_SIZE, BfmAnnotation, read_bfm_annotation
from keras_scnn.face_models.bfm import MICROMETER
from keras_scnn.geometry.alignment import apply_similarity, similarity_alignment
from keras_scnn.geometry.camera import compose, project
from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.geometry.shapes import shaped
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.photos.files import either_case
from keras_scnn.storage import atomic_path
from keras_scnn.storage.arrays import read_arrays
from keras_scnn.storage.guard import existing_file, reading

MIN_ANNOTATIONS = 400
ARRAYS = ("mean", "identity_basis", "expression_basis")


@dataclass(frozen=True, eq=False)
class BfmLandmarks:
    """The mean face and the bases at 68 landmarks.

    Attributes:
        mean: (68, 3) micrometers; x to the image's right, y up, z towards the viewer.
        identity_basis: (68, 3, K) micrometers per unit of Shape_Para; K is 199 in the files.
        expression_basis: (68, 3, L) micrometers per unit of Exp_Para; L is 29 in the files.

    Raises:
        ValueError: an array has the wrong shape, or a number is not finite.
    """

    mean: np.ndarray
    identity_basis: np.ndarray
    expression_basis: np.ndarray

    def __post_init__(self) -> None:
        for name, last in zip(ARRAYS, ((), ("K",), ("L",)), strict=True):
            array = np.asarray(getattr(self, name), np.float64)
            if array.shape[:2] != (68, 3) or array.ndim != 2 + len(last):
                wanted = ", ".join(["68", "3", *last])
                raise ValueError(f"{name} has the shape {array.shape}; it must be ({wanted})")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} has numbers that are not finite")
            object.__setattr__(self, name, array)

    def points(self, shape: np.ndarray, expression: np.ndarray) -> np.ndarray:
        """(..., 68, 3) micrometers in the face's own frame, from (..., K) and (..., L) parameters.

        Raises:
            ValueError: an array's last axis does not fit the basis.
        """
        for name, given, basis in (
            ("shape", shape, self.identity_basis),
            ("expression", expression, self.expression_basis),
        ):
            if np.shape(given)[-1:] != basis.shape[-1:]:
                raise ValueError(
                    f"{name} is {np.shape(given)}; the basis has {basis.shape[-1]} components"
                )
        identity = np.einsum("vck,...k->...vc", self.identity_basis, shape)
        return (
            self.mean + identity + np.einsum("vck,...k->...vc", self.expression_basis, expression)
        )

    def decode(self, shape: np.ndarray, expression: np.ndarray, pose: np.ndarray) -> np.ndarray:
        """The landmarks of annotated faces.

        Args:
            shape: (..., K) Shape_Para.
            expression: (..., L) Exp_Para.
            pose: (..., 7) Pose_Para.

        Returns:
            (..., 68, 3) float64 px, image frame of the 450 px photo: x, y and depth.

        Raises:
            ValueError: an array's last axis does not fit.
        """
        return project(image_from_bfm(pose), self.points(shape, expression))

    @property
    def digest(self) -> str:
        """SHA-256 of the arrays as float32, as 64 hexadecimal digits."""
        content = hashlib.sha256()
        for name in ARRAYS:
            content.update(np.ascontiguousarray(getattr(self, name), np.float32).tobytes())
        return content.hexdigest()

    def save(self, path: str | os.PathLike) -> None:
        """Write the layout of the published file: three float32 arrays in an .npz file."""
        arrays = {name: getattr(self, name).astype(np.float32) for name in ARRAYS}
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike) -> BfmLandmarks:
        """Read a file of this layout, such as ``bfm_landmarks68.npz``.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged or lacks an array.
        """
        path = existing_file(
            path,
            f"an .npz file with {', '.join(ARRAYS)} of the 68 landmarks, or a folder of .mat files "
            "with pt3d_68",
        )
        what = f"a .npz file of {', '.join(ARRAYS)}"
        with reading(path, what):
            file = read_arrays(path, ARRAYS, what)
            if missing := [name for name in ARRAYS if name not in file]:
                raise ValueError(f"{', '.join(missing)} missing")
            return cls(*(file[name] for name in ARRAYS))


def image_from_bfm(pose: np.ndarray) -> np.ndarray:
    """Cameras of Pose_Para.

    Args:
        pose: (..., 7) pitch, yaw, roll in radians, tx, ty, tz in px that count from 1 with y up,
            f in px per micrometer.

    Returns:
        (..., 3, 4) float64 cameras of ``geometry.camera``, but px per micrometer: image frame of
        the 450 px photo.

    Raises:
        ValueError: the last axis does not have length 7.
    """
    pose = np.float64(shaped("pose", pose, 7))
    x, y, z = np.moveaxis(pose[..., 3:6], -1, 0)
    # x counts from 1. In the files' convention y becomes 451 - y; minus 1, it counts from 0.
    translation = np.stack([x - 1, IMAGE_SIZE - y, z], axis=-1)
    return compose(rotation_from_euler(pose[..., :3]), pose[..., 6], translation)


@dataclass(frozen=True, eq=False)
class RecoveredBasis:
    """Result of ``recover_bfm_landmarks``.

    Attributes:
        basis: the mean and the bases.
        residual_px: root mean square distance of the annotated to the decoded landmarks, px.
        worst_px: the largest of those distances.
        n_annotations: number of faces from which it was recovered.
        passed_over: names of files that are damaged or have no parameters.
    """

    basis: BfmLandmarks
    residual_px: float
    worst_px: float
    n_annotations: int
    passed_over: tuple[str, ...] = ()


def recover_bfm_landmarks(annotations: Iterable[BfmAnnotation]) -> RecoveredBasis:
    """Estimate the mean and the bases from annotated landmarks, by linear least squares.

    Each face's landmarks, transformed to the model's frame by its annotated pose, are linear in
    its parameters. The squared distance in the image, in px, is minimized.

    Args:
        annotations: faces with landmarks, 400 or more, e.g. from ``read_bfm_annotation`` for the
            files of AFLW2000-3D. Further poses of the same face count, but add little.

    Raises:
        ValueError: fewer than 400 faces have landmarks, or the faces do not differ enough.
    """
    faces = [a for a in annotations if a.landmarks is not None]
    if len(faces) < MIN_ANNOTATIONS:
        raise ValueError(
            f"{len(faces)} annotations with pt3d_68; {MIN_ANNOTATIONS} or more are needed to "
            "recover the landmark basis (AFLW2000-3D has 2,000)"
        )
    pixels = np.stack([a.pose[6] for a in faces])[:, None]
    weights = [np.concatenate([[1.0], a.shape, a.expression]) for a in faces]
    design = pixels * np.stack(weights)
    target = pixels * np.stack([_model_points(a).reshape(-1) for a in faces])
    norms = np.maximum(np.linalg.norm(design, axis=0), np.finfo(float).tiny)
    solution, _, rank, _ = np.linalg.lstsq(design / norms, target, rcond=None)
    if rank < design.shape[1]:
        raise ValueError(
            f"the {len(faces)} annotations span {rank} of the {design.shape[1]} unknowns of a "
            "landmark; annotations of more different faces are needed"
        )
    distance = np.linalg.norm(
        (design @ (solution / norms[:, None]) - target).reshape(-1, 3), axis=1
    )
    rows = (solution / norms[:, None]).T.reshape(68, 3, -1)
    identity, expression = np.split(rows[..., 1:], [len(faces[0].shape)], axis=-1)
    basis = BfmLandmarks(rows[..., 0], identity, expression)
    rms = float(np.sqrt(np.mean(distance**2)))
    return RecoveredBasis(basis, rms, float(distance.max()), len(faces))


def recover_from_folder(folder: str | os.PathLike) -> RecoveredBasis:
    """``recover_bfm_landmarks`` from all .mat files in a folder that have landmarks.

    Raises:
        ValueError: see ``recover_bfm_landmarks``.
    """
    annotations, passed_over = [], []
    files = sorted(p for p in Path(folder).iterdir() if p.name.endswith(either_case(".mat")))
    for path in tqdm(files, desc="annotations", leave=False, delay=1):
        try:
            annotations.append(read_bfm_annotation(path))
        except ValueError:
            passed_over.append(path.name)  # 400 good ones are enough
    try:
        result = recover_bfm_landmarks(annotations)
        return dataclasses.replace(result, passed_over=tuple(passed_over))
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def _model_points(annotation: BfmAnnotation) -> np.ndarray:
    """(68, 3) the annotated landmarks without the pose, micrometers in the face's own frame."""
    camera = image_from_bfm(annotation.pose)
    return (annotation.landmarks - camera[:, 3]) @ np.linalg.inv(camera[:, :3]).T


def with_annotated_mean(model: MorphableModel, basis: BfmLandmarks) -> MorphableModel:
    """The face model with landmark offsets that move its mean face's landmarks to those of BFM.

    Offsets learned only from photos can absorb a mean expression or a mean shape, which makes
    neutral shapes wrong. The annotation's own mean face has neither.

    Args:
        model: any face model; its current offsets are ignored.
        basis: of the annotation; its mean face is aligned to the model's by a similarity.
    """
    bare = model.replace(landmark_offsets=np.zeros((68, 3), np.float32))
    own = bare.landmarks().astype(np.float64)
    mean = basis.mean * MICROMETER
    aligned = apply_similarity(*similarity_alignment(mean, own), mean)
    return model.replace(landmark_offsets=(aligned - own).astype(np.float32))
