"""Rotation matrices and the Euler angles of the field's annotation files.

The angles are those of the .mat files of 300W-LP and AFLW2000-3D (Zhu et al., "Face Alignment
Across Large Poses: A 3D Solution", 2016): ``R = Rx(pitch) Ry(yaw) Rz(roll)`` with ::

    Rx = [1 0 0; 0 c s; 0 -s c]   Ry = [c 0 -s; 0 1 0; s 0 c]   Rz = [c s 0; -s c 0; 0 0 1]

in a frame with x to the right, y up and z towards the viewer. Angles are radians.
"""

from __future__ import annotations

import warnings

import numpy as np
from scipy.spatial.transform import Rotation

from keras_scnn.geometry.shapes import shaped


def rotation_from_euler(euler: np.ndarray) -> np.ndarray:
    """Rotation matrices of Euler angles.

    Args:
        euler: (..., 3) pitch, yaw, roll, radians.

    Returns:
        (..., 3, 3) float64 rotation matrices, determinant +1.

    Raises:
        ValueError: the last axis is not 3.

    >>> turned = rotation_from_euler(np.array([0.0, np.pi / 2, 0.0])) @ np.array([0.0, 0.0, 1.0])
    >>> turned.round(6).tolist()  # yaw of 90 degrees: the nose points to the image's left
    [-1.0, 0.0, 0.0]
    """
    euler = np.float64(shaped("euler", euler, 3))
    # The files' elementary matrices rotate in the opposite direction to SciPy's.
    matrices = Rotation.from_euler("XYZ", -euler.reshape(-1, 3)).as_matrix()
    return matrices.reshape(*euler.shape[:-1], 3, 3)


def euler_from_rotation(rotation: np.ndarray) -> np.ndarray:
    """Euler angles of rotation matrices.

    Args:
        rotation: (..., 3, 3) rotation matrices.

    Returns:
        (..., 3) float64 pitch, yaw, roll in radians: pitch and roll in [-pi, pi], yaw in
        [-pi/2, pi/2]. At yaw = +-pi/2 only a combination of pitch and roll is defined, and
        roll is 0. NaN where a matrix is not finite.

    Raises:
        ValueError: the matrices are not (..., 3, 3), or one has no positive determinant.
    """
    rotation = np.float64(shaped("rotation", rotation, 3, 3))
    known = np.isfinite(rotation).all(axis=(-2, -1))[..., None]
    rotation = np.where(known[..., None], rotation, np.eye(3))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Gimbal lock")
        angles = Rotation.from_matrix(rotation.reshape(-1, 3, 3)).as_euler("XYZ")
    return np.where(known, -angles.reshape(*rotation.shape[:-2], 3), np.nan)


def pitch_and_yaw(directions: np.ndarray) -> np.ndarray:
    """Euler angles, without roll, of the rotations that turn the z axis to directions.

    Args:
        directions: (..., 3), of any length but 0.

    Returns:
        (..., 2) float64 pitch and yaw, radians; NaN where a direction is.

    >>> np.degrees(pitch_and_yaw(np.array([-1.0, 0, 1]))).round(6).tolist()  # the image's left
    [0.0, 45.0]
    """
    x, y, z = np.moveaxis(np.asarray(directions, np.float64), -1, 0)
    return np.stack([np.arctan2(y, z), np.arctan2(-x, np.hypot(y, z))], axis=-1)


def nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """The rotation nearest to a matrix in the Frobenius norm (Kabsch 1976, Umeyama 1991).

    Args:
        matrix: (..., D, D) of rank at least D - 1.

    Returns:
        (..., D, D) orthonormal matrices of determinant +1.
    """
    u, _, vt = np.linalg.svd(matrix)
    u[..., :, -1] *= np.sign(np.linalg.det(u @ vt))[..., None]
    return u @ vt


def rotation_angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angle of the rotation from ``a`` to ``b``.

    Args:
        a: (..., 3, 3) rotation matrices.
        b: (..., 3, 3) rotation matrices; broadcast against ``a``.

    Returns:
        (...) radians in [0, pi].

    Raises:
        ValueError: the matrices are not (..., 3, 3), for example whole cameras.
    """
    between = np.swapaxes(shaped("a", a, 3, 3), -1, -2) @ shaped("b", b, 3, 3)
    # The arc cosine of the trace alone loses half the digits at small angles.
    skew = between - np.swapaxes(between, -1, -2)
    sine = np.linalg.norm(skew, axis=(-2, -1)) / np.sqrt(8.0)
    cosine = (np.trace(between, axis1=-2, axis2=-1) - 1) / 2
    return np.arctan2(sine, cosine)
