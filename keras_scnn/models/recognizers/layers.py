"""Face recognizers as layers of a network: crops are aligned by landmarks and embedded.

The weights are those in the recognizers' packages, see ``packaged_weights``.
"""

from __future__ import annotations

import hashlib
import itertools

import keras
import numpy as np
from keras import ops

from keras_scnn.models.identity_encoder import PREFIX
from keras_scnn.models.recognizers.chips import DLIB_CHIP, EMBEDDING_SIZE, SFACE_CHIP, Chip
from keras_scnn.models.recognizers.dlib import DlibNetwork, read_recognizer
from keras_scnn.models.recognizers.sface import (
    CONVOLUTIONS,
    Convolution,
    SFaceNetwork,
    SFaceWeights,
    read_sface,
)
from keras_scnn.parameters import ParameterSpace

CHIPS: dict[str, Chip] = {"dlib": DLIB_CHIP, "sface": SFACE_CHIP}
DLIB_WIDTHS = (*(32,) * 7, *(64,) * 8, *(128,) * 6, *(256,) * 8)
# Widths of the convolutions; SFace's depthwise ones have that of the one before.
SFACE_WIDTHS = (32, 64, 128, 128, 256, 256, *(512,) * 6, 1024, 1024)
Shapes = list[tuple[str, tuple[int, ...]]]
"""Names and shapes of a layer's weights, in their order."""


def embedding_layer(recognizer: str, name: str | None = None) -> keras.layers.Layer:
    """The layer of a recognizer, a key of ``CHIPS``, with weights of 0."""
    return {"dlib": DlibEmbedding, "sface": SFaceEmbedding}[recognizer](name=name)


def packaged_weights(name: str) -> list[np.ndarray]:
    """Float32 arrays for ``set_weights`` of a recognizer's layer, from its package.

    Raises:
        FileNotFoundError: the package is not installed.
        ValueError: its file is damaged.
    """
    if name == "dlib":
        convolutions, linear = read_recognizer()
        return [np.float32(part) for pair in convolutions for part in pair] + [np.float32(linear)]
    weights = read_sface()
    parts = [(one.kernel, one.bias, one.slope) for one in weights.convolutions.values()]
    return [*itertools.chain.from_iterable(parts), weights.linear, weights.offset]


def fill_chip_points(branch: keras.Model, space: ParameterSpace) -> None:
    """Set the points by which a branch with recognizers aligns their chips."""
    basis = space.face_model.landmark_basis()
    for name in recognizer_layers(branch):
        points = (np.tensordot(CHIPS[name].landmarks, rows, 1) for rows in basis)
        branch.get_layer(f"{PREFIX}{name}_points").fill(space, tuple(points))


def recognizer_layers(branch: keras.Model) -> dict[str, keras.layers.Layer]:
    """The layers of a branch's recognizers, by the recognizers' names."""
    return {one.recognizer: one for one in branch.layers if isinstance(one, _Embedding)}


def unchanged_recognizers(branch: keras.Model) -> dict[str, str]:
    """Digests of the branch's recognizers whose weights equal those of their installed packages.

    Such weights need not be stored in a preset: ``checked_weights`` restores them.
    """
    digests = {}
    for name, layer in recognizer_layers(branch).items():
        try:
            packaged = weights_digest(packaged_weights(name))
        except FileNotFoundError:
            continue
        if weights_digest(layer.get_weights()) == packaged:
            digests[name] = packaged
    return digests


def checked_weights(name: str, digest: str) -> list[np.ndarray]:
    """``packaged_weights`` of a recognizer, which must have a digest of ``unchanged_recognizers``.

    Raises:
        FileNotFoundError: the package is not installed.
        ValueError: it has other weights.
    """
    arrays = packaged_weights(name)
    if (there := weights_digest(arrays)) != digest:
        raise ValueError(
            f"the installed package of '{name}' has weights with the digest {there[:12]}; the "
            f"network was made with {digest[:12]}: install the version that it was made with"
        )
    return arrays


