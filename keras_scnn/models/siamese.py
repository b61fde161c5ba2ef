"""The Siamese network: two images, one shared branch, distances between what it says of them."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_scnn.geometry.similarities import invert
from keras_scnn.models.augmentation import MoveParameters, RandomMove, photometric_layers
from keras_scnn.models.heads import FEATURE_SIZE, FaceDecoder, build_branch
from keras_scnn.parameters import ParameterSpace

PARTS = ("identity", "all")


def build_siamese(
    encoder: keras.Model,
    space: ParameterSpace,
    feature_size: int = FEATURE_SIZE,
    contrast: str = "identity",
    augmentation: float = 0.0,
    feature_channels: int = 0,
) -> keras.Model:
    """A functional model of two image inputs whose branch is shared.

    Args:
        encoder: from ``build_encoder``.
        space: of the parameters; its face model decodes them to landmarks.
        feature_size: length of the identity feature, above 0.
        contrast: 'identity': the distance is that of the two neutral shapes, in mm;
            'all': that of all whitened parameters, pose and expression too, as in the paper.
        augmentation: strength of the changes that photos undergo in training, inside of the
            network: 0 for none, 1 for training on photos. Both photos of a pair are mirrored or
            none; whatever is moved, the outputs are those of the photo that was given. Above 0
            the face model needs mirror partners, and S must be a multiple of 8.
        feature_channels: of the feature head, see ``build_branch``.

    Returns:
        A model from ``image_a`` and ``image_b``, (B, S, S, 3) RGB, 0 to 255, to a dictionary of
        float32 outputs: ``parameters_a``, ``parameters_b`` (B, P) whitened; ``landmarks_a``,
        ``landmarks_b`` (B, 68, 3) crop px; ``parameter_distance`` (B,); ``feature_similarity``
        (B,), cosine from -1 to 1. The shared single-image model is ``get_layer('branch')``.

    Raises:
        ValueError: feature_size is 0, or contrast is unknown.
    """
    if feature_size <= 0:
        raise ValueError(f"feature_size is {feature_size}; a Siamese network needs 1 or more")
    branch = build_branch(encoder, space.layout, feature_size, feature_channels)
    decode = FaceDecoder.landmarks(space, name="landmarks")
    inputs = {
        f"image_{side}": keras.Input(branch.input_shape[1:], name=f"image_{side}") for side in "ab"
    }
    pair = moved_branch(branch, list(inputs.values()), space, augmentation)
    told = dict(zip("ab", pair, strict=True))
    distance = parameter_distance_layer(space, contrast)
    outputs = {f"parameters_{side}": told[side]["parameters"] for side in "ab"}
    outputs |= {f"landmarks_{side}": decode(told[side]["parameters"]) for side in "ab"}
    outputs["parameter_distance"] = distance([told[side]["parameters"] for side in "ab"])
    similarity = keras.layers.Dot(axes=1, dtype="float32", name="feature_similarity")
    cosine = similarity([told[side]["features"] for side in "ab"])
    outputs["feature_similarity"] = ops.squeeze(cosine, axis=-1)
    return keras.Model(inputs, outputs, name="siamese")


def moved_branch(
    branch: keras.Model,
    images: list,
    space: ParameterSpace,
    augmentation: float,
) -> list[dict]:
    """The branch's outputs of some inputs; in training augmented, and what was moved taken back.

    Args:
        branch: from ``build_branch``.
        images: inputs (B, S, S, 3); row i of all of them is mirrored or none.
        space: of the branch's parameters.
        augmentation: strength, see ``build_siamese``.
    """
    if not augmentation:
        return [dict(branch(image)) for image in images]
    moved, matrices = RandomMove(
        0.035 * augmentation, 0.07 * augmentation, 15 * augmentation, name="move"
    )(images)
    change = keras.Sequential(photometric_layers(augmentation), name="photometry")
    move_back = MoveParameters.of(space, name="move_back")
    told = [dict(branch(change(image))) for image in moved]
    for outputs, matrix in zip(told, matrices, strict=True):
        outputs["parameters"] = move_back(outputs["parameters"], invert(matrix, ops))
    return told


def parameter_distance_layer(space: ParameterSpace, contrast: str) -> WeightedDistance:
    """The distance that ``build_siamese`` describes under ``contrast``."""
    if contrast not in PARTS:
        raise ValueError(f"unknown contrast '{contrast}'; known are {', '.join(PARTS)}")
    weights = np.ones(space.layout.size)
    if contrast == "identity":
        weights = np.zeros(space.layout.size)
        weights[space.layout.identity] = space.identity_mm
    return WeightedDistance(weights.tolist(), name="parameter_distance")


@keras.saving.register_keras_serializable("keras_scnn")
class WeightedDistance(keras.layers.Layer):
    """``norm(weights * (a - b))`` of two (B, P) inputs: (B,) float32.

    With the identity components' effects in mm as weights this is the RMS distance of the two
    neutral shapes' vertices, as far as the components are orthogonal.
    """

    def __init__(self, weights: list[float], **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.component_weights = list(weights)

    def call(self, pair):
        difference = ops.convert_to_tensor(self.component_weights, "float32") * (pair[0] - pair[1])
        square = ops.sum(ops.square(difference), axis=-1)
        return ops.sqrt(square + 1e-12)  # the slope stays finite where the two are equal

    def compute_output_shape(self, input_shape):
        return (input_shape[0][0],)

    def get_config(self):
        return {**super().get_config(), "weights": self.component_weights}
