"""Landmarks against partial annotations, such as those of one half of the face in CFP."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from keras_scnn.evaluation import with_intervals
from keras_scnn.evaluation.bootstrap import RESAMPLES, weighted_mean
from keras_scnn.evaluation.nme import box_side
from keras_scnn.evaluation.report import Row
from keras_scnn.geometry.landmark_sites import site_offset
from keras_scnn.geometry.landmarks68 import with_lids_in_order
from keras_scnn.protocols.photo_predictions import PhotoPredictions, PhotoPredictor
from keras_scnn.protocols.shape_truth import last_people
from keras_scnn.protocols.unseen_points import Misfits, measure_misfits
from keras_scnn.protocols.yardsticks import Yardstick, bootstrap_note
from keras_scnn.storage.arrays import read_arrays
from keras_scnn.storage.guard import reading
from keras_scnn.storage.text import counted

MIN_POINTS = 4
FOLDS = 10  # of people, to fit the annotated sites
SHAPES_FROM = "frontal"  # the kind of photos that shapes are predicted from
OUTERMOST = [0, 16]  # the jaw's ends: the one that is given tells which half is annotated
FILE = "an .npz file with name (n,) and landmarks68 (n, 68, 2), NaN where not given"
EXPECTED = f"expected {FILE}"


def evaluate_given_points(
    predictor: PhotoPredictor,
    folder: str | os.PathLike,
    file: str | os.PathLike,
    last: int | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Yardstick:
    """Distance of predicted landmarks to given ones, and how well people's shapes explain these.

    The bounding box of half a face is not comparable between poses, so errors are in percent of the
    root of the area of the 68 predicted landmarks' box: for the landmarks as predicted, and at the
    annotated sites (``shifted_to_annotated_sites``), by kind of photo (``kind_of_photo``). A
    person's shape is the mean of those predicted from photos of the kind ``SHAPES_FROM``, or from
    all if there are none of it; see ``unseen_points``.

    Args:
        predictor: of the preset.
        folder: of the photos.
        file: see ``read_points``.
        last: use only the last ``last`` people in sorted order of folders; None for all.
        resamples, seed: of the bootstrap over people.

    Raises:
        FileNotFoundError: a photo or the file is missing.
        ValueError: the file is damaged, ``last`` is out of range, or no photo shows a face.
    """
    names, points = read_points(file)
    people = np.array([str(Path(name).parent) for name in names])
    chosen = np.isin(people, last_people(sorted(set(people.tolist())), last))
    names, people = names[chosen], people[chosen]
    points, reordered = with_lids_in_order(points[chosen])
    kinds = np.array([kind_of_photo(name) for name in names])
    paths = [Path(folder) / str(name) for name in names]
    predictions = predictor(paths)
    errors, offsets = _errors_twice(predictions, people, points)
    unseen = _misfits(predictions, people, kinds, points)

    def summary(weights: np.ndarray) -> dict:
        chosen = {kind: weights * (kinds == kind) for kind in np.unique(kinds).tolist()}
        return {
            kind: _numbers(errors, offsets, one) | unseen.explained(one)
            for kind, one in chosen.items()
        }

    values, intervals = with_intervals(summary, people, resamples, seed)
    notes = *_notes(kinds, people, int(reordered.sum())), *bootstrap_note(resamples)
    return Yardstick(values, _rows(list(values)), intervals, notes, predictions.left_out)


def kind_of_photo(name: str) -> str:
    """A photo's file name up to the first '_', else without its number; 'numbered' for a number.

    >>> names = "001/yaw45_01.jpg", "001/profile.jpg", "IMG0012.png", "001/1234.jpg", "1_a.jpg"
    >>> [kind_of_photo(name) for name in names]
    ['yaw45', 'profile', 'IMG', 'numbered', 'numbered']
    """
    kind, mark, _ = Path(name).name.partition("_")
    kind = kind.split(".")[0]
    without_number = kind.rstrip("0123456789")
    return (kind if mark and without_number else without_number) or "numbered"


def _errors_twice(
    predictions: PhotoPredictions, people: np.ndarray, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) errors, %, as predicted and at annotated sites, and (N, 2) offsets; NaN if unknown."""
    kept, landmarks = predictions.kept, predictions.landmarks
    given = points[kept]
    moved = shifted_to_annotated_sites(landmarks, predictions.parameters.pose, given, people[kept])
    errors, offsets = np.full((2, len(points), 2), np.nan)
    errors[kept, 0], offsets[kept] = point_errors(landmarks, given)
    sited = np.isfinite(moved - given).any(axis=(1, 2))  # false if no other fold has the points
    side = box_side(landmarks[sited])
    errors[kept[sited], 1] = point_errors(moved[sited], given[sited], side)[0]
    return errors, offsets


