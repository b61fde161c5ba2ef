"""Whose photos are whose, arranged for drawing at random."""

from __future__ import annotations

import numpy as np


class PeopleIndex:
    """The n people of one or several data sets.

    Args:
        identity: (m,) int, the person of each photo.
        among: positions of the photos to draw from; None: all m.
        mirror: (m,) int, the identity of each photo's mirrored person, -1 for none; None: nobody
            has one.
        source: (m,) int, the number of each photo's data set; None: all are of one.
        source_weights: (S,) how often each data set is drawn from; None: by its number of people.

    Attributes:
        order: (m,) positions of photos, person by person.
        starts, counts: (n,) where each person's photos begin in ``order``, and how many there are.
        twin: (n,) the number of the mirrored person, -1 for none.
        first, last: (S,) the people of data set s are first[s] to last[s] - 1; only those data
            sets count of which a photo is drawn.
        weights: (S,) above 0, sum 1.

    Raises:
        ValueError: a person has photos in two data sets, or the weights are wrong.
    """

    def __init__(self, identity, among=None, mirror=None, source=None, source_weights=None):
        identity = np.asarray(identity)
        among = np.arange(len(identity)) if among is None else np.asarray(among)
        source = np.zeros(len(identity), int) if source is None else np.asarray(source)
        self._arrange(identity[among], source[among], among)
        self.twin = np.full(len(self.counts), -1)
        if mirror is not None:
            self._find_twins(identity, np.asarray(mirror))
        weights = self.last - self.first
        if source_weights is not None:
            weights = np.asarray(source_weights, np.float64)
            count = int(source.max()) + 1
            if weights.shape != (count,) or not (weights > 0).all():
                raise ValueError(f"source_weights: {count} numbers above 0 are needed, {weights}")
            weights = weights[np.unique(source[among])]
        self.weights = weights / weights.sum()

    def _arrange(self, identity, source, among) -> None:
        order = np.lexsort((identity, source))
        self.order = among[order]
        identity, source = identity[order], source[order]
        is_first = np.r_[True, identity[1:] != identity[:-1]]
        if len(np.unique(identity)) != is_first.sum():
            raise ValueError("identity: a person has photos in two data sets; number them apart")
        self.starts = np.flatnonzero(is_first)
        self.counts = np.diff(np.r_[self.starts, len(identity)])
        self._home = np.unique(source[self.starts], return_inverse=True)[1]
        sources = np.arange(self._home[-1] + 1)
        self.first, self.last = (np.searchsorted(self._home, sources, s) for s in ("left", "right"))

    def _find_twins(self, identity, mirror) -> None:
        person = identity[self.order[self.starts]]
        wanted = mirror[self.order[self.starts]]
        by_identity = np.argsort(person)
        place = np.searchsorted(person[by_identity], wanted)
        found = by_identity[np.minimum(place, len(person) - 1)]
        self.twin = np.where((wanted >= 0) & (person[found] == wanted), found, -1)

    def draw_sources(self, rng: np.random.Generator, count: int, fit: np.ndarray) -> np.ndarray:
        """(count,) numbers of data sets, by weight, of those that are ``fit``, (S,) bool."""
        weights = self.weights * fit
        return rng.choice(len(weights), count, p=weights / weights.sum())

    def has(self, people: np.ndarray) -> np.ndarray:
        """(S,) how many of some people, (k,) ascending numbers, each data set has."""
        return np.bincount(self._home[people], minlength=len(self.first))

    def draw_people(
        self, rng: np.random.Generator, sources: np.ndarray, among: np.ndarray
    ) -> np.ndarray:
        """A person for each of (k,) data sets, uniformly of those in ``among``, ascending."""
        low = np.searchsorted(among, self.first)[sources]
        high = np.searchsorted(among, self.last)[sources]
        return among[rng.integers(low, high)]

    def draw_others(self, rng: np.random.Generator, people: np.ndarray) -> np.ndarray:
        """Another person, of the same data set, for each of (k,) people; never its twin."""
        home = self._home[people]
        low, size = self.first[home], (self.last - self.first)[home]
        # A step of 1 to size - 1 around the circle of people ends at any other one alike.
        other = low + (people - low + rng.integers(1, size)) % size
        for _ in range(2):  # past the twin, and past the person itself where that comes next
            wrong = (other == self.twin[people]) | (other == people)
            other = np.where(wrong, low + (other - low + 1) % size, other)
        return other

    def photos(self, people: np.ndarray, number: np.ndarray) -> np.ndarray:
        """Positions of each person's photo of some number."""
        return self.order[self.starts[people] + number]
