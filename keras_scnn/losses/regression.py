"""Regression losses: weighted parameter distance cost, vertex distance, landmark distance.

Each loss gives one value per face, so that Keras can weight faces (``sample_weight``); labels and
predictions whose shapes do not match raise a ValueError. All can be
saved with a compiled model. ``WPDC`` and ``ParameterLoss`` save the second moments of the face
model's bases, which are all that they need; ``VertexDistance`` needs the vertices, so it can be
saved only for face models that ``load_face_model`` knows by name.
"""

from __future__ import annotations

import hashlib

import keras
import numpy as np
from keras import ops

from keras_scnn.face_models import load_face_model
from keras_scnn.geometry.landmarks68 import OPENINGS
from keras_scnn.losses.batches import matching, mean_of_rows
from keras_scnn.losses.vertex_effect import VertexEffect, whitening_config, whitening_of
from keras_scnn.models.heads import FaceDecoder
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import ParameterSpace
from keras_scnn.settings import check_above, check_at_least


def wpdc(target, predicted, effect):
    """Weighted parameter distance cost: ``sum_i w_i (target_i - predicted_i)^2``.

    ``w_i = |target_i - predicted_i| effect_i``, divided by its maximum over i: the displacement of
    the vertices when only parameter i is wrong (Zhu et al., "Face Alignment in Full Pose Range:
    A 3D Total Solution", 2019, equations 9 to 11). No gradient flows through the weights.

    Args:
        target: (B, P) whitened.
        predicted: (B, P) whitened.
        effect: (B, P) length of the vertices' displacement per unit of each whitened parameter,
            with the others at the target; see ``VertexEffect``.

    Returns:
        Scalar, the mean over the batch.
    """
    return mean_of_rows(wpdc_rows(target, predicted, effect))


def wpdc_rows(target, predicted, effect):
    """(B,) the loss of each face, whose mean is ``wpdc``."""
    target, predicted = matching(target, predicted)
    difference = target - predicted
    weight = ops.stop_gradient(ops.abs(difference) * effect)
    weight = weight / ops.max(weight, axis=-1, keepdims=True, initial=1e-12)
    return ops.sum(weight * difference**2, axis=-1)


def vertex_distance(target, predicted):
    """Mean Euclidean distance of corresponding points.

    Args:
        target: (B, N, 3), any unit.
        predicted: (B, N, 3), the same unit.

    Returns:
        Scalar, in that unit.
    """
    target, predicted = matching(target, predicted)
    return mean_of_rows(ops.mean(_length(target - predicted), axis=-1))


def landmark_distance(target, predicted, unit=1.0, depth_weight=0.0, columns=None):
    """Weighted mean distance in the image, plus the depth error times ``depth_weight``.

    Args:
        target: (B, M, 2 to 4) labels, see ``columns``: x, y and depth in px, and a weight. A weight
            of 0 or less means that there is no label; x, y and depth may then be NaN.
        predicted: (B, M, 2 or 3): x, y in px, and depth.
        unit: px that count as 1.
        depth_weight: of the depth error, from which each face's weighted mean is subtracted first,
            since a scaled orthographic camera has no origin of depth. Above 0 both arrays must have
            depth.
        columns: of ``target``: 'xyw', 'xydw', or, with all weights 1, 'xy' or 'xyd'. None: 'xyw'
            for 3 columns, 'xydw' for 4.

    Returns:
        Scalar; exactly 0 if all weights are 0.

    Raises:
        ValueError: ``columns`` is unknown, ``target`` has another number of columns, or
            ``depth_weight`` is above 0 and depth is missing.
    """
    return mean_of_rows(landmark_rows(target, predicted, unit, depth_weight, columns))


def landmark_rows(target, predicted, unit, depth_weight, columns):
    """(B,) the loss of each face, whose mean is ``landmark_distance``."""
    target, predicted = matching(target, predicted, axes=-1)
    names = _column_names(target, columns)
    if depth_weight and ("d" not in names or predicted.shape[-1] < 3):
        raise ValueError(
            f"depth_weight is {depth_weight}, but labels have the columns '{names}', predictions "
            f"{predicted.shape[-1]}; give labels 'xydw' or 'xyd' and predictions with 3 columns"
        )
    target, weight = _known_labels(target, names)
    # Weights are normalized over the whole batch, not face by face.
    mean_weight = ops.maximum(ops.mean(ops.sum(weight, axis=-1)), 1e-12)
    distance = _length((target[..., :2] - predicted[..., :2]) / unit)
    if depth_weight:
        error = (target[..., 2] - predicted[..., 2]) / unit
        total = ops.maximum(ops.sum(weight, axis=-1, keepdims=True), 1e-12)
        error = error - ops.sum(weight * error, axis=-1, keepdims=True) / total
        distance = distance + depth_weight * ops.abs(error)
    return ops.sum(weight * distance, axis=-1) / mean_weight


