"""Pairs of photos of one person and of two."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_scnn.settings import whole
from keras_scnn.storage.text import counted

MAX_PER_PERSON = 100
MAX_PER_KIND = 10000
MOST_DRAWS = 20  # per pair with people drawn uniformly; then they are weighted by their pairs


@dataclass(frozen=True, eq=False)
class Pairs:
    """P pairs of n photos.

    Attributes:
        first, second: (P,) int indices of photos.
        same: (P,) bool, true for pairs of one person.
        fold: (P,) int, or None for random folds.
    """

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    fold: np.ndarray | None = None

    def weights(self, of_photos: np.ndarray) -> np.ndarray:
        """(P,) how often each pair counts, from (n,) how often each photo's person was drawn.

        A pair of one person counts once per draw of the person; a pair of two people counts once
        per combination of their draws.
        """
        one = of_photos[self.first]
        return np.where(self.same, one, one * of_photos[self.second])


def distinct_pairs(identity: np.ndarray, seed: int = 0) -> Pairs:
    """Distinct pairs: all pairs of one person, up to limits, and equally many pairs of two people.

    There are at most 100 pairs per person, so that nobody with many photos outweighs the rest, and
    at most 10,000 of each kind; both kinds are cut to the same number. For a pair of two people,
    the people are drawn uniformly, and then a photo of each.

    Args:
        identity: (n,) int, the person in each photo.
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
    """(count, 2) indices of photos of two different people, the smaller index first."""
    pairs = []
    for _ in range(count):
        one, two = rng.choice(len(photos), 2, replace=False)
        pairs.append(sorted((rng.choice(photos[one]), rng.choice(photos[two]))))
    return np.array(pairs)


def rows_of_people(identity: np.ndarray) -> list[np.ndarray]:
    """Ascending indices of each person's photos, from (n,) numbers of people; people ascending."""
    order = np.argsort(identity, kind="stable")
    starts = np.unique(identity[order], return_index=True)[1]
    return np.split(order, starts[1:])


def check_people(identity: np.ndarray) -> None:
    """Raise a ValueError unless (n,) numbers of people give two pairs of one person and of two."""
    photos = _photos_of_people(identity)
    if max(map(len, photos)) == 2 and sum(len(part) == 2 for part in photos) == 1:
        raise ValueError(
            f"{counted(len(photos), 'person')}, only one of them with two photos; verification "
            "needs two pairs of photos of one person: two people with two photos, or one with three"
        )


def _photos_of_people(identity: np.ndarray) -> list[np.ndarray]:
    """Indices of each person's photos."""
    photos = rows_of_people(np.asarray(identity))
    several = sum(len(part) > 1 for part in photos)
    if len(photos) < 2 or not several:
        raise ValueError(
            f"{counted(len(photos), 'person')}, {several} of them with two photos or more; "
            "verification needs two people, and one with two photos"
        )
    return photos


def draw_pairs(identity: np.ndarray, n_pairs: int, seed: int = 0) -> Pairs:
    """Random distinct pairs, half of one person and half of two, with people drawn uniformly.

    If most people have too few photos for that, the last pairs of one person are drawn uniformly
    from all such pairs.

    Args:
        identity: (n,) int, the person in each photo.
        n_pairs: number of pairs, 0 or more; an odd number is reduced by one.
        seed: the same seed gives the same pairs.

    Returns:
        P pairs, without folds. P is n_pairs, or less if there are not that many distinct pairs of
        one person or of two.

    Raises:
        ValueError: there is only one person, or nobody has two photos; or ``n_pairs`` is not a
            whole number, or is negative.
    """
    n_pairs, photos = whole("n_pairs", n_pairs, 0), _photos_of_people(identity)
    several = [part for part in photos if len(part) > 1]
    rng = np.random.default_rng(seed)
    sizes = np.array([len(part) for part in photos])
    of_one = int((sizes * (sizes - 1) // 2).sum())
    of_two = int(sizes.sum() ** 2 - (sizes**2).sum()) // 2
    half = min(n_pairs // 2, of_one, of_two)
    shares = np.array([len(part) * (len(part) - 1) / 2 for part in several]) / of_one

    def one_person(is_stuck: bool) -> np.ndarray:
        # Once most people's pairs are exhausted, draw people in proportion to their pairs.
        chosen = rng.choice(len(several), p=shares) if is_stuck else rng.integers(len(several))
        return rng.choice(several[chosen], 2, replace=False)

    def two_people(_: bool) -> tuple:
        one, two = rng.choice(len(photos), 2, replace=False)
        return rng.choice(photos[one]), rng.choice(photos[two])

    same = _distinct(one_person, half, of_one, lambda: _all_of_one(photos), rng)
    different = _distinct(two_people, half, of_two, lambda: _all_of_two(photos), rng)
    first, second = np.array([*same, *different], int).reshape(-1, 2).T
    return Pairs(first, second, np.arange(2 * half) < half)


def _distinct(draw, count: int, there_are: int, every, rng: np.random.Generator) -> list:
    """``count`` distinct pairs; if that is at least half of all pairs, a sample of all of them."""
    if there_are <= 2 * count:
        return list(_some(every(), count, rng))
    distinct: dict[tuple, Any] = {}
    for tried in itertools.count():
        if len(distinct) == count:
            break
        pair = draw(tried > MOST_DRAWS * count)
        # A pair is the same in either order.
        distinct.setdefault(tuple(sorted(pair)), pair)
    return list(distinct.values())


def _all_of_one(photos: list[np.ndarray]) -> np.ndarray:
    """(n, 2) all pairs of photos of one person."""
    return np.concatenate([part[np.column_stack(np.triu_indices(len(part), 1))] for part in photos])


def _all_of_two(photos: list[np.ndarray]) -> np.ndarray:
    """(n, 2) all pairs of photos of two people."""
    pairs = itertools.combinations(photos, 2)
    return np.array([pair for one, two in pairs for pair in itertools.product(one, two)])
