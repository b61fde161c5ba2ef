"""Recognizers as layers: alignment against OpenCV, embeddings against the plain array code."""

import dataclasses

import cv2
import keras
import numpy as np
import pytest

from keras_scnn.geometry.alignment import similarity_alignment
from keras_scnn.models import Preset, build_branch, build_encoder, load_preset, save_preset
from keras_scnn.models.recognizers import layers
from keras_scnn.models.recognizers.dlib import DlibNetwork
from keras_scnn.models.recognizers.layers import (
    CHIPS,
    AlignedChip,
    embedding_layer,
    fill_chip_points,
    weights_digest,
)
from keras_scnn.models.recognizers.sface import (
    CONVOLUTIONS,
    Convolution,
    SFaceNetwork,
    SFaceWeights,
)
from keras_scnn.parameters import FaceParameters, ParameterSpace, Whitening

SIZE = 64
CROPS = np.random.default_rng(0).uniform(0, 255, (2, SIZE, SIZE, 3)).astype(np.float32)


def random_weights(name):
    rng = np.random.default_rng(1)
    weights = embedding_layer(name).get_weights()
    return [
        (rng.normal(0, 0.1 if w.ndim == 1 else w[..., 0].size ** -0.5, w.shape)).astype(np.float32)
        for w in weights
    ]


@pytest.mark.parametrize("name", CHIPS)
def test_chips_are_aligned_as_opencv_does(name):
    """With the same least squares; smooth photos, since OpenCV rounds places to 1/32 px."""
    chip, rng = CHIPS[name], np.random.default_rng(2)
    crops = np.stack([cv2.GaussianBlur(crop, (0, 0), 3) for crop in CROPS])
    points = []
    for angle, scale in ((0.3, 0.4), (-2.0, 0.9)):
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        around = scale * (chip.points - chip.points.mean(axis=0)) @ turn
        points.append(around + SIZE / 2 + rng.normal(0, 1, (5, 2)))
    chips = np.asarray(AlignedChip(name)(crops, np.float32(points)))
    assert chips.shape == (2, chip.size, chip.size, 3)
    for made, crop, place in zip(chips, crops, points, strict=True):
        scale, rotation, shift = similarity_alignment(place, chip.points)
        matrix = np.column_stack([scale * rotation, shift])
        size = (chip.size, chip.size)
        expected = cv2.warpAffine(crop, matrix, size, borderMode=cv2.BORDER_REPLICATE)
        np.testing.assert_allclose(made, expected, atol=1.0)


