"""People for a single training step, rendered during training and never used again."""

from __future__ import annotations

import numpy as np

from keras_scnn.data.records import FaceRecords
from keras_scnn.data.samplers import PairBatch
from keras_scnn.data.synthesis.rendered_people import SyntheticConfig, render_people
from keras_scnn.settings import check_share


def fresh_photos(
    config: SyntheticConfig, step: int, *positions: np.ndarray
) -> tuple[FaceRecords, list[np.ndarray]]:
    """Photos of the people of one step, of only those who are needed: a pure function.

    Args:
        config: number of people per step, and how they are rendered; its ``first_person`` is the
            first person of step 0.
        step: 0 or more; no person is in two steps.
        positions: arrays of indices among all photos of the step, ordered person by person.

    Returns:
        the records, and the arrays of the same photos' indices in them.
    """
    people = np.unique(np.concatenate(positions) // config.photos)
    first = config.first_person + step * config.people
    records = render_people(config, (first + people).tolist())
    return records, [
        np.searchsorted(people, one // config.photos) * config.photos + one % config.photos
        for one in positions
    ]


class EachPhotoOnce:
    """Pairs of the photos of B people with two photos each, using each photo exactly once.

    No photo that was rendered for a step is wasted. A pair shows one person with probability
    ``p_same``; the other people are paired in a ring: the first photo of each with the second
    photo of the next. Since one person alone makes no ring, such a draw becomes a ring of two or,
    with equal probability, of none, which preserves the expected share; a batch of one pair shows
    one person.

    Args:
        p_same: probability that a pair shows one person.
        seed: the same seed gives the same stream.

    Raises:
        ValueError: p_same is out of range.
    """

    def __init__(self, p_same: float = 0.4, seed: int = 0):
        check_share("p_same", p_same)
        self._p_same, self._seed = p_same, seed

    def batch(self, step: int, size: int) -> PairBatch:
        """The ``size`` pairs of a step: indices of photos that are ordered person by person."""
        rng = np.random.default_rng([self._seed, step])
        same = rng.random(size) < self._p_same
        if size - same.sum() == 1:
            same = self._without_lone(rng, same)
        partner = np.arange(size)
        partner[~same] = np.roll(partner[~same], -1)
        return PairBatch(2 * np.arange(size), 2 * partner + 1, same)

    @staticmethod
    def _without_lone(rng: np.random.Generator, same: np.ndarray) -> np.ndarray:
        """``same`` with two or no pairs of different people, instead of one."""
        if len(same) == 1 or rng.random() < 0.5:
            return np.ones_like(same)
        lone = np.argmin(same)
        second = (lone + rng.integers(1, len(same))) % len(same)
        return ~np.isin(np.arange(len(same)), [lone, second])
