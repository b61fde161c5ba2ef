"""Agreement of predicted with measured numbers, one for each photo, such as an eye's opening."""

from __future__ import annotations

import numpy as np

from keras_scnn.evaluation.bootstrap import weighted_mean

ROUNDING = 1e-12  # relative; smaller deviations from the mean are its rounding error


def scalar_agreement(
    truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray
) -> dict[str, float]:
    """Error, slope and correlation, and the error of the best constant prediction.

    Args:
        truth, predicted: (n,).
        weights: (n,) of the photos, 0 or more.

    Returns:
        'error' and 'constant_error' (mean absolute, in the numbers' unit), 'slope' (of predicted on
        true numbers) and 'correlation'; NaN where they are not defined.
    """
    x, y = _centered(truth, weights), _centered(predicted, weights)
    xx, xy, yy = (weighted_mean(product, weights) for product in (x * x, x * y, y * y))
    return {
        "error": weighted_mean(np.abs(predicted - truth), weights),
        "constant_error": _constant_error(truth, weights),
        "slope": xy / xx if xx > 0 else float("nan"),
        "correlation": xy / np.sqrt(xx * yy) if xx * yy > 0 else float("nan"),
    }


def _centered(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Deviations (n,) from the weighted mean; 0 for a constant, although its mean is rounded."""
    away = values - weighted_mean(values, weights)
    return np.where(np.abs(away) <= ROUNDING * np.abs(values), 0, away)


def without_linear_part(values: np.ndarray, inputs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The residuals (n,) of a weighted linear regression of (n,) values on inputs (n, k).

    They are 0 where they are only rounded.
    """
    rows = np.column_stack([inputs, np.ones(len(inputs))])
    root = np.sqrt(weights)[:, None]
    left = values - rows @ np.linalg.lstsq(root * rows, root[:, 0] * values, rcond=None)[0]
    return np.where(np.abs(left) <= ROUNDING * np.abs(values).max(initial=0), 0, left)


def _constant_error(truth: np.ndarray, weights: np.ndarray) -> float:
    """Mean absolute error of the best constant prediction, the median."""
    if not weights.any():
        return float("nan")
    order = np.argsort(truth)
    total = np.cumsum(weights[order])
    median = truth[order][np.searchsorted(total, total[-1] / 2)]
    return weighted_mean(np.abs(truth - median), weights)
