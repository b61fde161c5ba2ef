"""An encoder of two convolutions, for tests of what surrounds the encoder."""

import contextlib
import dataclasses
from collections.abc import Iterator
from unittest import mock

import keras

from keras_scnn.models.encoder_table import ENCODERS

STAND_IN = "mobilenet_v3_small"
"""The name it takes while it is known, so that every list of encoders has it."""


def build_tiny(input_tensor, input_shape, include_top, weights, pooling) -> keras.Model:
    """A network with the arguments of ``keras.applications``: (B, S, S, 3) to (B, 8)."""
    x = keras.layers.Conv2D(8, 3, 4, use_bias=False, name="first")(input_tensor)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Conv2D(8, 3, 2, name="second")(keras.layers.ReLU(name="act")(x))
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(keras.utils.get_source_inputs(input_tensor), pooled)


@contextlib.contextmanager
def known_encoder() -> Iterator[str]:
    """Let ``build_encoder`` make the network above under the name of another one, for a while."""
    recipe = dataclasses.replace(ENCODERS["mobilenet_0.5"], build=build_tiny, options={})
    with mock.patch.dict(ENCODERS, {STAND_IN: recipe}):
        yield STAND_IN
