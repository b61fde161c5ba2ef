import dataclasses
import json

import numpy as np
import pytest

from keras_scnn.data.records import FaceRecords, save_records
from keras_scnn.evaluation import draw_pairs
from keras_scnn.evaluation.bootstrap import numbers
from keras_scnn.geometry.camera import compose, project
from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.models.inference import predict
from keras_scnn.parameters import FaceParameters
from keras_scnn.photos.files import find_photos
from keras_scnn.protocols.evaluation import RECORDS, check_calibrate, write_results
from keras_scnn.protocols.records import (
    baseline,
    check_records,
    evaluate_records,
    without_mirror_pairs,
)
from keras_scnn.training.run import check_held_out
from keras_scnn.training.summary import run_table


@pytest.fixture
def mirrored() -> FaceRecords:
    """Three photos each of two people, 0 and 1, and of their mirror images, 2 and 3."""
    person = np.repeat(np.arange(4, dtype=np.int32), 3)
    zeros = (np.zeros((12, *shape), np.float32) for shape in ((14,), (68, 3)))
    images = np.zeros((12, 8, 8, 3), np.uint8)
    return FaceRecords(images, *zeros, person, "open_face", mirror=(person + 2) % 4)


def test_a_person_and_the_mirror_image_make_no_measured_pair(mirrored):
    pairs = draw_pairs(mirrored.identity, 60)
    person, mirror = mirrored.identity, mirrored.mirror
    twins = mirror[pairs.first] == person[pairs.second]
    assert twins.any()
    kept = without_mirror_pairs(pairs, mirrored)
    assert len(kept.first) == len(pairs.first) - twins.sum()
    assert not (mirror[kept.first] == person[kept.second]).any()
    np.testing.assert_array_equal(kept.same, person[kept.first] == person[kept.second])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"face_model": "flame"}, "of the face model 'flame'; the preset was trained with 'tiny'"),
        ({"config": {"face_model_digest": "0" * 64}}, "of another face model named 'tiny' than"),
        ({"parameters": np.zeros((48, 14), np.float32)}, "14 parameters; the preset has 23"),
        (
            {"images": np.zeros((48, 8, 8, 3), np.uint8)},
            r"images are \(8, 8\); the preset takes 32 px crops",
        ),
    ],
)
def test_records_that_do_not_fit_the_preset_are_refused(color_preset, symmetric, change, message):
    check_records(color_preset, symmetric)
    with pytest.raises(ValueError, match=message):
        check_records(color_preset, dataclasses.replace(symmetric, **change))


def some_rows(records: FaceRecords, rows: np.ndarray) -> FaceRecords:
    arrays = {name: getattr(records, name) for name in records.arrays()}
    return dataclasses.replace(records, **{name: part[rows] for name, part in arrays.items()})


def test_records_of_one_person_are_refused_before_a_photo_is_measured(
    color_preset, symmetric, monkeypatch
):
    monkeypatch.setattr("keras_scnn.protocols.records.predict", lambda *_: pytest.fail("measured"))
    with pytest.raises(ValueError, match="1 person, 1 of them with two photos"):
        evaluate_records(color_preset, some_rows(symmetric, symmetric.identity == 1))
    with pytest.raises(ValueError, match="all pairs of two people are of mirror images"):
        evaluate_records(color_preset, some_rows(symmetric, symmetric.identity % PEOPLE == 1))


def test_records_that_cannot_be_measured_are_refused_before_a_photo_is(
    color_preset, symmetric, monkeypatch
):
    monkeypatch.setattr("keras_scnn.protocols.records.predict", lambda *_: pytest.fail("measured"))
    with pytest.raises(ValueError, match="1 pair of one person and 1 of two"):
        evaluate_records(color_preset, some_rows(symmetric, np.array([0, 1, 3, 6])))
    line = dataclasses.replace(symmetric, landmarks=symmetric.landmarks * np.float32([1, 0, 1]))
    with pytest.raises(ValueError, match="span no area"):
        evaluate_records(color_preset, line)
    true = FaceParameters.from_vector(symmetric.parameters, color_preset.layout)
    turned = compose(rotation_from_euler(np.radians([0, 0, 120])), 1.0, np.zeros(3))
    pose = np.broadcast_to(turned, true.pose.shape)
    back = dataclasses.replace(true, pose=pose).to_vector().astype(np.float32)
    with pytest.raises(ValueError, match="no annotated face has all angles below 99"):
        evaluate_records(color_preset, dataclasses.replace(symmetric, parameters=back))


