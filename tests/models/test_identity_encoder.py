import keras
import numpy as np
import pytest

from keras_scnn.models import Preset, build_branch, build_encoder, load_preset, save_preset
from keras_scnn.models.identity_encoder import PREFIX, face_window, identity_features
from keras_scnn.parameters import ParameterLayout, ParameterSpace, Whitening

SIZE, LAYOUT = 120, ParameterLayout(3, 2)


@pytest.fixture(scope="module")
def encoder():
    image = keras.Input((SIZE, SIZE, 3))
    return keras.Model(image, identity_features(image))


@pytest.fixture(scope="module")
def branch():
    return build_branch(build_encoder("mobilenet_0.5", 32), LAYOUT, 16, identity_encoder=True)


def photos(size, count=2):
    return np.random.default_rng(0).uniform(0, 255, (count, size, size, 3)).astype(np.float32)


def test_the_window_is_what_dlib_sees_of_a_standard_crop():
    """Measured on AFLW's frontal faces: 100 px about (60, 53) of 120."""
    top, left, side = face_window(120)
    assert abs(side - 100) <= 1
    assert abs(top + side / 2 - 53.5) <= 1 and abs(left + side / 2 - 60) <= 1


def test_only_the_window_matters(encoder):
    image = photos(SIZE)
    top, left, side = face_window(SIZE)
    changed = np.zeros_like(image)
    window = np.s_[:, top : top + side, left : left + side]
    changed[window] = image[window]
    outputs = np.asarray(encoder(image))
    np.testing.assert_allclose(encoder(changed), outputs, atol=1e-6)
    changed[:, top + 20, left + 20] += 90
    assert abs(np.asarray(encoder(changed)) - outputs).max() > 1e-6


def test_the_maps_have_the_sizes_of_an_unpadded_pyramid(encoder):
    """By hand, stride 2 and no padding: 99, (99 - 7) / 2 + 1 = 47, 23, 11, 5, 2."""
    sizes = [encoder.get_layer(f"{PREFIX}{name}").output.shape[1:] for name in LAST_OF_STAGES]
    assert sizes == [(47, 47, 32), (23, 23, 32), (11, 11, 64), (5, 5, 128), (2, 2, 256)]


LAST_OF_STAGES = ("stem", "32c_out", "64d_out", "128c_out", "256b_out")


def test_a_block_without_convolutions_is_its_shortcut(encoder):
    """Where the convolutions are 0, a halved map is the mean of 2x2 places (NumPy)."""
    first = keras.Model(encoder.input, encoder.get_layer(f"{PREFIX}32c_out").output)
    second = keras.Model(encoder.input, encoder.get_layer(f"{PREFIX}64a_out").output)
    kept = [layer.get_weights() for layer in encoder.layers]
    for name in ("64a_1", "64a_2"):
        layer = encoder.get_layer(PREFIX + name)
        layer.set_weights([np.zeros_like(w) for w in layer.get_weights()])
    encoder.get_layer(f"{PREFIX}64a_short").set_weights([np.eye(32, 64)[None, None]])
    x = np.asarray(first(photos(SIZE)))[:, :22, :22]
    expected = x.reshape(2, 11, 2, 11, 2, 32).mean(axis=(2, 4))
    outputs = np.asarray(second(photos(SIZE)))
    np.testing.assert_allclose(outputs[..., :32], expected, atol=1e-5)
    np.testing.assert_array_equal(outputs[..., 32:], 0)
    for layer, weights in zip(encoder.layers, kept, strict=True):
        layer.set_weights(weights)


def test_features_and_parameters_depend_on_it(branch):
    image = photos(32)
    before = {name: np.asarray(outputs) for name, outputs in branch(image).items()}
    np.testing.assert_allclose(np.linalg.norm(before["features"], axis=1), 1, atol=1e-6)
    stem = branch.get_layer(f"{PREFIX}stem")
    kept = stem.get_weights()
    stem.set_weights([2 * kept[0], kept[1] + 1])
    for name, outputs in branch(image).items():
        assert abs(np.asarray(outputs) - before[name]).max() > 1e-6, name
    stem.set_weights(kept)


@pytest.mark.integration
def test_a_preset_brings_it_back(branch, open_face, tmp_path):
    model = open_face.truncated(LAYOUT.n_identity, LAYOUT.n_expression)
    whitening = Whitening(np.zeros(LAYOUT.size), np.ones(LAYOUT.size))
    save_preset(tmp_path / "two", Preset(branch, ParameterSpace(model, whitening), "mobilenet_0.5"))
    again = load_preset(tmp_path / "two")
    assert again.has_identity_encoder and again.feature_channels == 0
    assert not load_preset("mobile").has_identity_encoder
    for name, outputs in again.branch(photos(32)).items():
        np.testing.assert_allclose(outputs, branch(photos(32))[name], atol=2e-3)  # half precision


@pytest.mark.parametrize("size", [32, 47, 64, 96, 112, 128])
def test_it_takes_crops_of_any_size(size):
    image = keras.Input((size, size, 3))
    assert identity_features(image).shape == (None, 256)
