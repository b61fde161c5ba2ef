"""The initial value of a layer's constants, before they are set."""

import keras
import numpy as np

UNSET = keras.initializers.Constant(np.inf)
"""Infinite, so that a layer whose constants were never set (``keras.models.clone_model``) gives no
plausible output.

Not NaN: the hosts of a JAX run compare their initial weights, and NaN differs from itself.
"""
