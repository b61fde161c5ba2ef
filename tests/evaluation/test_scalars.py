import numpy as np
import pytest
from scipy import stats

from keras_scnn.evaluation.scalars import scalar_agreement, without_linear_part


def test_agreement_is_that_of_scipy_for_repeated_photos():
    rng = np.random.default_rng(0)
    truth, weights = rng.normal(size=40), rng.integers(0, 3, 40).astype(float)
    predicted = 0.4 * truth + rng.normal(0, 0.2, 40) + 1
    measured = scalar_agreement(truth, predicted, weights)
    rows = np.repeat(np.arange(40), weights.astype(int))
    line = stats.linregress(truth[rows], predicted[rows])
    assert measured["slope"] == pytest.approx(line.slope)
    assert measured["correlation"] == pytest.approx(line.rvalue)
    assert measured["error"] == pytest.approx(np.abs(predicted - truth)[rows].mean())
    best = np.abs(truth[rows] - np.median(truth[rows])).mean()
    assert measured["constant_error"] == pytest.approx(best, abs=0.02)


def test_a_constant_has_no_correlation():
    truth, ones = np.arange(5.0), np.ones(5)
    assert np.isnan(scalar_agreement(truth, ones, ones)["correlation"])
    assert np.isnan(scalar_agreement(truth, truth, 0 * ones)["error"])


@pytest.mark.parametrize("count", [3, 7, 10, 33])
def test_a_constant_truth_has_no_slope_whatever_the_rounding(count):
    """The mean of seven times 0.1 is not 0.1: the slope was -2.3."""
    rng = np.random.default_rng(0)
    constant, values = np.full(count, 0.1), rng.normal(size=count)
    for weights in (np.ones(count), rng.uniform(size=count)):
        measured = scalar_agreement(constant, values, weights)
        assert np.isnan([measured["slope"], measured["correlation"]]).all()
        assert np.isnan(scalar_agreement(values, constant, weights)["correlation"])


def test_the_linear_part_is_removed_with_the_weights():
    rng = np.random.default_rng(1)
    inputs, weights = rng.normal(size=(50, 2)), rng.integers(0, 4, 50).astype(float)
    values = inputs @ [2.0, -1.0] + 3
    np.testing.assert_allclose(without_linear_part(values, inputs, weights), 0, atol=1e-9)
    left = without_linear_part(values, inputs, weights)  # before: a slope of these roundings
    assert np.isnan(scalar_agreement(left, rng.normal(size=50), weights)["slope"])
    noisy = values + rng.normal(size=50)
    rest = without_linear_part(noisy, inputs, weights)
    np.testing.assert_allclose((weights * rest) @ np.c_[inputs, np.ones(50)], 0, atol=1e-9)
