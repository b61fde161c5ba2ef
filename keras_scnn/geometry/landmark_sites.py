"""Offsets between the sites that an annotation marks on a face and those of a face model."""

from __future__ import annotations

import numpy as np

TOLERANCE_PX = 2.0  # residual above which a difference counts as an outlier
ITERATIONS = 10  # of the reweighting


def site_offset(camera: np.ndarray, difference: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The 3D offset whose projections best explain a landmark's differences (Huber, IRLS).

    Args:
        camera: (M, 2, 3) px per mm, the linear part of each photo's camera.
        difference: (M, 2) px, the landmark in one annotation minus that in the other.
        weight: (M,) 0 to 1; 0 ignores a photo.

    Returns:
        (3,) mm, in the frame of the model; the shortest one if the views do not determine it.
    """
    keep = weight > 0
    camera, difference, weight = camera[keep], difference[keep], weight[keep]
    robust = weight
    for _ in range(ITERATIONS):
        normal = np.einsum("m,mij,mik->jk", robust, camera, camera)
        moment = np.einsum("m,mij,mi->j", robust, camera, difference)
        offset = np.linalg.lstsq(normal, moment, rcond=None)[0]
        error = np.linalg.norm(difference - camera @ offset, axis=1)
        robust = weight * np.minimum(1, TOLERANCE_PX / np.maximum(error, 1e-9))
    return offset
