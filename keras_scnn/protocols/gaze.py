"""Do the eyes look where they look in the photo? Predicted gaze against the irises in photos."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from keras_scnn.data.sources.photo_lists import people_photos
from keras_scnn.evaluation import with_intervals
from keras_scnn.evaluation.bootstrap import RESAMPLES, weighted_mean
from keras_scnn.evaluation.report import Row
from keras_scnn.evaluation.scalars import scalar_agreement, without_linear_part
from keras_scnn.geometry.camera import euler_from_camera
from keras_scnn.io import read_image
from keras_scnn.photos.iris import IrisFinder
from keras_scnn.protocols.photo_predictions import PhotoPredictions, PhotoPredictor
from keras_scnn.protocols.shape_truth import last_people
from keras_scnn.protocols.yardsticks import Yardstick, bootstrap_note
from keras_scnn.reconstruction.gaze import (
    LEAST_OPENING,
    MAX_YAW,
    PITCH,
    YAW,
    check_eyes,
    gaze_degrees,
    measured_gaze,
)
from keras_scnn.storage.text import counted, failure

AXES = {"horizontal": YAW, "vertical": PITCH}
LEAST_PHOTOS = 10


def evaluate_gaze(
    predictor: PhotoPredictor,
    folder: str | os.PathLike,
    last: int | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Yardstick:
    """Gaze, mean of both eyes, against that of the irises which MediaPipe's network finds.

    Both are relative to the predicted head. Photos of a head turned by ``MAX_YAW`` or more, with a
    nearly closed eye, or with an iris found outside of its eye are not measured.

    Args:
        predictor: of the preset.
        folder: people folder.
        last: use only the last ``last`` people in sorted order; None for all.
        resamples, seed: of the bootstrap over people.

    Raises:
        FileNotFoundError: the folder, or the package with the iris network, is missing.
        ValueError: the folder has fewer than two people, ``last`` is out of range, fewer than
            ``LEAST_PHOTOS`` photos can be measured, or the face model has no eyeballs.
    """
    check_eyes(predictor.preset.face_model)
    photos, find_irises = people_photos(folder), IrisFinder()
    numbers = last_people(sorted(set(photos.person.tolist())), last)
    chosen = np.flatnonzero(np.isin(photos.person, numbers))
    paths = [photos.paths[i] for i in chosen]
    if len(paths) < LEAST_PHOTOS:
        raise ValueError(
            f"{folder}: {counted(len(paths), 'photo')} of {counted(len(numbers), 'person')}; at "
            f"least {LEAST_PHOTOS} photos are needed"
        )
    faces = predictor(paths)
    rows, measured, failed = _measure(faces, paths, find_irises)
    if len(rows) < LEAST_PHOTOS:
        raise ValueError(
            f"{folder}: gaze can be measured in {counted(len(rows), 'photo')}; at least "
            f"{LEAST_PHOTOS} are needed, with both eyes open and the head turned by less than "
            f"{MAX_YAW:g} degrees" + (f"; the first that failed: {failed[0]}" if failed else "")
        )
    predicted = gaze_degrees(faces.face_model, faces.parameters.expression[rows])
    head = euler_from_camera(faces.parameters.pose[rows])
    summary = functools.partial(_summary, measured, predicted, head)
    people = photos.person[chosen][faces.kept[rows]]
    values, intervals = with_intervals(summary, people, resamples, seed)
    notes = (*_notes(len(rows), len(paths), len(set(people.tolist()))), *bootstrap_note(resamples))
    left_out = (*faces.left_out, *failed)
    return Yardstick(values, ROWS, intervals, notes, left_out, photos.passed_over)


def _measure(
    faces: PhotoPredictions, paths: Sequence[Path], find_irises: IrisFinder
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Rows (m,) of the faces whose gaze can be measured, both eyes' gaze (m, 2, 2) in them, and the
    reasons of photos that failed."""
    ahead = np.flatnonzero(np.abs(faces.yaw_degrees) < MAX_YAW)
    landmarks, found, failed = faces.landmarks, {}, []
    for row in tqdm(ahead, "finding irises", leave=False, delay=1):
        path = paths[faces.kept[row]]
        try:
            eyes = find_irises(read_image(path), landmarks[row])
        except (OSError, ValueError) as error:
            failed.append(failure(path, error))
            continue
        if eyes.opening.min() >= LEAST_OPENING:
            found[row] = eyes
    if not found:
        return np.array([], int), np.zeros((0, 2, 2)), failed
    rows = np.array(list(found))
    iris, corners = (np.stack([getattr(e, n) for e in found.values()]) for n in ("iris", "corners"))
    gaze = measured_gaze(faces.face_model, faces.parameters[rows], iris, corners)
    known = np.isfinite(gaze).all(axis=(1, 2))
    return rows[known], gaze[known], failed


def _summary(
    measured: np.ndarray, predicted: np.ndarray, head: np.ndarray, weights: np.ndarray
) -> dict:
    """The measures of both directions for photo weights (m,)."""
    alike = predicted[:, 0, YAW] * predicted[:, 1, YAW] > 0
    return {
        "alike_percent": 100 * weighted_mean(alike, weights),
        **{name: _direction(measured[..., axis], predicted[..., axis], head, weights)
           for name, axis in AXES.items()},
    }  # fmt: skip


def _direction(
    measured: np.ndarray, predicted: np.ndarray, head: np.ndarray, weights: np.ndarray
) -> dict[str, float]:
    """One direction of (m, 2) eyes: of their mean, and how well measurements of two eyes agree."""
    both, own = measured.mean(axis=1), predicted.mean(axis=1)
    truth, rest = (without_linear_part(each, head, weights) for each in (both, own))
    return {
        **scalar_agreement(both, own, weights),
        "by_pose": scalar_agreement(both, both - truth, weights)["correlation"],
        "beyond_pose": scalar_agreement(truth, rest, weights)["correlation"],
        "eyes": scalar_agreement(measured[:, 0], measured[:, 1], weights)["correlation"],
    }


def _rows(name: str) -> list[Row]:
    return [
        (f"{name}.correlation", f"{name} gaze: correlation with the irises'", ""),
        (f"{name}.by_pose", "the same, best linear function of the head's pose", ""),
        (f"{name}.beyond_pose", "the same, without what is linear in the head's pose", ""),
        (f"{name}.eyes", "correlation of the two eyes' irises", ""),
        (f"{name}.slope", f"{name} gaze: slope, predicted on measured", ""),
        (f"{name}.error", f"{name} gaze: error, mean", "degrees"),
        (f"{name}.constant_error", f"{name} gaze: error of the best constant", "degrees"),
    ]


ROWS: tuple[Row, ...] = (
    *_rows("horizontal"),
    *_rows("vertical"),
    ("alike_percent", "photos in which both predicted eyes turn to the same side", "%"),
)


def _notes(measured: int, of: int, people: int) -> tuple[str, ...]:
    return (
        f"gaze: {counted(measured, 'photo')} of {counted(people, 'person')}, of {of} photos (heads "
        f"turned by less than {MAX_YAW:g} degrees, both eyes open); mean of both eyes in the head",
        "baseline: a constant has correlation 0; eyes that turn at random, independently, turn to "
        "the same side in 50 % of the photos",
    )
