"""The encoder on top of dlib's lower layers."""

import keras
import numpy as np
import pytest
from dlib_files import WIDTHS, write_recognizer
from keras import ops

from keras_scnn.models import build_encoder
from keras_scnn.models.dlib_stem import PREFIX
from keras_scnn.models.recognizers import dlib
from keras_scnn.models.recognizers.chips import COLOR_SCALE, MEAN_COLOR
from keras_scnn.training.config import TrainConfig


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("recognizer") / "random.dat"
    write_recognizer(path, WIDTHS, embedding=128)
    return path


@pytest.fixture(scope="module")
def encoder(recognizer):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dlib, "weights_path", lambda: recognizer)
        return build_encoder("dlib_mobilenet", 64, "dlib")


def test_its_lower_layers_are_the_recognizers(encoder, recognizer):
    """The reference: the formula of a residual network, on an image with explicit borders."""
    image = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    layers = iter(dlib.read_recognizer(str(recognizer))[0])

    def convolve(x, stride, border):
        kernel, bias = next(layers)
        padded = np.pad(np.float32(x), [(0, 0), border, border, (0, 0)])
        return np.asarray(ops.conv(padded, np.float32(kernel), stride) + bias)

    x = np.maximum(convolve((image - MEAN_COLOR) / COLOR_SCALE, 2, (2, 3)), 0)
    x = np.asarray(ops.max_pool(np.pad(x, [(0, 0), (0, 1), (0, 1), (0, 0)]), 3, 2))
    for block in range(7):
        stride, border = (2, (0, 1)) if block == 3 else (1, (1, 1))
        y = np.asarray(convolve(np.maximum(convolve(x, stride, border), 0), 1, (1, 1)))
        if block == 3:
            x = np.asarray(ops.average_pool(x, 2, 2))
            x = np.concatenate([x, np.zeros_like(x)], axis=-1)
        x = np.maximum(x + y, 0)
    lower = keras.Model(encoder.input, encoder.get_layer(f"{PREFIX}64d_out").output)
    assert x.shape == (2, 8, 8, 64) and x.std() > 0.1
    np.testing.assert_allclose(lower(image), x, rtol=1e-3, atol=1e-3)


def test_they_stay_as_they_are_in_training(encoder):
    assert encoder.trainable_weights
    assert all(weight.path.startswith("top_") for weight in encoder.trainable_weights)
    fixed = [w for w in encoder.non_trainable_weights if w.path.startswith(PREFIX)]
    assert len(fixed) == 2 * 15 + 1  # kernels and biases, and the one shortcut that widens


def test_without_weights_all_of_it_is_trained():
    encoder = build_encoder("dlib_mobilenet", 64)
    paths = {weight.path for weight in encoder.trainable_weights}
    assert any(path.startswith(PREFIX) for path in paths)


@pytest.mark.parametrize(
    "name, weights, known",
    [("dlib_mobilenet", "imagenet", "dlib"), ("resnet50", "dlib", "imagenet")],
)
def test_weights_of_another_encoder_are_refused_before_anything_is_built(name, weights, known):
    message = f"encoder '{name}' has no weights '{weights}'; it has '{known}'"
    with pytest.raises(ValueError, match=message):
        build_encoder(name, 64, weights)
    with pytest.raises(ValueError, match=message):
        TrainConfig(encoder=name, encoder_weights=weights, start="")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(dlib, "weights_path", lambda: tmp_path / "missing.dat")
    with pytest.raises(FileNotFoundError, match="missing.dat: no such file"):
        build_encoder("dlib_mobilenet", 64, "dlib")
