"""Folding the matrix in, and the command from end to end."""

import sys
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from keras_scnn.models import load_preset
from keras_scnn.models.inference import BatchedNetwork
from keras_scnn.training.shape_metric import ShapeMetricOptions

PHOTOS, HELD_OUT = 4, 2


@pytest.mark.integration
def test_shapes_are_multiplied_about_their_mean(tool, preset, crops):
    inputs = tool.both_views(preset, tool.whole_parameters(preset), crops)
    mean = np.float64(inputs).mean(axis=(0, 1))
    identity = preset.layout.identity
    before = BatchedNetwork(preset.core)(crops)["parameters"]
    metric = np.eye(80) + np.random.default_rng(0).normal(0, 0.05, (80, 80))
    tool.fold_into(preset, tool.whole_kernel(preset, metric), mean)
    after = BatchedNetwork(preset.core)(crops)["parameters"]
    in_mm = preset.space.shape_basis
    expected = (inputs[0][:, identity] - mean[identity]) @ in_mm @ metric
    np.testing.assert_allclose((after[:, identity] - mean[identity]) @ in_mm, expected, atol=1e-3)
    for rest in (preset.layout.pose, preset.layout.expression):
        np.testing.assert_allclose(after[:, rest], before[:, rest], atol=1e-5)


@pytest.fixture
def people(tool, monkeypatch):
    """100 people, the last two of them held out, in the place of what the tool would open."""
    rng = np.random.default_rng(0)
    person = np.arange(PHOTOS * 100) // PHOTOS
    records = SimpleNamespace(
        images=np.zeros((len(person), 120, 120, 3), np.uint8),
        identity=person,
        mirror=None,
        parameters=rng.normal(size=(100, 144))[person],
    )
    mixture = SimpleNamespace(records=records, source=person % 2)
    monkeypatch.setattr(tool, "open_mixture", lambda folders: mixture)
    monkeypatch.setattr(tool, "photo_weights", lambda records, chosen: np.ones(len(chosen), int))
    monkeypatch.setattr(tool, "with_covariance", lambda preset, mixture, chosen: preset)
    return records


def run(tool, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["tool", *map(str, words)])
    tool.main()


@dataclass(frozen=True)
class FewSteps(ShapeMetricOptions):
    """Options of a fast training."""

    people: int = 8
    steps: int = 5


@pytest.mark.integration
def test_the_command(tool, people, tmp_path, monkeypatch):
    """It learns from the people who are not held out; the note has all that determines it."""
    preset, seen = load_preset("mobile"), []
    layout = preset.layout
    known = people.parameters[: PHOTOS * (100 - HELD_OUT)]
    inputs = np.tile(known, (2, 1, 1)) + np.random.default_rng(1).normal(size=(2, *known.shape))

    def both_views(preset, layer, images):
        seen.append((layer, len(images)))
        return inputs

    monkeypatch.setattr(tool, "both_views", both_views)
    monkeypatch.setattr(tool, "ShapeMetricOptions", FewSteps)
    words = ["--data", "A,B", "--held-out", HELD_OUT, "--neighbor-weight", 0.25, "--seed", 3]
    run(tool, monkeypatch, "mobile", tmp_path / "out", *words)
    assert seen == [("parameters", len(known))]
    made = load_preset(tmp_path / "out")
    note = made.metadata["shapes_refined"]
    assert (note["people"], note["photos"], note["held_out"]) == (98, len(known), HELD_OUT)
    options = note["options"]
    assert (options["neighbor_weight"], options["scale"], options["seed"]) == (0.25, 0.5, 3)
    before, after = (p.core.get_layer("parameters").get_weights()[0] for p in (preset, made))
    changed = np.abs(after - before).max(axis=0)
    assert changed[layout.identity].max() > 1e-3
    assert not changed[layout.pose].any() and not changed[layout.expression].any()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--held-out", "5"), "--data: 95 people with two photos; 96 are needed"),
        (("--scale", "0"), "scale is 0.0; it must be above 0"),
        (("--scale", "nan"), "scale is nan"),
        (("--neighbor-weight", "-1"), "--neighbor-weight"),
    ],
)
def test_what_cannot_be_learned_from_is_refused_at_once(
    tool, people, tmp_path, refused, words, message
):
    assert message in refused(tool, "mobile", tmp_path / "out", "--data", "A,B", *words)
    assert not list(tmp_path.iterdir())
