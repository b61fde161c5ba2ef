"""Pairs of photos of one person and of two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_PER_PERSON = 100
MAX_PER_KIND = 10000


@dataclass(frozen=True, eq=False)
class Pairs:
    """P pairs of n photos.

    Attributes:
        first, second: (P,) int positions of photos.
        same: (P,) bool, true for one person.
        fold: (P,) int, or None where the folds are dealt at random.
    """

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    fold: np.ndarray | None = None

    def weights(self, of_photos: np.ndarray) -> np.ndarray:
        """(P,) how often each pair counts, from (n,) how often each photo's person was drawn.

        A pair of one person comes with each of its draws, a pair of two with each combination.
        """
        one = of_photos[self.first]
        return np.where(self.same, one, one * of_photos[self.second])


def draw_pairs(identity: np.ndarray, n_pairs: int, seed: int = 0) -> Pairs:
    """``verification_pairs`` with a name for each part; same arguments and errors."""
    return Pairs(*verification_pairs(identity, n_pairs, seed))


def distinct_pairs(identity: np.ndarray, seed: int = 0) -> Pairs:
    """Pairs without repetition: as many of one person as there are, and as many of two people.

    At most 100 pairs of a person, so that nobody with many photos outweighs the rest, and at most
    10,000 of each kind; both kinds are cut to the same number. The two people of a pair are chosen
    uniformly, and then a photo of each.

    Args:
        identity: (n,) int, the person of each photo.
        seed: the same seed gives the same pairs.

    Raises:
        ValueError: there is only one person, or nobody has two photos.
    """
    photos = _photos_of_people(identity)
    rng = np.random.default_rng(seed)
    chosen = [
        _some(np.column_stack(np.triu_indices(len(p), 1)), MAX_PER_PERSON, rng) for p in photos
    ]
    every = np.concatenate([part[pairs] for part, pairs in zip(photos, chosen, strict=True)])
    same = _some(every, MAX_PER_KIND, rng)
    different = _some(np.unique(_of_two(photos, 2 * len(same), rng), axis=0), len(same), rng)
    same = _some(same, len(different), rng)
    first, second = np.concatenate([same, different]).T
    return Pairs(first, second, np.arange(len(first)) < len(same))


def _some(rows: np.ndarray, limit: int, rng: np.random.Generator) -> np.ndarray:
    return rows[np.sort(rng.permutation(len(rows))[:limit])]


def _of_two(photos: list[np.ndarray], count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, 2) photos of two different people each, the smaller position first."""
    pairs = []
    for _ in range(count):
        one, two = rng.choice(len(photos), 2, replace=False)
        pairs.append(sorted((rng.choice(photos[one]), rng.choice(photos[two]))))
    return np.array(pairs)


def _photos_of_people(identity: np.ndarray) -> list[np.ndarray]:
    """Positions of each person's photos."""
    identity = np.asarray(identity)
    photos = [np.flatnonzero(identity == person) for person in np.unique(identity)]
    several = sum(len(part) > 1 for part in photos)
    if len(photos) < 2 or not several:
        raise ValueError(
            f"{len(photos)} people, {several} of them with two photos or more; "
            "verification needs two people, and one with two photos"
        )
    return photos


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
    photos = _photos_of_people(identity)
    several = [part for part in photos if len(part) > 1]
    rng = np.random.default_rng(seed)
    half = n_pairs // 2
    same = [rng.choice(several[i], 2, replace=False) for i in rng.integers(len(several), size=half)]
    different = []
    for _ in range(half):
        one, two = rng.choice(len(photos), 2, replace=False)
        different.append((rng.choice(photos[one]), rng.choice(photos[two])))
    first, second = np.array([*same, *different]).reshape(-1, 2).T
    return first, second, np.arange(2 * half) < half
