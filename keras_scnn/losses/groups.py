"""Losses over all pairs of photos in a batch that has several photos of each person.

``person`` (B,) is equal for photos of one person. Each unordered pair of photos counts once. A
kind of pair that the batch lacks contributes exactly 0, and its gradients are finite. On several
JAX devices pairs are formed over the whole batch, under a TensorFlow strategy within each replica's
part.

Vectors that are not (B, D), or do not match the labels, raise a ValueError. Losses of single photos
honor ``sample_weight``; those of pairs of photos reject it, since weights are per photo, not per
pair.
"""

from __future__ import annotations

import keras
from keras import ops

from keras_scnn.losses.batches import batch_mean, matching, mean_of_rows
from keras_scnn.losses.contrastive import check_margin, different_quantile
from keras_scnn.settings import check_above

EXCLUDED_LOGIT = -1e9  # contributes exactly 0 to a softmax


def pair_masks(person):
    """From (B,) to (B, B) float32 masks above the diagonal: pairs of one person, and of two."""
    person = ops.reshape(person, (-1,))
    place = ops.arange(ops.shape(person)[0])
    once = ops.cast(place[:, None] < place[None], "float32")
    same = ops.cast(person[:, None] == person[None], "float32")
    return once * same, once * (1 - same)


def _checked(name: str, values, person=None):
    """Vectors (B, D) as float32; other static shapes would be broadcast, or fail without a name.

    Raises:
        ValueError: they have another number of axes, or of rows than ``person``.
    """
    values = ops.cast(values, "float32")
    count = None if person is None else ops.reshape(person, (-1,)).shape[0]
    if len(values.shape) != 2:
        shape = tuple(values.shape)
        raise ValueError(f"{name} has the shape {shape}; it must be (B, D), a vector per photo")
    if count is not None and values.shape[0] not in (count, None):
        raise ValueError(f"{name} has {values.shape[0]} rows and person {count}; they must match")
    return values


def pairwise_distance(vectors):
    """(B, D) to (B, B) Euclidean distances, with a finite gradient at 0."""
    return ops.sqrt(_squared_distances(vectors) + 1e-12)


def _squared_distances(vectors):
    return ops.sum(ops.square(vectors[:, None] - vectors[None]), axis=-1)


def group_contrastive_loss(person, vectors, margin=None, margin_quantile=0.5, margin_factor=1.0):
    """Squared hinge (Hadsell et al. 2006, equation 4) over all pairs, averaged per kind of pair.

    Args:
        person: (B,).
        vectors: (B, D), such as shapes in mm.
        margin: in the vectors' unit; None takes ``margin_factor`` times the ``margin_quantile`` of
            the batch's own distances between different people.
        margin_quantile: 0 to 1.
        margin_factor: above 0.

    Returns:
        Scalar float32: half of the mean squared distance of same-person pairs, plus half of the
        mean squared hinge ``max(margin - distance, 0)`` of different-person pairs.
    """
    distance = pairwise_distance(_checked("vectors", vectors, person))
    same, different = pair_masks(person)
    if margin is None:
        # All but the pairs of ``different``, such as the diagonal, are excluded as "same".
        quantile = different_quantile(1 - different, distance, margin_quantile)
        margin = margin_factor * quantile
    hinge = ops.maximum(margin - distance, 0.0)
    return (_mean(same, distance**2) + _mean(different, hinge**2)) / 2


def supervised_contrastive_loss(person, features, temperature=0.1):
    """Khosla et al., "Supervised Contrastive Learning", 2020, equation 2.

    Args:
        person: (B,).
        features: (B, F) of unit length.
        temperature: divides the cosines.

    Returns:
        Scalar float32: the mean over the photos whose person has another one in the batch.
    """
    return mean_of_rows(supervised_rows(person, features, temperature))


def supervised_rows(person, features, temperature):
    """(B,) the loss of each photo, whose mean is ``supervised_contrastive_loss``."""
    features = _checked("features", features, person)
    return _softmax_rows(person, ops.matmul(features, ops.transpose(features)) / temperature)


