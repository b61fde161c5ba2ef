"""Losses over all pairs of a batch of some photos each of some people.

``person`` (B,) is equal for photos of one person. Each unordered pair of photos counts once. A
batch without pairs of a kind gets exactly 0 from that kind, and finite gradients.
"""

from __future__ import annotations

import keras
from keras import ops

from keras_scnn.losses.contrastive import different_quantile

NEVER = -1e9  # a logit that takes no part in a softmax


def pair_masks(person):
    """(B,) to two (B, B) float32 masks: pairs of one person, and of two, row before column."""
    person = ops.reshape(person, (-1,))
    place = ops.arange(ops.shape(person)[0])
    once = ops.cast(place[:, None] < place[None], "float32")
    same = ops.cast(person[:, None] == person[None], "float32")
    return once * same, once * (1 - same)


def pairwise_distance(vectors):
    """(B, D) to (B, B) Euclidean distances, with a finite slope at 0."""
    vectors = ops.cast(vectors, "float32")
    square = ops.sum(ops.square(vectors[:, None] - vectors[None]), axis=-1)
    return ops.sqrt(square + 1e-12)


def group_contrastive_loss(person, vectors, margin=None, margin_quantile=0.5, margin_factor=1.0):
    """Squared hinge (Hadsell et al. 2006, equation 4) over all pairs, each kind's mean for itself.

    Args:
        person: (B,).
        vectors: (B, D), such as shapes in mm.
        margin: in the vectors' unit; None takes ``margin_factor`` times the ``margin_quantile`` of
            the batch's own distances between different people.
        margin_quantile: 0 to 1.
        margin_factor: above 0.

    Returns:
        Scalar float32: half of the mean square of same pairs' distances, plus half of the mean
        square of what different pairs lack to the margin.
    """
    same, different = pair_masks(person)
    distance = pairwise_distance(vectors)
    if margin is None:
        # Where a pair counts as same it takes no part in the quantile, so pairs that do not
        # count at all are given as same too.
        taken = different_quantile(1 - different, distance, margin_quantile)
        margin = margin_factor * taken
    lack = ops.maximum(margin - distance, 0.0)
    return (_mean(same, distance**2) + _mean(different, lack**2)) / 2


def supervised_contrastive_loss(person, features, temperature=0.1):
    """Khosla et al., "Supervised Contrastive Learning", 2020, equation 2.

    Args:
        person: (B,).
        features: (B, F) of unit length.
        temperature: divides the cosines.

    Returns:
        Scalar float32: the mean over the photos whose person has another one in the batch.
    """
    person = ops.reshape(person, (-1,))
    features = ops.cast(features, "float32")
    itself = ops.eye(ops.shape(person)[0], dtype="float32")
    logits = ops.matmul(features, ops.transpose(features)) / temperature + NEVER * itself
    same = ops.cast(person[:, None] == person[None], "float32") * (1 - itself)
    told = ops.sum(same * ops.log_softmax(logits, axis=-1), axis=-1)
    count = ops.sum(same, axis=-1)
    has_other = ops.cast(count > 0, "float32")
    return -_mean(has_other, told / ops.maximum(count, 1.0))


def relational_loss(teacher, vectors):
    """What the teacher finds alike shall be alike: mean squared difference of the cosines.

    After Park et al., "Relational Knowledge Distillation", 2019: only the relations of a batch's
    photos are learned, so the two may have different sizes.

    Args:
        teacher: (B, E) embeddings; NaN where a photo has none.
        vectors: (B, D).
    """
    known = ops.cast(ops.logical_not(ops.any(ops.isnan(teacher), axis=-1)), "float32")
    teacher = ops.where(ops.isnan(teacher), 0.0, ops.cast(teacher, "float32"))
    counts, _ = pair_masks(ops.zeros_like(known))
    counts = counts * known[:, None] * known[None]
    return _mean(counts, ops.square(_cosines(teacher) - _cosines(ops.cast(vectors, "float32"))))


def embedding_distance(teacher, embedding):
    """Mean squared distance to the teacher's embeddings, of the photos that have one.

    Args:
        teacher: (B, E); NaN where a photo has none.
        embedding: (B, E).

    Returns:
        Scalar float32; exactly 0 where no photo has one.
    """
    known = ops.logical_not(ops.any(ops.isnan(teacher), axis=-1))
    teacher = ops.where(known[:, None], ops.cast(teacher, "float32"), 0.0)
    square = ops.sum(ops.square(teacher - ops.cast(embedding, "float32")), axis=-1)
    return _mean(ops.cast(known, "float32"), square)


def _cosines(vectors):
    length = ops.sqrt(ops.sum(ops.square(vectors), axis=-1, keepdims=True) + 1e-12)
    unit = vectors / length
    return ops.matmul(unit, ops.transpose(unit))


def _mean(weight, values):
    """Weighted mean; exactly 0 where all weights are 0."""
    return ops.sum(weight * values) / ops.maximum(ops.sum(weight), 1e-12)


@keras.saving.register_keras_serializable("keras_scnn")
class GroupContrastiveLoss(keras.losses.Loss):
    """``group_contrastive_loss`` of an output, such as ``shape``, with ``person`` as its label."""

    def __init__(
        self,
        margin=None,
        margin_quantile: float = 0.5,
        margin_factor: float = 1.0,
        name="group_contrastive_loss",
    ):
        super().__init__(name=name, reduction=None)
        if not 0 <= margin_quantile <= 1:
            raise ValueError(f"margin_quantile is {margin_quantile}; it must lie in 0 to 1")
        self._options = {
            "margin": margin,
            "margin_quantile": margin_quantile,
            "margin_factor": margin_factor,
        }

    def call(self, y_true, y_pred):
        return group_contrastive_loss(y_true, y_pred, **self._options)

    def get_config(self):
        return {**self._options, "name": self.name}


@keras.saving.register_keras_serializable("keras_scnn")
class SupervisedContrastiveLoss(keras.losses.Loss):
    """``supervised_contrastive_loss`` of the output ``features``, with ``person`` as its label."""

    def __init__(self, temperature: float = 0.1, name="supervised_contrastive_loss"):
        super().__init__(name=name, reduction=None)
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; it must be above 0")
        self.temperature = temperature

    def call(self, y_true, y_pred):
        return supervised_contrastive_loss(y_true, y_pred, self.temperature)

    def get_config(self):
        return {"temperature": self.temperature, "name": self.name}


@keras.saving.register_keras_serializable("keras_scnn")
class EmbeddingDistance(keras.losses.Loss):
    """``embedding_distance`` of an output, with the teacher's embeddings as its label."""

    def __init__(self, name="embedding_distance"):
        super().__init__(name=name, reduction=None)

    def call(self, y_true, y_pred):
        return embedding_distance(y_true, y_pred)

    def get_config(self):
        return {"name": self.name}


@keras.saving.register_keras_serializable("keras_scnn")
class RelationalLoss(keras.losses.Loss):
    """``relational_loss`` of an output, with the teacher's embeddings as its label."""

    def __init__(self, name="relational_loss"):
        super().__init__(name=name, reduction=None)

    def call(self, y_true, y_pred):
        return relational_loss(y_true, y_pred)

    def get_config(self):
        return {"name": self.name}
