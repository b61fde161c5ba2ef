import numpy as np
import pytest

from keras_scnn.evaluation.plots import (
    _reach,
    cumulative_error,
    error_against_yaw,
    plot_curves,
)


def test_the_cumulative_curve_counts_faces():
    error, share = cumulative_error(np.array([3.0, 1, 2, 2]))
    for limit in (0.5, 1, 2, 2.5, 3):
        at = np.searchsorted(error, limit, side="right") - 1
        assert share[at] == np.mean(np.array([3, 1, 2, 2]) <= limit)


def test_error_against_yaw_is_the_mean_of_each_step():
    rng = np.random.default_rng(0)
    yaw = np.concatenate([rng.uniform(-4.9, 4.9, 400), rng.uniform(15.1, 24.9, 100), [60, 61]])
    errors = np.concatenate([rng.normal(2, 0.5, 400), rng.normal(4, 1, 100), [9, 9]])
    result = error_against_yaw(errors, yaw)
    np.testing.assert_allclose(result[:, 0], [0, 20])  # two faces at 60 are too few
    np.testing.assert_allclose(result[:, 1], [errors[:400].mean(), errors[400:500].mean()])
    # The interval of a mean of n normal draws: +-1.96 deviations over the root of n.
    half = (result[:, 3] - result[:, 2]) / 2
    assert half == pytest.approx(1.96 * np.array([0.5 / 20, 1 / 10]), rel=0.2)


def test_too_few_faces_make_no_curve():
    assert error_against_yaw(np.ones(2), np.zeros(2)).shape == (0, 4)


def test_an_error_bar_reaches_to_the_interval_only():
    """A percentile interval may lie beside the number; NaN stands for none."""
    values, low, high = np.float64([[5, 5, 5, 5], [4, 6, 3, np.nan], [7, 8, 4, np.nan]])
    expected = [[1, 0, 2, 0], [2, 3, 0, 0]]
    np.testing.assert_array_equal(_reach(values, low, high), expected)


def test_curves_without_a_loss_that_is_drawn_are_refused(tmp_path):
    curves = {"step": np.arange(3), "other_loss": np.ones(3)}
    with pytest.raises(ValueError, match=r"curves has \['other_loss', 'step'\]; expected one of"):
        plot_curves(curves, tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())
