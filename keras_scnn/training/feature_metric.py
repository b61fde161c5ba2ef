"""A linear metric of features, trained with the supervised contrastive loss.

A network that imitates a recognizer's embeddings photo by photo also keeps directions in which one
person's photos differ. A linear map of its feature, learned in half a minute on a CPU from photos
of known people, shrinks these directions; folded into a linear layer, it takes no extra time.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np

from keras_scnn.losses.groups import SupervisedContrastiveLoss
from keras_scnn.settings import check_above
from keras_scnn.training.linear_map import LinearMapOptions, dense_near


@dataclass(frozen=True)
class MetricOptions(LinearMapOptions):
    """Options for training a metric.

    Attributes:
        learning_rate: the initial one, in units of the start kernel's mean absolute weight.
        temperature: above 0, see ``supervised_contrastive_loss``.
        penalty: weight of that kernel's squared change, relative to its squared norm.
        people, photos, steps, seed: see ``LinearMapOptions``.

    Raises:
        ValueError: a number is out of range.
    """

    people: int = 160
    photos: int = 4
    steps: int = 800
    learning_rate: float = 0.01
    penalty: float = 3.0
    seed: int = 0
    temperature: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_above("temperature", self.temperature)


def learn_feature_metric(
    features: np.ndarray,
    person: np.ndarray,
    start: np.ndarray,
    options: MetricOptions = MetricOptions(),
) -> np.ndarray:
    """(F, E) float64 kernel; the cosine of its outputs tells whether two photos show one person.

    People have equal weight, however many photos they have.

    Args:
        features: (V, n, F) of n photos in V views (original, mirrored), minus the mean of their
            data set: differences between data sets would be learned as those between people.
        person: (n,) int.
        start: (F, E) initial kernel, which the result stays close to.
        options: of the training.

    Raises:
        ValueError: there are fewer people than a batch needs.
    """
    size = np.abs(start).mean()
    network = _network(np.float32(start / size), options)
    for view, photo in options.batches(person, len(features)):
        network.train_on_batch(np.float32(features[view, photo]), person[photo])
    return np.asarray(network.get_layer("metric").kernel, np.float64) * size


def _network(start: np.ndarray, options: MetricOptions) -> keras.Model:
    given = keras.Input((len(start),))
    penalty = options.penalty / float(np.square(start).sum())
    metric = dense_near(start, penalty, use_bias=False, name="metric")(given)
    network = keras.Model(given, keras.layers.UnitNormalization()(metric))
    loss = SupervisedContrastiveLoss(options.temperature)
    network.compile(options.optimizer(), loss=loss)
    return network
