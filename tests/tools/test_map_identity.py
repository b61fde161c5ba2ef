"""Folding a map into a network; the closed form of features, against stacked equations."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest

from keras_scnn.models import load_preset
from keras_scnn.models.inference import keras_network
from keras_scnn.models.presets import read_preset

N, SIZE, TARGETS, PEOPLE = 60, 5, 3, 12


@pytest.fixture
def preset_with_recognizers(tools, monkeypatch):
    """Presets are loaded as one with recognizers, whose packages are an extra."""
    import solve_identity

    recognizing = SimpleNamespace(recognizers="dlib")
    monkeypatch.setattr(solve_identity, "load_preset", lambda name: recognizing)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    inputs = rng.normal(1, 2, (N, SIZE)).astype(np.float32)
    targets = inputs @ rng.normal(size=(SIZE, TARGETS)) + rng.normal(size=(N, TARGETS)) + 4
    return inputs, targets, rng.uniform(1, 4, N), np.arange(N) % PEOPLE


def test_the_map_is_that_of_least_squares(tool, data):
    """Rows of the errors, of the differences within people, and of the penalty, each weighted."""
    inputs, targets, weight, person = data
    kernel, bias = tool.solve_steady(*data)
    weight = weight / weight.mean()
    x = inputs - np.average(inputs, axis=0, weights=weight)
    y = targets - np.average(targets, axis=0, weights=weight)
    root = np.sqrt(weight)[:, None]
    mean = np.stack(
        [np.average(x[person == p], axis=0, weights=weight[person == p]) for p in person]
    )
    ridge = tool.RIDGE * (weight[:, None] * x**2).sum() / SIZE
    rows = np.vstack(
        [root * x, np.sqrt(tool.WITHIN) * root * (x - mean), np.sqrt(ridge) * np.eye(SIZE)]
    )
    wanted = np.vstack([root * y, np.zeros((N + SIZE, TARGETS))])
    np.testing.assert_allclose(kernel, np.linalg.lstsq(rows, wanted, rcond=None)[0], atol=1e-6)
    residual = np.average(inputs @ kernel + bias - targets, axis=0, weights=weight)
    np.testing.assert_allclose(residual, 0, atol=1e-6)


def test_shapes_of_one_person_are_nearer_than_without_the_penalty(tool, data, monkeypatch):
    def within(kernel):
        shapes = data[0] @ kernel
        return np.mean([shapes[data[3] == p].var(axis=0).sum() for p in range(PEOPLE)])

    steady = within(tool.solve_steady(*data)[0])
    monkeypatch.setattr(tool, "WITHIN", 0.0)
    assert steady < 0.9 * within(tool.solve_steady(*data)[0])


@pytest.mark.integration
def test_the_map_is_folded_into_the_network_and_all_else_stays(tool):
    rng = np.random.default_rng(0)
    preset = load_preset("mobile")
    crops = rng.integers(0, 255, (3, 120, 120, 3)).astype(np.uint8)
    inputs = tool.both_views(preset, "parameters", crops)
    mirrored = tool.both_views(preset, "parameters", crops[:, :, ::-1])
    np.testing.assert_allclose(inputs, mirrored[::-1], atol=1e-5)
    before = keras_network(preset)(crops)
    identity, size = preset.layout.identity, preset.layout.size
    kernel, mean = rng.normal(0, 0.1, (size, preset.layout.n_identity)), rng.normal(size=size)
    tool.fold(preset, kernel, mean)
    after = keras_network(preset)(crops)
    expected = (inputs[0] - mean) @ kernel + mean[identity]
    np.testing.assert_allclose(after["parameters"][:, identity], expected, atol=2e-4)
    for rest in (preset.layout.pose, preset.layout.expression):
        same = before["parameters"][:, rest]
        np.testing.assert_allclose(after["parameters"][:, rest], same, atol=1e-5)
    np.testing.assert_array_equal(after["features"], before["features"])


@pytest.mark.parametrize(
    "words", ["map_identity PACK {preset} {out}", "solve_identity PACK {preset} {out}",
              "calibrate_eyes {preset} {out} --renderings 9"],
)  # fmt: skip
def test_presets_whose_identity_has_its_own_layer_are_refused(
    tools, refused, preset_with_recognizers, tmp_path, words
):
    """Their shapes depend on the layer that these tools change."""
    name, *given = words.format(preset="open-identity", out=tmp_path / "out").split()
    error = refused(importlib.import_module(name), *given)
    assert "preset 'open-identity' has recognizers, so its identity has a layer of its own" in error


@pytest.mark.parametrize(
    ("before", "base"), [("identity", "mobile"), ("open-identity", "open"), ("accurate", "")]
)
def test_presets_made_from_a_preset_share_weights_with_the_same_base(
    tool, tmp_path, monkeypatch, before, base
):
    given = {}
    monkeypatch.setattr(tool, "save_preset", lambda *_, **options: given.update(options))
    tool.save_refined(tmp_path, read_preset("mobile"), before, "note", {"a": 1})
    assert given == {"base": base}
