"""How far eyes and mouth are open, from 68 landmarks in the image."""

from __future__ import annotations

import numpy as np

from keras_scnn.geometry.landmarks68 import EYES, MOUTH


def openings(landmarks: np.ndarray) -> dict[str, np.ndarray]:
    """Openings from (..., 68, 2 or more) landmarks, px; depth is not used.

    Returns:
        'right', 'left' (the subject's eyes) and 'mouth', (...) float64: mean distance between upper
        and lower lid over the distance between the eye's corners (Soukupova and Cech, "Real-Time
        Eye Blink Detection using Facial Landmarks", 2016), and the same ratio for the inner lips.

    Raises:
        ValueError: the shape is not (..., 68, 2 or more).
    """
    points = np.asarray(landmarks, np.float64)
    if points.ndim < 2 or points.shape[-2] != 68 or points.shape[-1] < 2:
        raise ValueError(f"landmarks have the shape {points.shape}; expected (..., 68, 2 or more)")
    sites = {**EYES, "mouth": MOUTH}
    return {name: _opening(points[..., :2], *site) for name, site in sites.items()}


def _opening(points: np.ndarray, corners: tuple[int, int], lids) -> np.ndarray:
    width = _distance(points, *corners)
    return np.mean([_distance(points, *pair) for pair in lids], axis=0) / width


def _distance(points: np.ndarray, one: int, other: int) -> np.ndarray:
    return np.linalg.norm(points[..., one, :] - points[..., other, :], axis=-1)
