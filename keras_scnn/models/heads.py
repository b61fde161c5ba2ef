"""Heads of the branch, and the layer that decodes parameters to landmarks or vertices."""

from __future__ import annotations

import re
from functools import partial

import keras
import numpy as np
from keras import ops

from keras_scnn.models.constants import UNSET
from keras_scnn.models.encoders import feature_map, graph_ends, pooled_map
from keras_scnn.models.identity_encoder import PREFIX, identity_features
from keras_scnn.models.recognizers.layers import AlignedChip, embedding_layer
from keras_scnn.parameters import POSE_SIZE, ParameterLayout, ParameterSpace, check_space
from keras_scnn.settings import whole, wrong_type

FEATURE_SIZE = 512
GDC = "features_"
"""Prefix of the layer names of the feature head's global depthwise convolution."""
FINE = "expression_"
"""Prefix of the layer names of the expression head, and of the gaze head."""
GAZE = f"{FINE}gaze_"
"""Prefix of the layer names of the gaze head."""
SEEN = f"{PREFIX}seen"
"""Name of the layer that concatenates the first parameters and the recognizers' embeddings."""


def build_branch(
    encoder: keras.Model,
    layout: ParameterLayout,
    feature_size: int = FEATURE_SIZE,
    feature_channels: int = 0,
    identity_encoder: bool = False,
    joint_head: bool = False,
    expression_channels: int = 0,
    gaze_channels: int = 0,
    recognizers: str = "",
) -> keras.Model:
    """The single-image network that is trained, exported and shared by both sides of a pair.

    Args:
        encoder: from ``build_encoder``, or any Keras model from (B, S, S, 3) RGB, 0 to 255, to
            (B, F), preprocessing included.
        layout: sizes of the parameter vector.
        feature_size: length of the identity feature; 0: no feature head.
        feature_channels: 0: the feature is linear in the encoder's pooled output, as the
            parameters are. Otherwise the channels of a global depthwise convolution (GDC) on the
            encoder's feature map, which has a weight for each position: the parts of a face are
            always at the same positions (Chen et al., "MobileFaceNets", 2018).
        identity_encoder: the feature is linear in the output of a second encoder instead
            (``identity_encoder.identity_features``), and the parameters in the outputs of both
            encoders.
        joint_head: the parameters are linear in the output of the GDC head too; requires
            ``feature_channels`` above 0 and no identity encoder.
        expression_channels: if above 0, a small head with this many channels, on the encoder's
            feature map of 1/4 of the image's side, adds to the expression coefficients. Lids and
            lips move by a pixel or two, which the pooled output hardly shows.
        gaze_channels: if above 0, another head of this kind with this many channels, so that gaze
            can be learned without a change of the other expressions.
        recognizers: names of face recognizers joined by '+' ('dlib+sface'), which embed the crop,
            aligned by the landmarks of the parameters predicted first. The feature is linear in the
            embeddings (as Zielonka et al., "Towards Metrical Reconstruction of Human Faces", 2022),
            the final identity coefficients in the embeddings and the first parameters. See
            ``models.recognizers.layers``.

    Returns:
        A model from (B, S, S, 3) RGB, 0 to 255, to a dictionary: ``parameters`` (B, P) float32,
        whitened; ``features`` (B, feature_size) float32 of unit length.

    Raises:
        ValueError: an argument has another type, a size is out of range, ``joint_head`` without a
            GDC head, two identity encoders, a recognizer that is unknown or given twice, an
            expression or gaze head for a model without expressions, or an encoder that does not map
            one image to one vector, lacks the feature map that a head needs, or has a layer name
            that the branch uses.
    """
    if not isinstance(layout, ParameterLayout):
        raise wrong_type("layout", layout, "a ParameterLayout, such as space.layout")
    fine = {"expression_channels": expression_channels, "gaze_channels": gaze_channels}
    sizes = {"feature_size": feature_size, "feature_channels": feature_channels}
    for name, size in (sizes | fine).items():
        whole(name, size, 0)
        if name in fine and size and not layout.n_expression:
            raise ValueError(f"{name} needs a face model with expression components")
    image, hidden = graph_ends(encoder)
    inputs = hidden
    has_gdc = bool(feature_size and feature_channels and not identity_encoder)
    if joint_head and not has_gdc:
        raise ValueError("joint_head needs feature_channels above 0 and no identity encoder")
    if identity_encoder and recognizers:
        raise ValueError("identity_encoder and recognizers exclude each other; choose one")
    if identity_encoder:
        hidden = identity_features(image)
        inputs = keras.layers.Concatenate(name="both_encoders")([inputs, hidden])
    if has_gdc:
        hidden = _global_depthwise_convolution(pooled_map(encoder), feature_channels, GDC)
    if joint_head:
        inputs = keras.layers.Concatenate(name="both_heads")([inputs, hidden])
    parameters = keras.layers.Dense(layout.size, dtype="float32", name="parameters")(inputs)
    changes = [
        _expression_head(feature_map(encoder, 4), channels, layout, prefix)
        for prefix, channels in ((FINE, expression_channels), (GAZE, gaze_channels))
        if channels
    ]
    if changes:
        total = keras.layers.Add(dtype="float32", name="parameters_sum")
        parameters = total([parameters, *changes])
    if recognizers:
        hidden = _embeddings(image, parameters, recognizers.split("+"), layout)
        parameters = _with_identity(parameters, hidden, layout)
    outputs = {"parameters": parameters}
    if feature_size:
        raw = keras.layers.Dense(feature_size, dtype="float32", name="features_linear")(hidden)
        outputs["features"] = keras.layers.UnitNormalization(dtype="float32", name="features")(raw)
    return _branch(encoder, image, outputs)


