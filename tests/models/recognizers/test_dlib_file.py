"""dlib's weights, and the identity encoder that starts from them."""

import keras
import numpy as np
import pytest
from dlib_files import WIDTHS, write_recognizer, written

from keras_scnn.models import build_branch, build_encoder, load_preset
from keras_scnn.models.identity_encoder import PREFIX
from keras_scnn.models.recognizers.dlib import read_recognizer
from keras_scnn.models.recognizers.dlib_file import read_tensors, split_layers
from keras_scnn.parameters import Whitening
from keras_scnn.training.warm_start import join_recognizer


def test_tensors_are_found_between_other_bytes():
    rng = np.random.default_rng(0)
    big, small = rng.normal(size=(300, 1)), rng.normal(size=(40, 8))
    content = b"\x01\x07affine_\x01\x02\x01\x03" + written(big, (300, 1, 1, 1)) + b"\x01\x02\x00"
    result = read_tensors(content + written(small, (40, 8, 1, 1)) + b"\x01\x02")
    np.testing.assert_array_equal(result[0], big.ravel().astype(np.float32))
    np.testing.assert_array_equal(result[1], small.ravel().astype(np.float32))
    assert len(result) == 2
    with pytest.raises(ValueError, match="no tensor found"):
        read_tensors(b"something else")


def test_a_convolution_and_the_scaling_after_it_become_one():
    """SciPy's correlation, then the scaling, is the reference."""
    from scipy.signal import correlate

    rng = np.random.default_rng(1)
    kernel, bias = rng.normal(size=(4, 3, 5, 5)), rng.normal(size=4)
    scaling, linear = rng.normal(size=8), rng.normal(size=(4, 2))
    tensors = [np.concatenate([kernel.ravel(), bias]), scaling, linear.ravel()]
    ((folded, offset),), last = split_layers(tensors)
    image = rng.normal(size=(1, 9, 9, 3))
    outputs = keras.ops.conv(image, folded, 1, "valid") + offset
    for i in range(4):
        plain = correlate(image[0].transpose(2, 0, 1), kernel[i], "valid")[0] + bias[i]
        expected = plain * scaling[i] + scaling[4 + i]
        np.testing.assert_allclose(outputs[0, ..., i], expected, atol=1e-4)
    np.testing.assert_array_equal(last, linear)


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    """A preset, and a branch that starts from it and from a random recognizer."""
    path = tmp_path_factory.mktemp("recognizer") / "random.dat"
    write_recognizer(path, WIDTHS, embedding=128)
    preset = load_preset("aflw-mobilenet-0.5")
    encoder = build_encoder(preset.encoder, preset.input_size)
    branch = build_branch(encoder, preset.layout, 128, identity_encoder=True)
    mean, scale = preset.space.whitening.mean + 1, 2 * preset.space.whitening.scale
    whitening = Whitening(mean, scale)
    join_recognizer(branch, preset, whitening, str(path))
    return preset, branch, whitening, read_recognizer(str(path))


def test_a_joined_network_predicts_the_same_parameters(joined):
    preset, branch, whitening, _ = joined
    crops = np.random.default_rng(2).uniform(0, 255, (2, 120, 120, 3)).astype(np.float32)
    expected, parameters = (
        one.unwhiten(np.asarray(network(crops)["parameters"]))
        for one, network in ((preset.space.whitening, preset.branch), (whitening, branch))
    )
    np.testing.assert_allclose(parameters, expected, atol=1e-2)


def test_its_identity_encoder_has_the_recognizers_weights(joined):
    _, branch, _, (convolutions, linear) = joined
    np.testing.assert_array_equal(branch.get_layer("features_linear").kernel, np.float32(linear))
    first = branch.get_layer(f"{PREFIX}stem").get_weights()
    np.testing.assert_allclose(first[0], convolutions[0][0], rtol=1e-6)
    wide = branch.get_layer(f"{PREFIX}64a_short").kernel
    np.testing.assert_array_equal(wide[0, 0], np.eye(32, 64))


def test_a_preset_with_a_joint_head_is_refused(joined, tmp_path):
    _, branch, whitening, _ = joined
    write_recognizer(tmp_path / "random.dat", WIDTHS, embedding=128)
    with pytest.raises(ValueError, match="has a joint head"):
        join_recognizer(branch, load_preset("mobile"), whitening, str(tmp_path / "random.dat"))


def test_a_feature_of_another_length_is_refused(joined, tmp_path):
    preset, branch, whitening, _ = joined
    write_recognizer(tmp_path / "short.dat", embedding=8)
    with pytest.raises(ValueError, match="feature_size is 128; the recognizer's is 8"):
        join_recognizer(branch, preset, whitening, str(tmp_path / "short.dat"))


def test_a_file_that_is_no_recognizer_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="recognizer: .*none.dat: no such file"):
        read_recognizer(str(tmp_path / "none.dat"))
    (tmp_path / "other.dat").write_bytes(b"something else")
    with pytest.raises(ValueError, match="other.dat: not a network of dlib.* no tensor found"):
        read_recognizer(str(tmp_path / "other.dat"))
    write_recognizer(tmp_path / "small.dat", widths=(16, 16))
    with pytest.raises(ValueError, match="2 convolutions, dlib's has 29"):
        read_recognizer(str(tmp_path / "small.dat"))


def test_dlibs_own_file_has_the_layers_of_its_recognizer():
    """29 convolutions with their scalings, and the linear layer (dlib, dnn_face_recognition_ex)."""
    try:
        convolutions, linear = read_recognizer()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert [len(bias) for _, bias in convolutions] == list(WIDTHS)
    assert linear.shape == (256, 128)
