"""Head pose error, as the field reports it on AFLW2000-3D."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_scnn.evaluation.bootstrap import weighted_mean
from keras_scnn.evaluation.nme import bin_means
from keras_scnn.geometry.rotations import rotation_angle, rotation_from_euler

LIMIT_DEGREES = 99.0


@dataclass(frozen=True)
class PoseError:
    """Mean absolute error of head pose, in degrees.

    Attributes:
        yaw_degrees, pitch_degrees, roll_degrees: of each angle.
        mean_degrees: mean of the three: the benchmark's number.
        rotation_degrees: mean angle of the rotation between prediction and annotation, which does
            not depend on how a rotation is split into three angles.
        bins_degrees: mean of the three angles within each bin of ``nme.YAW_BINS_DEGREES``; NaN for
            an empty bin. ``mean_degrees`` is over faces, not bins, so rare profiles count little.
        rotation_bins_degrees: mean angle of the rotation within each of these bins: for a profile
            pitch and roll are about one axis, so that Euler angles count an error twice.
        n_faces: faces counted.
        n_left_out: faces with an annotated angle at or beyond the limit.
    """

    yaw_degrees: float
    pitch_degrees: float
    roll_degrees: float
    mean_degrees: float
    rotation_degrees: float
    bins_degrees: tuple[float, ...]
    n_faces: int
    n_left_out: int
    rotation_bins_degrees: tuple[float, ...] = ()


def pose_error(
    predicted: np.ndarray, annotated: np.ndarray, limit_degrees: float = LIMIT_DEGREES
) -> PoseError:
    """Compare Euler angles.

    Faces whose annotation has an angle at or beyond the limit are left out, as usual since Ruiz
    et al., "Fine-Grained Head Pose Estimation Without Keypoints", 2018.

    Args:
        predicted: (M, 3) pitch, yaw, roll in radians, as from ``euler_from_rotation``.
        annotated: (M, 3) likewise.
        limit_degrees: see above; 99 degrees is usual.

    Raises:
        ValueError: the shapes are not (M, 3), an angle is not finite, or no face is within the
            limit.
    """
    errors = angle_errors(predicted, annotated, limit_degrees)
    return summarize_angles(errors, np.rad2deg(annotated)[:, 1])


def angle_errors(
    predicted: np.ndarray, annotated: np.ndarray, limit_degrees: float = LIMIT_DEGREES
) -> np.ndarray:
    """Errors of each face; arguments and errors are those of ``pose_error``.

    Returns:
        (M, 4) float64 degrees: absolute error of pitch, yaw and roll, and the angle of the
        rotation between prediction and annotation; NaN for faces beyond the limit.
    """
    predicted, annotated = np.asarray(predicted, np.float64), np.asarray(annotated, np.float64)
    if predicted.shape != annotated.shape or predicted.shape[1:] != (3,):
        raise ValueError(
            f"predicted and annotated have the shapes {predicted.shape} and {annotated.shape}; "
            "both must be (M, 3): pitch, yaw, roll in radians"
        )
    if not np.isfinite(predicted).all():
        raise ValueError("the predicted angles must be finite numbers")
    kept = within_limit(annotated, limit_degrees)
    between = rotation_angle(rotation_from_euler(predicted), rotation_from_euler(annotated))
    # 170 and -170 degrees are 20 apart, not 340.
    apart = np.abs((predicted - annotated + np.pi) % (2 * np.pi) - np.pi)
    errors = np.column_stack([apart, between])
    return np.where(kept[:, None], np.rad2deg(errors), np.nan)


def within_limit(annotated: np.ndarray, limit_degrees: float = LIMIT_DEGREES) -> np.ndarray:
    """(M,) bool, the faces that ``pose_error`` counts.

    Args:
        annotated: (M, 3) pitch, yaw, roll, radians.
        limit_degrees: the absolute values of all angles must be below it.

    Raises:
        ValueError: an angle is not finite, or no face is within the limit.
    """
    if not np.isfinite(annotated).all():
        raise ValueError("the annotated angles must be finite numbers")
    kept = (np.abs(np.rad2deg(annotated)) < limit_degrees).all(axis=1)
    if not kept.any():
        raise ValueError(f"no annotated face has all angles below {limit_degrees} degrees")
    return kept


def summarize_angles(
    errors: np.ndarray, yaw_degrees: np.ndarray, weights: np.ndarray | None = None
) -> PoseError:
    """Means of the (M, 4) ``angle_errors``.

    Args:
        errors: see ``angle_errors``.
        yaw_degrees: (M,) the annotated yaw, which determines a face's bin.
        weights: (M,) how often each face counts; None for once each.
    """
    kept = ~np.isnan(errors[:, 0])
    chosen = (np.ones(len(errors)) if weights is None else weights)[kept]
    pitch, yaw, roll, between = (weighted_mean(column, chosen) for column in errors[kept].T)
    each = errors[kept, :3].mean(axis=1)
    of_kept = np.asarray(yaw_degrees, np.float64)[kept]
    return PoseError(
        yaw_degrees=yaw,
        pitch_degrees=pitch,
        roll_degrees=roll,
        mean_degrees=(yaw + pitch + roll) / 3,
        rotation_degrees=between,
        bins_degrees=bin_means(each, of_kept, chosen),
        rotation_bins_degrees=bin_means(errors[kept, 3], of_kept, chosen),
        n_faces=int(kept.sum()),
        n_left_out=int((~kept).sum()),
    )