def _branch(encoder: keras.Model, image, outputs: dict) -> keras.Model:
    try:
        return keras.Model(image, outputs, name="branch")
    except ValueError as error:
        taken = re.search(r'name "(.+?)" is used', str(error))
        if not taken:
            raise
        raise ValueError(
            f"encoder '{encoder.name}' has a layer named '{taken[1]}', a name that the branch uses "
            "too; rename the layer"
        ) from None


def _global_depthwise_convolution(feature_map, channels: int, prefix: str):
    """(B, H, W, C) to (B, channels): a weight for each position and channel."""
    layers, normalize = keras.layers, partial(keras.layers.BatchNormalization, momentum=0.9)
    mixed = layers.Conv2D(channels, 1, use_bias=False, name=f"{prefix}mix")(feature_map)
    mixed = normalize(name=f"{prefix}mix_norm")(mixed)
    mixed = layers.PReLU(shared_axes=(1, 2), name=f"{prefix}mix_act")(mixed)
    window = feature_map.shape[1:3]
    places = layers.DepthwiseConv2D(window, use_bias=False, name=f"{prefix}places")(mixed)
    return layers.Flatten(name=f"{prefix}flat")(normalize(name=f"{prefix}norm")(places))


def _embeddings(image, parameters, recognizers: list[str], layout: ParameterLayout):
    """Embeddings (B, E) of all recognizers; the landmarks of the parameters align their chips."""
    if len(set(recognizers)) < len(recognizers):
        raise ValueError(f"recognizers is '{'+'.join(recognizers)}', which names one twice")
    parts = []
    for name in recognizers:
        sizes = layout.n_identity, layout.n_expression
        points = FaceDecoder(5, *sizes, name=f"{PREFIX}{name}_points")(parameters)
        chip = AlignedChip(name, name=f"{PREFIX}{name}_chip")(image, points)
        parts.append(embedding_layer(name, f"{PREFIX}{name}")(chip))
    return keras.layers.Concatenate(name=f"{PREFIX}embedding")(parts)


def _with_identity(parameters, embedding, layout: ParameterLayout):
    """Whitened parameters, identity replaced by a linear function of them and the embedding."""
    seen = keras.layers.Concatenate(dtype="float32", name=SEEN)([parameters, embedding])
    dense = keras.layers.Dense(layout.n_identity, dtype="float32", name=f"{PREFIX}shape")
    parts = [parameters[:, layout.pose], dense(seen), parameters[:, layout.expression]]
    return keras.layers.Concatenate(dtype="float32", name="parameters_with_identity")(parts)


def _expression_head(fine, channels: int, layout: ParameterLayout, prefix: str):
    """Feature map (B, H, W, C) to a correction of the whitened parameters (B, P), initially 0; only
    the expression is ever corrected."""
    options = {"kernel_initializer": "zeros", "dtype": "float32", "name": f"{prefix}linear"}
    change = keras.layers.Dense(layout.expression.stop - layout.expression.start, **options)
    seen = expression_features(fine, channels, prefix)
    return ops.pad(change(seen), ((0, 0), (layout.expression.start, 0)))


