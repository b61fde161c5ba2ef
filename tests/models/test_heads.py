import keras
import numpy as np
import pytest

from keras_scnn.geometry.camera import project
from keras_scnn.models import (
    FaceDecoder,
    build_branch,
    build_encoder,
    build_flip_averaged,
    build_regressor,
)
from keras_scnn.models.encoders import feature_map
from keras_scnn.models.group import build_group
from keras_scnn.models.heads import FINE, GAZE
from keras_scnn.parameters import FaceParameters, ParameterLayout, ParameterSpace


def layout_of(model):
    return ParameterLayout(model.n_identity, model.n_expression)


@pytest.fixture
def whitened(tiny_face_model):
    size = layout_of(tiny_face_model).size
    return np.random.default_rng(3).normal(size=(4, size)).astype(np.float32)


def expected_points(model, whitening, whitened, points, clip=False):
    parameters = FaceParameters.from_vector(whitening.unwhiten(whitened), layout_of(model))
    expression = parameters.expression
    expression = model.clip_expression(expression) if clip else expression
    return project(parameters.pose, points(parameters.identity, expression))


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("what", ["landmarks", "vertices"])
def test_decoding_agrees_with_the_face_model(tiny_face_model, tiny_whitening, whitened, what, clip):
    layer = getattr(FaceDecoder, what)(ParameterSpace(tiny_face_model, tiny_whitening), clip=clip)
    points = getattr(tiny_face_model, what)
    expected = expected_points(tiny_face_model, tiny_whitening, whitened, points, clip)
    np.testing.assert_allclose(np.asarray(layer(whitened)), expected, rtol=1e-4, atol=1e-3)


def test_a_decoder_keeps_the_contract_of_a_layer(
    tmp_path, tiny_face_model, tiny_whitening, whitened
):
    layer = FaceDecoder.landmarks(ParameterSpace(tiny_face_model, tiny_whitening), name="landmarks")
    symbolic = layer(keras.Input(whitened.shape[1:]))
    assert symbolic.shape == (None, 68, 3) and symbolic.dtype == "float32"
    assert not layer.trainable_weights
    inputs = keras.Input(whitened.shape[1:])
    model = keras.Model(inputs, layer(keras.layers.Dense(whitened.shape[1])(inputs)))
    model.compile("sgd", "mse")
    assert np.isfinite(model.train_on_batch(whitened, np.zeros((4, 68, 3))))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(np.asarray(again(whitened)), np.asarray(model(whitened)))


def test_geometry_stays_in_single_precision(tiny_face_model, tiny_whitening, whitened):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        layer = FaceDecoder.landmarks(ParameterSpace(tiny_face_model, tiny_whitening))
        assert keras.backend.standardize_dtype(layer(whitened).dtype) == "float32"
    finally:
        keras.config.set_dtype_policy(policy)


def test_the_branch_predicts_parameters_and_unit_features(tiny_face_model):
    layout = layout_of(tiny_face_model)
    branch = build_branch(build_encoder("mobilenet_0.5", 32), layout, feature_size=16)
    photos = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3))
    outputs = branch(photos, training=True)  # an untrained network fades out unless it normalizes
    assert outputs["parameters"].shape == (3, layout.size)
    np.testing.assert_allclose(np.linalg.norm(outputs["features"], axis=-1), 1, rtol=1e-5)


def test_a_gdc_feature_head_depends_on_positions(tiny_face_model):
    keras.utils.set_random_seed(0)
    layout = layout_of(tiny_face_model)
    image = keras.Input((8, 8, 3), name="image")
    encoder = keras.Model(image, keras.layers.GlobalAveragePooling2D()(image))
    photos = np.zeros((2, 8, 8, 3), np.float32)
    photos[0, 1, 2], photos[1, 6, 5] = 255, 255  # the same light at two places
    pooled, placed = (
        np.asarray(build_branch(encoder, layout, 16, channels)(photos)["features"])
        for channels in (0, 32)
    )
    np.testing.assert_allclose(pooled[0], pooled[1], atol=1e-6)
    assert np.abs(placed[0] - placed[1]).max() > 0.05
    np.testing.assert_allclose(np.linalg.norm(placed, axis=-1), 1, rtol=1e-5)


