"""Same person or not? Verification by a distance: LFW's accuracy, and ROC numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.integrate import trapezoid

from keras_scnn.evaluation.scalars import ROUNDING
from keras_scnn.settings import whole
from keras_scnn.storage.text import counted

FOLDS = 10


@dataclass(frozen=True)
class Verification:
    """How well a distance separates pairs of one person from pairs of two.

    Attributes:
        accuracy_percent: mean over the folds; each fold's threshold comes from the others.
        accuracy_std_percent: standard deviation over the folds.
        auc: probability that a pair of one person has a smaller distance than a pair of two, 0 to
            1; ties count half.
        threshold: mean of the folds' thresholds, in the distance's unit.
        n_pairs: pairs counted.
        eer_percent: equal error rate, at which the share of accepted pairs of two people equals
            the share of rejected pairs of one; interpolated linearly between thresholds.
        tar_percent_at_far_1e2, tar_percent_at_far_1e3: percentage of pairs of one person accepted
            by the largest threshold that accepts at most 1 %, or 0.1 %, of the pairs of two; NaN
            with fewer than 100, or 1,000, pairs of two.
        d_prime: difference between the mean distances of the two kinds in units of the root mean
            square of their standard deviations (Daugman, "Biometric Decision Landscapes", 2000).
    """

    accuracy_percent: float
    accuracy_std_percent: float
    auc: float
    threshold: float
    n_pairs: int
    eer_percent: float
    tar_percent_at_far_1e2: float
    tar_percent_at_far_1e3: float
    d_prime: float


@dataclass(frozen=True, eq=False)
class RankedPairs:
    """P pairs by ascending distance, from ``rank_pairs``.

    Attributes:
        order: (P,) their original indices.
        distance: (P,) float64.
        same: (P,) bool, true for pairs of one person.
        fold: (P,) int.
        cuts: (C,) possible numbers of accepted pairs, which do not separate equal distances.
        is_threshold: (C,) bool, the cuts that may be chosen as the threshold of the accuracy.
    """

    order: np.ndarray
    distance: np.ndarray
    same: np.ndarray
    fold: np.ndarray
    cuts: np.ndarray
    is_threshold: np.ndarray


def verification(
    distance: np.ndarray,
    same: np.ndarray,
    folds: int = FOLDS,
    seed: int = 0,
    fold: np.ndarray | None = None,
) -> Verification:
    """Accuracy by the protocol of Labeled Faces in the Wild (Huang et al., 2007), and ROC numbers.

    Args:
        distance: (P,) any unit, small for one person.
        same: (P,) true for pairs of one person.
        folds: number of folds, at least 2, into which the pairs are split at random, with equal
            shares of each kind; fewer if there are fewer pairs of a kind.
        seed: of the split.
        fold: (P,) each pair's fold, if a protocol prescribes it; ``folds`` and ``seed`` then have
            no effect.

    Raises:
        ValueError: ``folds`` is not a whole number, there are fewer than two folds or pairs of a
            kind, the shapes do not match, or a distance is not finite.
    """
    return summarize_pairs(rank_pairs(distance, same, folds, seed, fold))


def rank_pairs(
    distance: np.ndarray,
    same: np.ndarray,
    folds: int = FOLDS,
    seed: int = 0,
    fold: np.ndarray | None = None,
) -> RankedPairs:
    """Sort pairs once, for many summaries; arguments and errors are those of ``verification``."""
    distance, same = checked_pairs(distance, same)
    if fold is None:
        fold = _split(same, whole("folds", folds, 2), seed)
    fold = np.unique(fold, return_inverse=True)[1]
    if fold.shape != same.shape or fold.max() < 1:
        raise ValueError(f"fold has the shape {fold.shape}; it must be (P,) with two folds or more")
    order = np.argsort(distance, kind="stable")
    ordered = distance[order]
    cuts = np.flatnonzero(np.concatenate([[True], ordered[1:] > ordered[:-1], [True]]))
    return RankedPairs(order, ordered, same[order], fold[order], cuts, np.ones(len(cuts), bool))


def checked_pairs(distance: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P,) float64 distances and (P,) bool kinds.

    Raises:
        ValueError: the shapes differ, a distance is not finite, or a kind of pair is missing.
    """
    distance, same = np.asarray(distance, np.float64), np.asarray(same).astype(bool)
    if distance.ndim != 1 or distance.shape != same.shape:
        raise ValueError(
            f"distance and same have the shapes {distance.shape} and {same.shape}; "
            "both must be (P,)"
        )
    if not np.isfinite(distance).all():
        raise ValueError("the distances of pairs must be finite numbers")
    if same.all() or not same.any():
        raise ValueError("pairs of one person and pairs of two people are needed")
    return distance, same


def check_folds(same: np.ndarray) -> None:
    """Raise a ValueError unless pairs, (P,) bool, can be split into two folds with both kinds."""
    if min(same.sum(), (~same).sum()) < 2:
        raise ValueError(
            f"verification needs 2 folds and 2 pairs of each kind; given are "
            f"{counted(int(same.sum()), 'pair')} of one person and {(~same).sum()} of two"
        )


