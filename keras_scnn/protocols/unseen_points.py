"""How well do people's shapes explain manual points that no fit has used?

A shape predicted from frontal photos is compared with the points of the person's profile photos
(and of the frontal photos themselves; no fit has used either if the people are not in the training
data). Pose and expression are fitted to each photo, once with the person's shape and once with the
mean of all shapes. From both residuals the differences between annotation and face model that all
people share are subtracted: the mean residual over the photos of a view in which the same half of
the face is given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_scnn.fitting import FitOptions, fit_landmarks
from keras_scnn.geometry.camera import decompose
from keras_scnn.morphable_model import MorphableModel

OPTIONS = FitOptions(noise_mm=2.0, expression_sd=0.3, iterations=15, tolerance=1e-3)
MIN_POINTS = 20  # per photo: with fewer, the fit of pose and expression leaves no residual
# Root mean square per point with the mean shape; above, the photo's points are taken to be wrong.
MAX_RESIDUAL_MM = 6.0


@dataclass(frozen=True, eq=False)
class Misfits:
    """Of n photos, squared mm summed over the points; NaN if a photo is not measured.

    Attributes:
        own: (n,) with the person's shape.
        constant: (n,) with the mean of all people's shapes.
        common: (n,) dot product of the residual and the mean residual of the person's other photos
            of the view, both with the mean shape: the part that is specific to the person.
        shared: (n,) as ``constant``, over the points that those other photos have.
    """

    own: np.ndarray
    constant: np.ndarray
    common: np.ndarray
    shared: np.ndarray

    def explained(self, weights: np.ndarray) -> dict[str, float]:
        """Explained shares of the squared residual, for photo weights (n,); NaN without photos."""
        return {
            "explained": 1 - _ratio(self.own, self.constant, weights),
            "explained_bound": _ratio(self.common, self.shared, weights),
        }


def _ratio(part: np.ndarray, whole: np.ndarray, weights: np.ndarray) -> float:
    """Ratio of weighted sums over the photos that have both; NaN if there are none."""
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
    """Misfits of people's shapes to the points of photos.

    Args:
        model: the face model; its landmark offsets are included.
        identity: (P, K) coefficients of the people's shapes.
        person: (n,) int, rows of ``identity``; -1 for a person without one.
        view: (n,) equal for photos that are annotated alike; a view with photos of a single person
            is not measured.
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
    """(n, 68, 2) mm, fitted minus given points; pose and expression are fitted; 0 if not given.

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
    """(2, n) ``common`` and ``shared`` of ``Misfits``.

    The mean of a point is over those other photos that have it; points that none of them has do
    not count. NaN without other photos.
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
