"""How much of hand-made points do the people's shapes explain, which no fit has seen?

A shape that is predicted from frontal photos is held against the points of the person's profiles
(and of the frontal photos themselves; where the people took no part in training, no fit has seen
either). Pose and expression are fitted to each photo, once with the person's shape and once with
the mean of all shapes. What the annotation puts elsewhere than the face model for everybody is
taken off both: the mean residual over the photos of a view in which the same half of the face is
given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_scnn.fitting import FitOptions, fit_landmarks
from keras_scnn.geometry.camera import decompose
from keras_scnn.morphable_model import MorphableModel

OPTIONS = FitOptions(noise_mm=2.0, expression_sd=0.3, iterations=15, tolerance=1e-3)
MIN_POINTS = 20  # of a photo: fewer leave nothing when pose and expression are fitted
# Root mean square per point with the mean shape; beyond, the points are wrong.
MAX_RESIDUAL_MM = 6.0


@dataclass(frozen=True, eq=False)
class Misfits:
    """Of n photos, squared mm summed over the points; NaN where a photo is not measured.

    Attributes:
        own: (n,) with the person's shape.
        constant: (n,) with the mean of all people's shapes.
        common: (n,) the residual's product with the mean residual of the person's other photos of
            the view, both with the mean shape: what is the person's own.
        shared: (n,) as ``constant``, of the points that those other photos have.
    """

    own: np.ndarray
    constant: np.ndarray
    common: np.ndarray
    shared: np.ndarray

    def explained(self, weights: np.ndarray) -> dict[str, float]:
        """Shares of the squared residual, photos weighted (n,); NaN where nothing is measured."""
        return {
            "explained": 1 - _ratio(self.own, self.constant, weights),
            "explained_bound": _ratio(self.common, self.shared, weights),
        }


def _ratio(part: np.ndarray, whole: np.ndarray, weights: np.ndarray) -> float:
    """Of weighted sums, over the photos that have both; NaN without any."""
    used = np.isfinite(part) & np.isfinite(whole) & (weights > 0)
    total = float(weights[used] @ whole[used])
    return float(weights[used] @ part[used]) / total if total else np.nan


def measure_misfits(
    model: MorphableModel,
    identity: np.ndarray,
    person: np.ndarray,
    view: np.ndarray,
    points: np.ndarray,
) -> Misfits:
    """How far shapes are from the points of photos.

    Args:
        model: the face model; its landmark offsets are included.
        identity: (P, K) coefficients of the people's shapes.
        person: (n,) int, rows of ``identity``; -1 for a person without one.
        view: (n,) of photos whose annotation is alike but for the person; one with photos of a
            single person is not measured.
        points: (n, 68, 2) px, image frame; NaN where not given.
    """
    known = np.isfinite(points).all(axis=2)
    used = np.flatnonzero((known.sum(axis=1) >= MIN_POINTS) & (person >= 0))
    used = used[_of_several_people(person[used], view[used])]
    own, constant, common, shared = np.full((4, len(points)), np.nan)
    if not len(used):
        return Misfits(own, constant, common, shared)
    mean = residuals(model, identity[np.unique(person[used])].mean(axis=0), points[used])
    size = np.sqrt((mean**2).sum(axis=(1, 2)) / known[used].sum(axis=1))
    fits = size < MAX_RESIDUAL_MM
    fits[fits] = _of_several_people(person[used[fits]], view[used[fits]])
    used, mean = used[fits], mean[fits]
    with_own = np.zeros_like(mean)
    for one in np.unique(person[used]):
        rows = person[used] == one
        with_own[rows] = residuals(model, identity[one], points[used[rows]])
    mean, with_own = (_centered(part, view[used], known[used]) for part in (mean, with_own))
    own[used], constant[used] = ((part**2).sum(axis=(1, 2)) for part in (with_own, mean))
    common[used], shared[used] = _common(mean, person[used], view[used], known[used])
    return Misfits(own, constant, common, shared)


def residuals(model: MorphableModel, identity: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(n, 68, 2) mm, fitted less given points, pose and expression fitted; 0 where not given.

    Args:
        model, points: as ``measure_misfits``. identity: (K,) of the shape.
    """
    neutral = model.replace(
        mean=model.vertices(identity), identity_basis=np.zeros((model.n_vertices, 3, 0))
    )
    known = np.isfinite(points).all(axis=2)
    fit = fit_landmarks(neutral, np.nan_to_num(points), np.float64(known), OPTIONS)
    scale = decompose(np.float64(fit.parameters.pose))[1]
    away = fit.landmarks[..., :2] - np.nan_to_num(points)
    return np.where(known[..., None], away / scale[:, None, None], 0)


def _of_several_people(person: np.ndarray, view: np.ndarray) -> np.ndarray:
    """(n,) bool: whether the photo's view has photos of two people or more."""
    several = np.zeros(len(person), bool)
    for one in np.unique(view):
        several[view == one] = len(np.unique(person[view == one])) > 1
    return several


def _centered(rows: np.ndarray, view: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Residuals (n, 68, 2) without the mean of their view; 0 where a point is not given."""
    centered = rows.copy()
    for one in np.unique(view):
        count = np.maximum(known[view == one].sum(axis=0), 1)
        centered[view == one] -= rows[view == one].sum(axis=0) / count[:, None]
    return centered * known[..., None]


def _common(
    rows: np.ndarray, person: np.ndarray, view: np.ndarray, known: np.ndarray
) -> np.ndarray:
    """(2, n) product with the mean of the person's other photos of the view, and squared residual.

    Of each point the mean is over the photos that have it, and the square is of the points that any
    of them has; NaN without any.
    """
    found = np.full((2, len(rows)), np.nan)
    for i in range(len(rows)):
        others = (person == person[i]) & (view == view[i])
        others[i] = False
        if others.any():
            count = known[others].sum(axis=0)[:, None]
            mean = rows[others].sum(axis=0) / np.maximum(count, 1)
            found[:, i] = (rows[i] * mean).sum(), (rows[i] ** 2 * (count > 0)).sum()
    return found
