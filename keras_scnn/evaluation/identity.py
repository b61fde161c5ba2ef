"""Do photos of one person give one face? Distance ratio, retrieval, and an evaluator of all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from keras_scnn.evaluation.bootstrap import weighted_mean
from keras_scnn.evaluation.pairs import Pairs
from keras_scnn.evaluation.verification import (
    RankedPairs,
    Verification,
    checked_pairs,
    rank_pairs,
    rates,
    summarize_pairs,
)

CHUNK = 256
CURVE_POINTS = 200


@dataclass(frozen=True)
class Retrieval:
    """Retrieval with each photo as a probe against all others, ranked by distance.

    Attributes:
        rank1_percent, rank5_percent: percentage of probes for which the nearest photo, or one of
            the nearest 5, shows the same person.
        mean_reciprocal_rank: mean of 1 / rank of the same person's nearest photo, 0 to 1.
        n_probes: number of probes: photos whose person has another photo.
        n_gallery: number of photos; a probe is not compared with its person's mirror image.
    """

    rank1_percent: float
    rank5_percent: float
    mean_reciprocal_rank: float
    n_probes: int
    n_gallery: int


def distance_ratio(
    distance: np.ndarray, same: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Mean distance of pairs of one person over that of pairs of two: low is good, 1 is chance.

    If all distances are 0, because everybody gets the same shape, the result is 1. NaN if all pairs
    of a kind have a weight of 0.

    Args:
        distance: (P,), at least 0, any unit.
        same: (P,) true for pairs of one person.
        weights: (P,) how often each pair counts; None for once each.

    Raises:
        ValueError: a kind of pair is missing.
    """
    distance, same = checked_pairs(distance, same)
    weights = np.ones(len(same)) if weights is None else weights
    intra, inter = (weighted_mean(distance[k], weights[k]) for k in (same, ~same))
    if inter:
        return intra / inter
    return intra * float("inf") if intra else 1.0


def retrieval_ranks(
    vectors: np.ndarray, identity: np.ndarray, either_side: np.ndarray | None = None
) -> np.ndarray:
    """Rank of the nearest other photo of the same person among all other photos.

    Args:
        vectors: (n, D) points, compared by Euclidean distance.
        identity: (n,) the person in each photo.
        either_side: (n,) the same number for a person and its mirror image, which is neither the
            same person nor a different one and is therefore ignored; None: there are no mirror
            images.

    Returns:
        (n,) float64 from 1; NaN if the person has no other photo. A photo of somebody else at
        exactly the same distance counts as nearer.

    Raises:
        ValueError: there is no photo, the shapes do not match, or a number of the vectors is not
            finite.
    """
    vectors, identity = np.asarray(vectors, np.float64), np.asarray(identity)
    person = identity if either_side is None else np.asarray(either_side)
    shapes = vectors.shape, identity.shape, person.shape
    if vectors.ndim != 2 or not len(vectors) or set(shapes[1:]) != {shapes[0][:1]}:
        raise ValueError(
            f"vectors, identity and either_side have the shapes {shapes[0]}, {shapes[1]} and "
            f"{shapes[2]}; they must be (n, D), (n,) and (n,), n above 0"
        )
    if not np.isfinite(vectors).all():
        raise ValueError("the vectors must be finite numbers")
    ranks = []
    for start in range(0, len(vectors), CHUNK):
        index = np.arange(start, min(start + CHUNK, len(vectors)))
        distance = cdist(vectors[index], vectors)
        own = (identity[index, None] == identity) & (index[:, None] != np.arange(len(vectors)))
        nearest = np.where(own, distance, np.inf).min(axis=1, keepdims=True)
        before = ((person[index, None] != person) & (distance <= nearest)).sum(axis=1)
        ranks.append(np.where(own.any(axis=1), 1.0 + before, np.nan))
    return np.concatenate(ranks)


def summarize_ranks(ranks: np.ndarray, weights: np.ndarray | None = None) -> Retrieval:
    """Retrieval from (n,) ranks; ``weights`` (n,) is how often each photo is a probe.

    The weights do not resample the gallery.
    """
    is_probe = ~np.isnan(ranks)
    rank, weight = ranks[is_probe], None if weights is None else weights[is_probe]
    return Retrieval(
        rank1_percent=100 * weighted_mean(rank <= 1, weight),
        rank5_percent=100 * weighted_mean(rank <= 5, weight),
        mean_reciprocal_rank=weighted_mean(1 / rank, weight),
        n_probes=int(is_probe.sum()),
        n_gallery=len(ranks),
    )


class IdentityEvaluator:
    """Distance ratio, verification and retrieval for one kind of vector.

    Pairs are ranked once, so that a summary for each bootstrap resample is cheap.

    Args:
        vectors: (n, D) points, compared by Euclidean distance.
        pairs: of the n photos.
        identity: (n,) the person in each photo, for retrieval; None: no retrieval.
        either_side: see ``retrieval_ranks``.

    Attributes:
        distance: (P,) float64, of the pairs, in the vectors' unit.

    Raises:
        ValueError: see ``verification``.
    """

    def __init__(
        self,
        vectors: np.ndarray,
        pairs: Pairs,
        identity: np.ndarray | None = None,
        either_side: np.ndarray | None = None,
    ):
        self._pairs = pairs
        self.distance = np.linalg.norm(vectors[pairs.first] - vectors[pairs.second], axis=-1)
        self._ranked: RankedPairs = rank_pairs(self.distance, pairs.same, fold=pairs.fold)
        self._ranks = None if identity is None else retrieval_ranks(vectors, identity, either_side)

    def summary(self, weights: np.ndarray) -> tuple[float, Verification, Retrieval | None]:
        """Distance ratio, verification and retrieval from the photos' weights (n,)."""
        of_pairs = self._pairs.weights(weights)
        return (
            distance_ratio(self.distance, self._pairs.same, of_pairs),
            summarize_pairs(self._ranked, of_pairs),
            None if self._ranks is None else summarize_ranks(self._ranks, weights),
        )

    def roc(self) -> dict[str, list[float]]:
        """The ROC curve at about 200 thresholds: 'far' and 'tar', from 0 to 1."""
        far, tar = rates(self._ranked, np.ones(len(self.distance)))
        # Even steps of TAR and of log FAR, so that small rates are resolved as well.
        small = np.searchsorted(far, np.geomspace(1e-4, 1, CURVE_POINTS // 2), side="right") - 1
        even = np.searchsorted(tar, np.linspace(0, 1, CURVE_POINTS // 2))
        chosen = np.unique(np.concatenate([[0], small, even, [len(far) - 1]]))
        return {"far": far[chosen].tolist(), "tar": tar[chosen].tolist()}
