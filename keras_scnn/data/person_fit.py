"""Fit one face to all photos of a person, and find the photos that do not belong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_scnn.cropping import box_from_landmarks
from keras_scnn.fitting import FitOptions, FitResult, fit_landmarks, fit_person
from keras_scnn.morphable_model import MorphableModel

# A photo does not belong whose excess is 3.5 robust standard deviations (Iglewicz and Hoaglin
# 1993) above the median of the person's photos and above the least excess; or whose own fit misses
# by more than the most residual. All are percent of the standard crop's side. Measured on
# 81 people of CelebA with two strangers' photos put among each one's own: 29 % of the strangers
# are found, for 1.6 % of the own photos. Landmarks hardly know who somebody is; ``teacher`` does.
OUTLIER_SD, LEAST_EXCESS, MOST_RESIDUAL = 3.5, 0.3, 2.0
MAD_TO_SD = 1.4826
ROUNDS = 2


@dataclass(frozen=True, eq=False)
class PersonFit:
    """The photos of a person under one identity.

    Attributes:
        kept: (M,) positions of the photos that were fitted, ascending; may be none.
        fit: of those photos, every row with the same identity; None where none was kept.
        residual: (M,) percent of the standard crop's side: root mean square distance of the fitted
            landmarks to the given ones.
        reasons: why each other photo was left out, by position.
    """

    kept: np.ndarray
    fit: FitResult | None
    residual: np.ndarray
    reasons: dict[int, str]


def residual_percent(fit: FitResult, landmarks: np.ndarray) -> np.ndarray:
    """(B,) root mean square distance of fitted to given landmarks, percent of the crop's side."""
    sides = np.array([box_from_landmarks(points[:, :2]).width for points in landmarks])
    return 100 * fit.residual_px / sides


def excess_limit(excess: np.ndarray) -> float:
    """Above which a photo does not belong to the others, by their median and MAD.

    Args:
        excess: (M,) what each photo's residual in the joint fit is above that of a fit of its own,
            percent of the crop's side; M above 0.
    """
    middle = np.median(excess)
    spread = MAD_TO_SD * np.median(np.abs(excess - middle))
    return float(max(middle + OUTLIER_SD * spread, LEAST_EXCESS))


def fit_photos(
    model: MorphableModel, landmarks: np.ndarray, options: FitOptions = FitOptions()
) -> PersonFit:
    """One identity for all photos, a pose and an expression for each.

    What fits the person worse than the other photos is left out, and the rest is fitted again, two
    times at most: more would go on to find fault with the worst of good photos.

    Args and errors as ``fitting.fit_person``; all landmarks must be visible.
    """
    landmarks = np.asarray(landmarks, np.float64)
    own = residual_percent(fit_landmarks(model, landmarks, options=options), landmarks)
    reasons = {int(i): _failed(own[i]) for i in np.flatnonzero(own > MOST_RESIDUAL)}
    kept = np.flatnonzero(own <= MOST_RESIDUAL)
    fit, residual = None, np.zeros(0)
    for turn in range(ROUNDS + 1 if len(kept) else 0):
        fit = fit_person(model, landmarks[kept], options=options)
        residual = residual_percent(fit, landmarks[kept])
        excess = residual - own[kept]
        limit = excess_limit(excess)
        if turn == ROUNDS or not (excess > limit).any():
            break
        bad = excess > limit
        pairs = zip(kept[bad], excess[bad], strict=True)
        reasons |= {int(i): _misfit(value, limit) for i, value in pairs}
        kept = kept[~bad]
    return PersonFit(kept, fit, residual, reasons)


def _failed(residual: float) -> str:
    return (
        f"the fit misses its landmarks by {residual:.2f} % of the crop's side; at most "
        f"{MOST_RESIDUAL:g} %"
    )


def _misfit(excess: float, limit: float) -> str:
    return (
        f"the person's face misses its landmarks by {excess:.2f} % of the crop's side more than a "
        f"face of its own; {limit:.2f} % is the most for this person"
    )
