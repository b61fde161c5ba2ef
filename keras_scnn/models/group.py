"""The group network: the single-image branch with the outputs that losses over a batch need.

The Siamese network compares two photos; these losses compare all pairs of photos in a batch that
has several photos of each person, so one input is enough.
"""

from __future__ import annotations

import keras

from keras_scnn.models.heads import FaceDecoder, ShapeCode, check_branch
from keras_scnn.models.micro_batches import InParts
from keras_scnn.models.siamese import augmented_branch
from keras_scnn.parameters import ParameterSpace, check_space
from keras_scnn.settings import whole


def build_group(
    branch: keras.Model,
    space: ParameterSpace,
    embedding_size: int = 0,
    augmentation: float = 0.0,
    landmarks_teach_identity: bool = True,
    parts: int = 1,
) -> keras.Model:
    """A functional model from one image input to the outputs that the losses compare.

    Args:
        branch: from ``build_branch``; without a feature head the outputs from ``features`` on are
            missing.
        space: of the parameters; its face model decodes them to landmarks.
        embedding_size: length of a teacher's embeddings, E; 0 for no teacher.
        augmentation, parts: as for ``build_siamese``.
        landmarks_teach_identity: if false, no gradient flows from the landmarks to the identity
            coefficients, so that landmarks train pose and expression only.

    Returns:
        A model from ``image`` (B, S, S, 3) RGB, 0 to 255, to a dictionary of float32 outputs:
        ``parameters`` (B, P) whitened; ``landmarks`` (B, 68, 3) crop px; ``shape`` (B, K), the
        neutral shape's deviation from the mean of the training data, in mm (see ``ShapeCode``);
        ``features`` (B, F) of unit length. With a teacher also ``embedding`` (B, E), linear in the
        features; and ``feature_likeness`` and ``shape_likeness``, copies of the features and the
        shape, for a second loss each.

    Raises:
        ValueError: an argument has another type, the numbers of parameters of the space and the
            branch differ, or embedding_size, augmentation or parts is out of range.
    """
    check_branch(branch)
    check_space(space)
    whole("embedding_size", embedding_size, 0)
    image = keras.Input(branch.input_shape[1:], name="image")
    encode = branch if parts == 1 else InParts(branch, parts, name=branch.name)
    (result,) = augmented_branch(encode, [image], space, augmentation)
    parameters = result["parameters"]
    shape = ShapeCode.of(space, name="shape")(parameters)
    decode = FaceDecoder.landmarks(space, name="landmarks")
    decoded = parameters
    if not landmarks_teach_identity:
        identity = space.layout.identity
        held = keras.ops.stop_gradient(parameters[:, identity])
        pieces = [parameters[:, : identity.start], held, parameters[:, identity.stop :]]
        decoded = keras.ops.concatenate(pieces, axis=-1)
    outputs = {"parameters": parameters, "landmarks": decode(decoded)}
    outputs["shape"] = shape
    if "features" not in result:
        return keras.Model(image, outputs, name="group")
    outputs["features"] = features = result["features"]
    if embedding_size:
        linear = keras.layers.Dense(embedding_size, dtype="float32", name="embedding")
        outputs["embedding"] = linear(features)
        for name, output in (("feature_likeness", features), ("shape_likeness", shape)):
            outputs[name] = keras.layers.Identity(dtype="float32", name=name)(output)
    return keras.Model(image, outputs, name="group")
