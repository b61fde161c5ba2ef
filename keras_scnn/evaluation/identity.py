"""Is the reconstructed face that person's face? Shape error, distance ratio, verification."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from keras_scnn.geometry.alignment import apply_similarity, similarity_alignment

CHUNK = 64


@dataclass(frozen=True)
class ShapeError:
    """Error of neutral shapes in millimeters, after a similarity alignment of each.

    Attributes:
        vertex_mm: mean distance of corresponding vertices.
        mean_face_mm: the same for the mean face in place of every prediction.
        relative: ``vertex_mm / mean_face_mm``: below 1 is better than no identity at all.
        n_faces: faces counted.
    """

    vertex_mm: float
    mean_face_mm: float
    relative: float
    n_faces: int


@dataclass(frozen=True)
class Verification:
    """How well a distance tells pairs of one person from pairs of two.

    Attributes:
        accuracy_percent: mean over the folds; each fold's threshold comes from the others.
        accuracy_std_percent: standard deviation over the folds.
        auc: probability that a pair of one person is closer than a pair of two, 0 to 1; ties
            count half.
        threshold: mean of the folds' thresholds, in the distance's unit.
        n_pairs: pairs counted.
    """

    accuracy_percent: float
    accuracy_std_percent: float
    auc: float
    threshold: float
    n_pairs: int


def shape_error(predicted: np.ndarray, true: np.ndarray, mean_face: np.ndarray) -> ShapeError:
    """Compare neutral shapes, each aligned to the true one by its best similarity.

    Args:
        predicted: (M, N, 3) mm, any pose and scale.
        true: (M, N, 3) mm.
        mean_face: (N, 3) mm, what a method without identity would answer.

    Raises:
        ValueError: the shapes do not fit, or there is no face.
    """
    predicted, true = np.asarray(predicted), np.asarray(true)
    if predicted.shape != true.shape or true.ndim != 3 or true.shape[1:] != mean_face.shape:
        raise ValueError(
            f"predicted, true and mean_face have the shapes {predicted.shape}, {true.shape} and "
            f"{mean_face.shape}; they must be (M, N, 3), (M, N, 3) and (N, 3)"
        )
    if not len(true):
        raise ValueError("there is no face to compare")
    ours = float(_aligned_distance(predicted, true).mean())
    means = np.broadcast_to(mean_face, true.shape)
    base = float(_aligned_distance(means, true).mean())
    return ShapeError(ours, base, ours / base if base else float("inf"), len(true))


def _aligned_distance(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(M,) mean distance of each aligned source to its target; by chunks, to save memory."""
    found = []
    for start in range(0, len(target), CHUNK):
        part = slice(start, start + CHUNK)
        moved = apply_similarity(*similarity_alignment(source[part], target[part]), source[part])
        found.append(np.linalg.norm(moved - target[part], axis=-1).mean(axis=-1))
    return np.concatenate(found)


def distance_ratio(distance: np.ndarray, same: np.ndarray) -> float:
    """Mean distance of one person's pairs over that of two people's: small is good, 1 is blind.

    One answer for everybody, all distances 0, counts as blind.

    Args:
        distance: (P,), at least 0, any unit.
        same: (P,) true where a pair is of one person.

    Raises:
        ValueError: a kind of pair is missing.
    """
    distance, same = _checked_pairs(distance, same)
    if not distance.any():
        return 1.0
    return float(distance[same].mean() / distance[~same].mean())


