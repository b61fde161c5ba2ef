"""A linear metric of features, trained with the supervised contrastive loss.

A network that imitates a recognizer's embeddings photo by photo also keeps directions in which one
person's photos differ. A linear map of its feature, learned in half a minute on a CPU from photos
of known people, shrinks them, and can be folded into a linear layer: nothing is slower.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
from tqdm import tqdm

from keras_scnn.data.samplers import GroupSampler
from keras_scnn.losses.groups import SupervisedContrastiveLoss


@dataclass(frozen=True)
class MetricOptions:
    """How a metric is trained.

    Attributes:
        people, photos: P and K, of a batch.
        steps: batches.
        learning_rate: at first, by unit of the kernel's mean size; it falls to 0 along a cosine.
        temperature: see ``supervised_contrastive_loss``.
        penalty: of the squared change of the kernel from the one to start with, over that one's
            square.
        seed: of the batches.
    """

    people: int = 160
    photos: int = 4
    steps: int = 800
    learning_rate: float = 0.01
    temperature: float = 0.1
    penalty: float = 3.0
    seed: int = 0


def learn_feature_metric(
    features: np.ndarray,
    person: np.ndarray,
    start: np.ndarray,
    options: MetricOptions | None = None,
) -> np.ndarray:
    """(F, E) float64 kernel whose outputs, brought to unit length, are to be compared by cosines.

    People count alike, however many photos they have.

    Args:
        features: (V, n, F) of n photos in V views of each (as it is, mirrored), the mean of each
            data set taken off, which would be taken for people otherwise.
        person: (n,) int.
        start: (F, E) kernel to begin with, and to stay near.
        options: of the training; None: the defaults.

    Raises:
        ValueError: there are fewer people than a batch has.
    """
    options = options or MetricOptions()
    sampler = GroupSampler(person, options.people, options.photos, seed=options.seed)
    views = np.random.default_rng(options.seed).integers(len(features), size=options.steps)
    size = np.abs(start).mean()
    network = _network(np.float32(start / size), options)
    for step in tqdm(range(options.steps), desc="learning the metric", leave=False, disable=None):
        batch = sampler.batch(step)
        rows = np.float32(features[views[step], batch.photo])
        network.train_on_batch(rows, batch.person)
    return np.asarray(network.get_layer("metric").kernel, np.float64) * size


def _network(start: np.ndarray, options: MetricOptions) -> keras.Model:
    def change(kernel):
        square = keras.ops.sum(keras.ops.square(kernel - start))
        return options.penalty * square / float(np.square(start).sum())

    given, (_, n_outputs) = keras.Input((len(start),)), start.shape
    metric = keras.layers.Dense(
        n_outputs,
        use_bias=False,
        kernel_initializer=keras.initializers.Constant(start),
        kernel_regularizer=change,
        name="metric",
    )(given)
    network = keras.Model(given, keras.layers.UnitNormalization()(metric))
    rate = keras.optimizers.schedules.CosineDecay(options.learning_rate, options.steps)
    loss = SupervisedContrastiveLoss(options.temperature)
    network.compile(keras.optimizers.Adam(rate), loss=loss)
    return network
