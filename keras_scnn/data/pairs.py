"""Which two photos make a training pair, and whether they show one person."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Pairs(NamedTuple):
    """A batch of pairs.

    Attributes:
        first: (B,) int64 positions of photos.
        second: (B,) int64 positions of photos.
        same: (B,) bool, whether both show one person.
    """

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray


class PairSampler:
    """Random pairs, a pure function of seed and step.

    People are drawn uniformly, however many photos they have, and then photos among theirs: two
    different photos of one person, or one of each of two people. Any step's batch can be asked
    for at any time, so a resumed run goes on with the stream that it left; and the processes of
    a distributed run take turns at the pairs of one and the same global batch.

    Args:
        identity: (n,) int, the person of each photo.
        p_same: probability that a pair shows one person (0.4: as the paper's authors trained).
        seed: the same seed gives the same stream.
        rank: number of this process.
        world_size: number of processes.
        among: (m,) int positions of the photos to draw from, e.g. a training part; None draws
            from all n.

    Raises:
        ValueError: an argument is out of range, nobody has two photos (for p_same above 0), or
            there is only one person (for p_same below 1).
    """

    def __init__(
        self,
        identity: np.ndarray,
        p_same: float = 0.4,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        among: np.ndarray | None = None,
    ):
        if not 0 <= p_same <= 1:
            raise ValueError(f"p_same is {p_same}; a probability lies in 0 to 1")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}; it must lie in 0 to world_size - 1 ({world_size})")
        among = np.arange(len(identity)) if among is None else np.asarray(among)
        _, person, counts = np.unique(
            np.asarray(identity)[among], return_inverse=True, return_counts=True
        )
        self._order = among[np.argsort(person, kind="stable")]
        self._counts, self._starts = counts, np.cumsum(counts) - counts
        self._several = np.flatnonzero(counts > 1)
        if p_same > 0 and not len(self._several):
            raise ValueError("identity: nobody has two photos; pairs of one person need that")
        if p_same < 1 and len(counts) < 2:
            raise ValueError(f"identity: {len(counts)} people; pairs of two people need two")
        self._p_same, self._seed = p_same, seed
        self._rank, self._world_size = rank, world_size

    def batch(self, step: int, size: int) -> Pairs:
        """This process's part of the batch of a step.

        Args:
            step: number of the step, from 0.
            size: pairs for each process.
        """
        rng = np.random.default_rng([self._seed, step])
        count = size * self._world_size
        same = rng.random(count) < self._p_same
        first, second = self._people(rng, same)
        one, two = self._photos(rng, first, second, same)
        mine = slice(self._rank, None, self._world_size)
        return Pairs(one[mine], two[mine], same[mine])

    def _people(self, rng, same) -> tuple[np.ndarray, np.ndarray]:
        n = len(self._counts)
        first = rng.integers(n, size=len(same))
        # A step of 1 to n - 1 around the circle of people ends at any other one alike.
        second = (first + rng.integers(1, max(n, 2), size=len(same))) % n
        if len(self._several):
            first = np.where(same, rng.choice(self._several, len(same)), first)
        return first, np.where(same, first, second)

    def _photos(self, rng, first, second, same) -> tuple[np.ndarray, np.ndarray]:
        one = rng.integers(self._counts[first])
        two = rng.integers(self._counts[second])
        around = 1 + rng.integers(np.maximum(self._counts[second] - 1, 1))
        two = np.where(same, (one + around) % self._counts[second], two)
        return self._order[self._starts[first] + one], self._order[self._starts[second] + two]
