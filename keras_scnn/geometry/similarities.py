"""Landmarks, cameras and face parameters when a crop is moved by a similarity.

The functions are written once for NumPy, JAX and Keras: ``xp`` is the module of the arrays,
``numpy``, ``jax.numpy`` or ``keras.ops``. A similarity ``moved_from_crop`` (B, 2, 3) maps crop
pixels (pixel centers at integers) to pixels of the moved crop; one of negative determinant mirrors,
which swaps the face's sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from keras_scnn.geometry.landmarks68 import MIRROR68

Array = Any
"""An array of NumPy, JAX or the backend of Keras."""


def determinant(affine: Array) -> Array:
    """(B,) determinants of the linear parts of (B, 2, 3) affine maps."""
    return affine[:, 0, 0] * affine[:, 1, 1] - affine[:, 0, 1] * affine[:, 1, 0]


def invert(affine: Array, xp: ModuleType = np) -> Array:
    """The inverses of (B, 2, 3) affine maps, (B, 2, 3)."""
    a, b, c, d = (affine[:, i, j] for i in (0, 1) for j in (0, 1))
    linear = xp.stack([d, -b, -c, a], axis=-1) / determinant(affine)[:, None]
    linear = xp.reshape(linear, (-1, 2, 2))
    return xp.concatenate([linear, -xp.matmul(linear, affine[:, :, 2:])], axis=-1)


def move_landmarks(landmarks: Array, moved_from_crop: Array, xp: ModuleType = np) -> Array:
    """Landmarks under similarities.

    Args:
        landmarks: (B, 68, 3 or more) x, y in px, depth in px of the crop's scale, and further
            columns, such as a weight, whose values only swap sides.
        moved_from_crop: (B, 2, 3).
        xp: see above.

    Returns:
        the same shape; depth is scaled like x and y.
    """
    factor = determinant(moved_from_crop)
    mirrored = (factor < 0)[:, None, None]
    landmarks = xp.where(mirrored, xp.take(landmarks, MIRROR68, axis=1), landmarks)
    linear = xp.transpose(moved_from_crop[:, :, :2], (0, 2, 1))
    plane = xp.matmul(landmarks[..., :2], linear) + moved_from_crop[:, None, :, 2]
    depth = landmarks[..., 2:3] * xp.sqrt(xp.abs(factor))[:, None, None]
    return xp.concatenate([plane, depth, landmarks[..., 3:]], axis=-1)


def move_parameters(
    vectors: Array, moved_from_crop: Array, mirrors: Sequence[Array], xp: ModuleType = np
) -> Array:
    """Unwhitened parameter vectors under similarities, as ``move_landmarks`` moves landmarks.

    Args:
        vectors: (B, 12 + K + L): the camera crop_from_model (3, 4) row-major, identity, expression.
        moved_from_crop: (B, 2, 3).
        mirrors: for identity (K, K) and expression (L, L), from
            ``morphable_model.mirror_matrices``: a mirrored face has the coefficients
            ``mirror @ coefficients``.
        xp: see above.
    """
    factor = determinant(moved_from_crop)
    parts, start = [_move_camera(vectors[:, :12], moved_from_crop, factor, xp)], 12
    for mirror in mirrors:
        part = vectors[:, start : start + mirror.shape[0]]
        mirrored = xp.matmul(part, xp.transpose(mirror, (1, 0)))
        parts.append(xp.where((factor < 0)[:, None], mirrored, part))
        start += mirror.shape[0]
    return xp.concatenate(parts, axis=-1)


def _move_camera(camera, moved_from_crop, factor, xp):
    """(B, 12) cameras; for a mirrored face the model's x is reversed."""
    camera = xp.reshape(camera, (-1, 3, 4))
    plane = xp.matmul(moved_from_crop[:, :, :2], camera[:, :2])
    shift = xp.concatenate([xp.zeros_like(plane[..., :3]), moved_from_crop[:, :, 2:]], axis=-1)
    depth = xp.sqrt(xp.abs(factor))[:, None, None] * camera[:, 2:]
    moved = xp.concatenate([plane + shift, depth], axis=1)
    x_reversed = xp.concatenate([-moved[..., :1], moved[..., 1:]], axis=-1)
    return xp.reshape(xp.where((factor < 0)[:, None, None], x_reversed, moved), (-1, 12))
