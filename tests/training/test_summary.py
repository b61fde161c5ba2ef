import pytest

from keras_scnn.training.checkpoints import RunState
from keras_scnn.training.summary import ending


def test_a_run_says_that_the_time_limit_ended_it_and_how_far_it_came():
    line = ending(RunState(step=350, seconds=300.4, done=True), steps=1400, minutes=5.0)
    assert line.startswith("the time limit of 5 minutes ended training: 350 of 1400 batches")
    assert "25%" in line


@pytest.mark.parametrize("minutes", [0.0, 5.0])
def test_a_run_that_had_its_steps_does_not_blame_the_limit(minutes):
    line = ending(RunState(step=1400, seconds=240.0, done=True), steps=1400, minutes=minutes)
    assert line == "training ended: 1400 of 1400 batches in 4.0 minutes"
