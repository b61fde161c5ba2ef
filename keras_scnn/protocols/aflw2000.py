"""The protocol of AFLW2000-3D: landmarks, pose and neutral shape of annotated photos."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from keras_scnn.data.sources.aflw2000 import Aflw2000, AnnotatedFace, read_good_faces
from keras_scnn.data.sources.bfm_full import FullBfm
from keras_scnn.data.sources.bfm_landmarks import BfmLandmarks
from keras_scnn.data.sources.mat_files import BfmAnnotation, read_bfm_annotation
from keras_scnn.data.sources.reannotation import read_neutral_landmarks, read_reannotation
from keras_scnn.evaluation import (
    LandmarkError,
    PoseError,
    ShapeError,
    angle_errors,
    normalized_mean_error,
    place_in_photo,
    shape_distances,
    summarize_angles,
    summarize_by_yaw,
    summarize_shapes,
    with_intervals,
)
from keras_scnn.evaluation.bootstrap import RESAMPLES, weighted_mean
from keras_scnn.evaluation.nme import box_side, check_convention
from keras_scnn.evaluation.pose import within_limit
from keras_scnn.geometry.camera import project
from keras_scnn.geometry.crops import SQUARE_TOLERANCE
from keras_scnn.io import read_image
from keras_scnn.models import Preset, load_preset
from keras_scnn.models.inference import Predictions, predict
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.photos.cropping import FaceBox, box_from_landmarks, crop_face
from keras_scnn.photos.files import beside
from keras_scnn.protocols.yardsticks import bootstrap_note
from keras_scnn.storage.guard import reading
from keras_scnn.storage.text import counted

CONVENTION_NOTES = {
    "exact": "crop pixels mapped to the photo by pixel centers (convention 'exact')",
    "field": "crop pixels mapped to the photo as in the field's benchmark script, with its shift "
    "(convention 'field')",
}


@dataclass(frozen=True)
class PhotoResults:
    """Errors on AFLW2000-3D.

    Attributes:
        landmarks: 2D, 68 points, against the original annotation.
        pose: in the Euler order of the .mat files.
        convention: how crop pixels were mapped to the photo.
        landmarks_3d: including depth, after aligning each face's mean depth with the annotation's.
        reannotated: as ``landmarks``, against the second annotation, if given.
        shape68: the neutral 68 landmarks against the annotated ones, if their basis was given;
            centroids are aligned even for the raw numbers, since the two face models have
            different origins.
        model_mean_mm: as ``shape68.vertex_mm``, for the face model's own mean face.
        dense_percent, dense_3d_percent: mean error of all vertices over all faces, in % of the
            root of the landmark box's area, if the full Basel Face Model was given.
        intervals: (low, high) by the path of a number, see ``evaluation.bootstrap.with_intervals``.
        curves: (M,) lists: 'name', 'yaw_degrees', 'error_2d', 'error_3d' of each face.
        notes: what was measured, and how.
        left_out: photos that could not be read, with reasons.
        passed_over: files of the folder that are neither a face's photo nor its annotation.
    """

    landmarks: LandmarkError
    pose: PoseError
    convention: str
    landmarks_3d: LandmarkError | None = None
    reannotated: LandmarkError | None = None
    shape68: ShapeError | None = None
    model_mean_mm: float | None = None
    dense_percent: float | None = None
    dense_3d_percent: float | None = None
    intervals: dict = field(default_factory=dict)
    curves: dict = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()


def evaluate_aflw2000(
    preset: Preset | str | os.PathLike,
    folder: str | os.PathLike,
    convention: str = "exact",
    annotation: str | os.PathLike | None = None,
    first_pixel: float = 1.0,
    basis: str | os.PathLike | None = None,
    bfm: FullBfm | None = None,
    benchmark_crops: str | os.PathLike | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PhotoResults:
    """Errors on a folder of AFLW2000-3D.

    Args:
        preset: a preset, or its name or folder.
        folder: .jpg and .mat pairs; the crops are those of its protocol.csv, else the standard
            crop around the annotated landmarks.
        convention: 'exact' or 'field', see ``evaluation.nme.place_in_photo``.
        annotation: landmarks of a second annotation, see ``data.sources.reannotation``.
        first_pixel: coordinate of the first pixel's center in that annotation.
        basis: .npz of the Basel Face Model at its 68 landmarks, see
            ``data.sources.reannotation.read_neutral_landmarks``; needed for the neutral shape.
        bfm: the full Basel Face Model, for the dense error of a preset with that face model.
        benchmark_crops: folder of the benchmark's own crops, see ``read_photos``.
        resamples, seed: of the bootstrap over faces.

    Raises:
        FileNotFoundError: the preset, the folder or one of its files is missing.
        ValueError: no photo or annotation can be read, the convention is unknown, the preset's
            face model is not ``bfm``'s, an annotation lacks what an option needs, or no face has
            angles within the limit of ``evaluation.pose_error``.
    """
    check_convention(convention)
    landmarks = None if basis is None else BfmLandmarks.load(basis)
    preset = preset if isinstance(preset, Preset) else load_preset(preset)
    _check_same_mesh(preset.face_model, bfm)
    photos = read_photos(folder, preset.input_size, benchmark_crops)
    faces, boxes = photos.faces, photos.boxes
    within_limit(np.stack([face.euler for face in faces]))  # an error before the prediction
    further = None if annotation is None else _further_landmarks(photos, annotation, first_pixel)
    neutral = None if landmarks is None else _neutral_landmarks(faces, landmarks)
    annotated = [] if bfm is None else _bfm_annotations(faces, bfm)
    predictions = predict(preset, photos.crops)
    placed = _placed(predictions.landmarks, boxes, preset.input_size, convention)
    parts = _landmark_parts(placed, faces, further)
    dense = _dense_parts(preset, predictions, photos, convention, bfm, annotated) if bfm else {}
    angles = angle_errors(predictions.euler, np.stack([face.euler for face in faces]))
    shapes = {} if neutral is None else _shape_parts(preset, predictions, *neutral)
    yaw = np.array([face.yaw_degrees for face in faces])

    def summary(weights: np.ndarray) -> dict:
        """All numbers; ``weights`` (n,) is how often each face counts."""
        results: dict[str, Any] = {
            name: summarize_by_yaw(part, yaw, weights) for name, part in parts.items()
        }
        results["pose"] = summarize_angles(angles, yaw, weights)
        results |= {name: weighted_mean(part, weights) for name, part in dense.items()}
        if shapes:
            results["shape68"] = summarize_shapes(shapes["network"], weights)
            results["model_mean_mm"] = weighted_mean(shapes["model_mean"].aligned, weights)
        return results

    results, intervals = with_intervals(summary, np.arange(len(faces)), resamples, seed)
    return PhotoResults(
        **results,
        convention=convention,
        intervals=intervals,
        curves=_curves(faces, yaw, parts),
        notes=_notes(faces, convention, resamples, annotation, benchmark_crops is not None),
        left_out=photos.left_out,
        passed_over=Aflw2000(folder).passed_over(benchmark_crops, annotation, basis),
    )


def _placed(points: np.ndarray, boxes: np.ndarray, size: int, convention: str) -> np.ndarray:
    """Map points (M, N, 3) from crop px to photo px, depth included."""
    zoom = ((boxes[:, 2] - boxes[:, 0]) / size)[:, None, None]
    placed = place_in_photo(points, boxes, size, convention)
    return np.concatenate([placed, zoom * points[..., 2:]], axis=-1)


def _landmark_parts(
    placed: np.ndarray, faces: list[AnnotatedFace], further: np.ndarray | None
) -> dict[str, np.ndarray]:
    annotated = np.stack([face.landmarks for face in faces])
    parts = {
        "landmarks": normalized_mean_error(placed, annotated),
        "landmarks_3d": normalized_mean_error(placed, annotated, dimensions=3),
    }
    if further is not None:
        parts["reannotated"] = normalized_mean_error(placed, further)
    return parts


def _check_same_mesh(ours: MorphableModel, bfm: FullBfm | None) -> None:
    if bfm is not None and ours.n_vertices != bfm.model.n_vertices:
        raise ValueError(
            f"the preset's face model '{ours.name}' has {ours.n_vertices} vertices, the annotated "
            f"one {bfm.model.n_vertices}: a dense error needs a preset with that model"
        )


def _dense_parts(
    preset: Preset,
    predictions: Predictions,
    photos: BenchmarkPhotos,
    convention: str,
    bfm: FullBfm,
    annotations: list[BfmAnnotation],
) -> dict:
    """Errors of all vertices, (M,) percent; one face at a time, since meshes are large."""
    model, size, errors = preset.face_model, preset.input_size, []
    parameters = predictions.parameters
    for i, annotation in enumerate(annotations):
        ours = model.vertices(parameters.identity[i], parameters.expression[i])
        posed = project(parameters.pose[i], ours)[None]
        true = bfm.vertices_in_photo(annotation)[None]
        pair = _placed(posed, photos.boxes[i : i + 1], size, convention), true
        corners = photos.faces[i].landmarks[None]
        errors.append([normalized_mean_error(*pair, d, box_points=corners)[0] for d in (2, 3)])
    return dict(zip(("dense_percent", "dense_3d_percent"), np.transpose(errors), strict=True))


def _further_landmarks(
    photos: BenchmarkPhotos, annotation: str | os.PathLike, first_pixel: float
) -> np.ndarray:
    """(M, 68, 2) px of the second annotation."""
    further = read_reannotation(annotation, photos.listed, first_pixel)[photos.kept]
    for face, points in zip(photos.faces, further, strict=True):
        try:
            box_side(points[None])
        except ValueError as error:
            raise ValueError(f"{annotation}: {face.name}: {error}") from error
    return further


def _bfm_annotations(faces: list[AnnotatedFace], bfm: FullBfm) -> list[BfmAnnotation]:
    """The annotated parameters, which have as many components as the face model."""
    annotations = []
    for face in faces:
        path = beside(face.image_path, ".mat")
        annotations.append(read_bfm_annotation(path, "AFLW2000-3D"))
        with reading(path, "an annotation of this face model"):
            bfm.parameters(annotations[-1], 0, 0)
    return annotations


def _neutral_landmarks(
    faces: list[AnnotatedFace], basis: BfmLandmarks
) -> tuple[np.ndarray, np.ndarray]:
    """(M, 68, 3) annotated and (68, 3) mean neutral landmarks, mm, their centroids at 0."""
    files = [beside(face.image_path, ".mat") for face in faces]
    true, mean = read_neutral_landmarks(files, basis)
    return _centered(true), _centered(mean)


def _shape_parts(
    preset: Preset, predictions: Predictions, true: np.ndarray, mean: np.ndarray
) -> dict:
    """Distances between neutral 68-point shapes with aligned centroids."""
    ours = _centered(
        preset.face_model.landmarks(predictions.parameters.identity).astype(np.float64)
    )
    own_mean = np.broadcast_to(_centered(preset.face_model.landmarks()), true.shape)
    return {
        "network": shape_distances(ours, true, mean),
        "model_mean": shape_distances(own_mean, true, mean),
    }


def _centered(points: np.ndarray) -> np.ndarray:
    return points - points.mean(axis=-2, keepdims=True)


def _curves(faces: list[AnnotatedFace], yaw: np.ndarray, parts: dict) -> dict:
    return {
        "name": [face.name for face in faces],
        "yaw_degrees": yaw.tolist(),
        "error_2d": parts["landmarks"].round(4).tolist(),
        "error_3d": parts["landmarks_3d"].round(4).tolist(),
    }


def _notes(faces, convention: str, resamples: int, annotation, ready: bool) -> tuple[str, ...]:
    has_boxes = faces[0].box is not None
    crops = "crops of protocol.csv" if has_boxes else "standard crops around the annotation"
    crops = "the benchmark's own crops" if ready else crops
    notes = [
        f"AFLW2000-3D: {counted(len(faces), 'face')}, 68 landmarks, % of the root of the landmark "
        "box's area",
        f"{crops}; {CONVENTION_NOTES[convention]}",
        "3D errors: mean depths aligned; pose in the .mat files' Euler order",
    ]
    if annotation is not None:
        notes.append(f"re-annotation: {annotation}; yaw bins of the original annotation")
    return (*notes, *bootstrap_note(resamples, "faces"))


@dataclass(frozen=True, eq=False)
class BenchmarkPhotos:
    """The M photos that can be read.

    Attributes:
        faces: their annotations.
        boxes: (M, 4) float64 half-open pixel boxes of the crops.
        crops: (M, S, S, 3) uint8 RGB.
        kept: (M,) their indices in ``listed``.
        listed: names of all photos, in the order of protocol.csv, else sorted.
        left_out: the other photos, with reasons.
    """

    faces: list[AnnotatedFace]
    boxes: np.ndarray
    crops: np.ndarray
    kept: np.ndarray
    listed: list[str]
    left_out: tuple[str, ...]


def read_photos(
    folder: str | os.PathLike, size: int, crops: str | os.PathLike | None = None
) -> BenchmarkPhotos:
    """Read all photos that can be read, and crop their faces.

    Args:
        folder: of AFLW2000-3D; the crops are those of its protocol.csv, else the standard crop
            around the annotated landmarks.
        size: of the crops, S px.
        crops: folder with the benchmark's own crops, NAME.jpg of S px, on which published tables
            are measured; protocol.csv has their boxes in the photos.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: no photo can be read, or protocol.csv is damaged, or missing although crops are
            given.
    """
    if crops is not None and not Path(crops).is_dir():
        raise FileNotFoundError(f"{crops}: no such folder; expected the benchmark's NAME.jpg")
    rows, listed = read_good_faces(folder)
    kept, faces, boxes, images, left_out = [], [], [], [], []
    for i, face in enumerate(tqdm(rows, desc="reading photos", leave=False, delay=1)):
        if isinstance(face, str):
            left_out.append(face)
            continue
        try:
            box_side(face.landmarks[None])  # raises an error if they span no area
            box = _box_of(face)
            images.append(
                _crop(face, box, size) if crops is None else _ready_crop(face, size, crops)
            )
            kept.append(i)
            faces.append(face)
            boxes.append(box.as_array())
        except (OSError, ValueError) as error:
            left_out.append(f"{face.name}: {error}")
    if not kept:
        raise ValueError(
            f"none of {counted(len(rows), 'photo')} can be read; the first: {left_out[0]}"
        )
    stacked = np.array(boxes), np.stack(images), np.array(kept)
    return BenchmarkPhotos(faces, *stacked, listed, tuple(left_out))


def _crop(face: AnnotatedFace, box: FaceBox, size: int) -> np.ndarray:
    """The face in its box, (S, S, 3) uint8 RGB; boxes off square are stretched, as is customary."""
    image = face.read_image()
    if abs(box.width / box.height - 1) <= SQUARE_TOLERANCE:
        return crop_face(image, box, size).image
    stretch = box.width / box.height
    # With exact pixel centers: y + 0.5 is multiplied by the stretch.
    matrix = np.array([[1.0, 0.0, 0.0], [0.0, stretch, 0.5 * (stretch - 1)]])
    height, width = image.shape[:2]
    tall = cv2.warpAffine(image, matrix, (width, max(1, round(height * stretch))))
    square = FaceBox(box.x0, box.y0 * stretch, box.x1, box.y1 * stretch)
    return crop_face(tall, square, size).image


def _ready_crop(face: AnnotatedFace, size: int, folder: str | os.PathLike) -> np.ndarray:
    if face.box is None:
        raise ValueError("the benchmark's crops need protocol.csv, which has their boxes")
    path = beside(Path(folder) / f"{face.name}.jpg", ".jpg")
    image = read_image(path)
    if image.shape[:2] != (size, size):
        raise ValueError(f"{path} is {image.shape[1]} x {image.shape[0]} px; {size} px are needed")
    return image


def _box_of(face: AnnotatedFace) -> FaceBox:
    if face.box is None:
        return box_from_landmarks(face.landmarks)
    return FaceBox(*face.box.tolist())
