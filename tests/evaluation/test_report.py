from dataclasses import asdict

import cv2
import numpy as np
import pytest

from keras_scnn.evaluation import LandmarkError, PoseError, ShapeError, Verification
from keras_scnn.evaluation.bootstrap import numbers
from keras_scnn.evaluation.plots import plot_curves, plot_details, plot_results
from keras_scnn.evaluation.report import results_table, summary_table, table_rows
from keras_scnn.protocols.aflw2000 import PhotoResults
from keras_scnn.protocols.records import RecordResults

LANDMARKS = LandmarkError((1.25, 2.5, float("nan")), 1.875, 1.5, (10, 5, 0))
POSE = PoseError(1.0, 2.0, 3.0, 2.0, 3.5, (1.75, 4.25, float("nan")), 15, 0)
VERIFIED = Verification(91.5, 2.0, 0.97, 1.3, 100, 8.25, 61.5, float("nan"), 2.125)
CURVES = {
    "error_2d": [1.0, 2.0, 3.0, 2.5],
    "error_3d": [2.0, 4.0, 6.0, 5.0],
    "yaw_degrees": [0.0, 1.0, 2.0, 60.0],
    "reliability": {"both": {"predicted": [0.1, 0.9], "observed": [0.2, 0.8], "share": [0.5, 0.5]}},
    "roc": {"shape": {"far": [0.0, 0.5, 1.0], "tar": [0.0, 0.9, 1.0]}},
}


@pytest.fixture
def records_results() -> dict:
    shape = ShapeError(1.11, 2.22, 0.5, 15, 0.75, 1.33, 2.66, 0.5, 0.6)
    identity = {"shape_ratio": 0.44, "shape_verification": VERIFIED}
    return asdict(RecordResults(landmarks=LANDMARKS, pose=POSE, shape=shape, **identity))


def test_the_table_has_every_measure_with_its_unit(records_results):
    table = results_table(records_results)
    for text in ("1.25 %", "10 faces", "2.00 degrees", "1.11 mm", "2.22 mm", "0.44", "91.50 %"):
        assert text in table
    assert "pose error, mean, |yaw| 30-60" in table
    assert "60-90" not in table  # the bin without faces
    assert "feature" not in table


def test_photos_have_no_identity_rows():
    table = results_table(asdict(PhotoResults(LANDMARKS, POSE, "exact")))
    assert "mean of bins" in table
    assert "mm" not in table


@pytest.mark.integration
def test_the_plots_are_pictures_with_something_in_them(records_results, tmp_path):
    names = ("loss", "landmarks_a_loss", "parameter_distance_loss", "feature_similarity_loss")
    curves = {name: np.array([3.0, 2.0]) for name in ("step", *names)}
    # The title has the run folder's name in it, which may be no text, or look like a formula.
    plot_results(records_results, tmp_path / "results.png", "a $\\frac{$ \udcff run")
    plot_details(records_results | {"curves": CURVES}, tmp_path / "details.png", "a run")
    plot_curves(curves | {f"val_{name}": np.ones(2) for name in names}, tmp_path / "curves.png")
    for name in ("results.png", "details.png", "curves.png"):
        picture = cv2.imread(str(tmp_path / name))
        assert picture.shape[1] > 600
        assert picture.std() > 10


def test_the_table_has_the_calibration_error(records_results):
    kind = {"a": -1.0, "b": 2.0, "expected_calibration_error": 0.0625}
    records_results["calibration"] = {"both": kind, "pairs": 100, "people": 8}
    rows = dict(table_rows(records_results))
    name = "probability of one person by both, expected calibration error"
    assert float(rows[name]) == 0.062
    assert not [row for row in rows if row.startswith("probability") and row != name]


def test_the_table_shows_intervals_and_leaves_out_what_is_unknown(records_results):
    records_results["intervals"] = {"pose.mean_degrees": (1.5, 2.5)}
    rows = dict(table_rows(records_results))
    assert rows["pose error, mean"] == "   2.00 degrees  [1.50, 2.50]"
    assert rows["verification by shape, TAR at FAR 1e-2"].strip() == "61.50 %"
    assert "verification by shape, TAR at FAR 1e-3" not in rows
    assert "landmark error 3D, mean of bins" not in rows


def test_a_number_lies_within_its_interval_as_both_are_printed(records_results):
    auc, bins = "shape_verification.auc", "landmarks.bins_percent.1"
    records_results["intervals"] = {auc: (0.9652, 0.9738), bins: (2.495, 2.504)}
    rows = dict(table_rows(records_results))
    assert rows["verification by shape, AUC"].split() == ["0.970", "[0.965,", "0.974]"]
    assert rows["landmark error 2D, |yaw| 30-60"].split()[2:4] == ["[2.50,", "2.50]"]


def test_one_face_is_in_the_singular(records_results):
    records_results["landmarks"]["bins_count"] = (10, 1, 0)
    assert dict(table_rows(records_results))["landmark error 2D, |yaw| 30-60"].endswith("(1 face)")


def test_notes_come_first_and_what_was_left_out_last():
    results = asdict(
        PhotoResults(LANDMARKS, POSE, "field", notes=("the field's",), left_out=("x",))
    )
    lines = results_table(results).splitlines()
    assert lines[0] == "the field's"
    assert lines[-1] == "left out: 1 photo that could not be measured"


def test_the_summary_sets_networks_and_baselines_side_by_side(records_results):
    trained = numbers(records_results)
    chance = {"shape_verification.accuracy_percent": 50.0, "shape.relative": 1.0}
    table = summary_table({"before": {}, "trained": trained, "chance": chance})
    assert table.splitlines()[0].split() == ["before", "trained", "chance"]
    rows = {line.split("  ")[0]: line.split()[-4:] for line in table.splitlines()}
    assert rows["same person? by shape"] == ["91.5", "%", "50.0", "%"]
    assert rows["neutral shape, error relative to the mean face"][-2:] == ["0.50", "1.00"]
    assert rows["pose error"][-2:] == ["2.00", "°"]
    assert "same person? by feature" not in rows  # nobody has a number for it
