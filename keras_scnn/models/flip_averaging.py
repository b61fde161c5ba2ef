"""A branch that looks twice: at the crop, and at its mirror image."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_scnn.morphable_model import mirror_map
from keras_scnn.parameters import ParameterSpace


def build_mirrored(branch: keras.Model, space: ParameterSpace) -> keras.Model:
    """The mean of what a branch says of a crop and, taken back, of its mirror image.

    It costs twice the branch, needs no training, and makes fewer errors; what it says of a mirrored
    crop is exactly the mirror image of what it says of the crop.

    Args:
        branch: from ``build_branch``; its weights are shared.
        space: of the parameters; its face model has mirror partners.

    Returns:
        A model with the branch's input and outputs.

    Raises:
        ValueError: the face model has no mirror partners.
    """
    image = keras.Input(branch.input_shape[1:], name="image")
    told, mirrored = branch(image), branch(ops.flip(image, axis=2))
    back = _mirror_layer(space, branch.input_shape[1])
    mean = keras.layers.Average(dtype="float32", name="both")
    outputs = {"parameters": mean([told["parameters"], back(mirrored["parameters"])])}
    if "features" in told:
        total = keras.layers.Add(dtype="float32", name="features_of_both")
        unit = keras.layers.UnitNormalization(dtype="float32", name="features")
        outputs["features"] = unit(total([told["features"], mirrored["features"]]))
    return keras.Model(image, outputs, name="mirrored")


def _mirror_layer(space: ParameterSpace, size: int) -> keras.layers.Dense:
    """Whitened parameters of a mirrored crop of ``size`` px to those of the crop."""
    matrix, offset = mirror_map(space.face_model, size)
    whitening = space.whitening
    layer = keras.layers.Dense(len(matrix), dtype="float32", trainable=False, name="mirror_back")
    layer.build((None, len(matrix)))
    kernel = whitening.scale[:, None] * matrix.T / whitening.scale
    layer.set_weights([kernel, whitening.whiten(matrix @ np.float64(whitening.mean) + offset)])
    return layer
