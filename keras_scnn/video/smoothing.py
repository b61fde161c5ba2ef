"""Smooth motion: of a whole sequence without lag, or frame by frame with a little lag.

``smooth`` uses all frames. Every value is that of a polynomial fitted to its neighbors, past and
future ones (Savitzky and Golay, "Smoothing and Differentiation of Data by Simplified Least Squares
Procedures", 1964; here with Gaussian weights and for irregular times), so there is no lag. Where a
signal moves by more than its noise, the neighborhood is short, elsewhere it is long: still faces
are smoothed strongly, while blinks and nods keep their amplitude. ``OneEuro`` uses only past values
and lags a little; the browser page has the same filter.
"""

from __future__ import annotations

import numpy as np

from keras_scnn.settings import check_above, check_at_least

LONG_SECONDS, SHORT_SECONDS = 0.25, 0.045  # standard deviations of the weights
SIGNIFICANT = 1.5  # standard deviations of the noise beyond which a change is motion
REACH = 3.0  # standard deviations; weights beyond are 0
MOST_NEIGHBORS = 48  # on either side, at any frame rate
BLOCK, OVERLAP = 4096, 2 * MOST_NEIGHBORS  # number of frames smoothed at once, and added around


class OneEuro:
    """The 1 euro filter (Casiez, Roussel and Vogel, 2012), as in export/web/src/one_euro.ts.

    Args:
        min_cutoff: Hz, of values that do not move.
        beta: how much the cutoff rises with the speed, Hz per unit and second.
        speed_cutoff: Hz, of the speed itself.

    Raises:
        ValueError: a cutoff is not above 0, or ``beta`` below 0.
    """

    def __init__(self, min_cutoff: float = 1.2, beta: float = 0.02, speed_cutoff: float = 1.0):
        check_above("cutoff", min_cutoff)
        check_at_least("beta", beta)
        check_above("speed_cutoff", speed_cutoff)
        self.min_cutoff, self.beta, self.speed_cutoff = min_cutoff, beta, speed_cutoff
        self.reset()

    def reset(self) -> None:
        """Reset the filter: the next values are returned unchanged."""
        self._values, self._speeds, self._seconds = np.zeros(0), np.zeros(0), 0.0

    def filter(self, values: np.ndarray, seconds: float) -> np.ndarray:
        """The smoothed values of a frame.

        Args:
            values: (C,) of the frame; another C, or a time that does not increase, resets the
                filter.
            seconds: time of the frame.

        Returns:
            (C,) float64.

        Raises:
            ValueError: the time or a value is not finite; the filter's state does not change.
        """
        values = np.asarray(values, np.float64)
        if not (np.isfinite(seconds) and np.isfinite(values).all()):
            raise ValueError(f"seconds is {seconds}; it and all values must be finite")
        step, self._seconds = seconds - self._seconds, seconds
        if self._values.shape != values.shape or step <= 0:
            self._values, self._speeds = values.copy(), np.zeros_like(values)
            return values.copy()
        speed = (values - self._values) / step
        self._speeds += _share(self.speed_cutoff, step) * (speed - self._speeds)
        cutoff = self.min_cutoff + self.beta * np.abs(self._speeds)
        self._values = self._values + _share(cutoff, step) * (values - self._values)
        return self._values.copy()


def _share(cutoff, step: float):
    return 1 / (1 + 1 / (2 * np.pi * cutoff * step))


