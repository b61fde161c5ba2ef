"""Labels of people with hand-made points and without; the rest is tested with map_identity."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from keras_scnn import MorphableModel
from keras_scnn.geometry.camera import compose, project
from keras_scnn.models import load_preset
from keras_scnn.models.inference import BatchedNetwork
from keras_scnn.shape_distance import shape_coordinates


def test_known_shapes_are_the_teachers_and_a_share_of_the_fits(tool, monkeypatch, tmp_path):
    predicted = np.array([[1.0, 0], [3, 2], [0, 4], [8, 2]])
    fits, person = np.array([[2.0, 2], [2, 2], [6, 4], [6, 4]]), np.array([5, 5, 8, 8])
    calls = []

    def predict(images, batch_size):
        calls.append(len(images))
        zeros = np.zeros((len(images), 3))
        return {"parameters": np.concatenate([zeros, predicted[: len(images)]], axis=1)}

    layout = SimpleNamespace(identity=slice(3, 5))
    teacher = SimpleNamespace(
        layout=layout,
        branch=SimpleNamespace(predict=predict),
        space=SimpleNamespace(whitening=SimpleNamespace(scale=np.array([1.0, 1, 1, 2, 3]))),
    )
    monkeypatch.setattr(tool, "load_preset", lambda name: teacher)
    monkeypatch.setattr(tool, "preset_digest", lambda name: "0" * 64)
    images = np.zeros((5, 4, 4, 3), np.uint8)
    parameters = np.concatenate([np.zeros((4, 3)), fits], axis=1)
    parameters = np.concatenate([parameters, np.full((1, 5), 99.0)])  # of a photo not chosen
    records = SimpleNamespace(images=images, parameters=parameters, identity=np.append(person, 9))
    mixture = SimpleNamespace(records=records, source=np.zeros(5, int))
    args = SimpleNamespace(teacher="identity", fit_share=0.25, out=tmp_path / "out")
    shapes = tool.known_shapes(mixture, np.arange(4), args)
    # Means of the persons, (4, 3) and (8, 9) in coefficients, and fits, less the mean of all four.
    own, fit = np.array([[-2.0, -3], [2, 3]]), np.array([[-2.0, -1], [2, 1]])
    np.testing.assert_allclose(shapes, (0.75 * own + 0.25 * fit)[[0, 0, 1, 1]])
    np.testing.assert_array_equal(tool.known_shapes(mixture, np.arange(4), args), shapes)
    assert calls == [4]  # kept in a file
    tool.known_shapes(mixture, np.arange(3), args)
    assert calls == [4, 3]  # of other photos


def test_only_people_with_points_get_other_shapes(tool):
    model = MorphableModel.open_face()
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 0.5, model.n_identity)
    landmarks = model.landmarks(truth, np.zeros(model.n_expression))
    seen = project(compose(np.eye(3), 1.0, np.array([80.0, 80, 0])), landmarks)[:, :2]
    few = np.where(np.arange(68)[:, None] < tool.MIN_POINTS - 1, seen, np.nan)
    names = np.array(["1/frontal_01.jpg", "1/other.jpg", "2/frontal_01.jpg", "3/frontal_01.jpg"])
    points = {names[0]: seen, names[2]: few, "4/frontal_01.jpg": seen}
    shapes = np.zeros((4, model.n_identity))
    apart = [np.linalg.norm(shape_coordinates(model, s[None])) for s in (truth,)]
    labels = tool.with_points(model, shapes, names, np.array([1, 1, 2, 3]), points, 0.15)
    np.testing.assert_array_equal(labels[2:], 0)
    np.testing.assert_array_equal(labels[0], labels[1])
    apart.append(np.linalg.norm(shape_coordinates(model, (labels[0] - truth)[None])))
    assert apart[1] < 0.98 * apart[0]


@pytest.mark.integration
def test_the_map_is_folded_into_the_network(tool, preset, crops):
    rng = np.random.default_rng(0)
    inputs = tool.both_views(preset, tool.whole_parameters(preset), crops)[0]
    before = BatchedNetwork(preset.core)(crops)  # of one view: `identity` averages two
    identity, size = preset.layout.identity, preset.layout.size
    kernel, mean = rng.normal(0, 0.1, (size, preset.layout.n_identity)), rng.normal(size=size)
    tool.fold_into(preset, kernel, mean)
    after = BatchedNetwork(preset.core)(crops)
    expected = (inputs - mean) @ kernel + mean[identity]
    np.testing.assert_allclose(after["parameters"][:, identity], expected, atol=5e-4)
    for rest in (preset.layout.pose, preset.layout.expression):
        same = before["parameters"][:, rest]
        np.testing.assert_allclose(after["parameters"][:, rest], same, atol=1e-5)


@pytest.mark.integration
def test_a_map_that_learns_nothing_keeps_the_identity(tool, monkeypatch):
    import map_identity

    preset, rng = load_preset("mobile"), np.random.default_rng(0)
    layout, person = preset.layout, np.arange(8) // 2
    ones = np.ones(8, int)
    monkeypatch.setattr(map_identity, "photo_weights", lambda records, chosen: ones)
    records = SimpleNamespace(identity=person)
    mixture = SimpleNamespace(records=records, source=0 * person)
    coefficients = rng.normal(size=(8, layout.n_identity))
    own = np.eye(layout.size)[:, layout.identity]
    options = tool.MapOptions(people=2, photos=2, steps=1, learning_rate=0.0)
    inputs = rng.normal(size=(2, 8, layout.size))
    given = preset, coefficients, mixture, np.arange(8), inputs, options
    kernel, mean = map_identity.map_to(*given, own)
    np.testing.assert_allclose(kernel, own, atol=1e-4)
    np.testing.assert_allclose(mean, inputs.mean(axis=(0, 1)), atol=1e-12)
    assert np.abs(map_identity.map_to(*given)[0]).max() < 1e-6  # from zeros


@pytest.mark.integration
@pytest.mark.parametrize("part", [0.0, 0.5])
def test_a_refined_share_averages_with_the_coefficients_of_the_preset(
    tool, monkeypatch, tmp_path, part
):
    """With a map that gives twice the coefficients about the inputs' mean."""
    crops = np.random.default_rng(0).integers(0, 255, (3, 120, 120, 3)).astype(np.uint8)
    names = np.array(["1/a.jpg", "1/b.jpg", "2/a.jpg"])
    records = SimpleNamespace(identity=np.array([1, 1, 2]), mirror=None, name=names, images=crops)
    mixture = SimpleNamespace(records=records, annotated=lambda model: model)
    chosen, saved = np.arange(3), []
    monkeypatch.setattr(tool, "open_mixture", lambda folders: mixture)
    monkeypatch.setattr(tool, "split_people", lambda *given: (chosen, chosen[:0]))
    monkeypatch.setattr(tool, "known_shapes", lambda *given: np.zeros((3, 80)))
    monkeypatch.setattr(tool, "with_covariance", lambda preset, mixture, seen: preset)
    monkeypatch.setattr(tool, "save_refined", lambda *given: saved.append(given))
    monkeypatch.setattr(tool, "map_to", lambda *given: (2 * given[-1], given[4].mean(axis=(0, 1))))
    words = ["tool", "mobile", str(tmp_path / "out"), "--data", "CFP", "--refined-share", str(part)]
    monkeypatch.setattr(sys, "argv", words)
    tool.main()
    before = load_preset("mobile")
    inputs = tool.both_views(before, "parameters", crops)[:, :, before.layout.identity]
    expected = inputs[0] + part * (inputs[0] - inputs.mean(axis=(0, 1)))
    _, refined, *_, note = saved[0]
    predicted = BatchedNetwork(refined.core)(crops)["parameters"][:, before.layout.identity]
    np.testing.assert_allclose(predicted, expected, atol=2e-3)
    assert note["refined_share"] == part


def test_points_of_other_photos_are_refused(tool, monkeypatch, tmp_path, capsys):
    records = SimpleNamespace(identity=np.arange(12), mirror=None, name=np.full(12, "a.jpg"))
    mixture = SimpleNamespace(records=records, source=np.zeros(12, int))
    monkeypatch.setattr(tool, "open_mixture", lambda folders: mixture)
    monkeypatch.setattr(tool, "points_by_name", lambda folder: {"b.jpg": np.zeros((68, 2))})
    words = ["tool", "mobile", str(tmp_path / "out"), "--data", "CFP", "--points", "FOLDER"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stop:
        tool.main()
    assert stop.value.code == 2
    assert "--points: FOLDER has no points of photos of --data" in capsys.readouterr().err
