"""dlib's face recognizer as plain array code that runs on any Keras backend, on batches.

The network is King, "High Quality Face Recognition with Deep Metric Learning", 2017. The package
dlib computes the same embeddings, one photo at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from keras import ops

from keras_scnn.models.recognizers.chips import (
    COLOR_SCALE,
    DLIB_CHIP,
    MEAN_COLOR,
    Chip,
    weights_path,
)
from keras_scnn.models.recognizers.dlib_file import Convolutions, read_tensors, split_layers
from keras_scnn.storage.guard import reading

# Whether each residual block halves the map: three of width 32, four of 64, three each of 128 and
# 256, and a last one of 256.
HALVING = (*(False,) * 3, True, *(False,) * 3, True, *(False,) * 2, True, *(False,) * 2, True)


def read_recognizer(path: str = "") -> tuple[Convolutions, np.ndarray]:
    """The layers of a recognizer in dlib's format; see ``split_layers``.

    Args:
        path: the file; '' for that of the installed package face_recognition_models.

    Raises:
        FileNotFoundError: there is no such file, or the package is not installed.
        ValueError: the file does not contain a network with the recognizer's layers.
    """
    file = Path(path) if path else weights_path()
    if not file.is_file():
        raise FileNotFoundError(f"recognizer: {file}: no such file")
    with reading(file, "a network of dlib's recognizer"):
        convolutions, linear = split_layers(read_tensors(file.read_bytes()))
        expected = 1 + 2 * len(HALVING)
        if len(convolutions) != expected:
            raise ValueError(f"{len(convolutions)} convolutions, dlib's has {expected}")
        return convolutions, linear


class Recognizer(Protocol):
    """A network that embeds aligned faces.

    Attributes:
        chip: the square that it expects.
        size: length of the embeddings, E.
    """

    chip: Chip
    size: int

    def __call__(self, chips):
        """Embeddings (B, E) float32 of (B, S, S, 3) RGB chips, 0 to 255."""


class DlibNetwork:
    """The whole recognizer.

    Args:
        convolutions, linear: from ``read_recognizer``.

    Attributes:
        size: length of the embeddings, E. chip: the square that it expects.
    """

    chip = DLIB_CHIP

    def __init__(self, convolutions: Convolutions, linear: np.ndarray):
        self._convolutions, self._linear = convolutions, linear
        self.size = linear.shape[1]

    def __call__(self, chips):
        """Embeddings (B, E) float32 of (B, 150, 150, 3) RGB, 0 to 255, of any float type.

        The convolutions run in the type of the chips.
        """
        layer = iter(self._convolutions)
        x = (chips - ops.convert_to_tensor(MEAN_COLOR, chips.dtype)) / COLOR_SCALE
        x = ops.relu(_convolve(x, next(layer), 2, "valid"))
        x = ops.max_pool(x, 3, 2, "valid")
        for halves in HALVING:
            padding = "valid" if halves else "same"
            y = ops.relu(_convolve(x, next(layer), 2 if halves else 1, padding))
            y = _convolve(y, next(layer), 1, "same")
            if halves:
                x = ops.average_pool(x, 2, 2, "valid")
            x = ops.relu(_sum(x, y))
        pooled = ops.mean(ops.cast(x, "float32"), axis=(1, 2))
        return ops.matmul(pooled, ops.cast(self._linear, "float32"))


def _convolve(x, convolution, stride: int, padding: str):
    kernel, bias = (ops.cast(part, x.dtype) for part in convolution)
    return ops.conv(x, kernel, stride, padding) + bias


def _sum(x, y):
    """The sum; a smaller one is zero-padded (below, to the right, and in the last channels)."""
    wanted = np.maximum(x.shape[1:], y.shape[1:])
    x, y = (
        ops.pad(z, [(0, 0), *((0, int(more)) for more in wanted - z.shape[1:])]) for z in (x, y)
    )
    return x + y
