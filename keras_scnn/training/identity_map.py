"""A linear map to neutral shapes, trained with the contrastive loss.

All parameters that a network predicts from a photo, pose and expression included, predict the
person's shape better than the identity coefficients alone: the errors of those depend on the pose,
and on how far the mouth is open. A linear map takes that out. It is learned in a minute on a CPU
from photos of people whose shapes are known, and can be folded into a linear head, so that nothing
is slower.
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
    """How a map is trained.

    Attributes:
        contrast_weight: of the contrastive loss on shapes, beside the regression's 1; 0 for none.
        margin_quantile: 0 to 1, see ``group_contrastive_loss``. The higher, the further apart.
        penalty: of the squared change of the kernel from the one that is given to start with, where
            inputs have unit variance and shapes, over all coordinates, too. With K coordinates it
            is a ridge regression whose penalty is K times this, with that kernel as its prior.
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
    options: MapOptions | None = None,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """(D, K) float64 kernel of the map; what is predicted is a deviation from the mean.

    Each data set's mean is taken off inputs and shapes: annotators of different sets put their
    landmarks differently, which fits take for shape. People count alike, however many photos they
    have.

    Args:
        inputs: (V, n, D) predicted parameters of n photos, in V views of each (as it is, mirrored).
        shapes: (V, n, K) the people's shapes in coordinates whose Euclidean distance is that of
            meshes, mm (``shape_coordinates``).
        person: (n,) int. source: (n,) int, the photos' data sets.
        weight: (n,) int, how often a photo is drawn compared with others of its person; None: 1.
        options: of the training; None: the defaults.
        start: (D, K) kernel to begin with, mm by unit of the inputs; None for zeros.

    Raises:
        ValueError: there are fewer people than a batch has.
    """
    options = options or MapOptions()
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
    """(n, D) float64 rows without the mean of their data set; ``source`` is its number, (n,)."""
    number = np.unique(source, return_inverse=True)[1]
    aligned = align_means(np.asarray(rows, np.float64), number, np.ones(len(rows), bool))
    return aligned - aligned.mean(axis=0)


def _network(start: np.ndarray, options: MapOptions) -> keras.Model:
    """The map, and the same for the pairs, in which a typical shape has the length 1."""
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
