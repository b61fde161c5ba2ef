"""Image encoders: networks of ``keras.applications`` with their preprocessing inside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import keras
from keras import ops

# Mean of ImageNet in BGR order, which ResNet50's published weights expect to be taken off.
IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)


def _to_unit(image):
    return keras.layers.Rescaling(1 / 127.5, offset=-1, name="to_unit")(image)


def _to_caffe(image):
    centered = [-value for value in IMAGENET_MEAN_BGR]
    return keras.layers.Rescaling(1.0, offset=centered, name="to_caffe")(ops.flip(image, axis=-1))


@dataclass(frozen=True)
class _Recipe:
    build: Callable[..., keras.Model]
    options: dict = field(default_factory=dict)
    preprocess: Callable = _to_unit


_apps = keras.applications
ENCODERS = {
    "mobilenet_0.5": _Recipe(_apps.MobileNet, {"alpha": 0.5}),
    "mobilenet_1.0": _Recipe(_apps.MobileNet, {"alpha": 1.0}),
    "mobilenet_v2": _Recipe(_apps.MobileNetV2),
    "mobilenet_v3_small": _Recipe(_apps.MobileNetV3Small, {"include_preprocessing": False}),
    "mobilenet_v3_large": _Recipe(_apps.MobileNetV3Large, {"include_preprocessing": False}),
    "resnet50": _Recipe(_apps.ResNet50, {}, _to_caffe),
    "resnet50_v2": _Recipe(_apps.ResNet50V2),
}


def build_encoder(
    name: str,
    input_size: int = 120,
    weights: str | None = None,
    batch_norm_momentum: float = 0.9,
) -> keras.Model:
    """A network from image to one feature vector.

    Args:
        name: a key of ``ENCODERS``.
        input_size: width and height of the input, px, at least 32.
        weights: None (random) or 'imagenet' (downloaded by Keras, which caches it).
        batch_norm_momentum: Keras's default of 0.99 is too slow for short runs.

    Returns:
        A model from (B, S, S, 3) RGB, 0 to 255, of any dtype, to (B, F) features; its last layer
        pools a feature map (B, H, W, F).

    Raises:
        ValueError: unknown name.
    """
    if name not in ENCODERS:
        raise ValueError(f"unknown encoder '{name}'; known are {', '.join(ENCODERS)}")
    recipe = ENCODERS[name]
    shape = (input_size, input_size, 3)
    image = keras.Input(shape, name="image")
    base = recipe.build(
        input_tensor=recipe.preprocess(image),
        input_shape=shape,
        include_top=False,
        weights=weights,
        pooling="avg",
        **recipe.options,
    )
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = batch_norm_momentum
    return keras.Model(image, base.output, name="encoder")
