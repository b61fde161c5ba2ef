"""Batches and layer shared by the linear maps that are learned from photos of known people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import keras
import numpy as np
from tqdm import tqdm

from keras_scnn.data.samplers import GroupSampler
from keras_scnn.settings import check_at_least, whole


@dataclass(frozen=True)
class LinearMapOptions:
    """Options for training a linear map on batches of people.

    Attributes:
        people, photos: people in a batch, P, and photos of each, K.
        steps: number of batches.
        learning_rate: the initial one; it decays to 0 along a cosine.
        penalty: weight of the kernel's squared change from the start kernel.
        seed: random seed of the batches.

    Raises:
        ValueError: a number is out of range, or not whole where it must be.
    """

    people: int
    photos: int
    steps: int
    learning_rate: float
    penalty: float
    seed: int

    LOWEST: ClassVar[dict[str, float]] = {  # values must be whole numbers where these are
        "people": 2, "photos": 2, "steps": 1, "learning_rate": 0.0, "penalty": 0.0, "seed": 0
    }  # fmt: skip

    def __post_init__(self) -> None:
        for name, low in self.LOWEST.items():
            value = getattr(self, name)
            whole(name, value, low) if isinstance(low, int) else check_at_least(name, value, low)

    def batches(
        self, person: np.ndarray, views: int, weight: np.ndarray | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """For each step the number of a view, and the positions (P K,) of photos.

        Args:
            person: (n,) int, of the photos.
            views: number of views of each photo; all photos of a batch are of one view.
            weight: (n,) int, how often a photo is drawn relative to others of its person; None: 1.

        Raises:
            ValueError: there are fewer people than a batch needs.
        """
        count = np.ones(len(person), int) if weight is None else weight
        drawn = np.repeat(np.arange(len(person)), count)
        sampler = GroupSampler(person[drawn], self.people, self.photos, seed=self.seed)
        view = np.random.default_rng(self.seed).integers(views, size=self.steps)
        for step in tqdm(range(self.steps), desc="learning the map", leave=False, delay=1):
            yield int(view[step]), drawn[sampler.batch(step).photo]

    def optimizer(self) -> keras.optimizers.Optimizer:
        """Adam with the decaying learning rate."""
        schedule = keras.optimizers.schedules.CosineDecay(self.learning_rate, self.steps)
        return keras.optimizers.Adam(schedule)


class Near(keras.regularizers.Regularizer):
    """A penalty for the squared change of a kernel from ``start`` (D, K).

    A class, since Keras 3.12 refuses plain functions.
    """

    def __init__(self, start: np.ndarray, penalty: float):
        self._start, self._penalty = start, penalty

    def __call__(self, kernel):
        return self._penalty * keras.ops.sum(keras.ops.square(kernel - self._start))


def dense_near(start: np.ndarray, penalty: float, **options) -> keras.layers.Dense:
    """A Dense layer with the initial kernel ``start`` (D, K), regularized by its squared change."""
    return keras.layers.Dense(
        start.shape[1],
        kernel_initializer=keras.initializers.Constant(start),
        kernel_regularizer=Near(start, penalty),
        **options,
    )