COLUMNS = ("xy", "xyd", "xyw", "xydw")


def _column_names(target, columns: str | None) -> str:
    """One letter for each column of labels: x, y, d(epth), w(eight)."""
    size = target.shape[-1]
    names = columns or {3: "xyw", 4: "xydw"}.get(size)
    if names not in COLUMNS or len(names) != size:
        raise ValueError(
            f"columns is {columns} and the landmarks' labels have {size} columns; expected one of "
            f"{', '.join(COLUMNS)}, with one letter per column"
        )
    return names


def _known_labels(target, names: str):
    """The labels, with missing ones (which may be NaN) replaced by 0, and their weights (B, M),
    clipped at 0: with negative weights the loss would have no lower bound."""
    if "w" not in names:
        return target, ops.ones_like(target[..., 0])
    weight = ops.maximum(target[..., -1], 0.0)
    return ops.where(weight[..., None] > 0, target, 0.0), weight


def opening_distance(target, predicted, unit=1.0, columns=None):
    """Weighted mean error of the openings of eyes and lips, in the image.

    Errors of pose and shape displace a lid as much as an error of its opening does; the vector from
    the lower to the upper lid depends on the opening alone.

    Args:
        target: (B, 68, 2 to 4): x, y in px, and by default a weight last, see ``columns``.
        predicted: (B, 68, 2 or 3): x, y in px.
        unit: px that count as 1.
        columns: of ``target``, as for ``landmark_distance``.

    Returns:
        Scalar; exactly 0 if all weights are 0.
    """
    return mean_of_rows(opening_rows(target, predicted, unit, columns))


def opening_rows(target, predicted, unit, columns):
    """(B,) the loss of each face, whose mean is ``opening_distance``."""
    target, predicted = matching(target, predicted, axes=-1)
    upper, lower = OPENINGS[:, 0].tolist(), OPENINGS[:, 1].tolist()

    def rows(points, which):
        return ops.take(points, which, axis=1)

    target, every = _known_labels(target, _column_names(target, columns))
    true, ours = (
        rows(points, upper)[..., :2] - rows(points, lower)[..., :2]
        for points in (target, predicted)
    )
    weight = ops.minimum(*(ops.take(every, which, axis=1) for which in (upper, lower)))
    distance = _length((true - ours) / unit)
    # Weights are normalized over the whole batch, as in ``landmark_rows``.
    mean_weight = ops.maximum(ops.mean(ops.sum(weight, axis=-1)), 1e-12)
    return ops.sum(weight * distance, axis=-1) / mean_weight


def _length(vectors):
    """Euclidean norm over the last axis, with a finite gradient at 0."""
    return ops.sqrt(ops.sum(ops.square(vectors), axis=-1) + 1e-12)


@keras.saving.register_keras_serializable("keras_scnn")
class WPDC(keras.losses.Loss):
    """``wpdc`` of whitened parameters, ``y_true`` and ``y_pred`` (B, P), of one parameter space.

    Args:
        space: of the parameters.
    """

    def __init__(self, space: ParameterSpace | VertexEffect, name="wpdc"):
        super().__init__(name=name)
        self._effect = VertexEffect.of(space)

    def call(self, y_true, y_pred):
        return wpdc_rows(y_true, y_pred, self._effect(y_true))

    def get_config(self):
        return {"space": self._effect.get_config(), "name": self.name}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "space": VertexEffect.from_config(config["space"])})


@keras.saving.register_keras_serializable("keras_scnn")
class ParameterLoss(keras.losses.Loss):
    """WPDC plus the squared RMS distance of the two neutral shapes' vertices, mm².

    WPDC alone gives the identity hardly any weight until the pose is right. ``y_true`` and
    ``y_pred`` are (B, P), whitened.

    Args:
        space: of the parameters.
        wpdc_weight: of the weighted parameter distance cost.
        shape_weight: of the squared distance, per mm².

    Raises:
        ValueError: a weight is negative, or not finite.
    """

    def __init__(
        self,
        space: ParameterSpace | VertexEffect,
        wpdc_weight: float,
        shape_weight: float,
        name="parameter_loss",
    ):
        super().__init__(name=name)
        check_at_least("wpdc_weight", wpdc_weight)
        check_at_least("shape_weight", shape_weight)
        self._effect = VertexEffect.of(space)
        self.wpdc_weight, self.shape_weight = wpdc_weight, shape_weight
        self._gram = shape_weight * self._effect.identity_gram

    def call(self, y_true, y_pred):
        y_true, y_pred = matching(y_true, y_pred)
        difference = (y_true - y_pred)[:, self._effect.identity]
        shape = ops.sum(ops.matmul(difference, self._gram) * difference, axis=-1)
        return self.wpdc_weight * wpdc_rows(y_true, y_pred, self._effect(y_true)) + shape

    def get_config(self):
        return {
            "space": self._effect.get_config(),
            "wpdc_weight": self.wpdc_weight,
            "shape_weight": self.shape_weight,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "space": VertexEffect.from_config(config["space"])})


