"""From a distance to a probability: do two photos show the same person?

A logistic curve on the measured values (Platt, "Probabilistic Outputs for Support Vector Machines",
1999), fitted as if pairs of one person and pairs of two were equally frequent. For another prior
probability of one person, add ``log(prior / (1 - prior))`` to the logit (Bayes' rule).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from keras_scnn.evaluation.verification import checked_pairs
from keras_scnn.settings import whole

BINS, FOLDS = 10, 5
SIGNS = {"shape": (-1.0,), "scaled_shape": (-1.0,), "feature": (1.0,), "both": (-1.0, 1.0)}
"""Kinds of calibration, and whether the probability rises or falls with each measured value: the
distance between the shapes in mm, their Mahalanobis distance for the within-person covariance, and
the cosine similarity of the features. 'both' uses the scaled distance, or if that is unknown the
distance in mm, and the cosine."""


@dataclass(frozen=True)
class Reliability:
    """Do pairs with a probability of 0.7 show the same person 7 times in 10?

    Attributes:
        predicted: mean probability of each bin that has pairs, ascending.
        observed: share of pairs of one person in each of these bins.
        share: share of all pairs in each of these bins; the sum is 1.
        expected_calibration_error: mean of ``|predicted - observed|`` over the pairs, 0 to 1
            (Naeini, Cooper and Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian
            Binning", 2015).
    """

    predicted: tuple[float, ...]
    observed: tuple[float, ...]
    share: tuple[float, ...]
    expected_calibration_error: float


def fit_logistic(values: np.ndarray, same: np.ndarray, signs: tuple[float, ...]) -> dict:
    """Coefficients of ``probability``.

    Each kind of pair has a total weight of one half. The targets are Platt's, just inside 0 and 1,
    so that perfectly separable pairs give a steep curve instead of an infinitely steep one.

    Args:
        values: (P,) or (P, D) measured values, any unit.
        same: (P,) true for pairs of one person.
        signs: D numbers, 1 if the probability can only rise with the value, -1 if it can only
            fall. An uninformative value gets a coefficient of 0.

    Returns:
        'a', a number (D = 1) or a list of D, and 'b', so that the logit is ``a * values + b``.

    Raises:
        ValueError: the shapes do not match, a value is not finite, or a kind of pair is missing.
    """
    columns, same = _checked(values, same)
    if columns.shape[1] != len(signs):
        raise ValueError(f"{columns.shape[1]} values per pair, but {len(signs)} signs")
    center, spread = columns.mean(axis=0), columns.std(axis=0)
    spread = np.where(spread > 0, spread, 1)
    counts = same.sum(), (~same).sum()
    target = np.where(same, (counts[0] + 1) / (counts[0] + 2), 1 / (counts[1] + 2))
    design = np.c_[(columns - center) / spread, np.ones(len(same))]
    bounds = [(0, None) if sign > 0 else (None, 0) for sign in signs] + [(None, None)]
    start = np.zeros(design.shape[1])
    loss = (design, target, equal_weights(same))
    best = minimize(_loss, start, loss, "L-BFGS-B", jac=True, bounds=bounds, tol=1e-12).x
    a = best[:-1] / spread + 0.0  # no negative zero
    b = float(best[-1] - a @ center)
    return {"a": float(a[0]) if len(a) == 1 else a.tolist(), "b": b}


def _checked(values: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P, D) float64 values and (P,) bool kinds."""
    values = np.asarray(values, np.float64)
    columns = values[:, None] if values.ndim == 1 else values
    if columns.ndim != 2 or not columns.shape[1]:
        raise ValueError(f"values have the shape {values.shape}; they must be (P,) or (P, D)")
    for column in columns.T:
        same = checked_pairs(column, same)[1]
    return columns, same


def _loss(x, design, target, weights) -> tuple[float, np.ndarray]:
    """Cross entropy and its gradient."""
    logit = design @ x
    value = weights @ (np.logaddexp(0, logit) - target * logit)
    return value, design.T @ (weights * (expit(logit) - target))


def equal_weights(same: np.ndarray) -> np.ndarray:
    """(P,) weights with sum 1, of which each kind of pair gets one half."""
    same = np.asarray(same).astype(bool)
    return np.where(same, 0.5 / max(same.sum(), 1), 0.5 / max((~same).sum(), 1))


def probability(coefficients: dict, values: np.ndarray, certainty: float = 1.0) -> np.ndarray:
    """Probability, 0 to 1, of one person, if one and two people are equally likely a priori.

    Args:
        coefficients: from ``fit_logistic``.
        values: (...) if 'a' is a number, (..., D) if it is a list of D.
        certainty: 0 to 1, a factor of the logit: 0 gives a probability of one half.

    Raises:
        ValueError: the coefficients are invalid, or do not match the values.
    """
    values = np.asarray(values, np.float64)
    try:
        a, b = np.asarray(coefficients["a"], np.float64), float(coefficients["b"])
        logit = (values * a if a.ndim == 0 else values @ a) + b
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"coefficients {coefficients} do not fit the values: {error!r}") from error
    if a.ndim > 1 or not np.isfinite(a).all() or not np.isfinite(b):
        raise ValueError(f"coefficients {coefficients} must be finite: a number or a list, and b")
    return expit(certainty * logit)