def fine_layers(branch: keras.Model) -> list[keras.layers.Dense]:
    """The last layers of a branch's heads for expression and gaze, those that it has."""
    names = [f"{prefix}linear" for prefix in (FINE, GAZE)]
    return [layer for layer in branch.layers if layer.name in names]


def expression_features(fine, channels: int, prefix: str):
    """Feature map (B, H, W, C) to what the last layer of an expression head, or of a gaze head,
    gets (B, channels)."""
    layers = keras.layers
    for i, stride in enumerate((2, 1)):
        fine = layers.SeparableConv2D(
            channels, 3, stride, "same", use_bias=False, name=f"{prefix}conv{i}"
        )(fine)
        fine = layers.BatchNormalization(momentum=0.9, name=f"{prefix}conv{i}_norm")(fine)
        fine = layers.ReLU(name=f"{prefix}conv{i}_act")(fine)
    return _global_depthwise_convolution(fine, channels, prefix)


def check_branch(branch: object) -> None:
    """Raise a ValueError unless the argument ``branch`` is a network with parameters."""
    outputs = getattr(branch, "output", None) if isinstance(branch, keras.Model) else None
    if not isinstance(outputs, dict) or "parameters" not in outputs:
        expected = "a network whose outputs include 'parameters', such as build_branch returns"
        raise wrong_type("branch", branch, expected)


def build_regressor(branch: keras.Model, space: ParameterSpace) -> keras.Model:
    """The branch with a decoder for its landmarks.

    Args:
        branch: from ``build_branch``; its weights are shared.
        space: of the branch's parameters.

    Returns:
        A model from (B, S, S, 3) RGB, 0 to 255, to a dictionary: ``parameters`` (B, P) float32,
        whitened; ``landmarks`` (B, 68, 3) float32, crop px, depth towards the viewer.

    Raises:
        ValueError: an argument has another type, or the numbers of parameters of the space and the
            branch differ.
    """
    check_branch(branch)
    check_space(space)
    image = keras.Input(branch.input_shape[1:], name="image")
    parameters = branch(image)["parameters"]
    landmarks = FaceDecoder.landmarks(space, name="landmarks")(parameters)
    return keras.Model(image, {"parameters": parameters, "landmarks": landmarks}, name="regressor")