def neighborhood_loss(person, vectors, scale=1.0):
    """The supervised contrastive loss of Euclidean distances instead of cosines.

    For each photo, the probability of each other photo of the batch is the softmax of
    ``-distance² / (2 scale²)`` (Goldberger, Roweis, Hinton and Salakhutdinov, "Neighbourhood
    Components Analysis", 2004, equation 1). The loss is minus the mean log probability of the other
    photos of the same person, as in Khosla et al. 2020, equation 2. The closest photos of other
    people have the largest gradients, whereas the hinge of ``group_contrastive_loss`` acts on all
    pairs within its margin.

    Args:
        person: (B,).
        vectors: (B, D), such as shapes in mm.
        scale: above 0, in the vectors' unit; photos much farther away than the closest one, by this
            scale, have no effect.

    Returns:
        Scalar float32: the mean over the photos whose person has another one in the batch.
    """
    return mean_of_rows(neighborhood_rows(person, vectors, scale))


def neighborhood_rows(person, vectors, scale):
    """(B,) the loss of each photo, whose mean is ``neighborhood_loss``."""
    vectors = _checked("vectors", vectors, person)
    return _softmax_rows(person, -_squared_distances(vectors) / (2 * scale**2))


def _softmax_rows(person, logits):
    """(B,) minus the mean log softmax of the same person's photos, from logits (B, B).

    The mean over these numbers is that over the photos whose person has another one.
    """
    person = ops.reshape(person, (-1,))
    itself = ops.eye(ops.shape(person)[0], dtype="float32")
    same = ops.cast(person[:, None] == person[None], "float32") * (1 - itself)
    log_probability = ops.log_softmax(logits + EXCLUDED_LOGIT * itself, axis=-1)
    count = ops.sum(same, axis=-1)
    has_other = ops.cast(count > 0, "float32")
    return -_rows(has_other, ops.sum(same * log_probability, axis=-1) / ops.maximum(count, 1.0))


def relational_loss(teacher, vectors):
    """Match the teacher's pairwise cosine similarities (relational knowledge distillation).

    The mean squared difference of the two cosines of each pair of photos (after Park, Kim, Lu and
    Cho, "Relational Knowledge Distillation", 2019). Only similarities are compared, so teacher and
    student vectors may have different sizes.

    Args:
        teacher: (B, E) embeddings; NaN if a photo has none.
        vectors: (B, D).

    Returns:
        Scalar float32, 0 to 4; exactly 0 if fewer than two photos have an embedding.
    """
    teacher, vectors = _checked("teacher", teacher), _checked("vectors", vectors)
    teacher, vectors = matching(teacher, vectors, axes=1)
    known = ops.cast(ops.logical_not(ops.any(ops.isnan(teacher), axis=-1)), "float32")
    teacher = ops.where(ops.isnan(teacher), 0.0, teacher)
    counts, _ = pair_masks(ops.zeros_like(known))
    counts = counts * known[:, None] * known[None]
    return _mean(counts, ops.square(_cosines(teacher) - _cosines(vectors)))


def embedding_distance(teacher, embedding):
    """Mean squared distance to the teacher's embeddings, over the photos that have one.

    Args:
        teacher: (B, E); NaN if a photo has none.
        embedding: (B, E).

    Returns:
        Scalar float32; exactly 0 if no photo has one.
    """
    return mean_of_rows(embedding_rows(teacher, embedding))


def embedding_rows(teacher, embedding):
    """(B,) the loss of each photo, whose mean is ``embedding_distance``."""
    teacher, embedding = _checked("teacher", teacher), _checked("embedding", embedding)
    teacher, embedding = matching(teacher, embedding)
    known = ops.logical_not(ops.any(ops.isnan(teacher), axis=-1))
    teacher = ops.where(known[:, None], teacher, 0.0)
    square = ops.sum(ops.square(teacher - embedding), axis=-1)
    return _rows(ops.cast(known, "float32"), square)


def _cosines(vectors):
    length = ops.sqrt(ops.sum(ops.square(vectors), axis=-1, keepdims=True) + 1e-12)
    unit = vectors / length
    return ops.matmul(unit, ops.transpose(unit))


def _mean(weight, values):
    """Weighted mean; exactly 0 if all weights are 0."""
    return ops.sum(weight * values) / ops.maximum(ops.sum(weight), 1e-12)


def _rows(weight, values):
    """(B,) numbers whose mean is the weighted mean of the values."""
    return weight * values / ops.maximum(ops.mean(weight), 1e-12)


def _first_photos(person):
    """(B,) int32: for each photo, the index of the batch's first photo of the same person."""
    person = ops.reshape(ops.convert_to_tensor(person), (-1,))
    is_same = ops.cast(person[:, None] == person[None], "int32")
    return ops.argmax(ops.pad(is_same, [(0, 0), (0, 1)]), axis=-1)  # also of an empty batch


