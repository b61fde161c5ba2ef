"""The tools that pack photos for an accelerator, and make presets of what it trained."""

import dataclasses
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest

from keras_scnn.data.mixture import Mixture
from keras_scnn.data.records import FaceRecords
from keras_scnn.geometry.camera import compose
from keras_scnn.models import load_preset, save_preset
from keras_scnn.parameters import ParameterSpace

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of one network with other weights and another whitening."""
    folder, preset = tmp_path_factory.mktemp("runs"), load_preset("mobile")
    metadata = {
        "config": {"seed": 1, "data": "/a/path"},
        "state": {"step": 5, "seconds": 2.0, "checkpoint": "x"},
    }
    first = dataclasses.replace(preset, metadata=metadata, shape_scatter=None)
    save_preset(folder / "a", first)
    other = load_preset("mobile")
    for weight in other.core.trainable_weights:
        weight.assign(1.01 * np.asarray(weight))
    scale = other.space.whitening.scale.copy()
    scale[20:30] *= 2
    whitening = dataclasses.replace(other.space.whitening, scale=scale)
    save_preset(
        folder / "b",
        dataclasses.replace(
            other, metadata=metadata, space=ParameterSpace(other.face_model, whitening)
        ),
    )
    return folder


def test_a_release_of_several_runs_has_the_mean_of_their_weights(tools, runs):
    from release_presets import read_runs, released

    preset = released(*read_runs(f"1*{runs / 'a'},3*{runs / 'b'}"))
    first, second = (load_preset(runs / name) for name in "ab")
    for told, a, b in zip(
        preset.core.weights, first.core.weights, second.core.weights, strict=True
    ):
        if not told.path.startswith("parameters/"):
            expected = (np.asarray(a) + 3 * np.asarray(b)) / 4
            np.testing.assert_allclose(np.asarray(told), expected, atol=1e-5)
    # A head that says unwhitened parameters is the mean of two such heads, whatever the whitening.
    kernels = [
        p.core.get_layer("parameters").kernel * p.space.whitening.scale
        for p in (preset, first, second)
    ]
    np.testing.assert_allclose(kernels[0], (kernels[1] + 3 * kernels[2]) / 4, atol=1e-4)
    told = {"config": {"seed": 1}, "state": {"step": 5, "seconds": 2.0}}
    assert preset.metadata["runs"] == [told, told] and preset.metadata["shares"] == [0.25, 0.75]


def test_a_release_of_one_run_is_that_run_with_a_scatter(tools, runs):
    from release_presets import read_runs, released, with_scatter

    preset = released(*read_runs(str(runs / "a")))
    assert preset.metadata["config"] == {"seed": 1} and preset.shape_scatter is None
    images = np.random.default_rng(0).integers(0, 255, (6, 120, 120, 3)).astype(np.uint8)
    records = FaceRecords(
        images,
        np.zeros((6, preset.layout.size), np.float32),
        np.zeros((6, 68, 3), np.float32),
        np.repeat(np.arange(3, dtype=np.int32), 2),
        "open_face",
    )
    scatter = with_scatter(preset, records, held_out=1).shape_scatter
    assert scatter.shape == (80, 80) and np.linalg.matrix_rank(scatter) == 2  # 4 photos, 2 people


def test_features_are_solved_from_the_embeddings_of_people_trained_on(tools):
    from release_presets import solve_features

    preset, rng = load_preset("accurate"), np.random.default_rng(0)
    images = np.stack(
        [
            cv2.resize(rng.integers(0, 256, (5, 5, 3)).astype(np.uint8), (120, 120))
            for _ in range(60)
        ]
    )
    layer = preset.core.get_layer("features_linear")
    hidden = keras.Model(preset.core.input, layer.input).predict(images, verbose=0)
    turned = np.linalg.qr(rng.normal(size=(128, 128)))[0]
    embedding = hidden @ np.asarray(layer.kernel) @ turned.astype(np.float32)
    unseen = 50
    embedding[unseen:] = rng.normal(0, 100, (10, 128))  # of people held out
    parameters = np.zeros((60, preset.layout.size), np.float32)
    parameters[:, preset.layout.pose] = compose(np.eye(3), 1.0, np.zeros(3)).ravel()
    records = FaceRecords(
        images,
        parameters,
        np.zeros((60, 68, 3), np.float32),
        np.arange(60, dtype=np.int32),
        "open_face",
        embedding=embedding,
    )
    solve_features(preset, Mixture(records, np.zeros(60, int)), held_out=10)
    told = np.asarray(preset.core(images[:unseen].astype(np.float32))["features"])
    centered = embedding - embedding.mean(axis=0)
    wanted = centered[:unseen] / np.linalg.norm(centered[:unseen], axis=1, keepdims=True)
    assert (told * wanted).sum(axis=1).mean() > 0.9
    short = Mixture(dataclasses.replace(records, embedding=embedding[:, :8]), np.zeros(60, int))
    with pytest.raises(ValueError, match="128 numbers are needed"):
        solve_features(preset, short, held_out=10)
