"""Curves of error, as numbers to draw."""

from __future__ import annotations

import numpy as np
from scipy.stats import bootstrap

YAW_STEP_DEGREES = 10.0
LEAST_FACES = 3


def cumulative_error(errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cumulative error curve.

    Args:
        errors: (M,) of the faces, M above 0.

    Returns:
        (M + 1,) errors by rising size, from 0, and the share of the faces, 0 to 1, whose error is
        at most that.
    """
    errors = np.sort(np.asarray(errors, np.float64))
    return np.concatenate([[0], errors]), np.arange(len(errors) + 1) / len(errors)


def error_against_yaw(
    errors: np.ndarray, yaw_degrees: np.ndarray, step: float = YAW_STEP_DEGREES, seed: int = 0
) -> np.ndarray:
    """Mean error in steps of signed yaw, with the bootstrap's percentile interval of each.

    Args:
        errors: (M,) of the faces.
        yaw_degrees: (M,).
        step: width of the steps, degrees; one has its middle at 0.
        seed: of the bootstrap.

    Returns:
        (B, 4) float64: middle of the step in degrees, mean, low and high end of the 95 %
        interval; steps with fewer than 3 faces are left out.
    """
    errors, place = np.asarray(errors, np.float64), np.round(np.asarray(yaw_degrees) / step)
    rows = []
    for middle in np.unique(place):
        part = errors[place == middle]
        if len(part) < LEAST_FACES:
            continue
        rng = np.random.default_rng(seed)
        ends = bootstrap((part,), np.mean, n_resamples=999, method="percentile", rng=rng)
        rows.append((middle * step, part.mean(), *ends.confidence_interval))
    return np.array(rows).reshape(-1, 4)