class _PersonLoss(keras.losses.Loss):
    """A loss whose labels are people's numbers, of any integer type.

    Keras casts labels to float32, in which different large numbers may become equal; they are
    replaced by indices in the batch, which are exact.
    """

    def __call__(self, y_true, y_pred, sample_weight=None):
        return super().__call__(_first_photos(y_true), y_pred, sample_weight)


class _PairsLoss(keras.losses.Loss):
    """A loss of pairs of photos, to which ``sample_weight`` of photos does not apply.

    Raises:
        ValueError: it is called with weights.
    """

    def __call__(self, y_true, y_pred, sample_weight=None):
        if sample_weight is not None:
            raise ValueError(f"{self.name} compares pairs of photos; it takes no sample_weight")
        return super().__call__(y_true, y_pred)


@keras.saving.register_keras_serializable("keras_scnn")
class GroupContrastiveLoss(_PersonLoss, _PairsLoss):
    """``group_contrastive_loss`` of an output (B, D), such as ``shape``; ``y_true`` is ``person``.

    Args:
        margin: in the output's unit; None takes it from each batch.
        margin_quantile: 0 to 1, see ``group_contrastive_loss``; None is 0.5 without a margin.
        margin_factor: above 0.

    Raises:
        ValueError: a number is out of range, or a quantile or factor is given with a margin.
    """

    def __init__(
        self,
        margin=None,
        margin_quantile: float | None = None,
        margin_factor: float = 1.0,
        name="group_contrastive_loss",
    ):
        super().__init__(name=name)
        if margin is None and margin_quantile is None:
            margin_quantile = 0.5
        check_margin(margin, margin_quantile, margin_factor)
        self._options = {
            "margin": margin,
            "margin_quantile": margin_quantile,
            "margin_factor": margin_factor,
        }

    def call(self, y_true, y_pred):
        return batch_mean(group_contrastive_loss(y_true, y_pred, **self._options))

    def get_config(self):
        return {**self._options, "name": self.name}

    @classmethod
    def from_config(cls, config):
        if config.get("margin") is not None:  # older files store an unused quantile with it
            idle = ("margin_quantile", "margin_factor")
            config = {name: value for name, value in config.items() if name not in idle}
        return cls(**config)


@keras.saving.register_keras_serializable("keras_scnn")
class SupervisedContrastiveLoss(_PersonLoss):
    """``supervised_contrastive_loss`` of unit vectors (B, F); ``y_true`` is ``person`` (B,).

    Args:
        temperature: above 0.

    Raises:
        ValueError: the temperature is not above 0.
    """

    def __init__(self, temperature: float = 0.1, name="supervised_contrastive_loss"):
        super().__init__(name=name)
        check_above("temperature", temperature)
        self.temperature = temperature

    def call(self, y_true, y_pred):
        return supervised_rows(y_true, y_pred, self.temperature)

    def get_config(self):
        return {"temperature": self.temperature, "name": self.name}


@keras.saving.register_keras_serializable("keras_scnn")
class NeighborhoodLoss(_PersonLoss):
    """``neighborhood_loss`` of an output (B, D), such as ``shape``; ``y_true`` is ``person`` (B,).

    Args:
        scale: above 0, in the output's unit.

    Raises:
        ValueError: the scale is not above 0.
    """

    def __init__(self, scale: float = 1.0, name="neighborhood_loss"):
        super().__init__(name=name)
        check_above("scale", scale)
        self.scale = scale

    def call(self, y_true, y_pred):
        return neighborhood_rows(y_true, y_pred, self.scale)

    def get_config(self):
        return {"scale": self.scale, "name": self.name}


@keras.saving.register_keras_serializable("keras_scnn")
class EmbeddingDistance(keras.losses.Loss):
    """``embedding_distance`` of an output (B, E); ``y_true`` is the teacher's embedding (B, E)."""

    def __init__(self, name="embedding_distance"):
        super().__init__(name=name)

    def call(self, y_true, y_pred):
        return embedding_rows(y_true, y_pred)

    def get_config(self):
        return {"name": self.name}


@keras.saving.register_keras_serializable("keras_scnn")
class RelationalLoss(_PairsLoss):
    """``relational_loss`` of an output (B, D); ``y_true`` is the teacher's embedding (B, E).

    Match the teacher's pairwise cosine similarities (relational knowledge distillation).
    """

    def __init__(self, name="relational_loss"):
        super().__init__(name=name)

    def call(self, y_true, y_pred):
        return batch_mean(relational_loss(y_true, y_pred))

    def get_config(self):
        return {"name": self.name}