def _split(same: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """(P,) number of each pair's fold."""
    check_folds(same)
    folds = min(folds, int(same.sum()), int((~same).sum()))
    rng = np.random.default_rng(seed)
    fold = np.empty(len(same), int)
    for kind in (same, ~same):
        fold[kind] = rng.permutation(np.arange(kind.sum()) % folds)
    return fold


def summarize_pairs(ranked: RankedPairs, weights: np.ndarray | None = None) -> Verification:
    """All numbers; ``weights`` (P,), in the pairs' original order, is how often each counts."""
    weights = np.ones(len(ranked.same)) if weights is None else weights[ranked.order]
    accuracy, thresholds = _accuracy_by_fold(ranked, weights)
    far, tar = rates(ranked, weights)
    return Verification(
        accuracy_percent=float(100 * accuracy.mean()),
        accuracy_std_percent=float(100 * accuracy.std()),
        auc=area_under(far, tar),
        threshold=float(thresholds.mean()),
        n_pairs=len(ranked.same),
        eer_percent=100 * equal_error_rate(far, tar),
        tar_percent_at_far_1e2=_tar_percent(ranked, far, tar, 0.01),
        tar_percent_at_far_1e3=_tar_percent(ranked, far, tar, 0.001),
        d_prime=_d_prime(ranked, weights),
    )


def right_answers(ranked: RankedPairs) -> np.ndarray:
    """(P,) bool, in the original order: classified correctly by the other folds' threshold."""
    _, thresholds = _accuracy_by_fold(ranked, np.ones(len(ranked.same)))
    right = (ranked.distance < thresholds[ranked.fold]) == ranked.same
    return right[np.argsort(ranked.order)]


def _accuracy_by_fold(ranked: RankedPairs, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy of each fold, 0 to 1, and its threshold.

    Folds without weight are left out, and one of which the others have none: nothing determines its
    threshold. One NaN of each if no fold is left.
    """
    of_fold = ranked.fold == np.arange(ranked.fold.max() + 1)[:, None]
    # Accepting one more pair gains its weight if it shows one person, and loses it otherwise.
    gained = _running_sum(np.where(ranked.same, weights, -weights) * of_fold)
    met = _running_sum(weights * of_fold)
    by_others = [(part.sum(axis=0) - part)[:, ranked.cuts] for part in (gained, met)]
    pairs = zip(*by_others, strict=True)
    thresholds = np.array([_best_threshold(ranked, gain, count) for gain, count in pairs])
    accepted = np.searchsorted(ranked.distance, thresholds)
    right = gained[np.arange(len(of_fold)), accepted] + of_fold @ (weights * ~ranked.same)
    total = met[:, -1]
    kept = (total > 0) & (total < total.sum())
    if not kept.any():
        return np.full(1, np.nan), np.full(1, np.nan)
    return right[kept] / total[kept], thresholds[kept]


def _running_sum(rows: np.ndarray) -> np.ndarray:
    """(F, P + 1) sums of the first 0, 1, ... P values of each row."""
    return np.concatenate([np.zeros((len(rows), 1)), np.cumsum(rows, axis=1)], axis=1)


def _best_threshold(ranked: RankedPairs, gain: np.ndarray, met: np.ndarray) -> float:
    """The lowest threshold with the largest (C,) gain, given the cumulative weight (C,).

    It is midway between the adjacent two pairs that have a weight.
    """
    best = int(np.argmax(np.where(ranked.is_threshold, gain, -np.inf)))
    end = int(np.searchsorted(met, met[best], side="right")) - 1
    last = end == len(met) - 1
    if best == 0:
        return float(ranked.distance[0 if last else ranked.cuts[end]])
    below, above = ranked.distance[[ranked.cuts[best] - 1, ranked.cuts[end] - last]]
    return float(np.nextafter(below, np.inf) if last else (below + above) / 2)


def rates(ranked: RankedPairs, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ROC curve: false and true accept rates (C,), from 0 to 1, at each possible threshold.

    Args:
        ranked: the pairs.
        weights: (P,) of the pairs by ascending distance.

    Returns:
        the rates; NaN for a kind of pair without weight.
    """
    curves = []
    for kind in (~ranked.same, ranked.same):
        accepted = np.concatenate([[0], np.cumsum(weights * kind)])
        share = accepted / accepted[-1] if accepted[-1] else np.full(len(accepted), np.nan)
        curves.append(share[ranked.cuts])
    return curves[0], curves[1]


def area_under(far: np.ndarray, tar: np.ndarray) -> float:
    """The area under a ROC curve (C,), (C,), 0 to 1: its AUC; NaN if the curve is NaN."""
    return float(trapezoid(tar, far))


def equal_error_rate(far: np.ndarray, tar: np.ndarray) -> float:
    """The rate, 0 to 1, at which a ROC curve (C,), (C,) crosses ``far = 1 - tar``."""
    return float(np.interp(0, far - (1 - tar), far))


def tar_at_far(far: np.ndarray, tar: np.ndarray, limit: float) -> float:
    """The highest true accept rate of a ROC curve with a false accept rate of at most ``limit``."""
    allowed = far <= limit * (1 + 1e-9)
    return float(tar[allowed].max()) if allowed.any() else float("nan")


def _tar_percent(ranked: RankedPairs, far, tar, limit: float) -> float:
    enough = limit * (~ranked.same).sum() >= 1 - 1e-9
    return 100 * tar_at_far(far, tar, limit) if enough else float("nan")


def _d_prime(ranked: RankedPairs, weights: np.ndarray) -> float:
    means, variances = [], []
    for kind in (ranked.same, ~ranked.same):
        value, weight = ranked.distance[kind], weights[kind]
        if not weight.any():
            return float("nan")
        means.append(np.average(value, weights=weight))
        variances.append(np.average((value - means[-1]) ** 2, weights=weight))
    spread = np.sqrt(np.mean(variances))
    is_rounding = spread <= ROUNDING * np.abs(means).max()  # all distances of a kind are equal
    return 0.0 if is_rounding else float((means[1] - means[0]) / spread)
