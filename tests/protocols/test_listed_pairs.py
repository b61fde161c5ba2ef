import json

import cv2
import numpy as np
import pytest

from keras_scnn.evaluate import main
from keras_scnn.evaluation import Pairs
from keras_scnn.evaluation.verification import right_answers, summarize_pairs
from keras_scnn.photos.cropping import FaceBox
from keras_scnn.protocols.listed_pairs import (
    _shift,
    evaluate_listed_pairs,
    missing_pairs_as_errors,
    pair_distances,
    rank_with_missing,
)
from keras_scnn.shape_distance import visible_coordinates


def test_a_network_that_sees_the_person_verifies_by_every_distance(predictor, people, pairs_file):
    result = evaluate_listed_pairs(predictor, [pairs_file], people, resamples=20)
    values = result.values["all"]
    for kind in ("mm", "visible", "scaled", "feature"):
        assert values[kind]["auc"] > 0.95, kind
    assert values["mm"]["accuracy_percent"] == 100
    assert values["coverage_percent"] == 100
    assert values["ratio"] < 0.2
    low, high = result.intervals["all.mm.accuracy_percent"]
    assert low <= 100 <= high
    shapes = predictor(sorted(people.rglob("*.png"))).parameters.identity.reshape(8, 4, -1)
    meshes = predictor.preset.face_model.vertices(shapes).astype(np.float64)
    # By hand: root mean square vertex distances of the six pairs of each of the eight people.
    apart = [
        np.sqrt(((mesh[a] - mesh[b]) ** 2).sum(axis=-1).mean())
        for mesh in meshes
        for a in range(4)
        for b in range(a)
    ]
    assert values["within_mm"] == pytest.approx(np.mean(apart), rel=1e-4)


def test_pairs_without_a_face_are_wrong(predictor, people, pairs_file):
    for k in range(4):  # one of eight people is not found at all
        black = np.full((48, 48, 3), k, np.uint8)
        cv2.imwrite(str(people / "people" / "p0" / f"{k}.png"), black)
    result = evaluate_listed_pairs(predictor, [pairs_file], people, resamples=0)
    values = result.values["all"]
    # By hand: of the first fold's 48 pairs 18 have p0: 6 with itself, 6 each with two others.
    assert values["coverage_percent"] == pytest.approx(100 * (1 - 18 / 96))
    assert values["mm"]["accuracy_percent"] == pytest.approx(50 * (1 - 18 / 48) + 50)
    assert len(result.left_out) == 4
    # Every pair of two counts against every pair of one: 42 of 48 and 36 of 48 are found.
    assert values["mm"]["auc"] == pytest.approx(42 / 48 * 36 / 48, abs=1e-6)


def test_a_kind_without_a_found_pair_has_no_distances(predictor, people, pairs_file):
    for person in range(8):
        for k in range(3) if person % 2 == 0 else range(1, 4):  # one photo of each person is left
            black = np.full((48, 48, 3), k, np.uint8)
            cv2.imwrite(str(people / "people" / f"p{person}" / f"{k}.png"), black)
    values = evaluate_listed_pairs(predictor, [pairs_file], people, resamples=0).values["all"]
    assert np.isnan([values["within_mm"], values["ratio"], values["shift_mm"]]).all()
    assert values["between_mm"] > 0
    # By hand: p0 with p1, p2 with p3 and so on, by the last photo of one and the other's first.
    assert values["coverage_percent"] == pytest.approx(100 * 4 / 96)


def test_one_photo_without_a_face_is_in_the_singular(predictor, people, pairs_file):
    cv2.imwrite(str(people / "people" / "p0" / "0.png"), np.zeros((48, 48, 3), np.uint8))
    result = evaluate_listed_pairs(predictor, [pairs_file], people, resamples=0)
    assert result.notes[0].endswith("no face measured in 1 photo")


def test_lost_pairs_are_far_for_one_person_and_near_for_two():
    pairs = Pairs(np.array([0, 0, 1]), np.array([1, 2, 2]), np.array([True, True, False]))
    distance = pair_distances(np.array([[0.0], [3.0]]), np.array([0, 1, -1]), pairs)
    np.testing.assert_array_equal(distance, [3, np.nan, np.nan])
    np.testing.assert_array_equal(missing_pairs_as_errors(distance, pairs.same), [3, 4, 2])
    with pytest.raises(ValueError, match="in none of 2 pairs"):
        missing_pairs_as_errors(np.full(2, np.nan), np.array([True, False]))