def test_a_calibration_without_pairs_is_refused_before_the_work(symmetric, tmp_path):
    (tmp_path / "preset.json").touch()
    save_records(tmp_path / "some", symmetric)
    check_calibrate(str(tmp_path), tmp_path / "some", RECORDS)
    save_records(tmp_path / "single", some_rows(symmetric, np.arange(0, 48, PHOTOS)))
    with pytest.raises(ValueError, match="single: --calibrate needs several photos of a person"):
        check_calibrate(str(tmp_path), tmp_path / "single", RECORDS)


def test_two_held_out_people_must_not_be_each_others_mirror_image(mirrored):
    check_held_out(mirrored, 4)
    pair = some_rows(mirrored, np.isin(mirrored.identity, [0, 2]))
    with pytest.raises(ValueError, match="at least two, mirror images not counted"):
        check_held_out(pair, 2)
    with pytest.raises(ValueError, match="all pairs of two people are of mirror images"):
        without_mirror_pairs(draw_pairs(pair.identity, 6), pair)


PEOPLE, PHOTOS = 8, 3


@pytest.fixture
def symmetric(color_preset) -> FaceRecords:
    """Photos of people of one color each; person p + 8 is the mirror image, of the same color."""
    rng, model = np.random.default_rng(0), color_preset.face_model
    person = np.repeat(np.arange(2 * PEOPLE, dtype=np.int32), PHOTOS)
    color = rng.integers(60, 196, (PEOPLE, 3))[person % PEOPLE] + rng.normal(0, 9, (48, 3))
    images = np.broadcast_to(color[:, None, None].astype(np.uint8), (48, 32, 32, 3))
    outputs = 0.3 * rng.normal(size=(48, color_preset.layout.size))
    true = color_preset.space.parameters(outputs.astype(np.float32))
    landmarks = project(true.pose, model.landmarks(true.identity, true.expression))
    mirror = (person + PEOPLE) % (2 * PEOPLE)
    return FaceRecords(images, true.to_vector(), landmarks, person, model.name, mirror=mirror)


@pytest.mark.parametrize("shift", [-7, np.iinfo(np.int32).max - 2 * PEOPLE])
def test_any_whole_numbers_number_people(color_preset, symmetric, shift):
    alone = dataclasses.replace(symmetric, mirror=None)
    moved = dataclasses.replace(alone, identity=alone.identity + np.int32(shift))
    expected, result = (evaluate_records(color_preset, one, resamples=0) for one in (alone, moved))
    assert result.shape_ratio == expected.shape_ratio
    assert result.shape_retrieval == expected.shape_retrieval


def test_landmarks_without_a_label_are_those_of_the_parameters(color_preset, symmetric):
    """The records' landmarks follow from their parameters; one NaN was 'spans no area'."""
    weight, landmarks = np.ones((48, 68), np.float32), symmetric.landmarks.copy()
    weight[::2, 30], weight[5] = 0, 0
    landmarks[weight == 0] = np.nan
    partial = dataclasses.replace(symmetric, weight=weight, landmarks=landmarks)
    of_all, result = (evaluate_records(color_preset, r, resamples=0) for r in (symmetric, partial))
    assert numbers(result) == pytest.approx(numbers(of_all), rel=1e-5, nan_ok=True)
    expected, lowest = (baseline(color_preset, records) for records in (symmetric, partial))
    assert lowest == pytest.approx(expected, rel=1e-5, nan_ok=True)


