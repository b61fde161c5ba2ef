import dataclasses

import numpy as np
import pytest

from keras_scnn.geometry.similarities import move_parameters
from keras_scnn.models import (
    Preset,
    build_branch,
    build_encoder,
    build_flip_averaged,
    load_preset,
    save_preset,
)
from keras_scnn.morphable_model import mirror_matrices
from keras_scnn.parameters import ParameterLayout, ParameterSpace, Whitening

SIZE = 32
LAYOUT = ParameterLayout(8, 52)
IMAGES = np.random.default_rng(0).uniform(0, 255, (3, SIZE, SIZE, 3)).astype(np.float32)
MIRROR = np.array([[-1.0, 0, SIZE - 1], [0, 1, 0]])


@pytest.fixture(scope="module")
def preset(open_face):
    branch = build_branch(build_encoder("mobilenet_0.5", SIZE), LAYOUT, 16, 24)
    rng = np.random.default_rng(1)
    kernel, bias = branch.get_layer("parameters").get_weights()
    # An untrained encoder's output is nearly 0: a random bias gives parameters of about 1.
    branch.get_layer("parameters").set_weights([kernel, rng.normal(size=bias.shape)])
    whitening = Whitening(rng.normal(size=LAYOUT.size), rng.uniform(0.5, 2, LAYOUT.size))
    model = open_face.truncated(LAYOUT.n_identity, LAYOUT.n_expression)
    branch = build_flip_averaged(branch, ParameterSpace(model, whitening))
    return Preset(branch, ParameterSpace(model, whitening), "mobilenet_0.5")


def parameters(preset, branch, images):
    return preset.space.whitening.unwhiten(np.asarray(branch(images)["parameters"]))


def mirror(preset, vectors):
    matrices = np.repeat(MIRROR[None], len(vectors), axis=0)
    return move_parameters(vectors, matrices, mirror_matrices(preset.face_model))


def test_it_predicts_the_mean_over_the_photo_and_its_mirror_image(preset):
    straight = parameters(preset, preset.core, IMAGES)
    mirrored = parameters(preset, preset.core, IMAGES[:, :, ::-1])
    expected = (straight + mirror(preset, mirrored)) / 2
    assert abs(straight - expected).max() > 1e-3  # the untrained network is not symmetric
    np.testing.assert_allclose(parameters(preset, preset.branch, IMAGES), expected, atol=1e-4)


def test_the_mirrored_photo_has_the_mirrored_face(preset):
    straight = parameters(preset, preset.branch, IMAGES)
    mirrored = parameters(preset, preset.branch, IMAGES[:, :, ::-1])
    expected = mirror(preset, straight)
    np.testing.assert_allclose(mirrored, expected, atol=1e-4)


def test_only_the_branch_is_trained(preset):
    names = [weight.path for weight in preset.core.trainable_weights]
    assert [weight.path for weight in preset.branch.trainable_weights] == names


def test_its_feature_is_the_same_for_both_and_of_unit_length(preset):
    features = np.asarray(preset.branch(IMAGES)["features"])
    np.testing.assert_allclose(preset.branch(IMAGES[:, :, ::-1])["features"], features, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)


@pytest.mark.integration
def test_it_is_restored_from_a_preset_with_the_weights_of_the_branch_only(preset, tmp_path):
    save_preset(tmp_path / "mirrored", preset)
    again = load_preset(tmp_path / "mirrored")
    assert again.is_flip_averaged
    assert again.feature_channels == 24
    for name, value in preset.branch(IMAGES).items():
        np.testing.assert_allclose(np.asarray(again.branch(IMAGES)[name]), value, atol=2e-3)
    single = dataclasses.replace(preset, branch=preset.core)
    save_preset(tmp_path / "single", single)
    assert not load_preset(tmp_path / "single").is_flip_averaged
    sizes = [(tmp_path / name / "weights.npz").stat().st_size for name in ("mirrored", "single")]
    assert abs(sizes[0] - sizes[1]) < 0.01 * sizes[1]


def test_a_face_model_without_mirror_partners_is_refused(preset):
    model = preset.face_model.replace(mirror=None)
    with pytest.raises(ValueError, match="no mirror partners"):
        build_flip_averaged(preset.core, ParameterSpace(model, preset.space.whitening))
