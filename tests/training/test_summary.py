import json

import pytest

from keras_scnn.training.checkpoints import RunState
from keras_scnn.training.summary import ending, measure_before, read_before, read_constant


def test_a_run_says_that_the_time_limit_ended_it_and_how_far_it_came():
    line = ending(RunState(step=350, seconds=300.4, done=True), steps=1400, minutes=5.0)
    assert line.startswith("the time limit of 5 minutes ended training: 350 of 1400 batches")
    assert "25%" in line


@pytest.mark.parametrize("minutes", [0.0, 5.0])
def test_a_run_that_finished_its_steps_does_not_mention_the_limit(minutes):
    line = ending(RunState(step=1400, seconds=240.0, done=True), steps=1400, minutes=minutes)
    assert line == "training ended: 1400 of 1400 batches in 4.0 minutes"


def test_only_finite_numbers_are_kept_from_before_training(tmp_path, monkeypatch):
    measured = {"shape_ratio": float("inf"), "feature_ratio": float("nan"), "dense_percent": 3.5}
    monkeypatch.setattr(
        "keras_scnn.training.summary.evaluate_records", lambda *_, resamples: measured
    )
    measure_before(tmp_path, None, None)
    assert json.loads((tmp_path / "before.json").read_text()) == {"dense_percent": 3.5}
    assert read_before(tmp_path) == {"before training": {"dense_percent": 3.5}}


def test_a_folder_without_results_before_training_has_no_column_for_them(tmp_path):
    assert read_before(tmp_path) == {} == read_constant(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[3.5]", '{"dense_percent": "3.5"}', '{"dense_percent": [1]}']
)
def test_damaged_results_before_training_are_named(tmp_path, text):
    (tmp_path / "before.json").write_text(text)
    with pytest.raises(ValueError, match="before.json: not the results before training"):
        read_before(tmp_path)
    (tmp_path / "constant.json").write_text(text)
    with pytest.raises(ValueError, match="constant.json: not the results of a constant prediction"):
        read_constant(tmp_path)