def test_without_features_there_is_no_feature_head(tiny_face_model):
    branch = build_branch(build_encoder("mobilenet_0.5", 32), layout_of(tiny_face_model), 0)
    assert set(branch.output) == {"parameters"}


def test_the_regressor_decodes_what_its_branch_predicts(tiny_face_model, tiny_whitening):
    branch = build_branch(build_encoder("mobilenet_0.5", 32), layout_of(tiny_face_model), 0)
    regressor = build_regressor(branch, ParameterSpace(tiny_face_model, tiny_whitening))
    image = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    outputs = regressor(image)
    expected = expected_points(
        tiny_face_model,
        tiny_whitening,
        np.asarray(branch(image)["parameters"]),
        tiny_face_model.landmarks,
    )
    np.testing.assert_allclose(np.asarray(outputs["landmarks"]), expected, rtol=1e-4, atol=1e-3)


def test_a_branch_of_other_parameters_than_the_space_is_refused(tiny_face_model, tiny_whitening):
    space = ParameterSpace(tiny_face_model, tiny_whitening)
    other = ParameterLayout(space.layout.n_identity + 1, space.layout.n_expression)
    branch = build_branch(build_encoder("mobilenet_0.5", 32), other, 4)
    size = space.layout.size
    with pytest.raises(ValueError, match=f"{size + 1} parameters; the face model has {size} .12 p"):
        build_regressor(branch, space)
    with pytest.raises(ValueError, match="give the space whose layout the branch was built for"):
        build_group(branch, space)


def test_a_joint_head_sees_what_the_feature_head_sees(tiny_face_model):
    layout = ParameterLayout(tiny_face_model.n_identity, tiny_face_model.n_expression)
    branch = build_branch(build_encoder("mobilenet_0.5", 32), layout, 4, 16, joint_head=True)
    assert branch.get_layer("parameters").kernel.shape == (512 + 16, layout.size)
    with pytest.raises(ValueError, match="joint_head needs feature_channels above 0"):
        build_branch(build_encoder("mobilenet_0.5", 32), layout, 4, joint_head=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recognizers": "sface+sface"}, "'sface\\+sface', which names one twice"),
        ({"recognizers": "sface+"}, "unknown recognizer ''; choose from dlib, sface"),
        ({"recognizers": "sface", "identity_encoder": True}, "exclude each other; choose one"),
        ({"feature_size": 4.0}, "feature_size is 4.0; it must be a whole number"),
        ({"expression_channels": -1}, "expression_channels is -1"),
        ({"gaze_channels": -1}, "gaze_channels is -1"),
    ],
)
def test_impossible_heads_are_refused(tiny_face_model, options, message):
    image = keras.Input((32, 32, 3))
    encoder = keras.Model(image, keras.layers.GlobalAveragePooling2D()(image))
    layout = ParameterLayout(tiny_face_model.n_identity, tiny_face_model.n_expression)
    with pytest.raises(ValueError, match=message):
        build_branch(encoder, layout, **options)


@pytest.mark.parametrize("name", ["mobilenet_0.5", "mobilenet_v3_small", "resnet50"])
def test_the_fine_map_is_a_quarter_as_high_as_the_image(name):
    fine = feature_map(build_encoder(name, 64), 4)
    assert fine.shape[1:3] == (16, 16)


@pytest.mark.parametrize(("name", "prefix"), [("expression", FINE), ("gaze", GAZE)])
def test_a_fine_head_changes_nothing_at_first_and_then_only_expressions(
    tiny_face_model, name, prefix
):
    layout, heads = layout_of(tiny_face_model), {f"{name}_channels": 8}
    branch = build_branch(build_encoder("mobilenet_0.5", 32), layout, 4, **heads)
    image = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    pooled = keras.Model(branch.input, branch.get_layer("parameters").output)
    before = branch(image)
    np.testing.assert_array_equal(before["parameters"], pooled(image))
    linear = branch.get_layer(f"{prefix}linear")
    linear.kernel.assign(np.random.default_rng(1).normal(size=linear.kernel.shape))
    linear.bias.assign(np.ones(linear.bias.shape))
    after = branch(image)
    change = np.asarray(after["parameters"]) - np.asarray(before["parameters"])
    assert (change[:, layout.expression] != 0).all()
    assert (change[:, : layout.expression.start] == 0).all()
    np.testing.assert_array_equal(after["features"], before["features"])