@keras.saving.register_keras_serializable("keras_scnn")
class VertexDistance(keras.losses.Loss):
    """``vertex_distance`` in crop px of the vertices of two whitened parameter vectors (B, P).

    A saved model contains the name of the face model, not the model itself; saving raises a
    ValueError if ``load_face_model`` does not load the same face model by that name.

    Args:
        space: of the parameters.
    """

    def __init__(self, space: ParameterSpace, name="vertex_distance"):
        super().__init__(name=name)
        self._space, self._decode = space, FaceDecoder.vertices(space)

    def call(self, y_true, y_pred):
        true, ours = (self._decode(values) for values in matching(y_true, y_pred))
        return ops.mean(_length(true - ours), axis=-1)

    def get_config(self):
        space = self._space
        config = {
            "face_model": space.face_model.name,
            "n_identity": space.face_model.n_identity,
            "n_expression": space.face_model.n_expression,
            "digest": _vertex_digest(space.face_model),
            **whitening_config(space.whitening),
        }
        _named_face_model(config)  # fail here rather than on loading
        return {"space": config, "name": self.name}

    @classmethod
    def from_config(cls, config):
        space = ParameterSpace(_named_face_model(config["space"]), whitening_of(config["space"]))
        return cls(**{**config, "space": space})


def _vertex_digest(model: MorphableModel) -> str:
    """32 hexadecimal digits of the SHA-256 of the arrays that determine the vertices."""
    digest = hashlib.sha256()
    for array in (model.mean, model.identity_basis, model.expression_basis):
        digest.update(np.ascontiguousarray(array, "<f4").tobytes())
    return digest.hexdigest()[:32]


def _named_face_model(config: dict) -> MorphableModel:
    name = config["face_model"]
    try:
        model = load_face_model(name).truncated(config["n_identity"], config["n_expression"])
        is_same = _vertex_digest(model) == config["digest"]
    except (OSError, ValueError):
        is_same = False
    if not is_same:
        raise ValueError(
            "VertexDistance is saved with the name of its face model, but "
            f"load_face_model('{name}') does not return that model: save the network before "
            "compiling it or with another loss, and load a saved one with compile=False"
        )
    return model


@keras.saving.register_keras_serializable("keras_scnn")
class LandmarkDistance(keras.losses.Loss):
    """``landmark_distance`` for outputs that are decoded landmarks.

    ``y_true`` is (B, M, 2 to 4), by default with a weight last, and ``y_pred`` (B, M, 2 or 3).

    >>> import numpy as np
    >>> label = np.array([[[0.0, 0.0, 1.0], [9.0, 9.0, 0.0]]])  # the second has no label
    >>> float(LandmarkDistance(unit=10.0)(label, np.array([[[3.0, 4.0], [0.0, 0.0]]])))
    0.5

    Args:
        unit: px that count as 1.
        depth_weight: of the depth error; above 0 only for labels and outputs with depth.
        opening_weight: of ``opening_distance``, for the 68 landmarks.
        columns: of ``y_true``, see ``landmark_distance``: labels of x, y and depth without weights
            need 'xyd'; otherwise the depth is taken for the weight.

    Raises:
        ValueError: a number is out of range, ``columns`` is unknown, or, when called, ``y_true``
            has another number of columns, or depth is missing though it has a weight.
    """

    def __init__(
        self,
        unit: float = 1.0,
        depth_weight: float = 0.0,
        opening_weight: float = 0.0,
        columns: str | None = None,
        name="landmark_distance",
    ):
        super().__init__(name=name)
        if columns not in (None, *COLUMNS):
            raise ValueError(f"columns is '{columns}'; expected one of {', '.join(COLUMNS)}")
        check_above("unit", unit)
        check_at_least("depth_weight", depth_weight)
        check_at_least("opening_weight", opening_weight)
        self.unit, self.depth_weight = unit, depth_weight
        self.opening_weight, self.columns = opening_weight, columns

    def call(self, y_true, y_pred):
        loss = landmark_rows(y_true, y_pred, self.unit, self.depth_weight, self.columns)
        if self.opening_weight:
            loss += self.opening_weight * opening_rows(y_true, y_pred, self.unit, self.columns)
        return loss

    def get_config(self):
        weights = {"depth_weight": self.depth_weight, "opening_weight": self.opening_weight}
        return {"unit": self.unit, **weights, "columns": self.columns, "name": self.name}
