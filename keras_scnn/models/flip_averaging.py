"""Flip test-time augmentation: outputs averaged over the crop and its mirror image."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops
from scipy.linalg import block_diag

from keras_scnn.models.heads import check_branch
from keras_scnn.morphable_model import mirror_matrices
from keras_scnn.parameters import ParameterSpace, check_space


def build_flip_averaged(branch: keras.Model, space: ParameterSpace) -> keras.Model:
    """Average a branch's outputs over a crop and its mirror image, the latter mirrored back.

    It takes twice the branch's time, needs no training, and is more accurate; its outputs for a
    mirrored crop are exactly the mirrored outputs for the crop.

    Args:
        branch: from ``build_branch``; its weights are shared.
        space: of the branch's parameters; its face model needs mirror partners.

    Returns:
        A model with the branch's input and outputs.

    Raises:
        ValueError: an argument has another type, or the face model has no mirror partners.
    """
    check_branch(branch)
    check_space(space)
    image = keras.Input(branch.input_shape[1:], name="image")
    plain, flipped = branch(image), branch(ops.flip(image, axis=2))
    back = _mirror_layer(space, branch.input_shape[1])
    mean = keras.layers.Average(dtype="float32", name="both")
    outputs = {"parameters": mean([plain["parameters"], back(flipped["parameters"])])}
    if "features" in plain:
        total = keras.layers.Add(dtype="float32", name="features_of_both")
        unit = keras.layers.UnitNormalization(dtype="float32", name="features")
        outputs["features"] = unit(total([plain["features"], flipped["features"]]))
    return keras.Model(image, outputs, name="flip_averaged")


def _mirror_layer(space: ParameterSpace, size: int) -> keras.layers.Dense:
    """A layer from whitened parameters of a mirrored crop, ``size`` px, to those of the crop."""
    # x is mirrored both in the crop and in the model frame.
    pose = np.diag(np.outer([-1, 1, 1], [-1, 1, 1, 1]).ravel())
    matrix, whitening = block_diag(pose, *mirror_matrices(space.face_model)), space.whitening
    offset = np.zeros(len(matrix))
    offset[3] = size - 1
    layer = keras.layers.Dense(len(matrix), dtype="float32", trainable=False, name="mirror_back")
    layer.build((None, len(matrix)))
    kernel = whitening.scale[:, None] * matrix.T / whitening.scale
    layer.set_weights([kernel, whitening.whiten(matrix @ np.float64(whitening.mean) + offset)])
    return layer
