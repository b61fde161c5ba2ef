import dataclasses

import cv2
import numpy as np
import pytest
from annotated_faces import write_pts

from keras_scnn.evaluate import main
from keras_scnn.evaluation.openings import openings
from keras_scnn.protocols.openings import ROWS, _agreement, _detected, evaluate_openings


@dataclasses.dataclass
class Found:
    """Landmarks as a network would give them."""

    landmarks: np.ndarray
    n_photos: int
    left_out: tuple = ()

    @property
    def kept(self):
        return np.arange(self.n_photos)

    @property
    def position(self):
        return np.arange(self.n_photos)


@pytest.fixture
def folder(tmp_path):
    """Six photos with random landmarks, the first two named as shut."""
    rng = np.random.default_rng(3)
    faces = rng.uniform(20, 80, (6, 68, 2))
    for i, points in enumerate(faces):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((100, 100, 3), 90 + i, np.uint8))
        write_pts(tmp_path / f"{i}.pts", points)
    (tmp_path / "shut.csv").write_text("photo,opening_right\n0,0\n1,0.02\n")
    return tmp_path, np.dstack([faces, np.zeros((6, 68))])


def test_a_perfect_network_has_slope_1_and_no_error(folder):
    path, faces = folder
    result = evaluate_openings(lambda paths: Found(faces, 6), path, path / "shut.csv", resamples=4)
    for part in ("shut", "open", "eyes", "mouth"):
        assert result.values[part]["error"] == pytest.approx(0, abs=1e-5), part
        assert result.values[part]["slope"] == pytest.approx(1, abs=1e-4), part
        assert result.values[part]["correlation"] == pytest.approx(1, abs=1e-4), part
    hand = openings(faces[:2])
    expected = np.concatenate([hand["right"], hand["left"]]).mean()
    assert result.values["shut"]["hand"] == pytest.approx(expected, abs=1e-5)
    assert "shut.predicted" in result.intervals


def test_the_face_of_somebody_else_is_left_out(folder):
    path, faces = folder
    moved = faces.copy()
    moved[4, :, :2] += 200
    result = evaluate_openings(lambda paths: Found(moved, 6), path, path / "shut.csv", resamples=0)
    assert result.values["coverage_percent"] == pytest.approx(100 * 5 / 6)
    assert "4.png: the face found is not the annotated one" in result.left_out[0]
    assert result.values["open"]["error"] == pytest.approx(0, abs=1e-5)


def test_every_number_of_the_table_has_an_interval(folder):
    path, faces = folder
    moved = faces.copy()
    moved[4, :, :2] += 200
    result = evaluate_openings(lambda paths: Found(moved, 6), path, path / "shut.csv", resamples=60)
    assert {row[0] for row in ROWS} == set(result.intervals)
    low, high = result.intervals["coverage_percent"]
    assert low < 100 * 5 / 6 < high == 100


def test_agreement_is_that_of_the_plain_formulas():
    rng = np.random.default_rng(0)
    hand, weights = rng.uniform(size=30), rng.integers(0, 3, 30).astype(float)
    predicted = 0.3 * hand + 0.1 * rng.normal(size=30)
    outputs = _agreement(hand, predicted, weights)
    rows = np.repeat(np.arange(30), weights.astype(int))
    assert outputs["slope"] == pytest.approx(np.polyfit(hand[rows], predicted[rows], 1)[0])
    assert outputs["correlation"] == pytest.approx(np.corrcoef(hand[rows], predicted[rows])[0, 1])
    constants = [np.abs(hand[rows] - c).mean() for c in hand]
    assert outputs["constant_error"] == pytest.approx(min(constants))


def test_detection_counts_pairs_in_the_right_order():
    hand = {"mouth": np.array([0.0, 0.1, 0.5, 0.6, 0.7])}
    predicted = {"mouth": np.array([0.2, 0.3, 0.1, 0.3, 0.9])}
    # By hand, of 2 x 3 pairs: 0.2 is below 0.3 and 0.9; 0.3 equals 0.3 (a half) and is below 0.9.
    outputs = _detected(hand, predicted, np.ones(5), ("mouth",), 0.3)
    assert outputs["auc"] == pytest.approx(3.5 / 6)
    only_wide = np.array([0.0, 0.0, 1.0, 1.0, 1.0])  # as a resample may have
    for weights, limit in ((np.ones(5), -0.1), (np.ones(5), 0.8), (only_wide, 0.3)):
        assert np.isnan(_detected(hand, predicted, weights, ("mouth",), limit)["auc"])


