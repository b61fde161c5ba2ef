"""Error measures, in NumPy float64; each returns values whose names state their units."""

from keras_scnn.evaluation.bootstrap import with_intervals
from keras_scnn.evaluation.identity import (
    IdentityEvaluator,
    Retrieval,
    distance_ratio,
    retrieval_ranks,
    summarize_ranks,
)
from keras_scnn.evaluation.nme import (
    CONVENTIONS,
    LandmarkError,
    landmark_error,
    normalized_mean_error,
    place_in_photo,
    summarize_by_yaw,
)
from keras_scnn.evaluation.pairs import Pairs, distinct_pairs, draw_pairs
from keras_scnn.evaluation.pose import PoseError, angle_errors, pose_error, summarize_angles
from keras_scnn.evaluation.shape import (
    ShapeError,
    shape_distances,
    shape_error,
    summarize_shapes,
)
from keras_scnn.evaluation.verification import Verification, verification

__all__ = [
    "CONVENTIONS",
    "IdentityEvaluator",
    "LandmarkError",
    "Pairs",
    "PoseError",
    "Retrieval",
    "ShapeError",
    "Verification",
    "angle_errors",
    "distance_ratio",
    "distinct_pairs",
    "draw_pairs",
    "landmark_error",
    "normalized_mean_error",
    "place_in_photo",
    "pose_error",
    "retrieval_ranks",
    "shape_distances",
    "shape_error",
    "summarize_angles",
    "summarize_by_yaw",
    "summarize_ranks",
    "summarize_shapes",
    "verification",
    "with_intervals",
]