def verification(
    distance: np.ndarray, same: np.ndarray, folds: int = 10, seed: int = 0
) -> Verification:
    """Accuracy by the protocol of Labeled Faces in the Wild (Huang et al., 2007), and AUC.

    The pairs are dealt at random into folds with like shares of each kind. Each fold is judged by
    the threshold that is best on the others.

    Args:
        distance: (P,) any unit, small for one person.
        same: (P,) true where a pair is of one person.
        folds: number of folds, at least 2.
        seed: of the dealing.

    Raises:
        ValueError: there are fewer pairs of a kind than folds.
    """
    distance, same = _checked_pairs(distance, same)
    if folds < 2 or min(same.sum(), (~same).sum()) < folds:
        raise ValueError(
            f"{folds} folds need at least 2 folds and {folds} pairs of each kind; there are "
            f"{same.sum()} pairs of one person and {(~same).sum()} of two"
        )
    fold = _deal(same, folds, seed)
    thresholds = [_best_threshold(distance[fold != i], same[fold != i]) for i in range(folds)]
    accuracy = [
        100 * ((distance[fold == i] < t) == same[fold == i]).mean()
        for i, t in enumerate(thresholds)
    ]
    return Verification(
        accuracy_percent=float(np.mean(accuracy)),
        accuracy_std_percent=float(np.std(accuracy)),
        auc=_area_under_curve(distance, same),
        threshold=float(np.mean(thresholds)),
        n_pairs=len(same),
    )


def verification_pairs(
    identity: np.ndarray, n_pairs: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random pairs, half of one person and half of two, people chosen uniformly.

    Args:
        identity: (n,) int, the person of each photo.
        n_pairs: how many, even.
        seed: the same seed gives the same pairs.

    Returns:
        first (n_pairs,), second (n_pairs,) int64 positions of photos, same (n_pairs,) bool.

    Raises:
        ValueError: there is only one person, or nobody has two photos.
    """
    identity = np.asarray(identity)
    photos = [np.flatnonzero(identity == person) for person in np.unique(identity)]
    several = [part for part in photos if len(part) > 1]
    if len(photos) < 2 or not several:
        raise ValueError(
            f"{len(photos)} people, {len(several)} of them with two photos or more; "
            "verification needs two people, and one with two photos"
        )
    rng = np.random.default_rng(seed)
    half = n_pairs // 2
    same = [rng.choice(several[i], 2, replace=False) for i in rng.integers(len(several), size=half)]
    different = []
    for _ in range(half):
        one, two = rng.choice(len(photos), 2, replace=False)
        different.append((rng.choice(photos[one]), rng.choice(photos[two])))
    first, second = np.array([*same, *different]).reshape(-1, 2).T
    return first, second, np.arange(2 * half) < half


def _checked_pairs(distance, same) -> tuple[np.ndarray, np.ndarray]:
    distance, same = np.asarray(distance, np.float64), np.asarray(same).astype(bool)
    if distance.ndim != 1 or distance.shape != same.shape:
        raise ValueError(
            f"distance and same have the shapes {distance.shape} and {same.shape}; "
            "both must be (P,)"
        )
    if same.all() or not same.any():
        raise ValueError("pairs of one person and pairs of two people are needed")
    return distance, same


def _deal(same: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """(P,) number of each pair's fold."""
    rng = np.random.default_rng(seed)
    fold = np.empty(len(same), int)
    for kind in (same, ~same):
        fold[kind] = rng.permutation(np.arange(kind.sum()) % folds)
    return fold


def _best_threshold(distance: np.ndarray, same: np.ndarray) -> float:
    """The distance below which pairs count as one person with the fewest errors."""
    order = np.argsort(distance, kind="stable")
    ordered, kind = distance[order], same[order]
    # Before cut i stand i pairs: right are the same among them, and the different after them.
    right = np.concatenate([[0], np.cumsum(kind)]) + np.concatenate(
        [np.cumsum(~kind[::-1])[::-1], [0]]
    )
    beyond = np.nextafter(ordered[-1], np.inf)
    cuts = np.concatenate([ordered[:1], (ordered[1:] + ordered[:-1]) / 2, [beyond]])
    possible = np.concatenate([[True], ordered[1:] > ordered[:-1], [True]])  # no cut through ties
    return float(cuts[np.argmax(np.where(possible, right, -1))])


def _area_under_curve(distance: np.ndarray, same: np.ndarray) -> float:
    """Mann and Whitney's U of the two kinds of pairs, over its greatest value."""
    ranks = rankdata(distance)
    n_same, n_different = same.sum(), (~same).sum()
    above = ranks[~same].sum() - n_different * (n_different + 1) / 2
    return float(above / (n_same * n_different))
