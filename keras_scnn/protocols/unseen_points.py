"""How much of hand-made points do the people's shapes explain, which no fit has seen?

A shape that is predicted from frontal photos is held against the points of the person's profiles
(and of the frontal photos themselves; no prediction has seen their points either). Pose and
expression are fitted to each photo, once with the person's shape and once with the mean of all
shapes. What the annotation puts elsewhere than the face model for everybody is taken off both: the
mean residual over the photos of a view in which the same half of the face is given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_scnn.evaluation.bootstrap import weighted_mean
from keras_scnn.fitting import FitOptions, fit_landmarks
from keras_scnn.geometry.camera import decompose
from keras_scnn.morphable_model import MorphableModel

OPTIONS = FitOptions(noise_mm=2.0, expression_sd=0.3, iterations=15, tolerance=1e-3)
MIN_POINTS = 20  # of a photo: fewer leave nothing when pose and expression are fitted
MAX_RESIDUAL_MM = (
    6.0  # root mean square per point with the mean shape; beyond, the points are wrong
)


@dataclass(frozen=True, eq=False)
class Misfits:
    """Of n photos, squared mm summed over the points; NaN where a photo is not measured.

    Attributes:
        own: (n,) with the person's shape.
        constant: (n,) with the mean of all people's shapes.
        common: (n,) the residual's product with the mean residual of the person's other photos of
            the view, both with the mean shape: what is the person's own.
    """

    own: np.ndarray
    constant: np.ndarray
    common: np.ndarray

    def explained(self, weights: np.ndarray) -> dict[str, float]:
        """Shares of the squared residual, photos weighted (n,); NaN where nothing is measured."""
        there = np.isfinite(self.own) & (weights > 0)
        if not there.any():
            return {"explained": np.nan, "explained_bound": np.nan}
        own, constant = (
            weighted_mean(part[there], weights[there]) for part in (self.own, self.constant)
        )
        both = there & np.isfinite(self.common)
        bound = np.nan
        if both.any():
            parts = (weighted_mean(p[both], weights[both]) for p in (self.common, self.constant))
            bound = next(parts) / next(parts)
        return {"explained": 1 - own / constant, "explained_bound": bound}


def _ratio(part: np.ndarray, whole: np.ndarray, weights: np.ndarray) -> float:
    """Of weighted means, over photos of a weight above 0."""
    used = weights > 0
    means = (weighted_mean(rows[used], weights[used]) for rows in (part, whole))
    return next(means) / next(means)


def misfits(
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
        view: (n,) of photos whose annotation is alike but for the person.
        points: (n, 68, 2) px, image frame; NaN where not given.
    """
    known = np.isfinite(points).all(axis=2)
    used = np.flatnonzero((known.sum(axis=1) >= MIN_POINTS) & (person >= 0))
    own, constant, common = np.full((3, len(points)), np.nan)
    if not len(used):
        return Misfits(own, constant, common)
    mean = residuals(model, identity[np.unique(person[used])].mean(axis=0), points[used])
    size = np.sqrt((mean**2).sum(axis=(1, 2)) / known[used].sum(axis=1))
    used, mean = used[size < MAX_RESIDUAL_MM], mean[size < MAX_RESIDUAL_MM]
    with_own = np.zeros_like(mean)
    for one in np.unique(person[used]):
        rows = person[used] == one
        with_own[rows] = residuals(model, identity[one], points[used[rows]])
    mean, with_own = (_centered(part, view[used]) for part in (mean, with_own))
    own[used], constant[used] = ((part**2).sum(axis=(1, 2)) for part in (with_own, mean))
    common[used] = _common(mean, person[used], view[used])
    return Misfits(own, constant, common)


def residuals(model: MorphableModel, identity: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(n, 68, 2) mm, fitted less given points, pose and expression fitted; 0 where not given.

    Args:
        model, points: as ``misfits``. identity: (K,) of the shape.
    """
    neutral = model.replace(
        mean=model.vertices(identity), identity_basis=np.zeros((model.n_vertices, 3, 0))
    )
    known = np.isfinite(points).all(axis=2)
    fit = fit_landmarks(neutral, np.nan_to_num(points), np.float64(known), OPTIONS)
    scale = decompose(np.float64(fit.parameters.pose))[1]
    away = fit.landmarks[..., :2] - np.nan_to_num(points)
    return np.where(known[..., None], away / scale[:, None, None], 0)


def _centered(rows: np.ndarray, view: np.ndarray) -> np.ndarray:
    """Residuals without the mean of their view."""
    centered = rows.copy()
    for one in np.unique(view):
        centered[view == one] -= rows[view == one].mean(axis=0)
    return centered


def _common(rows: np.ndarray, person: np.ndarray, view: np.ndarray) -> np.ndarray:
    """(n,) product with the mean of the person's other photos of the view; NaN without any."""
    common = np.full(len(rows), np.nan)
    for i in range(len(rows)):
        others = (person == person[i]) & (view == view[i])
        others[i] = False
        if others.any():
            common[i] = (rows[i] * rows[others].mean(axis=0)).sum()
    return common
