"""The identity encoder: a second look at the crop, by a network made to tell people apart.

A residual network without normalization layers, after that of dlib (King, "High Quality Face
Recognition with Deep Metric Learning", 2017), whose weights it can start from: the same layers but
the last three residual blocks, two of which do next to nothing there, on a smaller image.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

# Residual blocks of each width; all widths but the first begin with one that halves the map.
STAGES = {32: 3, 64: 4, 128: 3, 256: 2}
PREFIX = "identity_"
FACE_SHARE = 0.825  # side of the face's part of the crop: what dlib's recognizer sees, about
FACE_LIFT = 0.05  # how far its center is above the crop's, as a share of the crop's side
# dlib's mean color, RGB, and its scale.
MEAN_COLOR, COLOR_SCALE = (122.782, 117.001, 104.298), 256.0


def identity_features(image: keras.KerasTensor) -> keras.KerasTensor:
    """(B, S, S, 3) RGB, 0 to 255, to (B, 256): the functional graph, its weights random.

    All of its layers' names begin with ``PREFIX``.
    """
    top, left, side = face_window(image.shape[1])
    below, right = image.shape[1] - top - side, image.shape[1] - left - side
    x = layers.Cropping2D(((top, below), (left, right)), name=f"{PREFIX}window")(image)
    offset = (-np.array(MEAN_COLOR) / COLOR_SCALE).tolist()
    x = layers.Rescaling(1 / COLOR_SCALE, offset, name=f"{PREFIX}colors")(x)
    x = layers.Conv2D(32, 7, 2, activation="relu", name=f"{PREFIX}stem")(x)
    x = layers.MaxPooling2D(3, 2, name=f"{PREFIX}stem_pool")(x)
    for width, count in STAGES.items():
        for i in range(count):
            x = _block(x, width, width != x.shape[-1], f"{PREFIX}{width}{'abcd'[i]}")
    return layers.GlobalAveragePooling2D(name=f"{PREFIX}pool")(x)


def face_window(size: int) -> tuple[int, int, int]:
    """Top, left and side, px, of the part of a crop of ``size`` px that is looked at."""
    side = round(FACE_SHARE * size)
    return round((size - side) / 2 - FACE_LIFT * size), (size - side) // 2, side


def _block(x, width: int, halves: bool, name: str):
    """Two convolutions beside a shortcut, which is projected where the map's size changes."""
    padding = "same"
    if halves and x.shape[1] % 2 and x.shape[1] > 1:
        padding = "valid"  # for an odd side; an even one is padded below and to the right
    stride = 2 if halves else 1
    y = layers.Conv2D(width, 3, stride, padding, activation="relu", name=f"{name}_1")(x)
    y = layers.Conv2D(width, 3, padding="same", name=f"{name}_2")(y)
    if halves:
        x = layers.AveragePooling2D(2, padding=padding, name=f"{name}_half")(x)
        x = layers.Conv2D(width, 1, use_bias=False, name=f"{name}_short")(x)
    return layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_sum")([x, y]))
