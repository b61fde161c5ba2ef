"""The value of constants that a layer has not been filled with yet."""

import keras
import numpy as np

UNSET = keras.initializers.Constant(np.inf)
"""A copy that was not filled (``keras.models.clone_model``) has no result that looks like one.

Not NaN: the hosts of a JAX run compare what they begin with, and NaN differs from itself.
"""
