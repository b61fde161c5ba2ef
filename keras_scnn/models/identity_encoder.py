"""The identity encoder: a second encoder that can start from dlib's recognizer, and its blocks."""

from __future__ import annotations

import keras
from keras import layers

from keras_scnn.models.recognizers.chips import COLOR_SCALE, MEAN_COLOR

# Number of residual blocks by width; each width but the first begins with one that halves the map.
STAGES = {32: 3, 64: 4, 128: 3, 256: 2}
PREFIX = "identity_"
FACE_SHARE = 0.825  # side of the window / side of the crop: about that of dlib's recognizer
FACE_LIFT = 0.05  # height of the window's center above the crop's / side of the crop


def to_dlib(image, name: str = "to_dlib"):
    """RGB minus dlib's mean color, about -0.5 to 0.5; ``name`` is the layer's."""
    offset = [-value / COLOR_SCALE for value in MEAN_COLOR]
    return layers.Rescaling(1 / COLOR_SCALE, offset, name=name)(image)


def identity_features(image: keras.KerasTensor) -> keras.KerasTensor:
    """The identity encoder's functional graph, with random weights.

    Args:
        image: (B, S, S, 3) RGB, 0 to 255.

    Returns:
        (B, 256); the names of all its layers begin with ``PREFIX``.
    """
    top, left, side = face_window(image.shape[1])
    below, right = image.shape[1] - top - side, image.shape[1] - left - side
    x = layers.Cropping2D(((top, below), (left, right)), name=f"{PREFIX}window")(image)
    x = to_dlib(x, f"{PREFIX}colors")
    x = layers.Conv2D(32, 7, 2, activation="relu", name=f"{PREFIX}stem")(x)
    x = layers.MaxPooling2D(3, 2, name=f"{PREFIX}stem_pool")(x)
    for width, count in STAGES.items():
        for i in range(count):
            x = residual_block(x, width, f"{PREFIX}{width}{'abcd'[i]}")
    return layers.GlobalAveragePooling2D(name=f"{PREFIX}pool")(x)


def face_window(size: int) -> tuple[int, int, int]:
    """Top, left and side, px, of the window of a ``size`` px crop that is encoded."""
    side = round(FACE_SHARE * size)
    return round((size - side) / 2 - FACE_LIFT * size), (size - side) // 2, side


def residual_block(x, width: int, name: str):
    """Two convolutions and a shortcut; if the width changes, the map is halved too.

    Args:
        x: (B, H, W, C). width: channels of the output. name: prefix of the layers' names.
    """
    halves, padding = width != x.shape[-1], "same"
    if halves and x.shape[1] % 2 and x.shape[1] > 1:
        padding = "valid"  # for an odd side; an even one is padded below and to the right
    stride = 2 if halves else 1
    y = layers.Conv2D(width, 3, stride, padding, activation="relu", name=f"{name}_1")(x)
    y = layers.Conv2D(width, 3, padding="same", name=f"{name}_2")(y)
    if halves:
        x = layers.AveragePooling2D(2, padding=padding, name=f"{name}_half")(x)
        x = layers.Conv2D(width, 1, use_bias=False, name=f"{name}_short")(x)
    return layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_sum")([x, y]))
