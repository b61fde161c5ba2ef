"""Gaze: where the eyes turn in the head, as expression weights and from the irises in a photo.

All angles are pitch and yaw of an eye in the head, in degrees and in the convention of
``geometry.rotations``: a positive yaw turns the eyes to the subject's right, as it turns the head.
"""

from __future__ import annotations

import numpy as np

from keras_scnn.geometry.camera import FLIP, decompose
from keras_scnn.geometry.landmarks68 import EYES as EYE_LANDMARKS
from keras_scnn.geometry.mesh import sphere_center
from keras_scnn.geometry.rotations import euler_from_rotation, nearest_rotation, pitch_and_yaw
from keras_scnn.meshes.parts import EYES
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import FaceParameters

SIDES = ("Right", "Left")  # the subject's, as everywhere here
PITCH, YAW = 0, 1
UNITS = {"eyeLookUp": PITCH, "eyeLookDown": PITCH, "eyeLookIn": YAW, "eyeLookOut": YAW}
FRONT = 0.8  # cosine: only this part of an eyeball shows, and expressions hardly move the rest
RADIUS_MM = 11.0  # from an eye's center to the center of its iris
# Measured on renderings with known gaze (tests/reconstruction/test_gaze.py): the irises found move
# half as far from the middle of the eye's corners as the model's do, and a head that turns by 1
# degree turns the measured gaze back by 0.28 degrees.
GAIN, TURNED_BACK = 2.0, 0.28
LEAST_TURN = 1.0  # degrees, of a unit at weight 1
MOST_DEGREES = 60.0  # more than an eye can turn
MAX_YAW, LEAST_OPENING = 35.0, 0.12  # of faces, and of their eyes, whose gaze can be measured


def look_names() -> list[str]:
    """Names of ARKit's eight units that turn the eyes, the right eye's first."""
    return [f"{unit}{side}" for side in SIDES for unit in UNITS]


def has_eyes(model: MorphableModel) -> bool:
    """Whether a face model has both eyeballs."""
    return model.regions is not None and {*EYES.values()} <= {*model.regions.tolist()}


def check_eyes(model: MorphableModel) -> None:
    """Raise a ValueError if a face model has no eyeballs."""
    if not has_eyes(model):
        raise ValueError(f"face model '{model.name}' has no eyeballs, which a gaze needs")


def eye_rotations(model: MorphableModel, expression: np.ndarray) -> np.ndarray:
    """(..., 2, 3, 3) rotations of the right and left eye by expression weights (..., L).

    In the model frame; they are the rotations nearest to the motion of the eyeballs' visible part.

    Raises:
        ValueError: the face model has no eyeballs.
    """
    weights, turns = np.asarray(expression, np.float64), []
    for ball in _eyeballs(model):
        rest = model.mean[ball] - sphere_center(model.mean[ball])
        front = rest[:, 2] > FRONT * np.linalg.norm(rest, axis=1)
        moved = np.tensordot(weights, model.expression_basis[ball[front]], axes=(-1, 2))
        turns.append(nearest_rotation(np.swapaxes(moved + rest[front], -1, -2) @ rest[front]))
    return np.stack(turns, axis=-3)


def gaze_degrees(model: MorphableModel, expression: np.ndarray) -> np.ndarray:
    """(..., 2, 2) pitch and yaw of the right and left eye for expression weights (..., L).

    Raises:
        ValueError: as ``eye_rotations``.
    """
    return np.degrees(euler_from_rotation(eye_rotations(model, expression))[..., :2])


def look_weights(model: MorphableModel) -> np.ndarray:
    """(2, L) expression weights that turn both eyes by one degree of pitch, and of yaw.

    They are linear: half of them are negative, which the face model's bounds clip to 0, so that
    ``clip_expression`` leaves the units that turn the eyes to the wanted side.

    Raises:
        ValueError: the face model has no eyeballs, or lacks one of ARKit's eight eyeLook units, or
            one hardly turns its eye.
    """
    weights = np.zeros((2, model.n_expression))
    degrees = gaze_degrees(model, np.eye(model.n_expression))
    for n, name in enumerate(look_names()):
        if name not in model.arkit_names:
            raise ValueError(f"face model '{model.name}' has no '{name}'")
        eye, axis = n // len(UNITS), [*UNITS.values()][n % len(UNITS)]
        i = model.arkit_names.index(name)
        if abs(degrees[i, eye, axis]) < LEAST_TURN:
            raise ValueError(f"face model '{model.name}': '{name}' hardly turns its eye")
        weights[axis, i] = 1 / degrees[i, eye, axis]
    return weights


def measured_gaze(
    model: MorphableModel, parameters: FaceParameters, iris: np.ndarray, corners: np.ndarray
) -> np.ndarray:
    """Pitch and yaw of eyes whose irises were found in photos.

    An eye's center is where the face model has it relative to the corners of the eye. The mean of
    both eyes is more accurate than each: errors of the corners turn the eyes apart.

    Args:
        model: with eyeballs.
        parameters: of n faces, pose image_from_model.
        iris: (n, 2, 2) px, image frame: centers of the right and the left iris.
        corners: (n, 2, 2, 2) px: outer and inner corner of each eye (``photos.iris``).

    Returns:
        (n, 2, 2) float64: pitch and yaw of the right and the left eye; NaN for an iris that is
        farther from the eye's center than an eye can turn.

    Raises:
        ValueError: the face model has no eyeballs.
    """
    rotation, scale, _ = decompose(parameters.pose)
    shift = np.float64(iris) - np.mean(corners, axis=2)
    shift = GAIN * shift / scale[:, None, None] @ FLIP[:2, :2]  # mm, y up
    centers = _centers_from_corners(model, parameters.identity)
    seen = shift - np.einsum("nij,nej->nei", rotation[:, :2], centers)
    aside = np.linalg.norm(seen, axis=-1)
    aside = np.where(aside < RADIUS_MM * np.sin(np.radians(MOST_DEGREES)), aside, np.nan)
    depth = np.sqrt(RADIUS_MM**2 - aside**2)
    ahead = np.einsum("nij,nei->nej", rotation, np.concatenate([seen, depth[..., None]], axis=-1))
    gaze = pitch_and_yaw(ahead)
    gaze[..., YAW] += TURNED_BACK * euler_from_rotation(rotation)[:, 1:2]
    return np.degrees(gaze)


def _centers_from_corners(model: MorphableModel, identity: np.ndarray) -> np.ndarray:
    """(n, 2, 3) mm, model frame: centers of the eyeballs from the middles of the eyes' corners."""
    shapes = model.vertices(identity)
    rows = []
    for side, ball in zip(SIDES, _eyeballs(model), strict=True):
        corners, _ = EYE_LANDMARKS[side.lower()]
        middle = shapes[:, model.landmark_indices[list(corners)]].mean(axis=1)
        rows.append(np.stack([sphere_center(points) for points in shapes[:, ball]]) - middle)
    return np.stack(rows, axis=1)


def _eyeballs(model: MorphableModel) -> list[np.ndarray]:
    """Vertices of the right and the left eyeball."""
    check_eyes(model)
    return [np.flatnonzero(model.regions == EYES[f"eye_{side.lower()}"]) for side in SIDES]
