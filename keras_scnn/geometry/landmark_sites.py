"""Where an annotation marks other sites of the face than a face model does."""

from __future__ import annotations

import numpy as np

TOLERANCE_PX = 2.0  # from which a difference counts as an outlier
ITERATIONS = 10  # of the reweighting


def site_offset(camera: np.ndarray, difference: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The 3D offset whose projections best explain a landmark's differences (Huber, IRLS).

    Args:
        camera: (M, 2, 3) px per mm, the linear part of each photo's camera.
        difference: (M, 2) px, of the landmark by one annotation from that by another.
        weight: (M,) 0 to 1; with 0 a photo does not count.

    Returns:
        (3,) mm, in the frame of the model; the shortest one where the views leave a direction open.
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
