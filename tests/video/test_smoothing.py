"""Smoothing: noise at rest is removed, and motion is kept, without delay."""

import numpy as np
import pytest

from keras_scnn.video.smoothing import OneEuro, local_fit, noise_of, smooth

SECONDS = np.arange(300) / 30


def late(signal: np.ndarray, truth: np.ndarray) -> float:
    """Frames by which a signal is late, by the peak of the cross-correlation."""
    shifts = range(-6, 7)
    values = [np.corrcoef(np.roll(signal, -s)[10:-10], truth[10:-10])[0, 1] for s in shifts]
    i = int(np.clip(np.argmax(values), 1, len(values) - 2))
    a, b, c = values[i - 1 : i + 2]
    return shifts[i] + (a - c) / (2 * (a - 2 * b + c))


def test_one_euro_is_the_papers_filter():
    """A slow loop after Casiez et al. 2012, appendix A, at times that are not even."""
    rng = np.random.default_rng(0)
    values, times = rng.normal(0, 1, 40), np.cumsum(rng.uniform(0.01, 0.1, 40))

    def alpha(cutoff, period):
        tau = 1 / (2 * np.pi * cutoff)
        return 1 / (1 + tau / period)

    x, dx, expected = values[0], 0.0, [values[0]]
    for i in range(1, 40):
        period = times[i] - times[i - 1]
        a = alpha(0.7, period)
        dx = a * (values[i] - x) / period + (1 - a) * dx
        a = alpha(1.5 + 0.3 * abs(dx), period)
        x = a * values[i] + (1 - a) * x
        expected.append(x)
    euro = OneEuro(1.5, 0.3, 0.7)
    found = [euro.filter(np.array([v]), t)[0] for v, t in zip(values, times, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_results_of_one_euro_may_be_changed():
    euro, other = OneEuro(), OneEuro()
    for i in range(4):
        found, expected = (one.filter(np.full(2, float(i)), i / 30) for one in (euro, other))
        np.testing.assert_array_equal(found, expected)
        found[:] = 1e6


def test_one_euro_restarts_if_time_or_length_changes():
    euro = OneEuro()
    euro.filter(np.zeros(2), 1.0)
    assert euro.filter(np.ones(2), 1.0).tolist() == [1, 1]  # time did not rise
    assert euro.filter(np.full(3, 5.0), 2.0).tolist() == [5, 5, 5]
    assert euro.filter(np.zeros(3), 2.1)[0] > 0
    euro.reset()
    assert euro.filter(np.zeros(3), 2.2).tolist() == [0, 0, 0]


def test_noise_at_rest_is_smoothed():
    noise = np.random.default_rng(0).normal(0, 0.5, (300, 6))
    assert noise_of(SECONDS, noise) == pytest.approx(np.full(6, 0.5), rel=0.15)
    assert smooth(SECONDS, noise, together=True).std() < 0.5 / 3
    assert smooth(SECONDS, noise).std() < 0.5 / 3


def test_motion_is_not_delayed_and_nearer_to_the_truth_than_the_measurements():
    truth = 20 * np.sin(2 * np.pi * 0.7 * SECONDS)[:, None]
    measured = truth + np.random.default_rng(1).normal(0, 0.5, (300, 1))
    result = smooth(SECONDS, measured, together=True)
    assert abs(late(result[:, 0], truth[:, 0])) < 0.05
    assert np.sqrt(((result - truth) ** 2).mean()) < 0.45
    euro = OneEuro(1.2, 0.02)
    lagging = np.array([euro.filter(v, t) for v, t in zip(measured, SECONDS, strict=True)])
    assert late(lagging[:, 0], truth[:, 0]) > 1


def test_a_blink_keeps_its_height_and_its_frame():
    truth = 0.8 * np.exp(-0.5 * ((SECONDS % 2 - 1) / 0.06) ** 2)
    measured = truth + np.random.default_rng(2).normal(0, 0.02, 300)
    result = smooth(SECONDS, measured[:, None])[:, 0]
    assert np.argmax(result[:60]) in (29, 30, 31)
    assert result[:60].max() > 0.7


def test_a_straight_motion_has_no_noise_at_uneven_times():
    seconds = np.cumsum([0.0, 0.01, 0.05, 0.02, 0.02, 0.09, 0.03])
    noise = noise_of(seconds, np.stack([3 * seconds - 1, -40 * seconds], axis=1))
    np.testing.assert_allclose(noise, 0, atol=1e-12)


def test_time_read_backwards_gives_the_same():
    values = np.random.default_rng(3).normal(0, 1, (80, 2)).cumsum(axis=0)
    times = np.cumsum(np.random.default_rng(4).uniform(0.02, 0.06, 80))
    forward = smooth(times, values)
    backward = smooth(-times[::-1], values[::-1])[::-1]
    np.testing.assert_allclose(forward, backward, atol=1e-9)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_polynomials_of_that_order_are_kept_at_uneven_times(order):
    times = np.cumsum(np.random.default_rng(5).uniform(0.01, 0.08, 60))
    values = np.stack([times**order, 3 - times**order], axis=1)
    np.testing.assert_allclose(local_fit(times, values, 0.1, order), values, atol=1e-5)


def test_short_and_isolated_signals_are_unchanged():
    two = np.array([[1.0], [5.0]])
    assert smooth(np.array([0, 0.03]), two).tolist() == two.tolist()
    lonely = smooth(np.array([0.0, 10.0, 20.0, 30.0]), np.array([[1.0], [4.0], [2.0], [8.0]]))
    np.testing.assert_allclose(lonely[:, 0], [1, 4, 2, 8], atol=1e-3)
    assert smooth(np.arange(9) / 30, np.zeros((9, 0))).shape == (9, 0)


def test_a_signal_at_its_bound_stays_there():
    values = np.zeros((100, 1))
    values[50:] = 1
    result = smooth(np.arange(100) / 30, values)[:, 0]
    assert np.abs(result[:45]).max() < 0.02 and np.abs(result[55:] - 1).max() < 0.02
    assert np.abs(result[:20]).max() < 1e-6 and np.abs(result[80:] - 1).max() < 1e-6


def test_blocks_of_a_long_signal_meet_without_a_seam(monkeypatch):
    values = np.random.default_rng(6).normal(0, 1, (1000, 2)).cumsum(axis=0)
    whole = smooth(np.arange(1000) / 60, values)
    monkeypatch.setattr("keras_scnn.video.smoothing.BLOCK", 130)
    np.testing.assert_allclose(smooth(np.arange(1000) / 60, values), whole, atol=1e-9)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [((0.0,), "cutoff is 0.0"), ((1.0, -1.0), "beta is -1.0"), ((1.0, 0.1, 0.0), "speed_cutoff")],
)
def test_a_filter_that_cannot_work_is_refused(numbers, message):
    with pytest.raises(ValueError, match=message):
        OneEuro(*numbers)


def test_an_invalid_time_does_not_affect_the_next_ones():
    euro, other = OneEuro(), OneEuro()
    for seconds in (0.0, 0.1):
        euro.filter([1.0, seconds], seconds)
        other.filter([1.0, seconds], seconds)
    for values, seconds in (([1.0, 2.0], np.nan), ([1.0, np.nan], 0.2)):
        with pytest.raises(ValueError, match="seconds is .*; it and all values must be finite"):
            euro.filter(values, seconds)
    assert_array_equal = np.testing.assert_array_equal
    assert_array_equal(euro.filter([2.0, 3.0], 0.3), other.filter([2.0, 3.0], 0.3))


@pytest.mark.parametrize(
    ("seconds", "values", "message"),
    [
        ([0, 1, 1, 2], np.ones((4, 2)), "seconds must increase"),
        ([0, 1, np.nan, 2], np.ones((4, 2)), "seconds must increase"),
        ([0, 1, 2, 3], np.full((4, 2), np.nan), "values must be finite"),
        ([0, 1, 2], np.ones((4, 2)), r"seconds and values are \(3,\) and \(4, 2\)"),
        ([0, 1, 2, 3], np.ones(4), r"they must be \(n,\) and \(n, C\)"),
    ],
)
def test_signals_that_cannot_be_smoothed_are_refused(seconds, values, message):
    with pytest.raises(ValueError, match=message):
        smooth(np.array(seconds, float), values)
