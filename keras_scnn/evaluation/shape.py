"""Error of the neutral shape: distances in millimeters, and explained variance."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from keras_scnn.evaluation.bootstrap import weighted_mean
from keras_scnn.geometry.alignment import apply_similarity, similarity_alignment

CHUNK = 64


@dataclass(frozen=True)
class ShapeError:
    """Error of neutral shapes in millimeters, compared with that of the mean face.

    'Raw' numbers compare the points in the model frame without alignment; the others after each
    face is aligned with the true one by the best similarity (Umeyama 1991).

    Attributes:
        vertex_mm: mean distance between corresponding points.
        mean_face_mm: the same if every prediction were the mean face.
        relative: ``vertex_mm / mean_face_mm``: below 1 is better than predicting the mean face.
        n_faces: faces counted.
        explained_variance: share of the squared deviation of the true shapes from the mean face
            that the prediction explains: 1 is perfect, 0 is the mean face, negative is worse.
        raw_vertex_mm, raw_mean_face_mm, raw_relative, raw_explained_variance: without alignment.
    """

    vertex_mm: float
    mean_face_mm: float
    relative: float
    n_faces: int
    explained_variance: float
    raw_vertex_mm: float
    raw_mean_face_mm: float
    raw_relative: float
    raw_explained_variance: float


@dataclass(frozen=True, eq=False)
class ShapeDistances:
    """Distances of M faces from the true ones: (M,) float64 each.

    Attributes:
        aligned, raw: mean distance between corresponding points of prediction and truth, mm.
        aligned_mean, raw_mean: the same for the mean face.
        aligned_square, aligned_mean_square, raw_square, raw_mean_square: mean squared distance,
            mm².
    """

    aligned: np.ndarray
    aligned_square: np.ndarray
    aligned_mean: np.ndarray
    aligned_mean_square: np.ndarray
    raw: np.ndarray
    raw_square: np.ndarray
    raw_mean: np.ndarray
    raw_mean_square: np.ndarray


def shape_error(predicted: np.ndarray, true: np.ndarray, mean_face: np.ndarray) -> ShapeError:
    """Compare neutral shapes.

    Args:
        predicted: (M, N, 3) mm.
        true: (M, N, 3) mm, the same points; in the same frame, or the raw numbers mean little.
        mean_face: (N, 3) mm, the prediction of a method without identity.

    Raises:
        ValueError: the arrays' shapes do not match, there is no face, or a coordinate is not
            finite.
    """
    return summarize_shapes(shape_distances(predicted, true, mean_face))


def shape_distances(
    predicted: np.ndarray, true: np.ndarray, mean_face: np.ndarray
) -> ShapeDistances:
    """The distances that ``shape_error`` averages; same arguments and errors."""
    predicted, true, mean_face = np.asarray(predicted), np.asarray(true), np.asarray(mean_face)
    if predicted.shape != true.shape or true.ndim != 3 or true.shape[1:] != mean_face.shape:
        raise ValueError(
            f"predicted, true and mean_face have the shapes {predicted.shape}, {true.shape} and "
            f"{mean_face.shape}; they must be (M, N, 3), (M, N, 3) and (N, 3)"
        )
    if not len(true):
        raise ValueError("there is no face to compare")
    if not all(np.isfinite(points).all() for points in (predicted, true, mean_face)):
        raise ValueError("the coordinates of predicted, true and mean_face must be finite numbers")
    chunks = []
    for start in range(0, len(true), CHUNK):  # in chunks, to save memory
        part = slice(start, start + CHUNK)
        chunks.append(_distances(predicted[part], true[part], mean_face))
    return ShapeDistances(*np.concatenate(chunks, axis=1))


def _distances(predicted, true, mean_face) -> np.ndarray:
    """(8, M): see ``ShapeDistances``."""
    rows = []
    means = np.broadcast_to(mean_face, true.shape)
    for align in (_aligned, lambda source, target: np.float64(source)):
        for source in (predicted, means):
            distance = np.linalg.norm(align(source, true) - true, axis=-1)
            rows += [distance.mean(axis=-1), (distance**2).mean(axis=-1)]
    return np.stack(rows)


def _aligned(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    return apply_similarity(*similarity_alignment(source, target), source)


def summarize_shapes(distances: ShapeDistances, weights: np.ndarray | None = None) -> ShapeError:
    """Means over the faces; ``weights`` (M,) is how often each counts, None for once each."""
    mean = {f.name: weighted_mean(getattr(distances, f.name), weights) for f in fields(distances)}
    return ShapeError(
        vertex_mm=mean["aligned"],
        mean_face_mm=mean["aligned_mean"],
        relative=_ratio(mean["aligned"], mean["aligned_mean"]),
        n_faces=len(distances.aligned),
        explained_variance=1 - _ratio(mean["aligned_square"], mean["aligned_mean_square"]),
        raw_vertex_mm=mean["raw"],
        raw_mean_face_mm=mean["raw_mean"],
        raw_relative=_ratio(mean["raw"], mean["raw_mean"]),
        raw_explained_variance=1 - _ratio(mean["raw_square"], mean["raw_mean_square"]),
    )


def _ratio(above: float, below: float) -> float:
    return above / below if below else float("inf")