@pytest.mark.parametrize("missing", ["both kinds", "two people", "one person"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_pairs_without_a_face_are_wrong_also_if_most_are(missing, share):
    """Refusing all pairs, or accepting all, made half of the missing ones right."""
    rng = np.random.default_rng(0)
    same = np.arange(400) % 2 == 0
    distance = np.where(same, 1.0, 2.0) + rng.uniform(-0.1, 0.1, 400)  # separable
    kinds = {"both kinds": same | ~same, "two people": ~same, "one person": same}
    lost = (rng.random(400) < share) & kinds[missing]
    ranked = rank_with_missing(np.where(lost, np.nan, distance), same, np.arange(400) // 40)
    expected = 100 * (1 - lost.mean())
    assert summarize_pairs(ranked).accuracy_percent == pytest.approx(expected)
    np.testing.assert_array_equal(right_answers(ranked), ~lost)


def test_the_shift_is_that_of_the_mean_over_pairs_of_one_person_with_both_faces():
    coordinates = np.array([[0.0, 0], [3, 4], [6, 0], [50, 50]])
    rows = np.array([0, 1, 2, 3, -1])  # of photos; the last one shows no face
    first, second = np.array([0, 0, 0, 4, 0]), np.array([1, 2, 4, 1, 3])
    pairs = Pairs(first, second, np.array([True, True, True, True, False]))
    shift = _shift(coordinates, rows, pairs)
    assert shift(np.ones(5)) == pytest.approx(np.hypot(4.5, 2))  # of (3, 4) and (6, 0)
    assert shift(np.array([3.0, 0, 9, 9, 9])) == pytest.approx(5)
    assert np.isnan(shift(np.array([0.0, 0, 9, 9, 9])))
    back = Pairs(np.array([1, 2, 4]), np.array([0, 0, 0]), np.ones(3, bool))
    for place in ([0, 0], [7, -90]):  # of the mean face, which has no part in it
        shift = _shift(coordinates + place, rows, back)
        assert shift(np.ones(3)) == pytest.approx(np.hypot(4.5, 2))


def test_no_invisible_difference_decides():
    """The second axis differs by micrometers only, but there one person's photos are equal."""
    covariance = np.diag([1.0, 1e-12])
    points = visible_coordinates(np.array([[0.0, 0.0], [1.0, 0.001]]), covariance)
    expected = np.sqrt(1 / (1 + 0.01) + 1e-6 / 0.01)  # (x^T (C + 0.1^2 I)^-1 x)^(1/2)
    assert np.linalg.norm(points[0] - points[1]) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="floor_mm is 0"):
        visible_coordinates(points, covariance, 0)


def test_files_of_one_name_are_refused(predictor, people, pairs_file):
    with pytest.raises(ValueError, match="files of different names"):
        evaluate_listed_pairs(predictor, [pairs_file, pairs_file], people)
    with pytest.raises(ValueError, match="no pairs files"):
        evaluate_listed_pairs(predictor, [], people)


def test_the_command_measures_pairs(people, pairs_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "keras_scnn.reconstruction.reconstructor.LargestFaceDetector",
        lambda: lambda image: FaceBox(4, 4, 44, 44),
    )
    out = tmp_path / "out"
    command = ["mobile", "--data", str(people), "--pairs", str(pairs_file), "--out", str(out)]
    assert main([*command, "--resamples", "9"]) == 0
    table = capsys.readouterr().out
    assert "all: same person? by visible, accuracy" in table
    assert "chance 50 %" in table
    stem = f"mobile-{people.name}-pairs-all"
    outputs = json.loads((out / f"{stem}.json").read_text())
    assert outputs["photos"] == [str(people)]
    assert 0 <= outputs["values"]["all.feature.auc"] <= 1
    assert (out / f"{stem}.txt").is_file()
    assert len(list(out.glob("predictions-*.npz"))) == 1
    assert main([*command, "--photos", str(people)]) == 2
    assert "--pairs and --photos do not go together" in capsys.readouterr().err
    pairs_file.write_text("first,second,same\n")
    assert main(command) == 2
    assert "no column fold" in capsys.readouterr().err
