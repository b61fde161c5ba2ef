"""A linear map to neutral shapes, trained with the contrastive loss.

All parameters that a network predicts from a photo, pose and expression included, predict the
person's shape better than the identity coefficients alone, whose errors depend on the pose and on
how far the mouth is open. A linear map removes this dependence. It is learned in a minute on a CPU
from photos of people whose shapes are known; folded into a linear head, it takes no extra time.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np

from keras_scnn.data.labels.identity_labels import align_means
from keras_scnn.losses.groups import GroupContrastiveLoss
from keras_scnn.settings import check_at_least, check_share
from keras_scnn.training.linear_map import LinearMapOptions, dense_near


@dataclass(frozen=True)
class MapOptions(LinearMapOptions):
    """Options for training a map.

    Attributes:
        contrast_weight: of the contrastive loss on shapes; the regression's is 1; 0 for none.
        margin_quantile: 0 to 1, see ``group_contrastive_loss``; people end up further apart the
            higher it is.
        penalty: weight of the kernel's squared change from the start kernel, with each input, and
            the shapes over all coordinates, scaled to unit variance. With K coordinates this is
            ridge regression with K times this penalty, and the start kernel as its prior.
        people, photos, steps, learning_rate, seed: see ``LinearMapOptions``.

    Raises:
        ValueError: a number is out of range.
    """

    people: int = 48
    photos: int = 4
    steps: int = 1200
    learning_rate: float = 3e-3
    penalty: float = 0.0
    seed: int = 0
    contrast_weight: float = 1.0
    margin_quantile: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("contrast_weight", self.contrast_weight)
        check_share("margin_quantile", self.margin_quantile)


def learn_identity_map(
    inputs: np.ndarray,
    shapes: np.ndarray,
    person: np.ndarray,
    source: np.ndarray,
    weight: np.ndarray | None = None,
    options: MapOptions = MapOptions(),
    start: np.ndarray | None = None,
) -> np.ndarray:
    """(D, K) float64 kernel of the map, which predicts deviations from the mean.

    Each data set's mean is subtracted from inputs and shapes: annotators of different sets place
    landmarks differently, which fits mistake for shape. People have equal weight, however many
    photos they have.

    Args:
        inputs: (V, n, D) predicted parameters of n photos in V views (original, mirrored).
        shapes: (V, n, K) the people's shapes in coordinates whose Euclidean distance is that of
            meshes, mm (``shape_coordinates``).
        person: (n,) int. source: (n,) int, the photos' data sets.
        weight: (n,) int, how often a photo is drawn relative to others of its person; None: 1.
        options: of the training.
        start: (D, K) initial kernel, mm per unit of the inputs; None for zeros.

    Raises:
        ValueError: there are fewer people than a batch needs.
    """
    x, y = (np.stack([centered(view, source) for view in part]) for part in (inputs, shapes))
    deviation = x.std(axis=(0, 1)) + 1e-9
    size = np.sqrt(np.mean(y**2))  # of a coordinate
    start = np.zeros((x.shape[-1], y.shape[-1])) if start is None else start
    network = _network(np.float32(start * deviation[:, None] / size), options)
    for view, photo in options.batches(person, len(x), weight):
        targets = {"shape": np.float32(y[view, photo] / size), "pairs": person[photo]}
        network.train_on_batch(np.float32(x[view, photo] / deviation), targets)
    kernel = np.asarray(network.get_layer("shape").kernel, np.float64)
    return kernel * size / deviation[:, None]


def centered(rows: np.ndarray, source: np.ndarray) -> np.ndarray:
    """(n, D) float64 rows minus the mean of their data set, whose number is in ``source`` (n,)."""
    number = np.unique(source, return_inverse=True)[1]
    aligned = align_means(np.asarray(rows, np.float64), number, np.ones(len(rows), bool))
    return aligned - aligned.mean(axis=0)


def _network(start: np.ndarray, options: MapOptions) -> keras.Model:
    """The map, and its output for pairs, scaled so that a typical shape has length 1."""
    given, (_, n_outputs) = keras.Input((len(start),)), start.shape
    shape = dense_near(start, options.penalty, name="shape")(given)
    pairs = keras.layers.Rescaling(n_outputs**-0.5, name="pairs")(shape)
    network = keras.Model(given, {"shape": shape, "pairs": pairs})
    network.compile(
        options.optimizer(),
        loss={
            "shape": keras.losses.MeanSquaredError(),
            "pairs": GroupContrastiveLoss(margin_quantile=options.margin_quantile),
        },
        loss_weights={"shape": 1.0, "pairs": options.contrast_weight},
    )
    return network
