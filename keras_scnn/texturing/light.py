"""A photo's lighting, as spherical harmonics of degree 0 to 2 of the fitted face's normals.

The colors of a matte face of uniform albedo are, in each channel, a linear combination of the nine
harmonics of its normals (Ramamoorthi and Hanrahan, 2001; see ``geometry.shading``). A face's albedo
is not uniform, so the fit is robust: outliers (hair, lips, cast shadows, highlights) count little.
"""

from __future__ import annotations

import numpy as np

from keras_scnn.geometry.shading import spherical_harmonics

ROUNDS = 8
TUKEY = 4.685  # 95 % efficient for normal errors
# Penalty on the coefficients of degree 1 and 2: a face shows half of the sphere, and albedo
# explains the finest variations better than light does.
RIDGE = np.array([0.0] + [0.02] * 3 + [0.12] * 5)
COLOR_RIDGE = np.array([0.0] + [0.3] * 3 + [1.0] * 5)  # on a channel's deviation from gray light
LEAST, MOST = 0.45, 2.0  # range of the irradiance, whose median on skin is 1
SAMPLES = 6000


def estimate_light(color: np.ndarray, normals: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Estimate the lighting of a photo.

    Args:
        color: (..., 3) the photo in linear RGB.
        normals: (..., 3) unit vectors, y up, z to the viewer.
        weight: (...) at least 0: confidence that this is visible skin.

    Returns:
        (9, 3) float64 coefficients, in a unit that makes the median of ``shading`` on skin 1; even
        light if there is too little skin.
    """
    sure = np.flatnonzero(weight.ravel() > 0.05)
    if len(sure) < 50:
        return even_light()
    sure = sure[:: max(1, len(sure) // SAMPLES)]
    basis = spherical_harmonics(normals.reshape(-1, 3)[sure].astype(np.float64))
    values, given = color.reshape(-1, 3)[sure].astype(np.float64), weight.ravel()[sure]
    gray, weight = _robust_fit(basis, values.mean(axis=1), given)
    light = np.stack([_near(gray, basis, values[:, i], weight) for i in range(3)], axis=1)
    lit = np.median(np.maximum(basis @ light, 0), axis=0)
    if (lit < 1e-4).any():
        return even_light()
    return light / lit


def even_light() -> np.ndarray:
    """(9, 3): ``shading`` is 1 everywhere."""
    light = np.zeros((9, 3))
    light[0] = 1 / spherical_harmonics(np.array([0.0, 0, 1]))[0]
    return light


def shading(light: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """(..., 3) float32 irradiance at normals (..., 3), clipped to 0.45 to 2."""
    return np.clip(spherical_harmonics(normals) @ np.float32(light), LEAST, MOST)


def _robust_fit(
    basis: np.ndarray, values: np.ndarray, given: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(9,) by iteratively reweighted least squares with Tukey's weights, and the weights."""
    weight = given
    for _ in range(ROUNDS):
        fit = _ridge_fit(basis, values, weight, RIDGE)
        residual = values - basis @ fit
        spread = 1.4826 * np.median(np.abs(residual)) + 1e-4
        fresh = given * np.clip(1 - (residual / (TUKEY * spread)) ** 2, 0, 1) ** 2
        if fresh.sum() < 1e-6:
            break
        weight = fresh
    return fit, weight


def _near(gray: np.ndarray, basis: np.ndarray, values: np.ndarray, weight: np.ndarray):
    """(9,) light of one channel: the scaled gray light, plus a small deviation."""
    lit = basis @ gray
    scale = (weight * values * lit).sum() / max((weight * lit**2).sum(), 1e-12)
    return scale * gray + _ridge_fit(basis, values - scale * lit, weight, COLOR_RIDGE)


def _ridge_fit(basis, values, weight, ridge) -> np.ndarray:
    normal = (basis * weight[:, None]).T @ basis + np.diag(ridge + 1e-6) * weight.sum()
    return np.linalg.solve(normal, basis.T @ (weight * values))
