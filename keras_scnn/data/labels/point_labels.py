"""Identity labels for people with hand-made points in several views, including profiles.

Landmarks of frontal photos contain little information about depth, and regularization towards the
mean face hides that: joint fits to frontal photos explain none of the variation of the points in
the same people's profiles (docs/identity_notes.md, "Depth from hand-made points"). A label is the
maximum a posteriori shape, given the points of all photos of a person. The prior's mean is an
estimate from other sources; its standard deviation is the same in every direction, in mm.
"""

from __future__ import annotations

import numpy as np

from keras_scnn.fitting import FitOptions, fit_person_landmarks
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.shape_distance import shape_basis

PRIOR_MM = 0.15  # standard deviation in each direction, root mean square over the vertices
# The photos of one view weigh at most as much as this many: errors from a common expression, lens
# and annotator do not average out, and ten frontal photos should not outweigh four profiles.
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
    """Fit a person's identity coefficients to hand-made points in several photos.

    Systematic differences between the annotated sites and the face model's landmarks appear as
    shape, equally for all people; so subtract the mean over a data set's people before labels are
    compared.

    Args:
        model: the face model.
        identity: (K,) coefficients, the mean of the prior.
        points: (n, 68, 2) px, image frame of each photo; NaN if not given.
        is_profile: (n,) bool.
        options: of the fit; ``identity_sd`` in mm.

    Returns:
        (K,) float64; ``identity`` if there are no photos, or none of them can be fitted.

    Raises:
        ValueError: wrong shapes, or a photo with fewer than 4 points.
    """
    if not len(points):
        return np.float64(identity)
    known = np.isfinite(points).all(axis=2)
    count = np.where(is_profile, np.sum(is_profile), np.sum(~is_profile))
    weight = known * np.minimum(1, PHOTOS_OF_A_VIEW / count)[:, None]
    in_mm = np.linalg.inv(shape_basis(model))
    around = model.replace(
        mean=model.vertices(identity), identity_basis=model.identity_basis @ np.float32(in_mm.T)
    )
    fit = fit_person_landmarks(around, np.nan_to_num(points), weight, options)
    return identity + np.nan_to_num(fit.shared_identity.astype(np.float64)) @ in_mm