def test_records_without_pairs_have_no_numbers_of_comparisons(color_preset, symmetric, tmp_path):
    """Before, the table of a run had rows of chance level only, and the notes 4000 pairs."""
    single = some_rows(symmetric, np.arange(0, 48, PHOTOS))
    for records, is_compared in ((symmetric, True), (single, False)):
        results = evaluate_records(color_preset, records, resamples=0)
        table = run_table(tmp_path, baseline(color_preset, records), results)
        assert ("same person?" in table, "distance within / between" in table) == (is_compared,) * 2
        assert "neutral shape, error" in table
        assert any("4000 pairs drawn" in note for note in results.notes) == is_compared
        no_pairs = "no photos are compared, since nobody has two"
        assert (no_pairs in results.notes) == (not is_compared)


def test_retrieval_takes_a_mirror_image_for_no_stranger(color_preset, symmetric):
    result = evaluate_records(color_preset, symmetric, resamples=0)
    identity = predict(color_preset, symmetric.images).parameters.identity
    shapes = color_preset.face_model.vertices(identity).reshape(48, -1)
    person, found = symmetric.identity, []
    for i in range(48):
        distance = {
            j: np.linalg.norm(shapes[i] - shapes[j])
            for j in range(48)
            if j != i and person[j] != symmetric.mirror[i]
        }
        found.append(person[min(distance, key=distance.get)] == person[i])
    assert result.shape_retrieval.rank1_percent == pytest.approx(100 * np.mean(found))
    assert result.shape_retrieval.n_probes == 48


def test_a_person_and_the_mirror_image_are_drawn_and_held_out_together(color_preset, symmetric):
    result = evaluate_records(color_preset, symmetric, resamples=200)
    rng, errors = np.random.default_rng(0), np.array(result.curves["dense_2d"])
    means = []
    for _ in range(200):
        times = rng.multinomial(PEOPLE, np.full(PEOPLE, 1 / PEOPLE))
        rows = [i for i, p in enumerate(symmetric.identity) for _ in range(times[p % PEOPLE])]
        means.append(errors[rows].mean())
    expected = np.percentile(means, [2.5, 97.5])
    np.testing.assert_allclose(result.intervals["dense_percent"], expected, rtol=1e-4)
    assert result.calibration["people"] == PEOPLE  # the folds are of these


def test_results_are_written_as_strict_json(color_preset, symmetric, tmp_path, monkeypatch):
    for name in ("plot_results", "plot_details"):
        monkeypatch.setattr(
            f"keras_scnn.protocols.evaluation.{name}", lambda _, path, title: path.touch()
        )
    results = evaluate_records(color_preset, symmetric, resamples=0)
    changes = {"shape_ratio": np.inf, "intervals": {"shape_ratio": (-np.inf, np.nan)}}
    write_results(dataclasses.replace(results, **changes), tmp_path, "results", "", tmp_path)
    odd = []
    written = json.loads((tmp_path / "results.json").read_text(), parse_constant=odd.append)
    assert odd == []
    assert written["shape_ratio"] is None
    assert written["intervals"] == {"shape_ratio": [None, None]}
    assert written["dense_percent"] == results.dense_percent
    assert written["photos"] == [str(tmp_path)]
    assert {*written["files"], "results.json"} == {path.name for path in tmp_path.iterdir()}
    (tmp_path / "photo-1.png").touch()
    assert find_photos(tmp_path).photos == ("photo-1.png",)


def test_results_that_do_not_fit_on_the_disk_leave_nothing(
    color_preset, symmetric, tmp_path, monkeypatch
):
    def full(named, path, title):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("keras_scnn.protocols.evaluation.plot_results", lambda *_: None)
    monkeypatch.setattr("keras_scnn.protocols.evaluation.plot_details", full)
    results = evaluate_records(color_preset, symmetric, resamples=0)
    with pytest.raises(OSError, match="No space"):
        write_results(results, tmp_path / "out", "results", "")
    assert not list((tmp_path / "out").iterdir())