def weights_digest(arrays: list[np.ndarray]) -> str:
    """SHA-256 of float32 arrays, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array, "<f4").tobytes())
    return digest.hexdigest()


@keras.saving.register_keras_serializable("keras_scnn")
class AlignedChip(keras.layers.Layer):
    """Crops (B, S, S, 3) and five points (B, 5, 2 or 3) in px to chips (B, C, C, 3).

    The points are aligned with the recognizer's template by the least-squares similarity; colors
    are interpolated bilinearly, and the crop's edge is extended outwards.

    Args:
        recognizer: a key of ``CHIPS``.

    Raises:
        ValueError: the recognizer is unknown.
    """

    def __init__(self, recognizer: str, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.recognizer = recognizer
        if recognizer not in CHIPS:
            raise ValueError(f"unknown recognizer '{recognizer}'; choose from {', '.join(CHIPS)}")
        chip = CHIPS[recognizer]
        center = chip.points.mean(axis=0)
        self._size, self._template = chip.size, np.float32(chip.points - center).T
        grid = np.arange(chip.size) - center[:, None]
        self._grid = np.stack([part.ravel() for part in np.meshgrid(*grid)]).astype(np.float32)

    def call(self, crops, points):
        """Chips (B, C, C, 3) float32, 0 to 255."""
        crops, points = ops.cast(crops, "float32"), ops.cast(points, "float32")[..., :2]
        middle = ops.mean(points, axis=1)  # (B, 2)
        x, y = points[..., 0] - middle[:, :1], points[..., 1] - middle[:, 1:]
        u, v = self._template
        # With points as complex numbers a similarity is a factor: the least-squares one leads to
        # the chip, and its inverse gives the position of each pixel of the chip in the crop.
        real, imaginary = (
            ops.sum(part, axis=1, keepdims=True) for part in (u * x + v * y, u * y - v * x)
        )
        square = ops.maximum(real**2 + imaginary**2, 1e-12)  # 0 if all points coincide
        inverse = ops.sum(x * x + y * y, axis=1, keepdims=True) / square
        real, imaginary = inverse * real, inverse * imaginary
        u, v = self._grid
        columns = real * u - imaginary * v + middle[:, :1]
        rows = imaginary * u + real * v + middle[:, 1:]
        colors = _sampled(crops, columns, rows)
        return ops.reshape(colors, (-1, self._size, self._size, 3))

    def compute_output_shape(self, crops_shape, points_shape):
        return (crops_shape[0], self._size, self._size, 3)

    def get_config(self):
        return {**super().get_config(), "recognizer": self.recognizer}


def _sampled(images, columns, rows):
    """Colors (B, N, 3) of images (B, S, S, 3) at positions (B, N), interpolated bilinearly."""
    size = images.shape[1]
    columns, rows = (ops.clip(place, 0.0, size - 1.0) for place in (columns, rows))
    left, top = (ops.minimum(ops.floor(place), size - 2.0) for place in (columns, rows))
    flat = ops.reshape(images, (-1, 3))
    first = ops.arange(ops.shape(images)[0], dtype="int32")[:, None] * size**2
    corner = first + ops.cast(top, "int32") * size + ops.cast(left, "int32")
    right, below = (columns - left)[..., None], (rows - top)[..., None]
    total = 0.0
    for down, tall in ((0, 1 - below), (size, below)):
        for over, wide in ((0, 1 - right), (1, right)):
            total = total + tall * wide * ops.take(flat, corner + down + over, axis=0)
    return total


class _Embedding(keras.layers.Layer):
    """Chips to embeddings (B, 128), float32, by a recognizer with weights of its own."""

    recognizer = ""

    def __init__(self, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self._arrays = [
            self.add_weight(shape=shape, initializer="zeros", name=name)
            for name, shape in self._shapes()
        ]
        self.built = True

    def _shapes(self) -> Shapes:
        raise NotImplementedError

    def compute_output_shape(self, input_shape):
        return (input_shape[0], EMBEDDING_SIZE)


@keras.saving.register_keras_serializable("keras_scnn")
class DlibEmbedding(_Embedding):
    """``DlibNetwork`` on chips (B, 150, 150, 3), RGB, 0 to 255."""

    recognizer = "dlib"

    def _shapes(self) -> Shapes:
        shapes: Shapes = []
        channels = 3
        for i, width in enumerate(DLIB_WIDTHS):
            side = 3 if i else 7
            shapes += [(f"kernel{i}", (side, side, channels, width)), (f"bias{i}", (width,))]
            channels = width
        return [*shapes, ("linear", (channels, EMBEDDING_SIZE))]

    def call(self, chips):
        parts = iter(self._arrays[:-1])
        return DlibNetwork(list(zip(parts, parts, strict=True)), self._arrays[-1])(chips)


@keras.saving.register_keras_serializable("keras_scnn")
class SFaceEmbedding(_Embedding):
    """``SFaceNetwork`` on chips (B, 112, 112, 3), RGB, 0 to 255."""

    recognizer = "sface"

    def _shapes(self) -> Shapes:
        shapes: Shapes = []
        channels, widths = 3, iter(SFACE_WIDTHS)
        for name in CONVOLUTIONS:
            depthwise = name.endswith("_dw")
            width = channels if depthwise else next(widths)
            side = 3 if depthwise or channels == 3 else 1
            kernel = (side, side, channels, 1 if depthwise else width)
            shapes += [(f"{name}_kernel", kernel)]
            shapes += [(f"{name}_bias", (width,)), (f"{name}_slope", (width,))]
            channels = width
        return [
            *shapes,
            ("linear", (7, 7, channels, EMBEDDING_SIZE)),
            ("offset", (EMBEDDING_SIZE,)),
        ]

    def call(self, chips):
        parts = iter(self._arrays[:-2])
        triples = zip(CONVOLUTIONS, zip(parts, parts, parts, strict=True), strict=True)
        convolutions = {name: Convolution(*three) for name, three in triples}
        return SFaceNetwork(SFaceWeights(convolutions, *self._arrays[-2:]))(chips)
