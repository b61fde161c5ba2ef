"""Reader of the .mat files of 300W-LP and AFLW2000-3D, which annotate one face each."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_scnn.storage.matlab import read_mat_arrays

IMAGE_SIZE = 450  # px, side of both data sets' square photos
PHOTO_SIZE = IMAGE_SIZE, IMAGE_SIZE
LANDMARKS, POSE = {"pt3d_68": (3, 68)}, {"Pose_Para": (1, 7)}
FACE = {"Shape_Para": (199, 1), "Exp_Para": (29, 1)}


@dataclass(frozen=True, eq=False)
class BfmAnnotation:
    """The Basel Face Model's parameters of one photo, in the files' own convention.

    Attributes:
        shape: (199,) float64 Shape_Para, coefficients of ``BfmLandmarks.identity_basis``.
        expression: (29,) float64 Exp_Para, coefficients of ``BfmLandmarks.expression_basis``.
        pose: (7,) float64 Pose_Para: pitch, yaw, roll in radians, tx, ty, tz in px counted from
            1 with y up, and the scale f in px per micrometer.
        landmarks: (68, 3) float64 px, image frame, from pt3d_68; None if the file has none.
    """

    shape: np.ndarray
    expression: np.ndarray
    pose: np.ndarray
    landmarks: np.ndarray | None = None


def read_bfm_annotation(path: str | os.PathLike, data_set: str = "300W-LP") -> BfmAnnotation:
    """Read the parameters of one face, and its 68 landmarks if the file has them.

    Args:
        path: of the file.
        data_set: its name, for messages.

    Raises:
        FileNotFoundError, ValueError: see ``read_mat``; or the scale is 0.
    """
    arrays = read_mat(path, {**FACE, **POSE}, data_set, optional=LANDMARKS)
    shape, expression, pose = (arrays[key].reshape(-1) for key in (*FACE, *POSE))
    if not pose[6]:  # in published files it may be negative
        raise ValueError(f"{path}: the scale in Pose_Para is 0; a face needs another one")
    points = arrays.get("pt3d_68")
    landmarks = None if points is None else image_landmarks(points)
    return BfmAnnotation(shape, expression, pose, landmarks)


def image_landmarks(points: np.ndarray) -> np.ndarray:
    """(68, 3) px, image frame, from pt3d_68 (3, 68), whose pixel coordinates count from 1."""
    return points.T - [1.0, 1.0, 0.0]


def read_mat(
    path: str | os.PathLike,
    shapes: dict[str, tuple[int, int]],
    data_set: str,
    optional: dict[str, tuple[int, int]] | None = None,
) -> dict[str, np.ndarray]:
    """Read arrays of a MATLAB 5 file as float64.

    Args:
        path: the file.
        shapes: the required arrays, with their shapes.
        data_set: whose files have these, for messages.
        optional: arrays that it may have, with their shapes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, lacks an array, or has one with another shape or with
            numbers that are not finite.
    """
    path, optional = Path(path), optional or {}
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; photos and .mat files come in pairs")
    arrays = read_mat_arrays(path, [*shapes, *optional])
    given = {name: shape for name, shape in optional.items() if name in arrays}
    wanted = {**shapes, **given}
    return {name: _checked(path, arrays, name, wanted[name], data_set) for name in wanted}


def _checked(path: Path, arrays: dict, name: str, shape: tuple, data_set: str) -> np.ndarray:
    given = arrays[name].shape if name in arrays else "missing"
    if given != shape:
        raise ValueError(f"{path}: {name} is {given}; {data_set} has {shape}")
    if arrays[name].dtype.kind not in "iuf" or not np.isfinite(arrays[name]).all():
        raise ValueError(f"{path}: {name} must hold finite numbers")
    return arrays[name].astype(np.float64)
