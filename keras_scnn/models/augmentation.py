"""Photometric and geometric augmentation of face crops, as layers that run on the accelerator.

Images are (B, S, S, 3) RGB, 0 to 255. Random values are drawn for each image, except the width of
Keras's blur, which is drawn once per batch. Outside of training the layers are the identity.
Keras's layers are used where they exist; this module adds the others. All compute in float32,
whatever the global dtype policy: 16-bit floats are too coarse for colors from 0 to 255, and Keras's
blur does not support them.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, ops, random

from keras_scnn.geometry.similarities import invert, move_parameters
from keras_scnn.models.constants import UNSET
from keras_scnn.morphable_model import mirror_matrices
from keras_scnn.parameters import ParameterLayout, ParameterSpace
from keras_scnn.settings import check_at_least

RANGE = (0, 255)
BLOCK = 8
# Quantization steps of luminance at quality 50: ITU-T T.81 (1992), annex K, table K.1.
LUMINANCE_STEPS = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)


class _RandomLayer(layers.Layer):
    """Base of the random layers that are the identity outside of training."""

    def __init__(self, seed=None, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.seed = seed
        self.generator = random.SeedGenerator(seed)

    def call(self, images, training=False):
        images = ops.cast(images, self.compute_dtype)
        return self.change(images) if training else images

    def compute_output_shape(self, input_shape):
        return input_shape

    def _uniform(self, images, low, high):
        """(B, 1, 1, 1), one random number per image."""
        shape = (ops.shape(images)[0], 1, 1, 1)
        return random.uniform(shape, low, high, dtype=self.compute_dtype, seed=self.generator)

    def _choose(self, images, share):
        """(B, 1, 1, 1), 1 with probability ``share``, else 0."""
        return ops.cast(self._uniform(images, 0.0, 1.0) < share, self.compute_dtype)


@keras.saving.register_keras_serializable("keras_scnn")
class RandomChannelGain(_RandomLayer):
    """Multiplies each color channel by ``exp`` of a normal number: white balance.

    Args:
        deviation: standard deviation of the logarithm.
        seed: random seed.
    """

    def __init__(self, deviation: float, seed=None, **kwargs):
        super().__init__(seed, **kwargs)
        self.deviation = deviation

    def change(self, images):
        shape = (ops.shape(images)[0], 1, 1, 3)
        normal = random.normal(shape, dtype=self.compute_dtype, seed=self.generator)
        return ops.clip(images * ops.exp(self.deviation * normal), *RANGE)

    def get_config(self):
        return {**super().get_config(), "deviation": self.deviation, "seed": self.seed}


@keras.saving.register_keras_serializable("keras_scnn")
class RandomNoise(_RandomLayer):
    """Adds white Gaussian noise of a standard deviation drawn per image, uniform in [0, most]."""

    def __init__(self, most: float, seed=None, **kwargs):
        super().__init__(seed, **kwargs)
        self.most = most

    def change(self, images):
        noise = random.normal(ops.shape(images), dtype=self.compute_dtype, seed=self.generator)
        return ops.clip(images + self._uniform(images, 0.0, 1.0) * self.most * noise, *RANGE)

    def get_config(self):
        return {**super().get_config(), "most": self.most, "seed": self.seed}


@keras.saving.register_keras_serializable("keras_scnn")
class RandomBlocks(_RandomLayer):
    """JPEG-like block artifacts: quantizes the DCT of 8x8 blocks, as JPEG does for luminance.

    Args:
        share: fraction of the images that are changed, 0 to 1.
        coarseness: lowest and highest factor of the quantization steps, drawn log-uniformly;
            1 is JPEG's quality 50, 5 its quality 10.
        seed: random seed.
    """

    def __init__(self, share: float, coarseness=(0.5, 5.0), seed=None, **kwargs):
        super().__init__(seed, **kwargs)
        self.share, self.coarseness = share, tuple(coarseness)

    def change(self, images):
        """Images (B, H, W, 3), a fraction of them with block artifacts."""
        height, width = images.shape[1:3]
        # Blocks that the image does not fill are completed by its mirror image.
        padding = [(0, 0), (0, -height % BLOCK), (0, -width % BLOCK), (0, 0)]
        padded = ops.pad(images - 128, padding, "symmetric") if np.any(padding) else images - 128
        rows, columns = (side // BLOCK for side in padded.shape[1:3])
        transform = cosine_transform().astype(self.compute_dtype)
        blocks = ops.reshape(padded, (-1, rows, BLOCK, columns, BLOCK, images.shape[3]))
        waves = ops.einsum("ui,vj,bhiwjc->bhwcuv", transform, transform, blocks)
        flat = ops.reshape(waves, (-1, waves.shape[1] * waves.shape[2] * waves.shape[3], BLOCK**2))
        low, high = np.log(self.coarseness)
        factor = ops.exp(self._uniform(images, low, high))[..., 0]
        steps = factor * LUMINANCE_STEPS.astype(self.compute_dtype).ravel()
        waves = ops.reshape(ops.round(flat / steps) * steps, ops.shape(waves))
        blocks = ops.einsum("ui,vj,bhwcuv->bhiwjc", transform, transform, waves)
        blocky = ops.reshape(blocks, ops.shape(padded))[:, :height, :width] + 128
        blocky = ops.clip(blocky, *RANGE)
        chosen = self._choose(images, self.share)
        return images + chosen * (blocky - images)

    def get_config(self):
        own = {"share": self.share, "coarseness": self.coarseness, "seed": self.seed}
        return {**super().get_config(), **own}


def cosine_transform() -> np.ndarray:
    """(8, 8) float32, the orthonormal DCT-II: row u holds ``cos((2 i + 1) u pi / 16)``, scaled."""
    u, i = np.mgrid[:BLOCK, :BLOCK]
    rows = np.cos((2 * i + 1) * u * np.pi / (2 * BLOCK)) * np.sqrt(2 / BLOCK)
    rows[0] /= np.sqrt(2)
    return rows.astype(np.float32)


def photometric_layers(strength: float = 1.0) -> list[layers.Layer]:
    """Brightness, contrast, saturation, white balance, blur, erasing, noise, gray, JPEG artifacts.

    Args:
        strength: 0 changes nothing, 1 is for training on photos.

    Raises:
        ValueError: the strength is negative, or not finite.
    """
    check_at_least("strength", strength)
    capped = min(strength, 2.0)
    saturation = max(0.5 - 0.3 * strength, 0.0), 0.5 + 0.2 * capped
    blur, erasing = min(0.3 * capped, 1.0), min(0.2 * capped, 1.0)
    single = {"value_range": RANGE, "dtype": "float32"}
    return [
        layers.RandomBrightness(min(0.12 * strength, 1.0), **single),
        layers.RandomContrast(min(0.3 * strength, 0.9), **single),
        layers.RandomSaturation(saturation, **single),
        RandomChannelGain(0.08 * strength),
        layers.RandomGaussianBlur(blur, 5, (0.3, 1.0), **single),
        layers.RandomErasing(erasing, scale=(0.02, 0.15), **single),
        RandomNoise(8.0 * strength),
        layers.RandomGrayscale(min(0.1 * capped, 1.0), dtype="float32"),
        RandomBlocks(min(0.2 * capped, 1.0)),
    ]


@keras.saving.register_keras_serializable("keras_scnn")
class RandomMove(layers.Layer):
    """Applies a random similarity to each crop, in training.

    Args:
        shift: standard deviation of the shift, as a fraction of the side.
        scale: standard deviation of the logarithm of the scale.
        degrees: standard deviation of the rotation.
        flip: probability of mirroring; both photos of a pair are mirrored together, since a
            person's mirror image is another identity.
        seed: random seed.
    """

    def __init__(self, shift=0.035, scale=0.07, degrees=15.0, flip=0.5, seed=None, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.options = {"shift": shift, "scale": scale, "degrees": degrees, "flip": flip}
        self.seed, self.generator = seed, random.SeedGenerator(seed)
        # XLA has no kernel for TensorFlow's image transform; Keras reads this before it compiles.
        self.supports_jit = keras.backend.backend() != "tensorflow"

    def call(self, images, training=False):
        """Move a list of image batches; row i is mirrored in all of them, or in none.

        Args:
            images: list of (B, S, S, 3), 0 to 255.
            training: if false, nothing is moved.

        Returns:
            the moved images, float32, and moved_from_crop (B, 2, 3) for each batch.
        """
        count = ops.shape(images[0])[0]
        if not training:
            still = ops.tile(ops.convert_to_tensor([[[1.0, 0, 0], [0, 1.0, 0]]]), (count, 1, 1))
            return [ops.cast(batch, "float32") for batch in images], [still for _ in images]
        coin = random.uniform((count,), seed=self.generator)
        side = ops.where(coin < self.options["flip"], -1.0, 1.0)
        matrices = [self._similarity(side, batch.shape[1]) for batch in images]
        return [warp(*pair) for pair in zip(images, matrices, strict=True)], matrices

    def _similarity(self, side, size):
        """Random similarities (B, 2, 3) about the crop's center; ``side`` -1 mirrors."""
        count = ops.shape(side)[0]
        normal = random.normal((4, count), seed=self.generator)
        scale = ops.exp(self.options["scale"] * normal[0])
        angle = np.deg2rad(self.options["degrees"]) * normal[1]
        cosine, sine = scale * ops.cos(angle), scale * ops.sin(angle)
        linear = ops.stack([side * cosine, -sine, side * sine, cosine], axis=-1)
        linear = ops.reshape(linear, (-1, 2, 2))
        center = (size - 1) / 2
        shift = self.options["shift"] * size * ops.transpose(normal[2:])
        offset = center + shift - center * ops.sum(linear, axis=-1)
        return ops.concatenate([linear, offset[..., None]], axis=-1)

    def compute_output_shape(self, input_shape):
        return list(input_shape), [(shape[0], 2, 3) for shape in input_shape]

    def get_config(self):
        return {**super().get_config(), **self.options, "seed": self.seed}


