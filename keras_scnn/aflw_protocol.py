"""The protocol of AFLW2000-3D: landmarks, pose and neutral shape of annotated photos."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from keras_scnn.cropping import FaceBox, box_from_landmarks, crop_face
from keras_scnn.data.aflw2000 import AnnotatedFace, read_aflw2000
from keras_scnn.data.annotations import read_neutral_landmarks, read_reannotation
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
from keras_scnn.io import read_image
from keras_scnn.models import Preset, load_preset
from keras_scnn.prediction import Predictions, predict

CONVENTION_NOTES = {
    "exact": "crop pixels brought into the photo by pixel centers (convention 'exact')",
    "field": "crop pixels brought into the photo as the field's benchmark script does, with its "
    "shift (convention 'field')",
}


@dataclass(frozen=True)
class PhotoResults:
    """Errors on AFLW2000-3D.

    Attributes:
        landmarks: 2D, 68 points, against the original annotation.
        pose: in the Euler order of the .mat files.
        convention: how crop pixels were brought into the photo.
        landmarks_3d: with depth, each face's mean depth brought to the annotation's.
        reannotated: as ``landmarks``, against the further annotation where one was given.
        shape68: the neutral 68 landmarks against the annotated ones, where their basis was given;
            centroids are brought together for the raw numbers, as two face models have two origins.
        model_mean_mm: as ``shape68.vertex_mm``, for the face model's own mean face.
        intervals: (low, high) by the path of a number, see ``evaluation.with_intervals``.
        curves: (M,) lists: 'name', 'yaw_degrees', 'error_2d', 'error_3d' of each face.
        notes: what was measured, and how.
        left_out: photos that could not be read, and why.
    """

    landmarks: LandmarkError
    pose: PoseError
    convention: str
    landmarks_3d: LandmarkError | None = None
    reannotated: LandmarkError | None = None
    shape68: ShapeError | None = None
    model_mean_mm: float | None = None
    intervals: dict = field(default_factory=dict)
    curves: dict = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def evaluate_aflw2000(
    preset: Preset | str | os.PathLike,
    folder: str | os.PathLike,
    convention: str = "exact",
    annotation: str | os.PathLike | None = None,
    first_pixel: float = 1.0,
    basis: str | os.PathLike | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PhotoResults:
    """Errors on a folder of AFLW2000-3D.

    Args:
        preset: a preset, or its name or folder.
        folder: .jpg and .mat pairs; the crops are those of its protocol.csv, else the standard
            crop about the annotated landmarks.
        convention: 'exact' or 'field', see ``evaluation.place_in_photo``.
        annotation: landmarks of a further annotation, see ``data.annotations.read_reannotation``.
        first_pixel: of that annotation: its coordinate of the first pixel's center.
        basis: .npz of the Basel Face Model at its 68 landmarks, see
            ``data.annotations.read_neutral_landmarks``; needed for the neutral shape.
        resamples, seed: of the bootstrap over faces.

    Raises:
        FileNotFoundError: the preset, the folder or one of its files is missing.
        ValueError: an annotation is damaged, no photo can be read, or the convention is unknown.
    """
    preset = preset if isinstance(preset, Preset) else load_preset(preset)
    faces = read_aflw2000(folder)
    further = None
    if annotation is not None:
        further = read_reannotation(annotation, [face.name for face in faces], first_pixel)
    kept, crops, left_out = read_crops(faces, preset.input_size)
    faces = [faces[i] for i in kept]
    told = predict(preset, crops)
    parts = _landmark_parts(told, faces, preset.input_size, convention)
    if further is not None:
        placed = _placed(told, faces, preset.input_size, convention)
        parts["reannotated"] = normalized_mean_error(placed, further[kept])
    angles = angle_errors(told.euler, np.stack([face.euler for face in faces]))
    shapes = {} if basis is None else _shape_parts(preset, told, faces, basis)
    yaw = np.array([face.yaw_degrees for face in faces])

    def summary(weights: np.ndarray) -> dict:
        found = {name: summarize_by_yaw(part, yaw, weights) for name, part in parts.items()}
        found["pose"] = summarize_angles(angles, weights)
        if shapes:
            found["shape68"] = summarize_shapes(shapes["network"], weights)
            found["model_mean_mm"] = weighted_mean(shapes["model_mean"].aligned, weights)
        return found

    found, intervals = with_intervals(summary, np.arange(len(faces)), resamples, seed)
    return PhotoResults(
        **found,
        convention=convention,
        intervals=intervals,
        curves=_curves(faces, yaw, parts),
        notes=_notes(faces, convention, resamples, annotation),
        left_out=tuple(left_out),
    )


def read_crops(faces: list[AnnotatedFace], size: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Cut all faces that can be cut.

    Returns:
        positions (M,) of those faces, their crops (M, size, size, 3) uint8 RGB, and why the
        others were left out.

    Raises:
        ValueError: no photo can be read.
    """
    kept, crops, left_out = [], [], []
    for i, face in enumerate(tqdm(faces, desc="reading photos", leave=False, delay=1)):
        try:
            crops.append(crop_face(read_image(face.image_path), _box_of(face), size).image)
            kept.append(i)
        except (OSError, ValueError) as error:
            left_out.append(str(error))
    if not kept:
        raise ValueError(f"none of {len(faces)} photos can be read; the first: {left_out[0]}")
    return np.array(kept), np.stack(crops), left_out


def _box_of(face: AnnotatedFace) -> FaceBox:
    if face.box is None:
        return box_from_landmarks(face.landmarks)
    return FaceBox(*face.box.tolist())


def _placed(told: Predictions, faces: list[AnnotatedFace], size: int, convention: str):
    """(M, 68, 3) px of the photo, and depth in the same unit."""
    boxes = np.array([_box_of(face).as_array() for face in faces])
    points = place_in_photo(told.landmarks, boxes, size, convention)
    zoom = ((boxes[:, 2] - boxes[:, 0]) / size)[:, None, None]
    return np.concatenate([points, zoom * told.landmarks[..., 2:]], axis=-1)


def _landmark_parts(told, faces, size: int, convention: str) -> dict[str, np.ndarray]:
    placed = _placed(told, faces, size, convention)
    annotated = np.stack([face.landmarks for face in faces])
    return {
        "landmarks": normalized_mean_error(placed, annotated),
        "landmarks_3d": normalized_mean_error(placed, annotated, dimensions=3),
    }


def _shape_parts(preset: Preset, told: Predictions, faces, basis) -> dict:
    """Distances of neutral 68-point shapes, centroids in one place."""
    files = [face.image_path.with_suffix(".mat") for face in faces]
    true, mean = (_centered(points) for points in read_neutral_landmarks(files, basis))
    ours = _centered(preset.face_model.landmarks(told.parameters.identity).astype(np.float64))
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


def _notes(faces, convention: str, resamples: int, annotation) -> tuple[str, ...]:
    has_boxes = faces[0].box is not None
    crops = "crops of protocol.csv" if has_boxes else "standard crops about the annotation"
    notes = [
        f"AFLW2000-3D: {len(faces)} faces, 68 landmarks, % of the root of the landmark box's area",
        f"{crops}; {CONVENTION_NOTES[convention]}",
        "3D errors: mean depths brought together; pose in the .mat files' Euler order",
    ]
    if annotation is not None:
        notes.append(f"re-annotation: {annotation}; yaw bins of the original annotation")
    if resamples:
        notes.append(f"[95 % interval of {resamples} bootstrap resamples of the faces]")
    return tuple(notes)
