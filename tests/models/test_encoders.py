import keras
import numpy as np
import pytest

from keras_scnn.models import ENCODERS, build_branch, build_encoder
from keras_scnn.models.encoder_table import IMAGENET_MEAN_BGR
from keras_scnn.models.encoders import feature_map
from keras_scnn.parameters import ParameterLayout

# Length of the pooled feature, from the papers' tables: 1024 * alpha, 1280, 576, 960, 2048.
FEATURES = {
    "mobilenet_0.5": 512, "mobilenet_1.0": 1024, "mobilenet_v2": 1280, "mobilenet_v3_small": 576,
    "mobilenet_v3_large": 960, "resnet50": 2048, "resnet50_v2": 2048, "dlib_mobilenet": 384,
}  # fmt: skip


def test_every_encoder_is_listed_here():
    assert FEATURES.keys() == ENCODERS.keys()


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_takes_120_px_crops(name):
    encoder = build_encoder(name)
    assert encoder.input_shape == (None, 120, 120, 3)
    assert encoder.output_shape == (None, FEATURES[name])


def test_the_last_layer_pools_a_feature_map():
    encoder = build_encoder("mobilenet_0.5")
    assert encoder.layers[-1].input.shape == (None, 3, 3, 512)  # 120 px, halved five times, cut


def test_bytes_and_floats_are_the_same_photo():
    encoder = build_encoder("mobilenet_0.5", input_size=32)
    image = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    as_bytes, as_floats = (np.asarray(encoder(x)) for x in (image, image.astype(np.float32)))
    np.testing.assert_array_equal(as_bytes, as_floats)


def test_batch_norm_forgets_as_fast_as_asked():
    encoder = build_encoder("mobilenet_0.5", input_size=32, batch_norm_momentum=0.8)
    norms = [x for x in encoder.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert norms and all(norm.momentum == 0.8 for norm in norms)


def test_resnet50_gets_caffe_preprocessing():
    encoder = build_encoder("resnet50", input_size=32)
    prepared = keras.Model(encoder.input, encoder.get_layer("to_caffe").output)
    image = np.random.default_rng(1).uniform(0, 255, (1, 32, 32, 3)).astype(np.float32)
    # Keras's own function for the published weights.
    expected = keras.applications.resnet50.preprocess_input(image.copy())
    np.testing.assert_allclose(np.asarray(prepared(image)), expected, atol=1e-3)
    assert IMAGENET_MEAN_BGR[0] == 103.939


def test_imagenet_weights_come_through_keras_own_loader(monkeypatch):
    asked = []

    def get_file(*args, **kwargs):
        asked.append(str(args) + str(kwargs))
        raise ConnectionError("no network in tests")

    module = keras.src.applications.mobilenet.file_utils
    monkeypatch.setattr(module, "get_file", get_file)
    with pytest.raises(ConnectionError):
        build_encoder("mobilenet_0.5", input_size=128, weights="imagenet")
    assert "mobilenet_5_0_128_tf_no_top" in asked[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_norm_momentum": 5}, "batch_norm_momentum is 5; it must lie in 0 to 1"),
        ({"input_size": "64"}, "input_size is '64'; it must be a whole number"),
        ({"input_size": None}, "input_size is None; it must be a whole number"),
        ({"input_size": 31}, "input_size is 31; it must be 32 or more"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_encoder("mobilenet_0.5", **options)


def test_an_unknown_encoder_is_refused_by_name():
    with pytest.raises(ValueError, match="unknown encoder 'vgg'; choose from mobilenet_0.5"):
        build_encoder("vgg")


def small(*last, shape=(32, 32, 3)):
    return keras.Sequential([keras.Input(shape), keras.layers.Conv2D(8, 3, 8), *last], name="own")


def pool():
    return keras.layers.GlobalAveragePooling2D()


def nested():
    image = keras.Input((32, 32, 3))
    return keras.Model(image, small(pool())(image), name="own")


def of_two_images():
    images = [keras.Input((32, 32, 3)) for _ in range(2)]
    return keras.Model(images, pool()(images[0] + images[1]), name="own")


def of_two_pools():
    """An encoder whose last layer has several inputs."""
    image = keras.Input((32, 32, 3))
    first = keras.layers.Conv2D(8, 3, 8)(image)
    parts = [pool()(first), keras.layers.GlobalMaxPooling2D()(first)]
    return keras.Model(image, keras.layers.Concatenate()(parts), name="own")


class Halves(keras.layers.Layer):
    """A layer with several outputs."""

    def call(self, image):
        return keras.ops.split(image, 2, axis=-1)


def of_halves():
    image = keras.Input((32, 32, 3))
    first = keras.layers.Conv2D(8, 3, 1, "same", name="whole")(image)
    half = keras.layers.Conv2D(8, 3, 8)(Halves()(first)[0])
    return keras.Model(image, pool()(half), name="own")


OWN = {"sequential": lambda: small(pool()), "nested": nested}


@pytest.mark.parametrize("make", OWN.values(), ids=OWN)
def test_any_keras_model_is_an_encoder(make):
    encoder = make()
    branch = build_branch(encoder, ParameterLayout(4, 2), feature_size=3)
    image = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    kernel, bias = branch.get_layer("parameters").weights
    expected = np.asarray(encoder(image)) @ np.asarray(kernel) + np.asarray(bias)
    np.testing.assert_allclose(branch(image)["parameters"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (small, r"\(4, 4, 8\)\]; it must have one input \(S, S, 3\) and one output \(F,\)"),
        (of_two_images, "it must have one input"),
        (lambda: small(pool(), shape=(32, 32, 1)), "it must have one input"),
        (lambda: small(pool(), shape=(32, 64, 3)), "it must have one input"),
        (lambda: small(pool(), shape=(None, None, 3)), "it must have one input"),
        (lambda: keras.Sequential([pool()], name="own"), r"start it with keras.Input\(\(S, S, 3\)"),
    ],
)
def test_an_encoder_of_another_form_is_refused(make, what):
    with pytest.raises(ValueError, match=f"encoder 'own' has .*{what}"):
        build_branch(make(), ParameterLayout(4, 2))


@pytest.mark.parametrize(
    ("make", "head", "what"),
    [
        (nested, "feature_channels", "pools no feature map"),
        (lambda: small(keras.layers.Flatten(), keras.layers.Dense(8)), "feature_channels", "pools"),
        (of_two_pools, "feature_channels", "pools no feature map"),
        (nested, "expression_channels", "has no feature map of 8 px or more"),
        (nested, "gaze_channels", "has no feature map of 8 px or more"),
        (lambda: small(pool()), "expression_channels", "has no feature map of 8 px or more"),
    ],
)
def test_heads_on_feature_maps_need_one(make, head, what):
    with pytest.raises(ValueError, match=f"encoder 'own' .*{what}.*; .*{head}=0"):
        build_branch(make(), ParameterLayout(4, 2), **{head: 4})


def test_the_feature_map_is_that_of_a_layer_with_one_output():
    assert feature_map(of_halves(), 4).shape == (None, 32, 32, 8)