def checked_calibration(calibration: Any) -> dict | None:
    """The calibration of a preset: the entry 'verification' of its metadata, None if it has none.

    Raises:
        ValueError: it is not a dictionary, or one of its curves does not fit its kind.
    """
    if calibration is None:
        return None
    try:
        if not isinstance(calibration, dict):
            raise TypeError(f"it is a {type(calibration).__name__}, not a dictionary of curves")
        for kind in SIGNS.keys() & calibration.keys():
            values = np.zeros(len(SIGNS[kind]))
            float(probability(calibration[kind], values if len(values) > 1 else values[0]))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the preset's metadata 'verification' is damaged: {error}") from error
    return calibration


def reliability(predicted: np.ndarray, same: np.ndarray, bins: int = BINS) -> Reliability:
    """Compare probabilities with outcomes; each kind of pair has a total weight of one half.

    Args:
        predicted: (P,) probabilities, 0 to 1.
        same: (P,) true for pairs of one person.
        bins: number of bins of equal width, 1 or more.

    Raises:
        ValueError: see ``checked_pairs``; a probability is out of range, or there are no bins.
    """
    bins = whole("bins", bins)
    predicted, same = checked_pairs(predicted, same)
    if predicted.min() < 0 or predicted.max() > 1:
        raise ValueError("probabilities must lie between 0 and 1")
    bin_of = np.minimum((predicted * bins).astype(int), bins - 1)
    weights = equal_weights(same)
    columns = np.ones(len(predicted)), predicted, same
    sums = np.stack([np.bincount(bin_of, weights * column, bins) for column in columns])
    share, mean, observed = sums[:, sums[0] > 0]
    mean, observed = mean / share, observed / share
    error = float(share @ np.abs(mean - observed))
    return Reliability(tuple(mean.tolist()), tuple(observed.tolist()), tuple(share.tolist()), error)


def held_out(
    values: np.ndarray,
    same: np.ndarray,
    people: tuple[np.ndarray, np.ndarray],
    signs: tuple[float, ...],
) -> Reliability | None:
    """Reliability on held-out people, to whom the curve was not fitted.

    The people are split into ``FOLDS`` folds at random. Pairs within a fold are tested with a curve
    fitted to the pairs without anybody in it; pairs across two folds are not tested.

    Args:
        values, same, signs: see ``fit_logistic``.
        people: (P,) and (P,), the person in the first and in the second photo of each pair.

    Returns:
        None if there are too few people for both kinds of pairs in every fit and in the test.
    """
    columns, same = _checked(values, same)
    names, members = np.unique(np.stack(people), return_inverse=True)
    fold_of = np.random.default_rng(0).permutation(len(names)) % FOLDS
    first, second = fold_of[members.reshape(2, -1)]
    predicted = np.full(len(same), np.nan)
    for fold in range(FOLDS):
        train, test = (first != fold) & (second != fold), (first == fold) & (second == fold)
        if len(np.unique(same[train])) < 2:
            return None
        value = columns[test, 0] if len(signs) == 1 else columns[test]
        predicted[test] = probability(fit_logistic(columns[train], same[train], signs), value)
    tested = ~np.isnan(predicted)
    if len(np.unique(same[tested])) < 2:
        return None
    return reliability(predicted[tested], same[tested])


def calibrate(
    distance_mm: np.ndarray,
    cosine: np.ndarray | None,
    same: np.ndarray,
    people: tuple[np.ndarray, np.ndarray],
    scaled_distance: np.ndarray | None = None,
) -> tuple[dict, dict]:
    """A calibration for a preset's metadata, and its reliability.

    Args:
        distance_mm: (P,) distance between the neutral shapes, mm.
        cosine: (P,) cosine similarity of the features, or None without features.
        same: (P,) true for pairs of one person.
        people: see ``held_out``.
        scaled_distance: (P,) Mahalanobis distance between the shapes, or None.

    Returns:
        the result of ``fit_logistic`` for each kind whose values are given (see ``SIGNS``), with
        'expected_calibration_error' from ``held_out`` if it has a result, and the numbers of
        'pairs' and 'people'; and the ``Reliability`` of each kind for which it has a result.

    Raises:
        ValueError: see ``fit_logistic``.
    """
    values = {"shape": np.asarray(distance_mm)}
    if scaled_distance is not None:
        values["scaled_shape"] = np.asarray(scaled_distance)
    if cosine is not None:
        best = distance_mm if scaled_distance is None else scaled_distance
        values |= {"feature": np.asarray(cosine), "both": np.c_[best, cosine]}
    calibration: dict = {}
    curves: dict[str, Reliability] = {}
    for kind, value in values.items():
        calibration[kind] = fit_logistic(value, same, SIGNS[kind])
        if (tested := held_out(value, same, people, SIGNS[kind])) is not None:
            curves[kind] = tested
            calibration[kind]["expected_calibration_error"] = tested.expected_calibration_error
    counts = {"pairs": len(same), "people": len(np.unique(np.stack(people)))}
    return calibration | counts, curves
