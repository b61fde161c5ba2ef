"""Identity labels of people who have hand-made points in several views, profiles among them.

Landmarks of frontal photos say little about depth, and a fit that is drawn towards the mean face
hides it: joint fits to frontal photos explain nothing of the points of the same people's profiles
(docs/identity_notes.md, "Depth from hand-made points"). A label is the maximum a posteriori shape,
given the points of all photos of a person. The prior's mean is what is known of the shape
otherwise; its standard deviation is the same in every direction, in mm.
"""

from __future__ import annotations

import numpy as np

from keras_scnn.fitting import FitOptions, fit_person_landmarks
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.shape_distance import shape_coordinates

PRIOR_MM = 0.15  # root mean square over the vertices, in each direction
# The photos of one view count as this many at most: errors of their common expression, lens and
# annotator do not average out, and ten frontal photos should not outweigh four profiles.
PHOTOS_OF_A_VIEW = 4
OPTIONS = FitOptions(
    noise_mm=2.0, expression_sd=0.3, identity_sd=PRIOR_MM, iterations=10, tolerance=1e-3
)


def fit_to_points(
    model: MorphableModel,
    identity: np.ndarray,
    points: np.ndarray,
    is_profile: np.ndarray,
    options: FitOptions = OPTIONS,
) -> np.ndarray:
    """The person's identity coefficients, given hand-made points of some photos.

    What the annotation puts elsewhere than the face model's landmarks is taken for shape, alike for
    all people: take the mean over the people of a data set off before labels are compared.

    Args:
        model: the face model.
        identity: (K,) coefficients, the mean of the prior.
        points: (n, 68, 2) px, image frame of each photo; NaN where not given.
        is_profile: (n,) bool.
        options: of the fit; ``identity_sd`` in mm.

    Returns:
        (K,) float64; ``identity`` where there is no photo, or none whose points make a face.

    Raises:
        ValueError: wrong shapes, or a photo with fewer than 4 points.
    """
    if not len(points):
        return np.float64(identity)
    known = np.isfinite(points).all(axis=2)
    count = np.where(is_profile, np.sum(is_profile), np.sum(~is_profile))
    weight = known * np.minimum(1, PHOTOS_OF_A_VIEW / count)[:, None]
    in_mm = np.linalg.inv(shape_coordinates(model, np.eye(model.n_identity)))
    around = model.replace(
        mean=model.vertices(identity), identity_basis=model.identity_basis @ np.float32(in_mm.T)
    )
    fit = fit_person_landmarks(around, np.nan_to_num(points), weight, options)
    return identity + np.nan_to_num(fit.shared_identity.astype(np.float64)) @ in_mm
