"""The tool that starts an identity encoder from dlib's recognizer."""

import struct
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_scnn.models import load_preset
from keras_scnn.models.encoders import PREFIX

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)


def written(values: np.ndarray, sizes: tuple[int, ...]) -> bytes:
    """A tensor as dlib writes it: integers as a length and that many bytes."""
    numbers = [n.to_bytes((n.bit_length() + 7) // 8, "little") for n in (2, *sizes)]
    head = b"".join(bytes([len(number)]) + number for number in numbers)
    return head + struct.pack(f"<{values.size}f", *values.ravel())


def test_tensors_are_found_between_other_bytes(tools):
    from join_recognizer import read_tensors

    rng = np.random.default_rng(0)
    big, small = rng.normal(size=(300, 1)), rng.normal(size=(40, 8))
    content = b"\x01\x07affine_\x01\x02\x01\x03" + written(big, (300, 1, 1, 1)) + b"\x01\x02\x00"
    found = read_tensors(content + written(small, (40, 8, 1, 1)) + b"\x01\x02")
    np.testing.assert_array_equal(found[0], big.ravel().astype(np.float32))
    np.testing.assert_array_equal(found[1], small.ravel().astype(np.float32))
    assert len(found) == 2
    with pytest.raises(ValueError, match="no tensor found"):
        read_tensors(b"something else")


def test_a_convolution_and_the_scaling_after_it_become_one(tools):
    """SciPy's correlation, then the scaling, is the reference."""
    from scipy.signal import correlate

    from join_recognizer import split_layers

    rng = np.random.default_rng(1)
    kernel, bias = rng.normal(size=(4, 3, 5, 5)), rng.normal(size=4)
    scaling, linear = rng.normal(size=8), rng.normal(size=(4, 2))
    tensors = [np.concatenate([kernel.ravel(), bias]), scaling, linear.ravel()]
    ((folded, offset),), last = split_layers(tensors)
    image = rng.normal(size=(1, 9, 9, 3))
    told = keras.ops.conv(image, folded, 1, "valid") + offset
    for i in range(4):
        plain = correlate(image[0].transpose(2, 0, 1), kernel[i], "valid")[0] + bias[i]
        expected = plain * scaling[i] + scaling[4 + i]
        np.testing.assert_allclose(told[0, ..., i], expected, atol=1e-4)
    np.testing.assert_array_equal(last, linear)


def test_a_joined_network_says_the_same_parameters(tools):
    from join_recognizer import fill_identity_encoder, join

    preset = load_preset("mobile")
    joined = join(preset)
    rng = np.random.default_rng(2)
    layers = [layer for layer in joined.branch.layers if layer.name.startswith(PREFIX)]
    given = [
        [rng.normal(size=weight.shape) / 100 for weight in layer.get_weights()]
        for layer in layers
        if isinstance(layer, keras.layers.Conv2D) and layer.use_bias
    ]
    linear = rng.normal(size=(256, 128))
    fill_identity_encoder(joined.branch, given, linear)
    crops = rng.uniform(0, 255, (2, 120, 120, 3)).astype(np.float32)
    expected, told = preset.branch(crops)["parameters"], joined.branch(crops)["parameters"]
    np.testing.assert_allclose(told, expected, atol=1e-4)
    np.testing.assert_array_equal(
        joined.branch.get_layer("features_linear").kernel, np.float32(linear)
    )
    wide = joined.branch.get_layer(f"{PREFIX}64a_short").kernel
    np.testing.assert_array_equal(wide[0, 0], np.eye(32, 64))
    assert joined.has_identity_encoder and joined.feature_size == 128


def test_dlibs_own_file_has_the_layers_of_its_recognizer(tools):
    """29 convolutions with their scalings, and the linear layer (dlib, dnn_face_recognition_ex)."""
    from join_recognizer import read_tensors, split_layers
    from keras_scnn.data.labels.recognizer import weights_path

    try:
        path = weights_path()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    convolutions, linear = split_layers(read_tensors(path.read_bytes()))
    widths = [32] * 7 + [64] * 8 + [128] * 6 + [256] * 8
    assert [len(bias) for _, bias in convolutions] == widths
    assert linear.shape == (256, 128)
