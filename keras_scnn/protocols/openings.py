"""Do eyes that are shut in the photo shut in the face? Openings against manual landmarks."""

from __future__ import annotations

import csv
import functools
import io
import os
from pathlib import Path

import numpy as np

from keras_scnn.data.photo_source import LabeledPhoto
from keras_scnn.data.sources.pts import PtsFolder
from keras_scnn.evaluation import with_intervals
from keras_scnn.evaluation.bootstrap import RESAMPLES, weighted_mean
from keras_scnn.evaluation.openings import openings
from keras_scnn.evaluation.report import Row
from keras_scnn.evaluation.scalars import scalar_agreement
from keras_scnn.evaluation.verification import area_under, rank_pairs, rates
from keras_scnn.geometry.landmarks68 import EYES
from keras_scnn.photos.cropping import box_from_landmarks
from keras_scnn.photos.files import is_photo
from keras_scnn.protocols.photo_predictions import PhotoPredictions, PhotoPredictor
from keras_scnn.protocols.yardsticks import Yardstick, bootstrap_note
from keras_scnn.storage.guard import reading
from keras_scnn.storage.text import counted, utf8_text

SHUT = 0.08  # opening up to which an eye counts as shut
OPEN_MOUTH = 0.3  # opening of the inner lips from which a mouth counts as open
MAX_OFF = 0.5  # of the crop's side: a face found farther from the annotated one is a different face