def warp(images, moved_from_crop):
    """Images (B, S, S, 3) under affine maps (B, 2, 3); pixel centers at integers, black outside."""
    inverse = invert(moved_from_crop, ops)
    rows = ops.reshape(inverse, (-1, 6))
    rows = ops.concatenate([rows, ops.zeros_like(rows[:, :2])], axis=-1)
    return ops.image.affine_transform(ops.cast(images, "float32"), rows, fill_mode="constant")


@keras.saving.register_keras_serializable("keras_scnn")
class MoveParameters(layers.Layer):
    """Transforms whitened parameters (B, P) by similarities of the crop (B, 2, 3) that may mirror.

    See ``geometry.similarities.move_parameters``. Inverted similarities map a network's outputs
    for a moved crop back to the original crop.
    """

    def __init__(self, n_identity: int, n_expression: int, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32", "trainable": False})
        self.layout = ParameterLayout(n_identity, n_expression)
        size = self.layout.size
        shapes: dict[str, tuple[int, ...]] = {
            "whitening_mean": (size,),
            "whitening_scale": (size,),
            "identity_mirror": (n_identity, n_identity),
            "expression_mirror": (n_expression, n_expression),
        }
        for name, shape in shapes.items():
            weight = self.add_weight(shape=shape, initializer=UNSET, name=name, trainable=False)
            setattr(self, name, weight)

    @classmethod
    def of(cls, space: ParameterSpace, **kwargs) -> MoveParameters:
        """The layer for a parameter space whose face model has mirror partners."""
        model, whitening = space.face_model, space.whitening
        layer = cls(model.n_identity, model.n_expression, **kwargs)
        layer.whitening_mean.assign(whitening.mean)
        layer.whitening_scale.assign(whitening.scale)
        identity, expression = mirror_matrices(model)
        layer.identity_mirror.assign(identity.T)
        layer.expression_mirror.assign(expression.T)
        return layer

    def call(self, parameters, moved_from_crop):
        vectors = ops.cast(parameters, "float32") * self.whitening_scale + self.whitening_mean
        mirrors = ops.transpose(self.identity_mirror), ops.transpose(self.expression_mirror)
        moved = move_parameters(vectors, moved_from_crop, mirrors, ops)
        return (moved - self.whitening_mean) / self.whitening_scale

    def compute_output_shape(self, parameters_shape, moved_from_crop_shape=None):
        return parameters_shape

    def get_config(self):
        own = {"n_identity": self.layout.n_identity, "n_expression": self.layout.n_expression}
        return {**super().get_config(), **own}
