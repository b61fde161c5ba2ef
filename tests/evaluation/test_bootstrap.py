import numpy as np
import pytest
from scipy.stats import bootstrap

from keras_scnn.evaluation import PoseError, with_intervals
from keras_scnn.evaluation.bootstrap import (
    numbers,
    percentile_intervals,
    resampled_weights,
    weighted_mean,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def test_the_interval_of_a_mean_is_that_of_scipy_and_of_theory(rng):
    values = rng.normal(5, 2, 400)
    result, intervals = with_intervals(
        lambda w: {"mean": weighted_mean(values, w)}, np.arange(400), resamples=4000
    )
    assert result["mean"] == pytest.approx(values.mean())
    theirs = bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=rng)
    np.testing.assert_allclose(intervals["mean"], theirs.confidence_interval, atol=0.02)
    theory = values.mean() + np.array([-1.96, 1.96]) * values.std() / 20
    np.testing.assert_allclose(intervals["mean"], theory, atol=0.02)


def test_photos_of_one_person_are_no_independent_observations(rng):
    people = rng.normal(size=50)
    values, groups = np.repeat(people, 20), np.repeat(np.arange(50), 20)
    _, intervals = with_intervals(lambda w: {"mean": weighted_mean(values, w)}, groups, 2000)
    low, high = intervals["mean"]
    # 20 equal photos of each person tell no more than one.
    assert high - low == pytest.approx(2 * 1.96 * people.std() / np.sqrt(50), rel=0.08)


def test_the_interval_covers_the_truth_about_95_times_in_100(rng):
    covered = 0
    for seed in range(200):
        values = rng.normal(size=60)
        _, result = with_intervals(
            lambda w, v=values: {"m": weighted_mean(v, w)}, np.arange(60), 200, seed
        )
        covered += result["m"][0] <= 0 <= result["m"][1]
    assert 0.88 < covered / 200 < 0.99


def test_weights_draw_as_many_groups_as_there_are_and_keep_each_together():
    groups = np.array([4, 4, 9, 9, 9, 1])
    for weights in resampled_weights(groups, 50):
        assert weights[0] == weights[1]
        assert weights[2] == weights[3] == weights[4]
        assert weights[0] + weights[2] + weights[5] == 3
    first, again = (next(iter(resampled_weights(groups, 1, seed=3))) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_numbers_are_found_by_path_and_counts_are_none():
    pose = PoseError(1.0, 2.0, 3.0, 2.0, 3.5, (1.75, 4.25, float("nan")), 15, 0)
    result = numbers({"pose": pose, "bins": (0.5, 1.5), "none": None, "name": "x"})
    assert result["pose.mean_degrees"] == 2
    assert (result["bins.0"], result["bins.1"]) == (0.5, 1.5)
    assert "pose.n_faces" not in result
    assert result["pose.bins_degrees.1"] == 4.25
    assert len(result) == 10


def test_numpys_numbers_count_whatever_their_precision():
    values = {"a": np.float32(0.5), "b": np.float64(2), "c": np.int64(3), "d": [np.float16(1)]}
    assert numbers(values) == {"a": 0.5, "b": 2.0, "d.0": 1.0}


def test_resamples_without_a_value_do_not_count():
    rows = [{"a": float(i), "b": float("nan")} for i in range(101)] + [{"a": np.nan, "b": np.nan}]
    result = percentile_intervals(rows)
    assert result["a"] == pytest.approx((2.5, 97.5))
    assert np.isnan(result["b"]).all()


@pytest.mark.parametrize("infinite, high", [(2, np.inf), (1, 1.0)])
def test_an_infinite_value_is_an_end_and_no_error(infinite, high):
    """As for a ratio whose denominator is 0 in some resamples; 2.5 % of 40 is one value."""
    rows = [{"a": 1.0}] * (40 - infinite) + [{"a": np.inf}] * infinite
    assert percentile_intervals(rows)["a"] == (1.0, high)


def test_no_resamples_give_no_intervals():
    assert with_intervals(lambda w: {"a": 1.0}, np.arange(3), 0) == ({"a": 1.0}, {})


@pytest.mark.parametrize(
    ("groups", "resamples", "message"),
    [
        (np.zeros(0), 5, "groups has the shape"),
        (np.zeros(3), -1, "resamples is -1; it must be 0 or more"),
        (np.zeros(3), 2.5, "resamples is 2.5; it must be a whole number"),
    ],
)
def test_wrong_arguments_are_named(groups, resamples, message):
    with pytest.raises(ValueError, match=message):
        with_intervals(lambda w: {}, groups, resamples)