def smooth(seconds: np.ndarray, values: np.ndarray, together: bool = False) -> np.ndarray:
    """Smooth signals without lag.

    Args:
        seconds: (n,) increasing times.
        values: (n, C) signals, of any units.
        together: the signals are one motion, such as a pose: while one of them moves, all are
            smoothed little.

    Returns:
        (n, C) float64. Fewer than 3 frames are returned unchanged.

    Raises:
        ValueError: the times do not increase, the shapes do not fit, or a number is not finite.
    """
    seconds, values = np.asarray(seconds, np.float64), np.asarray(values, np.float64)
    if values.ndim != 2 or seconds.shape != values.shape[:1]:
        shapes = f"{seconds.shape} and {values.shape}"
        raise ValueError(f"seconds and values are {shapes}; they must be (n,) and (n, C)")
    if not (np.diff(seconds) > 0).all() or not np.isfinite(values).all():
        raise ValueError("seconds must increase from frame to frame, and values must be finite")
    if len(values) < 3 or not values.shape[1]:
        return values
    noise, result = noise_of(seconds, values), np.empty_like(values)
    for start in range(0, len(values), BLOCK):  # frames farther than OVERLAP have no weight
        low, stop = max(start - OVERLAP, 0), min(start + BLOCK, len(values))
        part = slice(low, stop + OVERLAP)
        block = _smooth_block(seconds[part], values[part], noise, together)
        result[start:stop] = block[start - low : stop - low]
    return result


def _smooth_block(seconds, values, noise, together: bool) -> np.ndarray:
    short = local_fit(seconds, values, SHORT_SECONDS, order=2)
    long = local_fit(seconds, values, LONG_SECONDS, order=1)
    moved = ((short - long) / np.maximum(noise, 1e-12)) ** 2
    if together:
        moved = np.tile(moved.mean(axis=1, keepdims=True), values.shape[1])
    moved = local_fit(seconds, moved, 2 * SHORT_SECONDS, order=0) ** 2
    return long + moved / (moved + SIGNIFICANT**4) * (short - long)


def noise_of(seconds: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(C,) standard deviations of the noise in (n, C) signals, n above 2.

    From the deviations of frames from the line between their two neighbors, to which motions add
    little. The median is robust; a share of the root mean square is a lower limit for signals of
    which most frames are equal, such as weights at a bound.
    """
    before, after = np.diff(seconds)[:-1], np.diff(seconds)[1:]
    share = before / (before + after)
    usual = np.sqrt(1 + share**2 + (1 - share) ** 2)
    misses = (v[1:-1] - (1 - share) * v[:-2] - share * v[2:] for v in values.T)
    return np.array([_spread(miss / usual) for miss in misses])


def _spread(miss: np.ndarray) -> float:
    robust = 1.4826 * float(np.median(np.abs(miss)))
    return max(robust, 0.25 * float(np.sqrt(np.mean(miss**2))))


def local_fit(seconds: np.ndarray, values: np.ndarray, sd: float, order: int) -> np.ndarray:
    """Weighted least-squares polynomials around every frame, each evaluated at its frame's time.

    Args:
        seconds: (n,) increasing times.
        values: (n, C).
        sd: standard deviation of the weights, s.
        order: of the polynomials, 0 to 2.

    Returns:
        (n, C) float64.
    """
    weights, reach = _rows(seconds, sd, order)
    padded = np.pad(values, ((reach, reach), (0, 0)))
    result = np.zeros_like(values)
    for i in range(2 * reach + 1):
        result += weights[:, i : i + 1] * padded[i : i + len(values)]
    return result


def _rows(seconds: np.ndarray, sd: float, order: int) -> tuple[np.ndarray, int]:
    """(n, 2R + 1) weights of the neighbors in each fitted value, and R."""
    step = max(float(np.median(np.diff(seconds))), 1e-6)
    reach = min(int(np.ceil(REACH * sd / step - 1e-6)), MOST_NEIGHBORS, len(seconds) - 1)
    padded = np.pad(seconds, reach, constant_values=np.nan)
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    apart = (around - seconds[:, None]) / sd
    weight = np.nan_to_num(np.exp(-0.5 * apart**2))
    powers = np.nan_to_num(apart)[..., None] ** np.arange(order + 1)
    moments = np.einsum("nj,njp,njq->npq", weight, powers, powers)
    moments += 1e-9 * np.eye(order + 1)  # a frame without neighbors keeps its value
    first = np.linalg.solve(moments, np.eye(order + 1)[:, :1])[..., 0]
    return np.einsum("nj,njp,np->nj", weight, powers, first), reach