def _misfits(
    predictions: PhotoPredictions, people: np.ndarray, kinds: np.ndarray, points: np.ndarray
) -> Misfits:
    """Misfits of the points of the N photos with and without the people's shapes."""
    kept, (names, person) = predictions.kept, np.unique(people, return_inverse=True)
    source = np.isin(kinds[kept], _shape_kinds(kinds))
    identity = np.zeros((len(names), predictions.face_model.n_identity))
    number = person[kept][source]
    np.add.at(identity, number, predictions.parameters.identity[source])
    count = np.bincount(number, minlength=len(names))
    identity /= np.maximum(count, 1)[:, None]
    given = np.isfinite(points[:, OUTERMOST]).all(axis=-1).astype(int)  # tells the half
    view = np.array([f"{kind} {half}" for kind, half in zip(kinds, given, strict=True)])
    person = np.where(count[person] > 0, person, -1)
    return measure_misfits(predictions.face_model, identity, person, view, points)


def _shape_kinds(kinds: np.ndarray) -> list[str]:
    """The kinds of photos from which shapes are predicted."""
    return [SHAPES_FROM] if SHAPES_FROM in kinds else np.unique(kinds).tolist()


def _notes(kinds: np.ndarray, people: np.ndarray, reordered: int) -> list[str]:
    """What was measured: (n,) kinds and people; the number of photos with reordered lids."""
    counts = ", ".join(f"{(kinds == kind).sum()} {kind}" for kind in np.unique(kinds))
    notes = [
        f"given points: {counts} photos of {counted(len(np.unique(people)), 'person')}; mean "
        "distance of the given points, % of the root of the area of the predicted 68 landmarks' "
        "box",
        "at the annotated sites: predicted landmarks moved to where the annotation marks them, by "
        f"one 3D offset per landmark, fitted to other people's photos in {FOLDS} folds of people",
        "coverage: photos in which a face was found; the others have no error",
        "points explained: the share of the squared residual of the mean shape, pose and "
        "expression fitted, that shapes predicted from people's "
        f"{' and '.join(_shape_kinds(kinds))} photos explain; a constant shape has 0; bound: the "
        "share that all photos of a person have in common",
    ]
    if reordered:
        photos = counted(reordered, "photo")
        notes.append(f"lower lids numbered backwards in {photos}: reordered")
    return notes