@pytest.mark.parametrize("name", ["features", "parameters"])
def test_an_encoder_with_a_layer_name_of_the_branch_is_refused(name):
    image = keras.Input((16, 16, 3))
    pooled = keras.layers.GlobalAveragePooling2D(name=name)(image)
    encoder = keras.Model(image, pooled, name="mine")
    with pytest.raises(ValueError, match=f"encoder 'mine' has a layer named '{name}', a name that"):
        build_branch(encoder, ParameterLayout(4, 3), feature_size=8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feature_size": 1.5}, "feature_size is 1.5; it must be a whole number, 0 or more"),
        ({"feature_channels": -1}, "feature_channels is -1; it must be 0 or more"),
        ({"expression_channels": 0.5}, "expression_channels is 0.5; it must be a whole number"),
    ],
)
def test_sizes_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_branch(build_encoder("mobilenet_0.5", 32), ParameterLayout(4, 3), **options)


@pytest.mark.parametrize("name", ["expression_channels", "gaze_channels"])
def test_a_fine_head_needs_expressions(name):
    encoder = build_encoder("mobilenet_0.5", 32)
    with pytest.raises(ValueError, match=f"{name} needs a face model with expression components"):
        build_branch(encoder, ParameterLayout(4, 0), 8, **{name: 8})


def test_the_heads_for_expression_and_gaze_are_added(tiny_face_model):
    layout, rng = layout_of(tiny_face_model), np.random.default_rng(0)
    heads = {"expression_channels": 6, "gaze_channels": 4}
    branch = build_branch(build_encoder("mobilenet_0.5", 32), layout, 4, **heads)
    image = rng.uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    before = np.asarray(branch(image)["parameters"])
    for change, prefix in ((0.5, FINE), (-2.0, GAZE)):
        branch.get_layer(f"{prefix}linear").bias.assign(np.full(layout.n_expression, change))
    change = np.asarray(branch(image)["parameters"]) - before
    np.testing.assert_allclose(change[:, layout.expression], -1.5, atol=1e-5)


def test_a_copy_without_its_constants_gives_no_numbers(tiny_face_model, tiny_whitening):
    """``keras.models.clone_model`` leaves weights out: zeros would look like landmarks."""
    space = ParameterSpace(tiny_face_model, tiny_whitening)
    layer = FaceDecoder.landmarks(space)
    vectors = np.zeros((1, space.layout.size), np.float32)
    copy = FaceDecoder.from_config(layer.get_config())
    assert not np.isfinite(copy(vectors)).any()
    copy.set_weights(layer.get_weights())
    np.testing.assert_array_equal(copy(vectors), layer(vectors))


@pytest.mark.parametrize("build", [build_regressor, build_group, build_flip_averaged])
def test_arguments_of_another_type_are_refused_by_name(build, open_face):
    image = keras.Input((32, 32, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(image)
    branch = keras.Model(image, {"parameters": pooled})
    for wrong in ("mobile", keras.Model(image, pooled), keras.Sequential()):
        with pytest.raises(ValueError, match="branch is .*; it must be a network whose outputs"):
            build(wrong, None)
    with pytest.raises(ValueError, match="space is .* .MorphableModel.; it must be a ParameterSp"):
        build(branch, open_face)


def test_a_space_in_place_of_its_layout_is_refused(tiny_face_model, tiny_whitening):
    space, image = ParameterSpace(tiny_face_model, tiny_whitening), keras.Input((32, 32, 3))
    encoder = keras.Model(image, keras.layers.GlobalAveragePooling2D()(image))
    with pytest.raises(ValueError, match="layout is .*; it must be a ParameterLayout, such as sp"):
        build_branch(encoder, space)