@pytest.mark.parametrize(
    ("points", "what"), [(range(68), "right eye"), ([45], "left eye"), ([64], "mouth")]
)
def test_a_photo_whose_labels_have_no_opening_is_left_out(folder, points, what):
    path, faces = folder
    odd = faces[4, :, :2].copy()
    odd[points] = odd[{"right eye": 0, "left eye": 42, "mouth": 60}[what]]
    write_pts(path / "4.pts", odd)
    kept = faces[[0, 1, 2, 3, 5]]
    result = evaluate_openings(lambda paths: Found(kept, 5), path, path / "shut.csv", resamples=0)
    assert result.left_out == (
        f"{path / '4.png'}: both corners of its {what} are in one place in the .pts file",
    )
    assert result.values["eyes"]["error"] == pytest.approx(0, abs=1e-5)


def test_files_that_do_not_fit_are_refused(folder, tmp_path):
    path, faces = folder

    def measure():
        return evaluate_openings(lambda paths: Found(faces, 6), path, path / "shut.csv")

    for text, message in (
        ("name\n0\n", "no column 'photo'"),
        ("photo\n", "no photos below the header"),
        ("photo\n" + "\n".join(map(str, range(6))), "names all 6 photos"),
        ("photo\n  \n", "no photos below the header"),
        ("photo\n0.png\n", r"shut.csv: '0.png' has a suffix; give names without it"),
    ):
        (path / "shut.csv").write_text(text)
        with pytest.raises(ValueError, match=message):
            measure()
    (path / "shut.csv").write_text("photo\nnobody\n")
    with pytest.raises(FileNotFoundError, match="nobody: no such photo"):
        measure()
    (path / "shut.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"shut.csv: no such file"):
        measure()


def test_the_command_measures_openings(folder, tmp_path, capsys, monkeypatch):
    path, faces = folder
    monkeypatch.setattr(
        "keras_scnn.protocols.choices.PhotoPredictor.from_preset",
        lambda name, out: lambda paths: Found(faces, 6),
    )
    command = ["mobile", "--data", str(path), "--openings", str(path / "shut.csv")]
    assert main([*command, "--out", str(tmp_path / "out"), "--resamples", "3"]) == 0
    assert "shut eyes: opening predicted, mean" in capsys.readouterr().out
    assert main([*command, "--last", "3"]) == 2
    assert "--last is for --shape-truth or --points" in capsys.readouterr().err


DAMAGES = {
    "of other points": (lambda path: write_pts(path, np.zeros((67, 2))), "67 points; expected 68"),
    "no layout": (lambda path: path.write_text("nothing"), "not a .pts file"),
    "missing": (lambda path: path.unlink(), "no such file"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_photo_without_good_landmarks_is_left_out_and_listed(folder, kind):
    path, faces = folder
    damage, reason = DAMAGES[kind]
    damage(path / "3.pts")
    good, asked = np.delete(faces, 3, axis=0), []

    def predictor(paths):
        asked.extend(one.name for one in paths)
        return Found(good, 5)

    result = evaluate_openings(predictor, path, path / "shut.csv", resamples=0)
    assert asked == ["0.png", "1.png", "2.png", "4.png", "5.png"]
    assert result.left_out[0].startswith(f"{path / '3.pts'}: ") and reason in result.left_out[0]
    assert result.values["eyes"]["error"] == pytest.approx(0, abs=1e-5)
    assert "2 photos with shut eyes of 2, 3 others of 3" in result.notes[0]
    for i in range(6):
        (path / f"{i}.pts").write_text("nothing")
    with pytest.raises(ValueError, match=r"none of 6 photos has readable landmarks; .*0\.pts"):
        evaluate_openings(predictor, path, path / "shut.csv")


@pytest.mark.parametrize(
    ("damaged", "message"), [("2345", "names all 2 photos"), ("01", "names none of the 4 photos")]
)
def test_damaged_landmarks_must_leave_shut_and_open_eyes(folder, damaged, message):
    path, faces = folder
    for name in damaged:
        (path / f"{name}.pts").write_text("damaged")
    with pytest.raises(ValueError, match=message):
        evaluate_openings(lambda paths: Found(faces, 6), path, path / "shut.csv")


def test_landmark_files_in_capitals_are_found(folder):
    path, faces = folder
    for i in range(6):
        (path / f"{i}.pts").rename(path / f"{i}.PTS")
    (path / "alone.PTS").touch()
    result = evaluate_openings(lambda paths: Found(faces, 6), path, path / "shut.csv", resamples=0)
    assert result.left_out == () and result.passed_over == ("alone.PTS",)
    assert result.values["eyes"]["error"] == pytest.approx(0, abs=1e-5)
