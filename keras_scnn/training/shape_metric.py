"""A linear map of shapes, trained with the neighborhood loss to distinguish similar people.

The shapes of two people of one sex differ less than those of a man and a woman, and mostly in
directions in which a network's predictions are small. A linear map of the predicted shape, learned
in half a minute on a CPU from photos of known people, enlarges the directions that distinguish
similar people and shrinks those that vary with the pose. It keeps the mean shape and the total
size; folded into a linear layer, it takes no extra time.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np

from keras_scnn.losses.groups import NeighborhoodLoss
from keras_scnn.settings import check_above, check_at_least
from keras_scnn.shape_distance import person_means
from keras_scnn.training.linear_map import LinearMapOptions, dense_near


@dataclass(frozen=True)
class ShapeMetricOptions(LinearMapOptions):
    """Options for training a map of shapes.

    Attributes:
        neighbor_weight: of the neighborhood loss; the regression's is 1; 0 for none.
        scale: above 0, of the neighborhood loss, relative to the root mean square size of the
            people's mean shapes.
        penalty: weight of the kernel's squared difference from the identity matrix; the regression
            is relative to the squared size of the people's mean shapes.
        people, photos, steps, learning_rate, seed: see ``LinearMapOptions``.

    Raises:
        ValueError: a number is out of range.
    """

    people: int = 96
    photos: int = 4
    steps: int = 500
    learning_rate: float = 3e-3
    penalty: float = 0.02
    seed: int = 0
    neighbor_weight: float = 0.4
    scale: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("neighbor_weight", self.neighbor_weight)
        check_above("scale", self.scale)


def learn_shape_metric(
    shapes: np.ndarray,
    person: np.ndarray,
    weight: np.ndarray | None = None,
    options: ShapeMetricOptions = ShapeMetricOptions(),
) -> np.ndarray:
    """(K, K) float64 kernel; the shapes multiplied by it have the same size as before.

    The loss is the squared distance from the mean shape of the person's photos, plus the
    neighborhood loss. People have equal weight, however many photos they have.

    Args:
        shapes: (V, n, K) predicted shapes of n photos in V views (original, mirrored), in
            coordinates whose Euclidean distance is that of meshes, mm (``shape_coordinates``),
            minus the mean of their data set.
        person: (n,) int.
        weight: (n,) int, how often a photo is drawn relative to others of its person; None: 1.
        options: of the training.

    Raises:
        ValueError: there are fewer people than a batch needs.
    """
    targets = np.stack([person_means(view, person) for view in shapes])
    size = _size(targets)
    network = _network(shapes.shape[-1], options)
    for view, photo in options.batches(person, len(shapes), weight):
        wanted = {"shape": np.float32(targets[view, photo] / size), "neighbors": person[photo]}
        network.train_on_batch(np.float32(shapes[view, photo] / size), wanted)
    kernel = np.asarray(network.get_layer("shape").kernel, np.float64)
    return kernel * _size(shapes) / _size(shapes @ kernel)


def _size(shapes: np.ndarray) -> float:
    """Root mean square norm of (..., K) shapes."""
    return float(np.sqrt(np.mean(np.sum(np.square(shapes), axis=-1))))


def _network(count: int, options: ShapeMetricOptions) -> keras.Model:
    given = keras.Input((count,))
    start = np.eye(count, dtype=np.float32)
    shape = dense_near(start, options.penalty, use_bias=False, name="shape")(given)
    neighbors = keras.layers.Identity(name="neighbors")(shape)
    network = keras.Model(given, {"shape": shape, "neighbors": neighbors})
    network.compile(
        options.optimizer(),
        loss={
            "shape": keras.losses.MeanSquaredError(),
            "neighbors": NeighborhoodLoss(options.scale),
        },
        loss_weights={"shape": float(count), "neighbors": options.neighbor_weight},
    )
    return network