@pytest.mark.integration
def test_layers_embed_as_the_plain_networks_do():
    rng = np.random.default_rng(3)
    chips = {
        n: rng.uniform(0, 255, (1, c.size, c.size, 3)).astype("float32") for n, c in CHIPS.items()
    }
    arrays = random_weights("dlib")
    plain = DlibNetwork(list(zip(arrays[:-1:2], arrays[1:-1:2], strict=True)), arrays[-1])
    layer = embedding_layer("dlib")
    layer.set_weights(arrays)
    np.testing.assert_allclose(layer(chips["dlib"]), plain(chips["dlib"]), rtol=1e-5, atol=1e-5)
    arrays = random_weights("sface")
    triples = zip(arrays[:-2:3], arrays[1:-2:3], arrays[2:-2:3], strict=True)
    convolutions = {n: Convolution(*t) for n, t in zip(CONVOLUTIONS, triples, strict=True)}
    layer = embedding_layer("sface")
    layer.set_weights(arrays)
    plain = SFaceNetwork(SFaceWeights(convolutions, *arrays[-2:]))
    np.testing.assert_allclose(layer(chips["sface"]), plain(chips["sface"]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CHIPS)
def test_the_layers_have_the_shapes_of_the_packages_weights(name):
    try:
        arrays = layers.packaged_weights(name)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert [a.shape for a in arrays] == [w.shape for w in embedding_layer(name).weights]


@pytest.fixture(scope="module")
def preset():
    """A random network with SFace's layer, whose chips the open face model's landmarks align."""
    from keras_scnn.morphable_model import MorphableModel

    model = MorphableModel.open_face().truncated(8, 4)
    size = 12 + 8 + 4
    mean = np.zeros(size)
    mean[[0, 5, 10]], mean[[3, 7]] = [0.3, -0.3, 0.3], SIZE / 2
    space = ParameterSpace(model, Whitening(mean, np.full(size, 0.01)))
    keras.utils.set_random_seed(0)
    branch = build_branch(
        build_encoder("mobilenet_0.5", SIZE), space.layout, 16, recognizers="sface"
    )
    branch.get_layer("identity_sface").set_weights(random_weights("sface"))
    fill_chip_points(branch, space)
    return Preset(branch, space, "mobilenet_0.5")


def test_identity_is_linear_in_parameters_and_embedding_and_the_rest_is_not_touched(preset):
    branch, layout = preset.branch, preset.layout
    parts = ("identity_embedding", "parameters", "identity_shape")
    outputs = {name: branch.get_layer(name).output for name in parts}
    seen = keras.Model(branch.input, outputs)(CROPS)
    parameters = np.asarray(branch(CROPS)["parameters"])
    np.testing.assert_array_equal(parameters[:, layout.identity], seen["identity_shape"])
    for rest in (layout.pose, layout.expression):
        np.testing.assert_array_equal(parameters[:, rest], np.asarray(seen["parameters"])[:, rest])
    kernel, bias = branch.get_layer("identity_shape").get_weights()
    inputs = np.concatenate([seen["parameters"], seen["identity_embedding"]], axis=1)
    expected = inputs @ kernel + bias
    np.testing.assert_allclose(parameters[:, layout.identity], expected, rtol=1e-4, atol=1e-4)


def test_chips_are_aligned_by_the_landmarks_that_the_network_predicts(preset):
    names = ("parameters", "identity_sface_points")
    outputs = {name: preset.branch.get_layer(name).output for name in names}
    seen = {k: np.asarray(v) for k, v in keras.Model(preset.branch.input, outputs)(CROPS).items()}
    vectors = preset.space.whitening.unwhiten(seen["parameters"].astype(np.float64))
    faces = FaceParameters.from_vector(vectors, preset.layout)
    shapes = preset.face_model.landmarks(faces.identity, faces.expression)
    points = shapes @ np.swapaxes(faces.pose[..., :3], 1, 2) + faces.pose[:, None, :, 3]
    np.testing.assert_allclose(
        seen["identity_sface_points"], CHIPS["sface"].landmarks @ points, atol=1e-3
    )


@pytest.mark.integration
def test_a_preset_keeps_weights_that_no_package_has(preset, tmp_path, monkeypatch):
    monkeypatch.setattr(layers, "packaged_weights", _missing)
    save_preset(tmp_path / "p", preset)
    again = load_preset(tmp_path / "p", preset.face_model)
    assert again.recognizers == preset.recognizers == "sface"
    outputs = again.branch(CROPS)["features"]
    np.testing.assert_allclose(outputs, preset.branch(CROPS)["features"], atol=0.02)


@pytest.mark.integration
def test_a_preset_leaves_out_weights_that_a_package_has(preset, tmp_path, monkeypatch):
    arrays = preset.branch.get_layer("identity_sface").get_weights()
    monkeypatch.setattr(layers, "packaged_weights", lambda name: arrays)
    save_preset(tmp_path / "p", preset)
    assert (tmp_path / "p" / "weights.npz").stat().st_size < 5e6, "SFace alone is 19 MB"
    again = load_preset(tmp_path / "p", preset.face_model)
    for mine, theirs in zip(again.branch.get_layer("identity_sface").weights, arrays, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    other = [*arrays[:-1], arrays[-1] + 1]
    monkeypatch.setattr(layers, "packaged_weights", lambda name: other)
    with pytest.raises(ValueError, match=f"digest {weights_digest(other)[:12]}; the network was"):
        load_preset(tmp_path / "p", preset.face_model)
    monkeypatch.setattr(layers, "packaged_weights", _missing)
    with pytest.raises(FileNotFoundError, match="^install it$"):
        load_preset(tmp_path / "p", preset.face_model)


def _missing(name):
    raise FileNotFoundError("install it")


@pytest.mark.integration
def test_a_changed_recognizer_is_kept(preset, tmp_path, monkeypatch):
    arrays = preset.branch.get_layer("identity_sface").get_weights()
    monkeypatch.setattr(layers, "packaged_weights", lambda name: [a + 1 for a in arrays])
    save_preset(tmp_path / "p", dataclasses.replace(preset, metadata={"trained": True}))
    layer = load_preset(tmp_path / "p", preset.face_model).branch.get_layer("identity_sface")
    np.testing.assert_allclose(layer.weights[0], arrays[0], atol=1e-3)


def test_impossible_settings_are_refused(preset):
    encoder = build_encoder("mobilenet_0.5", SIZE)
    with pytest.raises(ValueError, match="unknown recognizer 'arcface'; choose from dlib, sface"):
        build_branch(encoder, preset.layout, 16, recognizers="arcface")
    with pytest.raises(ValueError, match="recognizers exclude each other; choose one"):
        build_branch(encoder, preset.layout, 16, recognizers="dlib", identity_encoder=True)
