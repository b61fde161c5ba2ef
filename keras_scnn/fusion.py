"""Several measurements of one person as one: weights by quality and by agreement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAD_TO_SD = 1.4826
ROUNDS = 20
AGREEMENT_SD = 2.0


@dataclass(frozen=True, eq=False)
class Fusion:
    """n measurements as one.

    Attributes:
        weights: (n,) float64, at least 0, of sum 1.
        center: (D,) the weighted mean.
        distance: (n,) of each measurement from the weighted mean of the others.
    """

    weights: np.ndarray
    center: np.ndarray
    distance: np.ndarray


def others_center(vectors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(n, D): for each of n vectors (n, D) the weighted mean of the others.

    A vector without others that weigh anything gets itself.
    """
    total = (weights.sum() - weights)[:, None]
    found = (weights @ vectors - weights[:, None] * vectors) / np.where(total > 0, total, 1)
    return np.where(total > 1e-12, found, vectors)


def fuse(vectors: np.ndarray, quality: np.ndarray) -> Fusion:
    """The weighted mean in which measurements far from the others count less.

    Iteratively re-weighted least squares with Huber's weights (Huber, "Robust Estimation of a
    Location Parameter", 1964) on the distance from the weighted mean of the others: within
    ``AGREEMENT_SD`` robust standard deviations above the median distance a measurement keeps its
    quality as its weight; beyond that the weight falls with the inverse of the distance's square,
    faster than Huber's own, because what disagrees may be another person altogether.

    Args:
        vectors: (n, D), n above 0, whose Euclidean distance says how much two disagree.
        quality: (n,) at least 0, with a positive sum: the inverse variance that is expected.

    Raises:
        ValueError: wrong shapes or values.
    """
    vectors, quality = np.asarray(vectors, np.float64), np.asarray(quality, np.float64)
    if vectors.ndim != 2 or quality.shape != vectors.shape[:1] or not len(vectors):
        raise ValueError(
            f"vectors and quality have the shapes {vectors.shape} and {quality.shape}; they must "
            "be (n, D) and (n,), n above 0"
        )
    if not (quality >= 0).all() or not quality.sum() > 0 or not np.isfinite(vectors).all():
        raise ValueError("vectors must be finite, and quality at least 0 with a positive sum")
    weights = quality / quality.sum()
    for _ in range(ROUNDS):
        distance = np.linalg.norm(vectors - others_center(vectors, weights), axis=1)
        limit = robust_limit(distance[quality > 0], AGREEMENT_SD)
        far = distance > limit
        fresh = quality * np.where(far, limit / np.where(far, distance, 1), 1) ** 2
        fresh = fresh / fresh.sum()
        done, weights = np.allclose(fresh, weights, atol=1e-6), fresh
        if done:
            break
    distance = np.linalg.norm(vectors - others_center(vectors, weights), axis=1)
    return Fusion(weights, weights @ vectors, distance)


def robust_limit(distance: np.ndarray, deviations: float) -> float:
    """``deviations`` robust standard deviations above the median of (n,) distances."""
    middle = np.median(distance)
    spread = MAD_TO_SD * np.median(np.abs(distance - middle))
    return float(middle + deviations * spread)
