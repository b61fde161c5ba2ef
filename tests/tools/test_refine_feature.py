"""The metric of features against stacked equations; folding it in; the command from end to end."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from keras_scnn.models import load_preset
from keras_scnn.models.inference import keras_network

N, SIZE, TARGETS, SETS = 90, 7, 4, 3


@pytest.fixture
def data():
    """Features that predict targets, each data set about a mean of its own."""
    rng = np.random.default_rng(0)
    source = np.arange(N) % SETS
    features = rng.normal(size=(N, SIZE))
    targets = features @ rng.normal(size=(SIZE, TARGETS)) + 0.3 * rng.normal(size=(N, TARGETS))
    features += rng.normal(0, 3, (SETS, SIZE))[source]
    return features, targets, source, rng.uniform(1, 4, N)


def cosines(rows):
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


def without_means(rows, source, weight):
    sets = [source == number for number in range(SETS)]
    means = np.stack([np.average(rows[own], axis=0, weights=weight[own]) for own in sets])
    return rows - means[source], means


def test_cosines_are_those_of_the_targets_by_least_squares(tool, data):
    features, targets, source, weight = data
    metric, mean = tool.solve_metric(*data, ridge=0.2)
    x, means = without_means(features, source, weight)
    y, _ = without_means(targets, source, weight)
    root = np.sqrt(weight / weight.sum())[:, None]
    ridge = np.sqrt(0.2 * ((root * x) ** 2).sum() / SIZE) * np.eye(SIZE)
    rows = np.vstack([root * x, ridge])
    wanted = np.vstack([root * y, np.zeros((SIZE, TARGETS))])
    kernel = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    np.testing.assert_allclose(mean, means.mean(axis=0), atol=1e-12)  # data sets count alike
    moved = features + np.array([[0.0], [5.0], [-2.0]])[source]
    np.testing.assert_allclose(tool.solve_metric(moved, *data[1:], ridge=0.2)[0], metric, atol=1e-9)
    np.testing.assert_allclose(metric, metric.T, atol=1e-12)
    new = np.random.default_rng(1).normal(size=(9, SIZE))
    np.testing.assert_allclose(cosines(new @ metric), cosines(new @ kernel), atol=1e-9)


@pytest.mark.integration
@pytest.mark.parametrize("name", ["mobile", "accurate"])
def test_the_metric_is_folded_into_the_feature_and_all_else_stays(tool, name):
    rng, preset = np.random.default_rng(0), load_preset(name)
    crops = rng.integers(0, 255, (3, 120, 120, 3)).astype(np.uint8)
    raw = tool.both_views(preset, tool.LAYER, crops)[0]
    before = keras_network(preset)(crops)
    size = preset.feature_size
    metric, mean = rng.normal(0, 0.1, (size, size)), rng.normal(size=size)
    tool.fold_into_feature(preset, metric, mean)
    after = keras_network(preset)(crops)
    np.testing.assert_array_equal(after["parameters"], before["parameters"])
    mapped = (raw - mean) @ metric
    expected = mapped / np.linalg.norm(mapped, axis=1, keepdims=True)
    np.testing.assert_allclose(after["features"], expected, atol=1e-4)


@pytest.fixture
def people(tool, monkeypatch):
    """12 people of two data sets, two photos each, in the place of what the tool would open."""
    rng = np.random.default_rng(0)
    records = SimpleNamespace(
        images=rng.integers(0, 255, (24, 120, 120, 3)).astype(np.uint8),
        identity=np.arange(24) // 2,
        mirror=None,
    )
    mixture = SimpleNamespace(records=records, source=np.arange(24) // 12)
    monkeypatch.setattr(tool, "open_mixture", lambda folders: mixture)
    monkeypatch.setattr(tool, "photo_weights", lambda records, chosen: np.ones(len(chosen)))


@pytest.fixture
def known_teacher(tool, monkeypatch):
    """Embeddings of the first 11 of these people's photos, in the place of the recognizers'."""
    taught, seen = np.random.default_rng(0).normal(size=(2, 22, 8)), []

    def embeddings(args, teacher, images):
        seen.append((teacher.recognizers, len(images), args.out.name))
        return list(taught)

    def known_preset(name):
        teacher = SimpleNamespace(recognizers="dlib+sface")
        return teacher if name == "identity" else load_preset(name)

    monkeypatch.setattr(tool, "embeddings", embeddings)
    monkeypatch.setattr(tool, "load_preset", known_preset)
    return seen


def kernel(tool, name):
    return np.asarray(load_preset(name).core.get_layer(tool.LAYER).kernel)


def run(tool, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["tool", *map(str, words)])
    tool.main()


@pytest.mark.integration
def test_the_command(tool, people, known_teacher, tmp_path, monkeypatch):
    """The note says how; the feature differs, and by the contrastive loss once more."""
    words = ["--data", "A,B", "--held-out", "1"]
    run(tool, monkeypatch, "mobile", tmp_path / "out", *words, "--no-contrast")
    contrast = ["--people", "8", "--penalty", "4", "--seed", "2"]
    run(tool, monkeypatch, "mobile", tmp_path / "more", *words, *contrast)
    assert known_teacher == [("dlib+sface", 22, "out"), ("dlib+sface", 22, "more")]
    notes = [load_preset(tmp_path / name).metadata["feature_refined"] for name in ("out", "more")]
    assert [(n["photos"], n["people"], n["held_out"]) for n in notes] == [(22, 11, 1)] * 2
    assert [(n["penalty"], n["seed"]) for n in notes] == [(None, 0), (4, 2)]
    before, out, more = (kernel(tool, p) for p in ("mobile", tmp_path / "out", tmp_path / "more"))
    assert np.abs(before - out).max() > 0.01 and np.abs(out - more).max() > 1e-4


@pytest.mark.parametrize("people_of_a_batch", [1, 12])
def test_batches_of_too_many_people_are_refused_at_once(
    tool, people, known_teacher, tmp_path, monkeypatch, capsys, people_of_a_batch
):
    words = ["--data", "A,B", "--held-out", "1", "--people", people_of_a_batch]
    with pytest.raises(SystemExit) as stop:
        run(tool, monkeypatch, "mobile", tmp_path / "out", *words)
    message = f"--people is {people_of_a_batch}; it must be 2 to 11"
    assert stop.value.code == 2 and message in capsys.readouterr().err
    assert not known_teacher and not list(tmp_path.iterdir())


def test_embeddings_are_kept(tool, tmp_path, monkeypatch):
    try:
        teacher = load_preset("identity")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    images = np.random.default_rng(0).integers(0, 255, (2, 120, 120, 3)).astype(np.uint8)
    args = SimpleNamespace(teacher="identity", out=tmp_path / "out")
    first = tool.embeddings(args, teacher, images)
    assert [part.shape for part in first] == [(2, 128), (2, 128)]
    monkeypatch.setattr(tool.keras, "Model", None)  # nothing is predicted again
    np.testing.assert_array_equal(tool.embeddings(args, teacher, images), first)


@pytest.mark.parametrize(
    ("preset", "teacher", "message"),
    [
        ("aflw-mobilenet-0.5", "mobile", "aflw-mobilenet-0.5 has no feature"),
        ("mobile", "mobile", "--teacher: mobile has no recognizers; 'identity' has"),
    ],
)
def test_presets_without_features_or_recognizers_are_refused(
    tool, tmp_path, monkeypatch, capsys, preset, teacher, message
):
    words = [preset, tmp_path / "out", "--data", "A", "--teacher", teacher]
    with pytest.raises(SystemExit) as stop:
        run(tool, monkeypatch, *words)
    assert stop.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--penalty", "-1", "must be 0 or more"),
        ("--ridge", "nan", "must be 0 or more"),
        ("--held-out", "-1", "must be 0 or more"),
        ("--seed", "0.5", "invalid"),
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_is_read(
    tool, tmp_path, monkeypatch, capsys, option, value, message
):
    with pytest.raises(SystemExit) as stop:
        run(tool, monkeypatch, "no preset", tmp_path / "out", "--data", "A", f"{option}={value}")
    error = capsys.readouterr().err
    assert stop.value.code == 2 and f"argument {option}" in error and message in error
