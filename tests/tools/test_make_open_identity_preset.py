"""The preset whose identity comes from dlib's recognizer, from renderings alone."""

import importlib
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from keras_scnn.models import load_preset
from keras_scnn.models.inference import BatchedNetwork
from keras_scnn.models.recognizers import layers
from keras_scnn.shape_distance import shape_coordinates, within_person_covariance


def people_and_embeddings(noise: np.ndarray):
    """Embeddings (800, 6) of 200 people's shapes (800, 3): linear in them, and noise of photos."""
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(200), 4)
    shapes = rng.normal(size=(200, 3))[person]
    mixed = shapes @ rng.normal(size=(3, 6))
    return mixed + rng.normal(size=(800, 6)) @ np.diag(noise), shapes, person


def test_predicted_shapes_have_the_wanted_size_about_their_mean(tool):
    embeddings, shapes, person = people_and_embeddings(np.full(6, 0.1))
    predicted = embeddings @ tool.steady_map(embeddings, shapes, person)
    size = np.sqrt(((predicted - predicted.mean(axis=0)) ** 2).sum(axis=1).mean())
    assert size == pytest.approx(tool.SIZE_MM)


def test_directions_that_vary_little_within_people_count_more_than_in_a_regression(tool):
    embeddings, shapes, person = people_and_embeddings(np.array([0, 0, 0, 0, 0, 3.0]))
    kernel = tool.ridge_regression(embeddings, shapes, tool.RIDGE)[0]
    ratios = []
    for one in (kernel, tool.steady_map(embeddings, shapes, person)):
        predicted = embeddings @ one
        within = np.trace(within_person_covariance(predicted, person))
        ratios.append(within / np.trace(np.cov(predicted.T)))
    assert ratios[1] < 0.8 * ratios[0]


@pytest.fixture
def random_recognizer(tool, monkeypatch):
    """dlib's recognizer with random weights, in the place of the package's."""
    rng = np.random.default_rng(1)
    shapes = [w.shape for w in layers.embedding_layer("dlib").get_weights()]
    scaled = [
        rng.normal(0, np.prod(s[:-1]) ** -0.5, s) if len(s) > 1 else 0 * np.ones(s) for s in shapes
    ]
    arrays = [np.float32(array) for array in scaled]
    for module in (layers, sys.modules["make_identity_preset"]):
        monkeypatch.setattr(module, "packaged_weights", lambda name: arrays)


@pytest.mark.integration
def test_the_command(tool, random_recognizer, tmp_path, monkeypatch):
    out, few = tmp_path / "made", ["--people", "4", "--photos", "2", "--cache", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["x", str(out), *few])
    tool.main()
    preset, geometry = load_preset(out), load_preset("open")
    assert preset.recognizers == tool.RECOGNIZER and preset.is_flip_averaged
    assert preset.metadata["license"].startswith("CC0")
    assert not [path for path in out.iterdir() if path.stat().st_size > 200_000]
    crops = np.random.default_rng(0).integers(0, 255, (2, 120, 120, 3)).astype(np.uint8)
    seen = tool.output_of(preset, tool.SEEN, crops)
    embeddings = seen[:, preset.layout.size :]
    ours, theirs = (BatchedNetwork(one.core)(crops) for one in (preset, geometry))
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    np.testing.assert_allclose(ours["features"], unit, atol=1e-4)
    for part in (preset.layout.pose, preset.layout.expression):
        np.testing.assert_allclose(
            ours["parameters"][:, part], theirs["parameters"][:, part], atol=1e-4
        )


@pytest.mark.integration
def test_the_mean_embedding_has_the_mean_face(tool, random_recognizer):
    preset = tool.with_recognizers(load_preset("open"), 128, "dlib")
    rng, identity = np.random.default_rng(2), preset.layout.identity
    embeddings, kernel = rng.normal(size=(5, 128)), rng.normal(0, 0.1, (128, 80))
    shapes = tool.set_heads(preset, embeddings, kernel)
    np.testing.assert_allclose(shapes, (embeddings - embeddings.mean(axis=0)) @ kernel)
    weights, offset = preset.core.get_layer("identity_shape").get_weights()
    scale, mean = (getattr(preset.space.whitening, n)[identity] for n in ("scale", "mean"))
    for embedding, shape in zip(embeddings, shapes, strict=True):
        given = np.concatenate([rng.normal(size=preset.layout.size), embedding])
        coefficients = (given @ weights + offset) * scale + mean
        in_mm = shape_coordinates(preset.face_model, coefficients[None])[0]
        np.testing.assert_allclose(in_mm, shape, atol=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--photos", "1"], "--photos is 1; it must be 2 or more"),
        (["--people", "0"], "--people is 0; it must be 2 or more"),
    ],
)
def test_bad_options_are_refused_before_anything_is_rendered(
    tool, tmp_path, monkeypatch, capsys, words, message
):
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "out"), *words])
    with pytest.raises(SystemExit):
        tool.main()
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        ("runs/mine", "runs/mine is not a preset of the package: accurate,"),
        ("open", "preset 'open' has recognizers; give a preset without"),
        ("accurate", "preset 'accurate' has an identity encoder; give a preset without"),
    ],
)
@pytest.mark.parametrize(
    "words",
    [
        "make_open_identity_preset {out} --geometry {preset}",
        "make_identity_preset PACK {preset} {out}",
    ],
)
def test_a_geometry_whose_identity_has_its_own_layers_is_refused(
    tools, refused, tmp_path, monkeypatch, words, geometry, message
):
    import make_identity_preset

    if geometry == "open":  # as if
        recognizing = SimpleNamespace(recognizers="dlib")
        monkeypatch.setattr(make_identity_preset, "load_preset", lambda name: recognizing)
    name, *given = words.format(out=tmp_path / "out", preset=geometry).split()
    assert message in refused(importlib.import_module(name), *given)
    assert not list(tmp_path.iterdir())