def read_points(file: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Names (n,) and landmarks (n, 68, 2) float64 px of the photos, NaN where not given.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or of another kind, or a photo is listed twice, has fewer than
            four points, or has a point that is infinite or partly NaN.
    """
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {EXPECTED}")
    with reading(path, FILE):
        arrays = read_arrays(path, ("name", "landmarks68"), FILE)
        names, points = arrays["name"].astype(str), np.float64(arrays["landmarks68"])
    if names.ndim != 1 or points.shape != (len(names), 68, 2) or not len(names):
        raise ValueError(f"{path}: name {names.shape}, landmarks68 {points.shape}; {EXPECTED}")
    names = np.array([Path(name).as_posix() for name in names])  # "./a" is "a"
    given_names, times = np.unique(names, return_counts=True)
    if times.max() > 1:
        raise ValueError(f"{path}: {given_names[times.argmax()]} is in 'name' more than once")
    is_given = np.isfinite(points).all(axis=-1)
    is_none = np.isnan(points).all(axis=-1)
    if (odd := np.flatnonzero(~(is_given | is_none).all(axis=1))).size:
        raise ValueError(
            f"{path}: {names[odd[0]]} has a point that is neither two finite numbers nor NaN"
        )
    given = is_given.sum(axis=1)
    if (few := np.flatnonzero(given < MIN_POINTS)).size:
        raise ValueError(
            f"{path}: {names[few[0]]} has {counted(given[few[0]], 'point')}; {MIN_POINTS} needed"
        )
    return names, points


def point_errors(
    predicted: np.ndarray, given: np.ndarray, side: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Errors of (M, 68, 2 or more) landmarks against (M, 68, 2), NaN where not given, px.

    Args:
        side: (M,) px, of the box; None for that of the predicted landmarks.

    Returns:
        (M,) mean distance, % of the root of the area of the box; (M, 2) mean of predicted less
        given points, px: a constant offset is a convention of the annotation.
    """
    away = np.float64(predicted)[..., :2] - given
    distance = np.nanmean(np.linalg.norm(away, axis=-1), axis=1)
    side = box_side(predicted) if side is None else side
    return 100 * distance / side, np.nanmean(away, axis=1)


def shifted_to_annotated_sites(
    landmarks: np.ndarray, pose: np.ndarray, given: np.ndarray, person: np.ndarray
) -> np.ndarray:
    """Predicted landmarks moved to the sites that an annotation marks.

    Each landmark is moved by one 3D offset in the model frame, the same for all photos and views,
    fitted with ``site_offset`` to the *other* people's photos, in ``FOLDS`` folds. Large photos
    count more than small ones, since the residuals are in pixels.

    Args:
        landmarks: (M, 68, 2 or 3) px. pose: (M, 3, 4) image_from_model, px per mm.
        given: (M, 68, 2) px, NaN where not given. person: (M,).

    Returns:
        (M, 68, 2) float64 px; NaN if all photos with that landmark are of people in one fold.
    """
    camera, known = pose[:, :2, :3], np.isfinite(given).all(axis=-1)
    moved, away = np.array(landmarks[..., :2], np.float64), given - landmarks[..., :2]
    fold = np.unique(person, return_inverse=True)[1] % FOLDS
    for out in np.unique(fold):
        own = fold == out
        for i in np.flatnonzero(known[own].any(axis=0)):
            seen = known[:, i] & ~own
            offset = site_offset(camera, away[:, i], seen) if seen.any() else np.full(3, np.nan)
            moved[own, i] += camera[own] @ offset
    return moved


def _numbers(errors: np.ndarray, offsets: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """Weighted means of the photos' (N, 2) errors and (N, 2) offsets, see ``_errors_twice``."""
    there, sited = ~np.isnan(errors).T
    return {
        "error_percent": weighted_mean(errors[there, 0], weights[there]),
        "annotated_sites_error_percent": weighted_mean(errors[sited, 1], weights[sited]),
        "coverage_percent": 100 * weighted_mean(there, weights),
        "offset_x_px": weighted_mean(offsets[there, 0], weights[there]),
        "offset_y_px": weighted_mean(offsets[there, 1], weights[there]),
    }


def _rows(kinds: list[str]) -> tuple[Row, ...]:
    return tuple(
        row
        for kind in kinds
        for row in (
            (f"{kind}.error_percent", f"{kind}: given points, error", "%"),
            (
                f"{kind}.annotated_sites_error_percent",
                f"{kind}: given points, error at the annotated sites",
                "%",
            ),
            (f"{kind}.coverage_percent", f"{kind}: photos with a face found", "%"),
            (f"{kind}.offset_x_px", f"{kind}: predicted less given, x", "px"),
            (f"{kind}.offset_y_px", f"{kind}: predicted less given, y", "px"),
            (f"{kind}.explained", f"{kind}: points explained by the person's shape", ""),
            (f"{kind}.explained_bound", f"{kind}: points explained, bound", ""),
        )
    )
