"""The parameter loss that ``keras_scnn.train`` uses: WPDC and the squared error of the shape."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_scnn.losses.regression import WPDC
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import ParameterLayout, Whitening


class ParameterLoss(keras.losses.Loss):
    """WPDC, which sees to the pose, and the squared error of the neutral shape.

    The latter is ``sum_k (effect_k (target_k - predicted_k))^2`` over the identity coefficients,
    with the effect of each in mm: WPDC alone gives the identity hardly any weight until the pose
    is right.
    """

    def __init__(
        self, model: MorphableModel, whitening: Whitening, wpdc_weight: float, shape_weight: float
    ):
        super().__init__(name="parameter_loss")
        self._wpdc, self._wpdc_weight = WPDC(model, whitening), wpdc_weight
        self._identity = ParameterLayout(model.n_identity, model.n_expression).identity
        effect = whitening.scale[self._identity] * model.identity_weights_mm
        self._square = (shape_weight * effect**2).astype(np.float32)

    def call(self, y_true, y_pred):
        difference = (y_true - y_pred)[:, self._identity]
        shape = ops.mean(ops.sum(self._square * ops.square(difference), axis=-1))
        return self._wpdc_weight * self._wpdc(y_true, y_pred) + shape
