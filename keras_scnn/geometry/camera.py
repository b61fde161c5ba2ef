"""The library's frames and its camera. Every other module refers to this one.

Model frame: millimeters; x to the image's right for a frontal face, y up, z towards the viewer.

Image frame (of a photo or of a crop): pixels; x right, y down, pixel centers at integers, the
first pixel's center at (0, 0).

Camera: a 3x4 weak-perspective (scaled orthographic) matrix named ``image_from_model`` or
``crop_from_model``. Rows 0 and 1 give x and y in pixels, row 2 gives depth in pixels, larger
nearer to the viewer. Its linear part is ``scale * FLIP @ rotation`` with a rotation of the y-up
model frame, so only the projection flips y; the scale is in pixels per millimeter.
"""

from __future__ import annotations

import numpy as np

from keras_scnn.geometry.rotations import euler_from_rotation, nearest_rotation
from keras_scnn.geometry.shapes import shaped

FLIP = np.diag([1.0, -1.0, 1.0])
FLIP.setflags(write=False)


def project(image_from_model: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Project model points into the image.

    Args:
        image_from_model: (..., 3, 4) cameras.
        points: (..., N, 3), mm, model frame; leading axes broadcast against the cameras'.

    Returns:
        (..., N, 3): x, y and depth in pixels, image frame.

    Raises:
        ValueError: the cameras are not (..., 3, 4).
    """
    camera = shaped("image_from_model", image_from_model, 3, 4)
    linear = np.swapaxes(camera[..., :3], -1, -2)
    return np.asarray(points) @ linear + camera[..., None, :, 3]


def compose(rotation: np.ndarray, scale: np.ndarray | float, translation: np.ndarray) -> np.ndarray:
    """Build cameras.

    Args:
        rotation: (..., 3, 3) rotations in the model frame.
        scale: (...) pixels per millimeter.
        translation: (..., 3) pixels, image frame: where the model's origin appears. Leading axes of
            the three broadcast.

    Returns:
        (..., 3, 4) cameras image_from_model.

    >>> camera = compose(np.eye(3), 2.0, np.array([60.0, 50.0, 0.0]))  # 2 px per mm
    >>> project(camera, np.array([[10.0, 5.0, 3.0]])).tolist()  # up in the face is up in the image
    [[80.0, 40.0, 6.0]]
    """
    linear = np.asarray(scale)[..., None, None] * (FLIP @ rotation)
    column = np.asarray(translation)[..., None]
    lead = np.broadcast_shapes(linear.shape[:-2], column.shape[:-2])
    parts = (np.broadcast_to(part, (*lead, *part.shape[-2:])) for part in (linear, column))
    return np.concatenate([*parts], axis=-1)


def decompose(image_from_model: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split cameras into the arguments of ``compose``.

    A regressed camera is not exactly a scaled rotation: its rotation is the nearest one, its
    scale the mean length of the two image rows (the depth row is ignored).

    Args:
        image_from_model: (..., 3, 4) cameras.

    Returns:
        rotation (..., 3, 3), scale (...) in px per mm, translation (..., 3) in px; the rotation is
        NaN where a camera is not finite, such as that of landmarks without a fit.

    Raises:
        ValueError: the cameras are not (..., 3, 4).
    """
    camera = shaped("image_from_model", image_from_model, 3, 4)
    linear = camera[..., :3]
    scale = np.linalg.norm(linear[..., :2, :], axis=-1).mean(axis=-1)
    known = np.isfinite(linear).all(axis=(-2, -1))[..., None, None]
    rotation = nearest_rotation(FLIP @ np.where(known, linear, 0))
    return np.where(known, rotation, np.nan), scale, camera[..., 3]


def euler_from_camera(image_from_model: np.ndarray) -> np.ndarray:
    """(..., 3) pitch, yaw, roll in radians of heads seen by cameras (..., 3, 4); NaN where a camera
    is not finite. See ``euler_from_rotation``; errors as ``decompose``.
    """
    return euler_from_rotation(decompose(image_from_model)[0])


def transform_camera(to_from: np.ndarray, image_from_model: np.ndarray) -> np.ndarray:
    """The camera of a transformed image, such as a crop: ``to_from @ image_from_model``.

    Args:
        to_from: (..., 2, 3) 2D similarities, e.g. ``crop_from_image``, px. One that mirrors gives
            a camera that projects correctly, but whose linear part is not a scaled rotation.
        image_from_model: (..., 3, 4) cameras.

    Returns:
        (..., 3, 4) cameras, e.g. ``crop_from_model``; depth is scaled like x and y.

    Raises:
        ValueError: the shapes do not match.
    """
    to_from = shaped("to_from", to_from, 2, 3)
    camera = shaped("image_from_model", image_from_model, 3, 4)
    image_rows = to_from[..., :2] @ camera[..., :2, :]
    image_rows[..., 3] += to_from[..., 2]
    scale = np.sqrt(np.abs(np.linalg.det(to_from[..., :2])))[..., None, None]
    return np.concatenate([image_rows, scale * camera[..., 2:, :]], axis=-2)


def angle_in_image(image_from_model: np.ndarray) -> np.ndarray:
    """The in-plane rotation of heads.

    Args:
        image_from_model: (..., 3, 4) cameras.

    Returns:
        (...) radians, -pi to pi: the angle from the image's up direction to the projected up
        direction of the model, clockwise.

    Raises:
        ValueError: the cameras are not (..., 3, 4).
    """
    up = shaped("image_from_model", image_from_model, 3, 4)[..., :2, 1]
    return np.arctan2(up[..., 0], -up[..., 1])
