"""Bootstrap confidence intervals of any summary, by resampling people or faces.

Efron and Tibshirani, "An Introduction to the Bootstrap", 1993: the percentile interval. A resample
is a weight for each face: how often its person was drawn. All photos of a person, and their pairs,
are resampled together, because they are not independent observations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from keras_scnn.settings import whole

LEVEL_PERCENT = 95.0
RESAMPLES = 1000
DELAY = 3.0


def with_intervals(
    summary: Callable[[np.ndarray], dict],
    groups: np.ndarray,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[dict, dict[str, tuple[float, float]]]:
    """A summary of all faces, and an interval for each floating-point number in it.

    Args:
        summary: from (n,) float64 weights of the faces to nested dictionaries, dataclasses and
            sequences of numbers.
        groups: (n,) the person of each face; ``np.arange(n)`` if all are different people.
        resamples: number of resamples; 0 gives no intervals.
        seed: the same seed gives the same intervals.

    Returns:
        the summary with weights of 1, and by each number's path, such as 'pose.mean_degrees', the
        (low, high) of its 95 % percentile interval, without resamples in which it is NaN.

    Raises:
        ValueError: there is no face, or ``resamples`` is not a whole number of 0 or more.
    """
    resamples, groups = whole("resamples", resamples, 0), np.asarray(groups)
    if groups.ndim != 1 or not len(groups):
        raise ValueError(f"groups has the shape {groups.shape}; it must be (n,), n above 0")
    of_all = summary(np.ones(len(groups)))
    weights = resampled_weights(groups, resamples, seed)
    progress = tqdm(weights, "resampling", resamples, leave=False, delay=DELAY)
    return of_all, percentile_intervals([numbers(summary(each)) for each in progress])


def resampled_weights(groups: np.ndarray, resamples: int, seed: int = 0):
    """Yield (n,) float64 weights ``resamples`` times: how often each face's group was drawn.

    Args:
        groups: (n,) the group of each face; each resample draws as many groups as there are.
        resamples: number of resamples.
        seed: of the draws.
    """
    names, member = np.unique(groups, return_inverse=True)
    rng = np.random.default_rng(seed)
    share = np.full(len(names), 1 / len(names))
    for _ in range(resamples):
        yield rng.multinomial(len(names), share)[member].astype(np.float64)


def percentile_intervals(rows: list[dict[str, float]]) -> dict[str, tuple[float, float]]:
    """The central 95 % of each number over the resamples; NaN if it is NaN in all of them."""
    tail = (100 - LEVEL_PERCENT) / 2
    intervals = {}
    for name in rows[0] if rows else ():
        values = np.array([row[name] for row in rows])
        values = values[~np.isnan(values)]
        ends = [np.nan] * 2
        if np.isinf(values).any():  # infinity cannot be interpolated
            ends = np.percentile(values, [tail, 100 - tail], method="nearest")
        elif len(values):
            ends = np.percentile(values, [tail, 100 - tail])
        intervals[name] = (float(ends[0]), float(ends[1]))
    return intervals


def numbers(value: Any, path: str = "") -> dict[str, float]:
    """The floating-point numbers of nested dictionaries, dataclasses and sequences, by path."""
    if isinstance(value, (float, np.floating)):
        return {path: float(value)}
    if dataclasses.is_dataclass(value):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        return {}
    values: dict[str, float] = {}
    for name, part in value.items():
        values |= numbers(part, f"{path}.{name}" if path else str(name))
    return values


def weighted_mean(values: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Mean of (n,) values with (n,) weights, None for 1 each; NaN if the weights sum to 0."""
    if weights is None:
        weights = np.ones(len(values))
    total = weights.sum()
    return float(values @ weights / total) if total else float("nan")
