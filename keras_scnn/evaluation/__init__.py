"""Measures of error, in NumPy float64; each returns named values with their units."""

from keras_scnn.evaluation.identity import (
    ShapeError,
    Verification,
    distance_ratio,
    shape_error,
    verification,
    verification_pairs,
)
from keras_scnn.evaluation.nme import (
    CONVENTIONS,
    LandmarkError,
    landmark_error,
    normalized_mean_error,
    place_in_photo,
)
from keras_scnn.evaluation.pose import PoseError, pose_error

__all__ = [
    "CONVENTIONS",
    "LandmarkError",
    "PoseError",
    "ShapeError",
    "Verification",
    "distance_ratio",
    "landmark_error",
    "normalized_mean_error",
    "place_in_photo",
    "pose_error",
    "shape_error",
    "verification",
    "verification_pairs",
]
