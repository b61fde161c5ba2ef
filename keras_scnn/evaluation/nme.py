"""Normalized mean error of landmarks by yaw, following the AFLW2000-3D benchmark.

Zhu et al., "Face Alignment Across Large Poses: A 3D Solution", 2016: the mean distance of the 68
landmarks in the image, over the square root of the area of the annotated landmarks' bounding box;
averaged within three bins of |yaw|, and then over the bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_scnn.evaluation.bootstrap import weighted_mean

YAW_BINS_DEGREES = ((0, 30), (30, 60), (60, 90))
CONVENTIONS = ("exact", "field")


@dataclass(frozen=True)
class LandmarkError:
    """Landmark error in percent of the square root of the landmark box's area.

    Attributes:
        bins_percent: mean over the faces in each bin of ``YAW_BINS_DEGREES``; NaN for an empty bin.
        mean_percent: mean of the nonempty bins: the benchmark's number.
        faces_percent: mean over all faces.
        bins_count: faces in each bin.
    """

    bins_percent: tuple[float, ...]
    mean_percent: float
    faces_percent: float
    bins_count: tuple[int, ...]


def check_convention(convention: str) -> None:
    """Raise a ValueError unless ``place_in_photo`` knows the convention."""
    if convention not in CONVENTIONS:
        raise ValueError(f"unknown convention '{convention}'; choose from {', '.join(CONVENTIONS)}")


def place_in_photo(
    landmarks: np.ndarray, boxes: np.ndarray, crop_size: int, convention: str = "exact"
) -> np.ndarray:
    """Transform landmarks from crops to their photos.

    Args:
        landmarks: (M, N, 2 or more) px of the crop, pixel centers at integers from 0; only x and
            y are used.
        boxes: (M, 4) half-open pixel boxes x0, y0, x1, y1 in the photo.
        crop_size: width and height of the crop, px.
        convention: 'exact': by pixel centers, ``x = (u + 0.5) side / size - 0.5 + x0``. 'field':
            as in the field's benchmark script, which numbers the pixels of crop and photo from 1:
            ``x = (u + 1) side / size + x0 - 1``. They differ by ``(side / size - 1) / 2`` px,
            about 0.14 % of error.

    Returns:
        (M, N, 2) float64, px of the photo, pixel centers at integers from 0.

    Raises:
        ValueError: the shapes do not match, or the convention is unknown.
    """
    points, boxes = np.asarray(landmarks, np.float64), np.asarray(boxes, np.float64)
    if points.ndim != 3 or points.shape[2] < 2 or boxes.shape != (len(points), 4):
        raise ValueError(
            f"landmarks and boxes have the shapes {points.shape} and {boxes.shape}; "
            "they must be (M, N, 2 or more) and (M, 4)"
        )
    check_convention(convention)
    inside, outside = (0.5, -0.5) if convention == "exact" else (1.0, -1.0)
    first, side = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2]
    return (points[..., :2] + inside) * side / crop_size + outside + first


def normalized_mean_error(
    predicted: np.ndarray,
    annotated: np.ndarray,
    dimensions: int = 2,
    box_points: np.ndarray | None = None,
) -> np.ndarray:
    """Error of each face, in percent: of landmarks, or of all vertices (dense).

    Args:
        predicted: (M, N, 2 or more) px, image frame.
        annotated: the same for the annotation.
        dimensions: 2: distances in the image. 3: in space, with depth also in px. The origin of
            depth is unknown (a weak-perspective camera has none), so the mean depths of each
            face are aligned first.
        box_points: (M, K, 2 or more) px, the points whose box normalizes the error, such as the 68
            landmarks for a dense error; None: ``annotated``.

    Returns:
        (M,) float64, percent of the square root of the area of the annotation's box in the image
        (Zhu et al., 2016).

    Raises:
        ValueError: the shapes differ, there are more or fewer boxes than faces, or the points of
            a box span no area.
    """
    predicted, annotated = np.asarray(predicted, np.float64), np.asarray(annotated, np.float64)
    fits = predicted.ndim == annotated.ndim == 3 and predicted.shape[:2] == annotated.shape[:2]
    least = min(predicted.shape[-1:] + annotated.shape[-1:], default=0)
    if not fits or dimensions not in (2, 3) or least < dimensions:
        raise ValueError(
            f"predicted and annotated have the shapes {predicted.shape} and {annotated.shape}; "
            f"both must be (M, N, {dimensions} or more), in 2 or 3 dimensions"
        )
    difference = predicted[..., :dimensions] - annotated[..., :dimensions]
    difference[..., 2:] -= difference[..., 2:].mean(axis=1, keepdims=True)
    distance = np.linalg.norm(difference, axis=-1).mean(axis=1)
    side = box_side(annotated if box_points is None else box_points)
    if side.shape != distance.shape:
        raise ValueError(f"box_points has {len(side)} faces; it must have {len(distance)}")
    return 100 * distance / side


def box_side(points: np.ndarray) -> np.ndarray:
    """(M,) px: square root of the area of the box of (M, N, 2 or more) points.

    Raises:
        ValueError: the shape is different, N is 0, or the points of a face span no area.
    """
    points = np.asarray(points, np.float64)
    if points.ndim != 3 or not points.shape[1] or points.shape[2] < 2:
        raise ValueError(f"points have the shape {points.shape}; it must be (M, N, 2 or more)")
    points = points[..., :2]
    extent = points.max(axis=1) - points.min(axis=1)
    if not (extent > 0).all():
        raise ValueError("the points of an annotated face span no area")
    return np.sqrt(extent.prod(axis=-1))


def landmark_error(
    predicted: np.ndarray, annotated: np.ndarray, yaw_degrees: np.ndarray, dimensions: int = 2
) -> LandmarkError:
    """The benchmark's summary.

    Args:
        predicted: (M, N, 2 or more) px, image frame.
        annotated: (M, N, 2 or more) px, same frame.
        yaw_degrees: (M,) annotated yaw; its sign has no effect, and yaw beyond 90 degrees belongs
            to the last bin.
        dimensions: 2 or 3, see ``normalized_mean_error``.

    Raises:
        ValueError: there is no face, the shapes do not match, or a number is not finite.
    """
    return summarize_by_yaw(normalized_mean_error(predicted, annotated, dimensions), yaw_degrees)


def summarize_by_yaw(
    errors: np.ndarray, yaw_degrees: np.ndarray, weights: np.ndarray | None = None
) -> LandmarkError:
    """Means of (M,) errors in percent within bins of yaw.

    ``weights`` (M,) is how often each face counts; None for once each.

    Raises:
        ValueError: there is no face, the shapes do not match, or an error or a yaw is not finite.
    """
    errors, yaw = np.asarray(errors, np.float64), np.abs(np.asarray(yaw_degrees, np.float64))
    if yaw.shape != errors.shape or not len(errors):
        raise ValueError(f"yaw_degrees has the shape {yaw.shape}; it must be (M,), M above 0")
    if not np.isfinite(yaw).all():
        raise ValueError("yaw_degrees must be finite numbers: they determine the bins")
    if not np.isfinite(errors).all():  # else the mean would leave out the face's bin
        raise ValueError("errors must be finite numbers")
    weights = np.ones(len(errors)) if weights is None else weights
    means = bin_means(errors, yaw, weights)
    return LandmarkError(
        bins_percent=means,
        mean_percent=float(np.nanmean(means)),
        faces_percent=weighted_mean(errors, weights),
        bins_count=tuple(int(part.sum()) for part in _bins(yaw)),
    )


def bin_means(
    errors: np.ndarray, yaw_degrees: np.ndarray, weights: np.ndarray
) -> tuple[float, ...]:
    """Weighted means of (M,) errors within each bin of |yaw|; NaN for an empty bin."""
    return tuple(weighted_mean(errors[part], weights[part]) for part in _bins(yaw_degrees))


def _bins(yaw_degrees: np.ndarray) -> list[np.ndarray]:
    place = np.digitize(np.abs(yaw_degrees), [high for _, high in YAW_BINS_DEGREES[:-1]])
    return [place == i for i in range(len(YAW_BINS_DEGREES))]
