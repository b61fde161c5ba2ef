"""Contrastive losses on a distance between the two sides of a pair.

``same`` is 1 where both photos show one person and 0 where they show two. Each loss is the mean
over the batch's pairs: pairs of one person are pulled together, pairs of two are pushed apart. A
kind of pair that the batch lacks contributes exactly 0, and its gradients are finite. Different
numbers of labels and distances raise a ValueError.
"""

from __future__ import annotations

import keras
from keras import ops

from keras_scnn.losses.batches import mean_of_rows, paired
from keras_scnn.settings import check_above, check_at_least, check_share

FLOAT32_STEP = 2.0**-23


def contrastive_loss(same, distance, margin=1.0):
    """Squared hinge: ``same d^2 / 2 + (1 - same) max(margin - d, 0)^2 / 2``.

    Hadsell, Chopra and LeCun, "Dimensionality Reduction by Learning an Invariant Mapping", 2006,
    equation 4.

    Args:
        same: (B,) 0 or 1.
        distance: (B,) at least 0, any unit.
        margin: different pairs are pushed apart up to this distance; same unit.

    Returns:
        Scalar float32.
    """
    return mean_of_rows(contrastive_rows(same, distance, margin))


def contrastive_rows(same, distance, margin):
    """(B,) the loss of each pair, whose mean is ``contrastive_loss``."""
    same, distance = paired(same, "distance", distance)
    push = ops.maximum(margin - distance, 0.0)
    return (same * distance**2 + (1 - same) * push**2) / 2


def exponential_contrastive_loss(same, distance, upper_bound):
    """Exponential form: ``same (2 / Q) d^2 + (1 - same) 2 Q exp(-2.77 d / Q)``.

    Chopra, Hadsell and LeCun, "Learning a Similarity Metric Discriminatively, with Application to
    Face Verification", 2005, equation 8.

    Args:
        same: (B,) 0 or 1.
        distance: (B,) at least 0, any unit.
        upper_bound: Q, the largest expected distance; same unit.

    Returns:
        Scalar float32.
    """
    return mean_of_rows(exponential_rows(same, distance, upper_bound))


def exponential_rows(same, distance, upper_bound):
    """(B,) the loss of each pair, whose mean is ``exponential_contrastive_loss``."""
    same, distance = paired(same, "distance", distance)
    pull = 2 / upper_bound * distance**2
    push = 2 * upper_bound * ops.exp(-2.77 / upper_bound * distance)
    return same * pull + (1 - same) * push


def different_quantile(same, distance, quantile: float):
    """A quantile of the distances of the batch's different-person pairs, as a margin.

    Args:
        same: (B,) 0 or 1.
        distance: (B,) at least 0, any unit.
        quantile: 0 to 1; between two distances the lower one is taken.

    Returns:
        Scalar float32 without gradient; 0, a margin without effect, if there are no such pairs.
    """
    same, distance = paired(same, "distance", distance)
    distance = ops.stop_gradient(distance)
    different = same < 0.5
    count = ops.sum(ops.cast(different, "int32"))
    ordered = ops.sort(ops.where(different, distance, float("inf")))
    # Scaled up by one float32 step, so that rounding never lowers an exact rank by one.
    place = quantile * (1 + FLOAT32_STEP) * ops.cast(count - 1, "float32")
    rank = ops.minimum(ops.cast(ops.floor(place), "int32"), count - 1)
    ordered = ops.pad(ordered, [(0, 1)])  # so that an empty batch has a value to take
    value = ops.take(ordered, ops.maximum(rank, 0))
    return ops.where(count > 0, value, 0.0)


def check_margin(margin: float | None, margin_quantile: float | None, margin_factor: float) -> None:
    """Raise a ValueError unless margin or quantile is given, not both, and all are in range."""
    if (margin is None) == (margin_quantile is None):
        raise ValueError("give either margin or margin_quantile")
    if margin is not None:
        check_at_least("margin", margin)
        if margin_factor != 1:
            raise ValueError("margin_factor is for margin_quantile; multiply margin instead")
    if margin_quantile is not None:
        check_share("margin_quantile", margin_quantile)
    check_above("margin_factor", margin_factor)


@keras.saving.register_keras_serializable("keras_scnn")
class ContrastiveLoss(keras.losses.Loss):
    """``contrastive_loss`` with a fixed margin, or one taken from each batch.

    ``y_true`` is ``same`` and ``y_pred`` the distance, both (B,).

    >>> import numpy as np
    >>> loss = ContrastiveLoss(margin=1.0)  # one person at 2.0, two people at 0.5
    >>> float(loss(np.array([1.0, 0.0]), np.array([2.0, 0.5])))  # (2² + (1 - 0.5)²) / 2 / 2
    1.0625

    Args:
        margin: 0 or more, in the distance's unit; or None with ``margin_quantile``.
        margin_quantile: 0 to 1: the margin is this quantile of the distances of the batch's own
            different-person pairs (under a TensorFlow strategy, of each replica's part), times
            ``margin_factor``.
        margin_factor: above 0; with 1 only different-person pairs below the quantile are pushed.

    Raises:
        ValueError: not exactly one of margin and quantile is given, a number is out of range, or a
            factor is given with a margin.
    """

    def __init__(
        self, margin=None, margin_quantile=None, margin_factor=1.0, name="contrastive_loss"
    ):
        super().__init__(name=name)
        check_margin(margin, margin_quantile, margin_factor)
        self.margin, self.margin_quantile = margin, margin_quantile
        self.margin_factor = margin_factor

    def call(self, y_true, y_pred):
        margin = self.margin
        if margin is None:
            margin = self.margin_factor * different_quantile(y_true, y_pred, self.margin_quantile)
        return contrastive_rows(y_true, y_pred, margin)

    def get_config(self):
        return {
            "margin": self.margin,
            "margin_quantile": self.margin_quantile,
            "margin_factor": self.margin_factor,
            "name": self.name,
        }


@keras.saving.register_keras_serializable("keras_scnn")
class ExponentialContrastiveLoss(keras.losses.Loss):
    """``exponential_contrastive_loss`` with a fixed upper bound Q.

    ``y_true`` is ``same`` and ``y_pred`` the distance, both (B,).

    Args:
        upper_bound: Q, above 0, in the distance's unit.

    Raises:
        ValueError: the bound is not above 0, or not finite.
    """

    def __init__(self, upper_bound: float, name="exponential_contrastive_loss"):
        super().__init__(name=name)
        check_above("upper_bound", upper_bound)
        self.upper_bound = upper_bound

    def call(self, y_true, y_pred):
        return exponential_rows(y_true, y_pred, self.upper_bound)

    def get_config(self):
        return {"upper_bound": self.upper_bound, "name": self.name}