@keras.saving.register_keras_serializable("keras_scnn")
class FaceDecoder(keras.layers.Layer):
    """Whitened parameters (B, P) to posed points (B, M, 3) in crop px, in float32.

    The face model's rows are non-trainable weights, so they are saved with a network. Use
    ``FaceDecoder.landmarks`` or ``FaceDecoder.vertices`` to make one.

    Args:
        n_points: M. n_identity: K. n_expression: L.
        clip: clip expression weights to the model's bounds, as reconstruction does; not for
            training, since a clipped weight has no gradient.
    """

    def __init__(self, n_points: int, n_identity: int, n_expression: int, clip=False, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32", "trainable": False})
        self.n_points, self.clip = n_points, clip
        self.layout = ParameterLayout(n_identity, n_expression)
        shapes = {
            "whitening_mean": (self.layout.size,),
            "whitening_scale": (self.layout.size,),
            "point_mean": (n_points * 3,),
            "point_basis": (n_identity + n_expression, n_points * 3),
            "bounds": (2, n_expression),
        }
        for name, shape in shapes.items():
            weight = self.add_weight(shape=shape, initializer=UNSET, name=name, trainable=False)
            setattr(self, name, weight)

    @classmethod
    def landmarks(cls, space: ParameterSpace, **kwargs) -> FaceDecoder:
        """A decoder of the 68 landmarks, including the model's landmark offsets."""
        check_space(space)
        return cls._of(space, space.face_model.landmark_basis(), kwargs)

    @classmethod
    def vertices(cls, space: ParameterSpace, **kwargs) -> FaceDecoder:
        """A decoder of all N vertices."""
        check_space(space)
        model = space.face_model
        rows = model.mean, model.identity_basis, model.expression_basis
        return cls._of(space, rows, kwargs)

    @classmethod
    def _of(cls, space: ParameterSpace, rows, options) -> FaceDecoder:
        model = space.face_model
        layer = cls(len(rows[0]), model.n_identity, model.n_expression, **options)
        layer.fill(space, rows)
        return layer

    def fill(self, space: ParameterSpace, rows) -> None:
        """Set the points to decode: mean (M, 3), identity (M, 3, K), expression (M, 3, L); mm."""
        mean, identity, expression = rows
        basis = np.concatenate([identity, expression], axis=-1).reshape(mean.size, -1).T
        self.whitening_mean.assign(space.whitening.mean)
        self.whitening_scale.assign(space.whitening.scale)
        self.point_mean.assign(mean.ravel())
        self.point_basis.assign(basis)
        self.bounds.assign(space.face_model.expression_bounds.T)

    def build(self, input_shape):
        layout = self.layout
        if input_shape[-1] != layout.size:
            raise ValueError(
                f"{input_shape[-1]} parameters; the face model has {layout.size} (12 pose, "
                f"{layout.n_identity} identity, {layout.n_expression} expression): give the space "
                "whose layout the branch was built for"
            )
        self.built = True

    def call(self, parameters):
        pose, coefficients = self.pose_and_coefficients(parameters)
        return posed(self.model_points(coefficients), pose)

    def pose_and_coefficients(self, parameters):
        """Whitened parameters (B, P) to the pose (B, 12), the row-major 3x4 matrix crop_from_model
        in px per mm and px, and the face model's coefficients (B, K + L); float32.
        """
        vector = ops.cast(parameters, "float32") * self.whitening_scale + self.whitening_mean
        expression = vector[:, self.layout.expression]
        if self.clip:
            expression = ops.clip(expression, self.bounds[0], self.bounds[1])
        coefficients = ops.concatenate([vector[:, self.layout.identity], expression], axis=-1)
        return vector[:, :POSE_SIZE], coefficients

    def model_points(self, coefficients):
        """Coefficients (B, K + L) to points (B, M, 3) in mm, model frame."""
        # A product of two matrices is the only form that every quantizer supports.
        points = self.point_mean + ops.matmul(coefficients, self.point_basis)
        return ops.reshape(points, (-1, self.n_points, 3))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.n_points, 3)

    def get_config(self):
        sizes = {"n_identity": self.layout.n_identity, "n_expression": self.layout.n_expression}
        own = {"n_points": self.n_points, "clip": self.clip, **sizes}
        return {**super().get_config(), **own}


def posed(points, pose):
    """Points (B, M, 3) in mm, model frame, and poses (B, 12) to points (B, M, 3) in crop px."""
    camera = ops.reshape(pose, (-1, 3, 4))
    linear = ops.transpose(camera[:, :, :3], (0, 2, 1))
    return ops.matmul(points, linear) + camera[:, None, :, 3]


@keras.saving.register_keras_serializable("keras_scnn")
class ShapeCode(keras.layers.Layer):
    """Whitened parameters (B, P) to coordinates of the neutral shape (B, K), mm, in float32.

    Their Euclidean distance is the root mean square distance between the shapes' vertices, as for
    ``shape_distance.shape_coordinates``; here the origin is the whitening's mean. Use
    ``ShapeCode.of`` to make one.

    Args:
        first: index of the first identity coefficient among the parameters.
        basis_mm: (K, K) ``ParameterSpace.shape_basis``, as nested lists.
    """

    def __init__(self, first: int, basis_mm: list[list[float]], **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.first, self.basis_mm = first, [list(row) for row in basis_mm]

    @classmethod
    def of(cls, space: ParameterSpace, **kwargs) -> ShapeCode:
        """The layer for a space's parameters."""
        return cls(space.layout.identity.start, space.shape_basis.tolist(), **kwargs)

    def call(self, parameters):
        size = len(self.basis_mm)
        basis = ops.reshape(ops.convert_to_tensor(self.basis_mm, "float32"), (size, size))
        last = self.first + size
        return ops.matmul(ops.cast(parameters[:, self.first : last], "float32"), basis)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], len(self.basis_mm))

    def get_config(self):
        return {**super().get_config(), "first": self.first, "basis_mm": self.basis_mm}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        if "weights_mm" in config:  # older files assume orthogonal components
            config["basis_mm"] = np.diag(config.pop("weights_mm")).tolist()
        return cls(**config)
