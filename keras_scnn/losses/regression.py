"""Regression losses: weighted parameter distance cost, vertex distance, landmark distance.

The two that hold a face model, ``WPDC`` and ``VertexDistance``, cannot be rebuilt from a saved
file: load a saved network with ``compile=False`` and compile it anew, or keep it as a preset.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_scnn.models.heads import FaceDecoder
from keras_scnn.parameters import POSE_SIZE, ParameterSpace


def wpdc(target, predicted, effect):
    """Weighted parameter distance cost: ``sum_i w_i (target_i - predicted_i)^2``.

    ``w_i = |target_i - predicted_i| effect_i``, divided by its maximum over i: how far the
    vertices move when only parameter i is wrong (Zhu et al., "Face Alignment in Full Pose Range:
    A 3D Total Solution", 2019, equations 9 to 11). No gradient flows through the weights.

    Args:
        target: (B, P) whitened.
        predicted: (B, P) whitened.
        effect: (B, P) length of the vertices' displacement per unit of each whitened parameter,
            with the others at the target.

    Returns:
        Scalar, the mean over the batch.
    """
    difference = target - predicted
    weight = ops.stop_gradient(ops.abs(difference) * effect)
    weight = weight / ops.maximum(ops.max(weight, axis=-1, keepdims=True), 1e-12)
    return ops.mean(ops.sum(weight * difference**2, axis=-1))


def vertex_distance(target, predicted):
    """Mean distance of (B, N, 3) points, in their unit: a scalar."""
    return ops.mean(_length(target - predicted))


def landmark_distance(target, predicted, unit=1.0, depth_weight=0.0):
    """Mean distance in the image, by weight, and the mean error of depth where it is known.

    Args:
        target: (B, M, 3 or 4): x, y in px, depth in px where there are four, and a weight of at
            least 0 (0 for landmarks without label).
        predicted: (B, M, 2 or 3): x, y in px, and depth.
        unit: px that count as 1.
        depth_weight: of the mean size of the depth's error; each face's mean depths are brought
            together first, since a camera of this kind has no origin of depth.

    Returns:
        Scalar; exactly 0 where all weights are 0.
    """
    weight = target[..., -1]
    distance = _length((target[..., :2] - predicted[..., :2]) / unit)
    loss = ops.sum(weight * distance) / ops.maximum(ops.sum(weight), 1e-12)
    if depth_weight and target.shape[-1] == 4:
        error = (target[..., 2] - predicted[..., 2]) / unit
        error = error - ops.mean(error, axis=-1, keepdims=True)
        loss = loss + depth_weight * ops.mean(ops.abs(error))
    return loss


def _length(vectors):
    """Euclidean norm over the last axis, with a finite slope at 0."""
    return ops.sqrt(ops.sum(ops.square(vectors), axis=-1) + 1e-12)


class VertexEffect:
    """How far each whitened parameter moves the vertices, for any parameter space.

    All follow in closed form from 3x3 moments of the bases: coefficient i moves the vertices by
    the norm of ``A B_i`` for the camera's linear part A; entry (r, c) of the camera by the norm
    of coordinate c of the face.
    """

    def __init__(self, space: ParameterSpace):
        model, whitening = space.face_model, space.whitening
        bases = np.concatenate([model.identity_basis, model.expression_basis], axis=-1)
        bases = bases.astype(np.float64)
        full = np.concatenate([model.mean[..., None], bases], axis=-1)
        self._moments = np.einsum("njk,nlk->kjl", bases, bases).astype(np.float32)
        self._squares = np.einsum("nck,ncl->ckl", full, full).astype(np.float32)
        self._mean, self._scale = whitening.mean, whitening.scale
        self._n_vertices = float(model.n_vertices)

    def __call__(self, target):
        """(B, P) whitened targets to (B, P) displacements, px (root of the sum of squares)."""
        vector = ops.cast(target, "float32") * self._scale + self._mean
        camera = ops.reshape(vector[:, :POSE_SIZE], (-1, 3, 4))[:, :, :3]
        gram = ops.matmul(ops.transpose(camera, (0, 2, 1)), camera)
        shape = ops.sqrt(ops.maximum(ops.einsum("bjl,kjl->bk", gram, self._moments), 0.0))
        one = ops.ones_like(vector[:, :1])
        weights = ops.concatenate([one, vector[:, POSE_SIZE:]], axis=-1)
        square = ops.einsum("bk,ckl,bl->bc", weights, self._squares, weights)
        row = ops.concatenate([square, one * self._n_vertices], axis=-1)
        pose = ops.tile(ops.sqrt(ops.maximum(row, 0.0)), (1, 3))
        return ops.concatenate([pose, shape], axis=-1) * self._scale


class WPDC(keras.losses.Loss):
    """``wpdc`` of whitened parameters of one parameter space."""

    def __init__(self, space: ParameterSpace, name="wpdc"):
        super().__init__(name=name)
        self._effect = VertexEffect(space)

    def call(self, y_true, y_pred):
        y_true = ops.cast(y_true, "float32")
        return wpdc(y_true, ops.cast(y_pred, "float32"), self._effect(y_true))


class VertexDistance(keras.losses.Loss):
    """``vertex_distance`` in crop px of the vertices that two whitened parameter vectors give."""

    def __init__(self, space: ParameterSpace, name="vertex_distance"):
        super().__init__(name=name)
        self._decode = FaceDecoder.vertices(space)

    def call(self, y_true, y_pred):
        return vertex_distance(self._decode(y_true), self._decode(y_pred))


@keras.saving.register_keras_serializable("keras_scnn")
class LandmarkDistance(keras.losses.Loss):
    """``landmark_distance`` for outputs that are decoded landmarks."""

    def __init__(self, unit: float = 1.0, depth_weight: float = 0.0, name="landmark_distance"):
        super().__init__(name=name)
        self.unit, self.depth_weight = unit, depth_weight

    def call(self, y_true, y_pred):
        true, predicted = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
        return landmark_distance(true, predicted, self.unit, self.depth_weight)

    def get_config(self):
        return {"unit": self.unit, "depth_weight": self.depth_weight, "name": self.name}


class ParameterLoss(keras.losses.Loss):
    """WPDC, which sees to the pose, and the squared error of the neutral shape.

    The latter is ``sum_k (effect_k (target_k - predicted_k))^2`` over the identity coefficients,
    with the effect of each in mm: WPDC alone gives the identity hardly any weight until the pose
    is right.
    """

    def __init__(self, space: ParameterSpace, wpdc_weight: float, shape_weight: float):
        super().__init__(name="parameter_loss")
        self._wpdc, self._wpdc_weight = WPDC(space), wpdc_weight
        self._identity = space.layout.identity
        self._square = (shape_weight * space.identity_mm**2).astype(np.float32)

    def call(self, y_true, y_pred):
        difference = (y_true - y_pred)[:, self._identity]
        shape = ops.mean(ops.sum(self._square * ops.square(difference), axis=-1))
        return self._wpdc_weight * self._wpdc(y_true, y_pred) + shape
