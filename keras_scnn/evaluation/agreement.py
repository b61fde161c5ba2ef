"""Agreement of predicted with true shapes after what all people have in common is subtracted.

The error of a shape is mostly that of the mean face, which any constant offset can remove. Here
both means are subtracted, so that a constant explains nothing: R² then measures the differences
between people, and the spread whether they are as large as the true ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROUNDING = 1e-13  # of a squared distance, relative to the vector's square
AGREEMENT_YAW_BINS_DEGREES = ((0, 15), (15, 30), (30, 90))


@dataclass(frozen=True)
class Agreement:
    """Predicted versus true shapes, after subtracting from each its mean over the photos.

    Attributes:
        r2: 1 - squared error / squared deviation of the true shapes; 0 for any constant, 1 for
            the truth, negative if the differences are worse than none.
        correlation: of the deviations, over all coordinates, -1 to 1; independent of scale.
        spread: root mean square deviation of the predicted shapes over that of the true ones.
        error_mm: root mean square difference between the deviations.
        true_spread_mm: root mean square deviation of the true shapes.
        bins_r2, bins_spread: the same within each bin of ``AGREEMENT_YAW_BINS_DEGREES``, but with
            the means over all photos, so that a shape that changes with the pose counts as an
            error; NaN for an empty bin.
        bins_count: photos in each bin.
    """

    r2: float
    correlation: float
    spread: float
    error_mm: float
    true_spread_mm: float
    bins_r2: tuple[float, ...]
    bins_spread: tuple[float, ...]
    bins_count: tuple[int, ...]


class AgreementEvaluator:
    """Agreement of shapes as a function of the photos' weights, so that a bootstrap is cheap.

    Args:
        predicted, true: (M, D) mm, coordinates whose Euclidean distances are the distances between
            the shapes (root mean square over the vertices).
        yaw_degrees: (M,) of the photos; the sign has no effect.

    Raises:
        ValueError: the arrays' shapes do not match, there are fewer than two photos, or a number is
            not finite.
    """

    def __init__(self, predicted: np.ndarray, true: np.ndarray, yaw_degrees: np.ndarray):
        predicted, true = np.asarray(predicted, np.float64), np.asarray(true, np.float64)
        yaw = np.abs(np.asarray(yaw_degrees, np.float64))
        fits = predicted.ndim == 2 and predicted.shape == true.shape and yaw.shape == true.shape[:1]
        if not fits or len(true) < 2:
            raise ValueError(
                f"predicted, true and yaw_degrees have the shapes {predicted.shape}, {true.shape} "
                f"and {yaw.shape}; they must be (M, D), (M, D) and (M,), M above 1"
            )
        if not all(np.isfinite(array).all() for array in (predicted, true, yaw)):
            raise ValueError("the shapes and yaw_degrees must be finite numbers")
        self._true, self._predicted = true @ true.T, predicted @ predicted.T
        self._error = (predicted - true) @ (predicted - true).T
        place = np.digitize(yaw, [high for _, high in AGREEMENT_YAW_BINS_DEGREES[:-1]])
        self._bins = [place == i for i in range(len(AGREEMENT_YAW_BINS_DEGREES))]

    def summary(self, weights: np.ndarray) -> Agreement:
        """All numbers; ``weights`` (M,) is how often each photo counts; NaN if none counts."""
        grams = self._error, self._true, self._predicted
        squares = [weights * squared_deviations(gram, weights) for gram in grams]
        error, true, predicted = (part.sum() for part in squares)
        bins = [[part[chosen].sum() for part in squares] for chosen in self._bins]
        # Since e = p - t, the sum of products p t follows from the three sums of squares.
        product = (predicted + true - error) / 2
        return Agreement(
            r2=1 - _ratio(error, true),
            correlation=_ratio(product, float(np.sqrt(predicted * true))),
            spread=float(np.sqrt(_ratio(predicted, true))),
            error_mm=float(np.sqrt(error / weights.sum())),
            true_spread_mm=float(np.sqrt(true / weights.sum())),
            bins_r2=tuple(1 - _ratio(e, t) for e, t, _ in bins),
            bins_spread=tuple(float(np.sqrt(_ratio(p, t))) for _, t, p in bins),
            bins_count=tuple(int(chosen.sum()) for chosen in self._bins),
        )


def squared_deviations(gram: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(M,) squared distances of vectors from their weighted mean, from their Gram matrix (M, M).

    0 for equal vectors, although a Gram matrix is rounded; NaN if the weights sum to 0.
    """
    share = weights / (weights.sum() or np.nan)
    to_mean, square = gram @ share, np.diag(gram)
    away = square - 2 * to_mean + share @ to_mean
    return np.where(away <= ROUNDING * square, 0, away)


def _ratio(above: float, below: float) -> float:
    return float(above / below) if below > 0 else float("nan")
