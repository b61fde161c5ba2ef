"""Geometric augmentation: shift, size, rotation and mirroring of crops and of what they show.

A crop that is moved shows the same face under another camera. ``RandomMove`` moves images and says
how; ``MoveParameters`` and ``move_landmarks`` move labels along, or take predictions back.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, ops, random

from keras_scnn.landmarks68 import MIRROR68
from keras_scnn.mirroring import mirror_matrices
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import POSE_SIZE, ParameterLayout, Whitening


@keras.saving.register_keras_serializable("keras_scnn")
class RandomMove(layers.Layer):
    """Moves crops at random, in training.

    Args:
        shift: standard deviation of the shift, as a share of the side.
        scale: standard deviation of the logarithm of the size.
        degrees: standard deviation of the rotation.
        flip: probability of mirroring: both photos of a pair together, since the mirror image of
            a person is somebody else.
        seed: of the random numbers.
    """

    def __init__(self, shift=0.035, scale=0.07, degrees=15.0, flip=0.5, seed=None, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.options = {"shift": shift, "scale": scale, "degrees": degrees, "flip": flip}
        self.seed, self.generator = seed, random.SeedGenerator(seed)

    def call(self, images, training=False):
        """Move a list of batches of images; row i of all of them is mirrored or none.

        Args:
            images: list of (B, S, S, 3), 0 to 255.
            training: else nothing is moved.

        Returns:
            the moved images, float32, and moved_from_crop (B, 2, 3) for each.
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
        """(B, 2, 3) about the crop's center; ``side`` -1 mirrors."""
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
    """Images (B, S, S, 3) under affine maps (B, 2, 3), pixel centers at integers, black outside."""
    inverse = invert(moved_from_crop)
    rows = ops.reshape(inverse, (-1, 6))
    rows = ops.concatenate([rows, ops.zeros_like(rows[:, :2])], axis=-1)
    return ops.image.affine_transform(ops.cast(images, "float32"), rows, fill_mode="constant")


def invert(affine):
    """The inverses of (B, 2, 3) affine maps."""
    a, b, c, d = (affine[:, i, j] for i in (0, 1) for j in (0, 1))
    determinant = a * d - b * c
    linear = ops.stack([d, -b, -c, a], axis=-1) / determinant[:, None]
    linear = ops.reshape(linear, (-1, 2, 2))
    return ops.concatenate([linear, -ops.matmul(linear, affine[:, :, 2:])], axis=-1)


def move_landmarks(landmarks, moved_from_crop):
    """(B, 68, 3) x, y in px and a weight, under (B, 2, 3) similarities that may mirror."""
    swapped = ops.take(landmarks, MIRROR68, axis=1)
    landmarks = ops.where(_mirrors(moved_from_crop)[:, None, None], swapped, landmarks)
    linear = ops.transpose(moved_from_crop[:, :, :2], (0, 2, 1))
    moved = ops.matmul(landmarks[..., :2], linear) + moved_from_crop[:, None, :, 2]
    return ops.concatenate([moved, landmarks[..., 2:]], axis=-1)


def _mirrors(affine):
    return affine[:, 0, 0] * affine[:, 1, 1] < affine[:, 0, 1] * affine[:, 1, 0]


@keras.saving.register_keras_serializable("keras_scnn")
class MoveParameters(layers.Layer):
    """Whitened parameters (B, P) under similarities of the crop (B, 2, 3) that may mirror.

    The camera is followed by the similarity; mirrored, identity and expression become those of the
    mirrored face (``mirroring.mirror_matrices``). With inverted similarities it takes what a
    network says of a moved crop back to the crop itself.
    """

    def __init__(self, n_identity: int, n_expression: int, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32", "trainable": False})
        self.layout = ParameterLayout(n_identity, n_expression)
        size = self.layout.size
        shapes = {"whitening_mean": (size,), "whitening_scale": (size,)}
        shapes |= {"identity_mirror": (n_identity,) * 2, "expression_mirror": (n_expression,) * 2}
        for name, shape in shapes.items():
            weight = self.add_weight(shape=shape, initializer="zeros", name=name, trainable=False)
            setattr(self, name, weight)

    @classmethod
    def of(cls, model: MorphableModel, whitening: Whitening, **kwargs) -> MoveParameters:
        """For parameters of a face model that has mirror partners."""
        layer = cls(model.n_identity, model.n_expression, **kwargs)
        layer.whitening_mean.assign(whitening.mean)
        layer.whitening_scale.assign(whitening.scale)
        identity, expression = mirror_matrices(model)
        layer.identity_mirror.assign(identity.T)
        layer.expression_mirror.assign(expression.T)
        return layer

    def call(self, parameters, moved_from_crop):
        vector = ops.cast(parameters, "float32") * self.whitening_scale + self.whitening_mean
        mirrors = _mirrors(moved_from_crop)[:, None]
        pose = self._moved_pose(vector[:, :POSE_SIZE], moved_from_crop, mirrors)
        parts = [pose]
        for part in ("identity", "expression"):
            values = vector[:, getattr(self.layout, part)]
            mirrored = ops.matmul(values, getattr(self, f"{part}_mirror"))
            parts.append(ops.where(mirrors, mirrored, values))
        return (ops.concatenate(parts, axis=-1) - self.whitening_mean) / self.whitening_scale

    def _moved_pose(self, pose, affine, mirrors):
        pose = ops.reshape(pose, (-1, 3, 4))
        rows = ops.matmul(affine[:, :, :2], pose[:, :2])
        last = ops.convert_to_tensor(np.float32([0, 0, 0, 1]))
        rows = rows + affine[:, :, 2:] * last
        a, b, c, d = (affine[:, i, j] for i in (0, 1) for j in (0, 1))
        scale = ops.sqrt(ops.abs(a * d - b * c))[:, None, None]
        moved = ops.concatenate([rows, scale * pose[:, 2:]], axis=1)
        first = ops.convert_to_tensor(np.float32([-1, 1, 1, 1]))
        moved = ops.where(mirrors[..., None], moved * first, moved)
        return ops.reshape(moved, (-1, POSE_SIZE))

    def compute_output_shape(self, parameters_shape, moved_from_crop_shape=None):
        return parameters_shape

    def get_config(self):
        own = {"n_identity": self.layout.n_identity, "n_expression": self.layout.n_expression}
        return {**super().get_config(), **own}
