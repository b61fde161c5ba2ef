"""Image encoders (see ``encoder_table``) with built-in preprocessing."""

from __future__ import annotations

import keras
from keras import layers

from keras_scnn.models.backend import check_data_format
from keras_scnn.models.encoder_table import ENCODERS
from keras_scnn.settings import check_share, whole, wrong_type


def build_encoder(
    name: str,
    input_size: int = 120,
    weights: str | None = None,
    batch_norm_momentum: float = 0.9,
) -> keras.Model:
    """Build a network from an image to one feature vector, preprocessing included.

    >>> encoder = build_encoder("mobilenet_0.5", input_size=64)
    >>> encoder.output_shape
    (None, 512)

    Args:
        name: a key of ``ENCODERS``.
        input_size: width and height of the input, px, at least 32.
        weights: None (random); 'imagenet' (downloaded and cached by Keras); or 'dlib' for
            'dlib_mobilenet' (from an installed package, see ``dlib_stem``).
        batch_norm_momentum: 0 to 1; Keras's default of 0.99 is too slow for short runs.

    Returns:
        A model from (B, S, S, 3) RGB, 0 to 255, of any dtype, to (B, F) features; its last layer
        pools a feature map (B, H, W, F).

    Raises:
        ValueError: the name is unknown, a number is out of range, or the encoder has no such
            weights.
        FileNotFoundError: the weights are 'dlib', and their package is not installed.
    """
    if name not in ENCODERS:
        raise ValueError(f"unknown encoder '{name}'; choose from {', '.join(ENCODERS)}")
    whole("input_size", input_size, 32)
    check_share("batch_norm_momentum", batch_norm_momentum)
    check_data_format()
    encoder = ENCODERS[name]
    encoder.check_weights(weights, name)
    shape = (input_size, input_size, 3)
    image = keras.Input(shape, name="image")
    base = encoder(
        input_tensor=encoder.preprocess(image),
        input_shape=shape,
        include_top=False,
        weights=weights,
        pooling="avg",
    )
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = batch_norm_momentum
    return keras.Model(image, base.output, name="encoder")


def feature_map(encoder: keras.Model, stride: int) -> keras.KerasTensor:
    """The encoder's last feature map (B, H, W, C) with H at least the image's height / ``stride``.

    Raises:
        ValueError: there is no such map.
    """
    height = encoder.input_shape[1] // stride
    # A nested model's maps are not tensors of this graph, and the image is not a feature map.
    skipped = layers.ZeroPadding2D, layers.InputLayer, keras.Model
    kept = (one for one in reversed(encoder.layers) if not isinstance(one, skipped))
    maps = (layer.output for layer in kept if _is_map(layer.output))
    found = next((each for each in maps if each.shape[1] >= height), None)
    if found is None:
        raise ValueError(
            f"encoder '{encoder.name}' has no feature map of {height} px or more, which heads "
            "for expression or gaze need; take expression_channels=0, gaze_channels=0"
        )
    return found


def _is_map(tensor) -> bool:
    """Whether it is a feature map (B, H, W, C), and not the several tensors of a layer."""
    return isinstance(tensor, keras.KerasTensor) and len(tensor.shape) == 4


def graph_ends(encoder: keras.Model) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Input (B, S, S, 3) and output (B, F) of an encoder, which may be any Keras graph.

    Raises:
        ValueError: it is no Keras model, has no graph of layers yet, or does not map one color
            image to one vector.
    """
    if not isinstance(encoder, keras.Model):
        raise wrong_type("encoder", encoder, "a Keras model, such as build_encoder(name) returns")
    # Before its first call a Sequential model has 'inputs' and 'outputs', but no 'input'.
    inputs = encoder.inputs if encoder.built and hasattr(encoder, "inputs") else None
    if not inputs:
        raise ValueError(
            f"encoder '{encoder.name}' has no graph of layers; start it with "
            "keras.Input((S, S, 3)), or wrap it: keras.Model(image, encoder(image)) with such an "
            "image"
        )
    shapes = [tuple(x.shape[1:]) for x in [*inputs, *encoder.outputs]]
    side = shapes[0][0]
    is_right = len(shapes) == 2 and shapes[0] == (side, side, 3) and len(shapes[1]) == 1
    if not is_right or None in shapes[0] + shapes[1]:
        raise ValueError(
            f"encoder '{encoder.name}' has inputs and outputs of shapes {shapes}; it must have one "
            "input (S, S, 3) and one output (F,), such as that of a global pooling layer"
        )
    return inputs[0], encoder.outputs[0]


def pooled_map(encoder: keras.Model) -> keras.KerasTensor:
    """The feature map (B, H, W, F) that the last layer of an encoder pools.

    Raises:
        ValueError: the last layer does not pool a feature map.
    """
    last = encoder.layers[-1]
    # A nested model's own input is not a tensor of this graph.
    if isinstance(last, keras.Model) or not _is_map(last.input):
        raise ValueError(
            f"the last layer of encoder '{encoder.name}' pools no feature map, which the feature "
            "head needs; end it with a global pooling layer, or take feature_channels=0"
        )
    return last.input