def evaluate_openings(
    predictor: PhotoPredictor,
    folder: str | os.PathLike,
    shut_file: str | os.PathLike,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Yardstick:
    """Openings of eyes and mouth, lid distance over width, against manual landmarks.

    Args:
        predictor: of the preset.
        folder: photos with a .pts file of 68 landmarks beside each.
        shut_file: CSV with a column 'photo' (names without suffix): photos with both eyes shut,
            not used in training. All others are evaluated as photos with open eyes.
        resamples, seed: of the bootstrap over photos.

    Raises:
        FileNotFoundError: the folder, the file or a photo of it is missing.
        ValueError: the file has no column 'photo' or no rows, or lists all photos or none, or no
            .pts file can be read.
    """
    source = PtsFolder(folder)
    photos = [name for name in source.names() if is_photo(name)]
    is_listed = _find_listed(folder, photos, shut_file)
    labeled, damaged = _read_labels(source, photos)
    shut = _shut(labeled, is_listed, shut_file)
    paths = [Path(folder) / photo.name for photo in labeled]
    annotated = np.stack([photo.landmarks[:, :2] for photo in labeled])
    predictions = predictor(paths)
    rows = _own_face(predictions, annotated)
    hand, predicted = openings(annotated), openings(predictions.landmarks[rows])
    there = rows >= 0
    summary = functools.partial(_summary, hand, predicted, shut, there)
    values, intervals = with_intervals(summary, np.arange(len(paths)), resamples, seed)
    strangers = predictions.kept[rows[predictions.kept] < 0]
    lost = [f"{paths[i]}: the face found is not the annotated one" for i in strangers]
    left_out = (*damaged, *predictions.left_out, *lost)
    alone = set(source.names()) - set(photos)
    passed_over = tuple(sorted({*source.passed_over(shut_file), *alone}))
    notes = _notes(shut, there, resamples)
    return Yardstick(values, ROWS, intervals, notes, left_out, passed_over)


def _summary(
    hand: dict, predicted: dict, shut: np.ndarray, there: np.ndarray, weights: np.ndarray
) -> dict:
    """The measures for photo weights (n,); photos not ``there`` count for the coverage only."""
    coverage = 100 * weighted_mean(there, weights)
    weights = np.where(there, weights, 0.0)
    return {
        "coverage_percent": coverage,
        "shut": _eyes(hand, predicted, weights * shut),
        "open": _eyes(hand, predicted, weights * ~shut),
        "eyes": _eyes(hand, predicted, weights)
        | _detected(hand, predicted, weights, tuple(EYES), SHUT),
        "mouth": _agreement(hand["mouth"], predicted["mouth"], weights)
        | _detected(hand, predicted, weights, ("mouth",), OPEN_MOUTH),
    }


def _find_listed(
    folder: str | os.PathLike, photos: list[str], shut_file: str | os.PathLike
) -> dict[str, bool]:
    """For each photo, whether the file lists it; errors as ``evaluate_openings``."""
    listed = read_shut_photos(shut_file)
    stems = {name: Path(name).with_suffix("").as_posix() for name in photos}
    if missing := sorted(listed - set(stems.values())):
        if missing[0] in stems:
            raise ValueError(f"{shut_file}: '{missing[0]}' has a suffix; give names without it")
        raise FileNotFoundError(f"{Path(folder) / missing[0]}: no such photo; {shut_file} names it")
    return {name: stem in listed for name, stem in stems.items()}


def _shut(
    labeled: list[LabeledPhoto], is_listed: dict[str, bool], shut_file: str | os.PathLike
) -> np.ndarray:
    """(n,) bool; a ValueError unless both shut and open eyes occur."""
    shut = np.array([is_listed[photo.name] for photo in labeled])
    if shut.all():
        raise ValueError(
            f"{shut_file} names all {counted(len(shut), 'photo')} that can be read; some with open "
            "eyes are needed"
        )
    if not shut.any():
        raise ValueError(
            f"{shut_file} names none of the {counted(len(shut), 'photo')} that can be read"
        )
    return shut


def _read_labels(source: PtsFolder, photos: list[str]) -> tuple[list[LabeledPhoto], list[str]]:
    """The photos whose .pts file can be read, and why the others' cannot."""
    labeled, damaged = [], []
    for name in photos:
        try:
            photo = source.load(name)
            _check_corners(source.folder / name, photo.landmarks)
            labeled.append(photo)
        except (OSError, ValueError) as error:
            damaged.append(str(error))
    if not labeled:
        raise ValueError(
            f"none of {counted(len(photos), 'photo')} has readable landmarks; the first: "
            f"{damaged[0]}"
        )
    return labeled, damaged


def _check_corners(path: Path, landmarks: np.ndarray) -> None:
    """Raise a ValueError if an eye or the mouth has width 0, so that its opening is undefined."""
    with np.errstate(all="ignore"):
        opened = openings(landmarks)
    if odd := [name for name, opening in opened.items() if not np.isfinite(opening)]:
        what = "mouth" if odd[0] == "mouth" else f"{odd[0]} eye"
        raise ValueError(f"{path}: both corners of its {what} are in one place in the .pts file")


def read_shut_photos(file: str | os.PathLike) -> set[str]:
    """The column 'photo' of a CSV file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is no such column, or no row.
    """
    if not Path(file).is_file():
        raise FileNotFoundError(f"{file}: no such file; expected CSV with a column 'photo'")
    what = "CSV with a column 'photo'"
    with reading(file, what):
        reader = csv.DictReader(io.StringIO(utf8_text(file), newline=""))
        if "photo" not in (reader.fieldnames or ()):
            raise ValueError(f"{file}: no column 'photo', the names without suffix")
        names = {(row["photo"] or "").strip() for row in reader} - {""}
    if not names:
        raise ValueError(f"{file}: no photos below the header")
    return names


def _own_face(predictions: PhotoPredictions, annotated: np.ndarray) -> np.ndarray:
    """(N,) rows of the predictions; -1 where no face, or another one, was found."""
    rows = predictions.position
    for i, points in zip(predictions.kept, predictions.landmarks, strict=True):
        box, found = box_from_landmarks(annotated[i]), box_from_landmarks(points)
        away = np.hypot(*(box.as_array() - found.as_array()).reshape(2, 2).mean(axis=0))
        if away > MAX_OFF * box.width:
            rows[i] = -1
    return rows


def _eyes(hand: dict, predicted: dict, weights: np.ndarray) -> dict[str, float]:
    """Both eyes of each photo as two numbers."""
    return _agreement(
        np.concatenate([hand[eye] for eye in EYES]),
        np.concatenate([predicted[eye] for eye in EYES]),
        np.tile(weights, len(EYES)),
    )


def _agreement(hand: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """Means, mean absolute error, slope of predicted on manual openings, correlation."""
    return {
        "hand": weighted_mean(hand, weights),
        "predicted": weighted_mean(predicted, weights),
        **scalar_agreement(hand, predicted, weights),
    }


def _detected(hand, predicted, weights: np.ndarray, names: tuple[str, ...], limit: float) -> dict:
    """AUC of distinguishing manual openings up to ``limit`` from wider ones by prediction."""
    x, y = (np.concatenate([each[name] for name in names]) for each in (hand, predicted))
    narrow = x <= limit
    if narrow.all() or not narrow.any():
        return {"auc": float("nan")}
    ranked = rank_pairs(y, narrow, fold=np.arange(len(y)) % 2)  # folds have no part in the AUC
    return {"auc": area_under(*rates(ranked, np.tile(weights, len(names))[ranked.order]))}


def _rows(path: str, label: str) -> list[Row]:
    return [
        (f"{path}.hand", f"{label}: opening by hand, mean", ""),
        (f"{path}.predicted", f"{label}: opening predicted, mean", ""),
        (f"{path}.error", f"{label}: error, mean", ""),
        (f"{path}.constant_error", f"{label}: error of the best constant", ""),
        (f"{path}.slope", f"{label}: slope, predicted on hand", ""),
        (f"{path}.correlation", f"{label}: correlation", ""),
    ]


ROWS: tuple[Row, ...] = (
    ("coverage_percent", "photos in which the annotated face was found", "%"),
    *_rows("shut", "shut eyes"),
    *_rows("open", "open eyes"),
    *_rows("eyes", "all eyes"),
    ("eyes.auc", f"eyes: shut (up to {SHUT:g}) or not, AUC", ""),
    *_rows("mouth", "mouths"),
    ("mouth.auc", f"mouths: open (above {OPEN_MOUTH:g}) or not, AUC", ""),
)


def _notes(shut: np.ndarray, there: np.ndarray, resamples: int) -> tuple[str, ...]:
    return (
        f"openings: {counted((shut & there).sum(), 'photo')} with shut eyes of {shut.sum()}, "
        f"{(~shut & there).sum()} others of {(~shut).sum()}; mean distance of upper and lower lid "
        "(inner lips) over the width, in the image, both eyes",
        "baseline: the best constant, whose error is listed, has slope 0 and AUC 0.5",
        *bootstrap_note(resamples, "photos"),
    )
