"""Least-squares alignment of point sets: similarity (Umeyama 1991) and affine."""

from __future__ import annotations

import numpy as np

from keras_scnn.geometry.rotations import nearest_rotation


def similarity_alignment(
    source: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray | None = None,
    with_scale: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The similarity that brings ``source`` nearest to ``target``.

    Minimizes ``sum(weights * |target - (scale * rotation @ source + translation)|^2)``
    (Umeyama, "Least-squares estimation of transformation parameters between two point
    patterns", 1991).

    Args:
        source: (..., N, D) points, D is 2 or 3, any unit.
        target: (..., N, D) points; leading axes broadcast against the source's.
        weights: (..., N) non-negative weights with a positive sum; None for equal weights. Points
            of weight 0 are ignored, even if they are NaN.
        with_scale: False keeps the scale at 1 (rigid motion).

    Returns:
        scale (...), rotation (..., D, D) of determinant +1, translation (..., D), float64. The
        scale is NaN if all source points coincide.

    Raises:
        ValueError: the shapes do not match, a weight is negative, or the weights of a set sum to 0.
    """
    source, target = np.float64(source), np.float64(target)
    _check_counts(source, target)
    source, target = np.broadcast_arrays(source, target)
    weights = _normalized(weights, source)
    source_center, x = _centered(source, weights)
    target_center, y = _centered(target, weights)
    covariance = np.swapaxes(y * weights, -1, -2) @ x
    rotation = nearest_rotation(covariance)
    scale = np.ones(source.shape[:-2])
    if with_scale:
        scale = (rotation * covariance).sum((-2, -1)) / (weights * x**2).sum((-2, -1))
    moved = scale[..., None] * (rotation @ source_center[..., None])[..., 0]
    return scale, rotation, target_center - moved


def apply_similarity(
    scale: np.ndarray, rotation: np.ndarray, translation: np.ndarray, points: np.ndarray
) -> np.ndarray:
    """Map points: ``scale * rotation @ point + translation``.

    Args:
        scale, rotation, translation: (...), (..., D, D), (..., D), of ``similarity_alignment``.
        points: (..., N, D); leading axes broadcast.

    Returns:
        (..., N, D).

    >>> turn = np.array([[0.0, -1.0], [1.0, 0.0]])  # 90 degrees, counter-clockwise
    >>> apply_similarity(2.0, turn, np.zeros(2), np.array([[1.0, 0.0]])).tolist()
    [[0.0, 2.0]]
    """
    turned = np.asarray(points) @ np.swapaxes(rotation, -1, -2)
    return np.asarray(scale)[..., None, None] * turned + np.asarray(translation)[..., None, :]


def affine_alignment(
    source: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """The affine map that brings ``source`` nearest to ``target`` in weighted least squares.

    Args:
        source: (..., N, D) points, any unit.
        target: (..., N, E) points; leading axes broadcast against the source's.
        weights: (..., N) non-negative weights with a positive sum; None for equal weights. Points
            of weight 0 are ignored, even if they are NaN.

    Returns:
        (..., E, D + 1) float64 matrices for ``apply_affine``. If the source spans less than D
        dimensions (all points in a plane), the map of minimum norm.

    Raises:
        ValueError: the shapes do not match, a weight is negative, or the weights of a set sum to 0.
    """
    source, target = np.float64(source), np.float64(target)
    _check_counts(source, target)
    lead = np.broadcast_shapes(source.shape[:-2], target.shape[:-2])
    source = np.broadcast_to(source, lead + source.shape[-2:])
    target = np.broadcast_to(target, lead + target.shape[-2:])
    weights = _normalized(weights, source)
    source_center, x = _centered(source, weights)
    target_center, y = _centered(target, weights)
    root = np.sqrt(weights)
    linear = np.swapaxes(np.linalg.pinv(root * x) @ (root * y), -1, -2)
    shift = target_center - (linear @ source_center[..., None])[..., 0]
    return np.concatenate([linear, shift[..., None]], axis=-1)


def apply_affine(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points by affine matrices.

    Args:
        matrix: (..., E, D + 1), of ``affine_alignment``.
        points: (..., N, D); leading axes broadcast against the matrices'.

    Returns:
        (..., N, E).
    """
    matrix = np.asarray(matrix)
    linear = np.swapaxes(matrix[..., :-1], -1, -2)
    return np.asarray(points) @ linear + matrix[..., None, :, -1]


def _centered(points: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points = np.where(weights > 0, points, 0)
    center = (weights * points).sum(axis=-2)
    return center, points - center[..., None, :]


def _check_counts(source: np.ndarray, target: np.ndarray) -> None:
    """Raise a ValueError unless the sets have the same number of points; 1 would be broadcast."""
    if source.shape[-2:-1] != target.shape[-2:-1]:
        raise ValueError(
            f"source and target have the shapes {source.shape} and {target.shape}; they must have "
            "the same number of points"
        )


def _normalized(weights: np.ndarray | None, points: np.ndarray) -> np.ndarray:
    """Weights of sum 1 with a trailing axis, (..., N, 1)."""
    if weights is None:
        weights = np.ones(points.shape[-2])
    weights = np.asarray(weights, np.float64)
    if weights.shape[-1:] != points.shape[-2:-1]:
        raise ValueError(
            f"weights has the shape {weights.shape}; its last axis must be {points.shape[-2]}"
        )
    total = weights.sum(axis=-1, keepdims=True)
    if (weights < 0).any() or not (total > 0).all():
        raise ValueError("weights must not be negative and need a positive sum for each point set")
    return (weights / total)[..., None]
