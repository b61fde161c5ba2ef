"""The Siamese network: two images, one shared branch, and distances between its outputs."""

from __future__ import annotations

import keras
from keras import ops

from keras_scnn.geometry.similarities import invert
from keras_scnn.models.augmentation import MoveParameters, RandomMove, photometric_layers
from keras_scnn.models.heads import FEATURE_SIZE, FaceDecoder, ShapeCode, build_branch
from keras_scnn.models.micro_batches import InParts
from keras_scnn.parameters import ParameterSpace, check_space
from keras_scnn.settings import check_at_least, whole

CONTRASTS = ("identity", "all")


def build_siamese(
    encoder: keras.Model,
    space: ParameterSpace,
    feature_size: int = FEATURE_SIZE,
    contrast: str = "identity",
    augmentation: float = 0.0,
    feature_channels: int = 0,
    parts: int = 1,
) -> keras.Model:
    """A functional model with two image inputs and one shared branch.

    >>> import numpy as np
    >>> from keras_scnn import MorphableModel, Whitening, build_encoder
    >>> space = ParameterSpace(MorphableModel.open_face(), Whitening(np.zeros(144), np.ones(144)))
    >>> network = build_siamese(build_encoder("mobilenet_0.5", 64), space)
    >>> network.output["landmarks_a"].shape, network.output["parameter_distance"].shape
    ((None, 68, 3), (None,))

    Args:
        encoder: from ``build_encoder``, or any Keras model from such images to (B, F).
        space: of the parameters; its face model decodes them to landmarks.
        feature_size: length of the identity feature, above 0.
        contrast: 'identity': the distance between the two neutral shapes, in mm, as defined by
            ``shape_distance.shape_coordinates``;
            'all': between all whitened parameters, pose and expression too, as in the paper.
        augmentation: strength of the random changes of photos inside of the network, in training
            only: 0 for none, 1 for training on photos. Both photos of a pair are mirrored, or
            neither; outputs are mapped back, so labels are those of the given photo. Above 0 the
            face model needs mirror partners.
        feature_channels: of the feature head, see ``build_branch``.
        parts: number of micro-batches that a training batch is split into, see ``InParts``.

    Returns:
        A model from ``image_a`` and ``image_b``, (B, S, S, 3) RGB, 0 to 255, to a dictionary of
        float32 outputs: ``parameters_a``, ``parameters_b`` (B, P) whitened; ``landmarks_a``,
        ``landmarks_b`` (B, 68, 3) crop px; ``parameter_distance`` (B,); ``feature_similarity``
        (B,), cosine from -1 to 1. The shared single-image model is ``get_layer('branch')``, or with
        several parts ``get_layer('branch').network``.

    Raises:
        ValueError: feature_size, augmentation or parts is out of range, contrast is unknown,
            ``space`` has another type, or ``build_branch`` rejects the encoder.
    """
    check_space(space)
    if not whole("feature_size", feature_size, 0):
        raise ValueError("feature_size is 0; a Siamese network needs 1 or more")
    branch = build_branch(encoder, space.layout, feature_size, feature_channels)
    decode = FaceDecoder.landmarks(space, name="landmarks")
    inputs = {
        f"image_{side}": keras.Input(branch.input_shape[1:], name=f"image_{side}") for side in "ab"
    }
    encode = branch if parts == 1 else InParts(branch, parts, name=branch.name)
    pair = augmented_branch(encode, list(inputs.values()), space, augmentation)
    sides = dict(zip("ab", pair, strict=True))
    compared = vectors_to_compare(space, contrast)
    distance = WeightedDistance(name="parameter_distance")
    outputs = {f"parameters_{side}": sides[side]["parameters"] for side in "ab"}
    outputs |= {f"landmarks_{side}": decode(sides[side]["parameters"]) for side in "ab"}
    outputs["parameter_distance"] = distance([compared(sides[side]["parameters"]) for side in "ab"])
    similarity = keras.layers.Dot(axes=1, dtype="float32", name="feature_similarity")
    cosine = similarity([sides[side]["features"] for side in "ab"])
    outputs["feature_similarity"] = ops.squeeze(cosine, axis=-1)
    return keras.Model(inputs, outputs, name="siamese")


def augmented_branch(
    branch: keras.layers.Layer,
    images: list,
    space: ParameterSpace,
    augmentation: float,
) -> list[dict]:
    """The branch's outputs for images that are augmented in training, mapped back.

    Args:
        branch: from ``build_branch``, or ``InParts`` around it; the random changes are the same.
        images: inputs (B, S, S, 3); row i is mirrored in all of them, or in none.
        space: of the branch's parameters.
        augmentation: strength, see ``build_siamese``.

    Returns:
        the branch's outputs for each of the images.

    Raises:
        ValueError: the strength is negative, or not finite.
    """
    check_at_least("augmentation", augmentation)
    if not augmentation:
        return [dict(branch(image)) for image in images]
    moved, matrices = RandomMove(
        0.035 * augmentation, 0.07 * augmentation, 15 * augmentation, name="move"
    )(images)
    change = keras.Sequential(photometric_layers(augmentation), name="photometry")
    move_back = MoveParameters.of(space, name="move_back")
    results = [dict(branch(change(image))) for image in moved]
    for outputs, matrix in zip(results, matrices, strict=True):
        outputs["parameters"] = move_back(outputs["parameters"], invert(matrix, ops))
    return results


def vectors_to_compare(space: ParameterSpace, contrast: str) -> keras.layers.Layer:
    """The layer from parameters to the vectors that ``build_siamese`` compares (``contrast``)."""
    if contrast not in CONTRASTS:
        raise ValueError(f"unknown contrast '{contrast}'; choose from {', '.join(CONTRASTS)}")
    if contrast == "identity":
        return ShapeCode.of(space, name="shape")
    return keras.layers.Identity(dtype="float32", name="all_parameters")


@keras.saving.register_keras_serializable("keras_scnn")
class WeightedDistance(keras.layers.Layer):
    """``norm(weights * (a - b))`` of two (B, D) inputs: (B,) float32.

    Args:
        weights: (D,), found in networks saved by older versions; None: all 1.
    """

    def __init__(self, weights: list[float] | None = None, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.component_weights = None if weights is None else list(weights)

    def call(self, pair):
        difference = pair[0] - pair[1]
        if self.component_weights is not None:
            difference *= ops.convert_to_tensor(self.component_weights, "float32")
        square = ops.sum(ops.square(difference), axis=-1)
        return ops.sqrt(square + 1e-12)  # the gradient stays finite where the two are equal

    def compute_output_shape(self, input_shape):
        return (input_shape[0][0],)

    def get_config(self):
        return {**super().get_config(), "weights": self.component_weights}
