"""Verification and retrieval on photos of people, whose faces this library detects and crops."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from keras_scnn.data.sources.photo_lists import ListedPairs, people_photos, read_pairs
from keras_scnn.evaluation import (
    Pairs,
    Retrieval,
    Verification,
    distinct_pairs,
    with_intervals,
)
from keras_scnn.evaluation.bootstrap import RESAMPLES
from keras_scnn.io import read_image
from keras_scnn.models import Preset, load_preset
from keras_scnn.photos.detection import LargestFaceDetector
from keras_scnn.protocols.identity import (
    calibrate_evaluators,
    identity_evaluators,
    identity_results,
)
from keras_scnn.reconstruction.faces import Reconstruction, features_of
from keras_scnn.reconstruction.reconstructor import Reconstructor

MIN_PAIRS = 10


@dataclass(frozen=True)
class PeopleResults:
    """How well one person's photos give one face; see ``RecordResults`` for the numbers.

    Attributes:
        left_out: photos that could not be read or show no face, and why.
    """

    shape_ratio: float
    shape_verification: Verification
    shape_retrieval: Retrieval | None
    feature_ratio: float | None
    feature_verification: Verification | None
    feature_retrieval: Retrieval | None
    scaled_shape_ratio: float | None = None
    scaled_shape_verification: Verification | None = None
    scaled_shape_retrieval: Retrieval | None = None
    calibration: dict | None = None
    intervals: dict = field(default_factory=dict)
    curves: dict = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class MeasuredPhotos:
    """Predictions for the photos that could be measured.

    Attributes:
        kept: (n,) positions in the list of photos.
        identity: (n, K) coefficients.
        features: (n, F), or None.
        left_out: why the others are missing.
    """

    kept: np.ndarray
    identity: np.ndarray
    features: np.ndarray | None
    left_out: tuple[str, ...]


def measure_photos(
    preset: Preset, paths: tuple[Path, ...], find_face: LargestFaceDetector | None = None
) -> MeasuredPhotos:
    """Reconstruct the largest face of each photo.

    Args:
        preset: the network.
        paths: of the photos.
        find_face: from a photo to a box; None for ``LargestFaceDetector()``.

    Raises:
        FileNotFoundError: the face detector's package is missing.
        ValueError: no photo can be measured.
    """
    find_face, reconstructor = find_face or LargestFaceDetector(), Reconstructor(preset)
    kept, faces, left_out = [], [], []
    for i, path in enumerate(tqdm(paths, desc="measuring photos", leave=False, delay=1)):
        try:
            faces.append(_measure(reconstructor, find_face, path))
            kept.append(i)
        except (OSError, ValueError) as error:
            left_out.append(str(error))
    if not kept:
        raise ValueError(f"none of {len(paths)} photos can be measured; the first: {left_out[0]}")
    identity = np.stack([face.parameters.identity for face in faces])
    return MeasuredPhotos(np.array(kept), identity, features_of(faces), tuple(left_out))


def _measure(
    reconstructor: Reconstructor, find_face: LargestFaceDetector, path: Path
) -> Reconstruction:
    image = read_image(path)
    try:
        box = find_face(image)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return reconstructor.reconstruct_boxes(image, [box])[0]


def evaluate_people(
    preset: Preset | str | os.PathLike,
    folder: str | os.PathLike,
    find_face: LargestFaceDetector | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PeopleResults:
    """Verification and retrieval on a people folder: one sub-folder a person, any photos.

    Args:
        preset: a preset, or its name or folder.
        folder: see ``data.sources.photo_lists.people_photos``.
        find_face: see ``measure_photos``.
        resamples, seed: of the bootstrap over people.

    Raises:
        FileNotFoundError: the folder is missing.
        ValueError: there are too few people or photos.
    """
    preset = preset if isinstance(preset, Preset) else load_preset(preset)
    photos = people_photos(folder)
    measured = measure_photos(preset, photos.paths, find_face)
    person = photos.person[measured.kept]
    pairs = distinct_pairs(person)
    how = f"{len(pairs.same)} pairs, half of one person, at most 100 of each; 10 random folds"
    return _results(preset, measured, person, pairs, person, how, resamples, seed)


def evaluate_pairs(
    preset: Preset | str | os.PathLike,
    file: str | os.PathLike,
    photos: str | os.PathLike,
    find_face: LargestFaceDetector | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PeopleResults:
    """Verification on the pairs of a file in LFW's format, in its folds; no retrieval.

    Args:
        preset: a preset, or its name or folder.
        file: see ``data.sources.photo_lists.read_pairs``.
        photos: folder of the photos.
        find_face: see ``measure_photos``.
        resamples, seed: of the bootstrap over people.

    Raises:
        FileNotFoundError: the file or the folder is missing.
        ValueError: the file is in another format, or too few pairs can be measured.
    """
    preset = preset if isinstance(preset, Preset) else load_preset(preset)
    listed = read_pairs(file, photos)
    measured = measure_photos(preset, listed.photos.paths, find_face)
    pairs, lost = _measured_pairs(listed, measured)
    person = listed.photos.person[measured.kept]
    folds = "10 random folds" if pairs.fold is None else f"{pairs.fold.max() + 1} folds of the file"
    how = f"{len(pairs.same)} pairs of {Path(file).name}, {folds}; {lost} pairs left out"
    return _results(preset, measured, person, pairs, None, how, resamples, seed)


def _measured_pairs(listed: ListedPairs, measured: MeasuredPhotos) -> tuple[Pairs, int]:
    """The pairs of which both photos were measured, and how many were not."""
    position = np.full(len(listed.photos.paths), -1)
    position[measured.kept] = np.arange(len(measured.kept))
    first, second = position[listed.first], position[listed.second]
    there = (first >= 0) & (second >= 0)
    person = listed.photos.person
    same = person[listed.first] == person[listed.second]
    if min((same & there).sum(), (~same & there).sum()) < MIN_PAIRS:
        raise ValueError(
            f"of {(same & there).sum()} pairs of one person and {(~same & there).sum()} of two "
            f"both photos can be measured; {MIN_PAIRS} of each are needed"
            + "".join(f"; {reason}" for reason in measured.left_out[:1])
        )
    fold = None if listed.fold is None else listed.fold[there]
    return Pairs(first[there], second[there], same[there], fold), int((~there).sum())


def _results(
    preset: Preset,
    measured: MeasuredPhotos,
    person: np.ndarray,
    pairs: Pairs,
    gallery: np.ndarray | None,
    how: str,
    resamples: int,
    seed: int,
) -> PeopleResults:
    evaluators = identity_evaluators(preset, measured.identity, measured.features, pairs, gallery)
    results, intervals = with_intervals(
        lambda w: identity_results(evaluators, w), person, resamples, seed
    )
    notes = [
        f"people: {len(person)} photos of {len(np.unique(person))} people, largest face of each, "
        "standard crop by the detector, then by the first pass's landmarks",
        how,
        "shapes by the root mean square distance of the neutral vertices (geometry alone)",
    ]
    if resamples:
        notes.append(f"[95 % interval of {resamples} bootstrap resamples of the people]")
    calibration, reliable = calibrate_evaluators(evaluators, pairs, person)
    roc = {kind: evaluator.roc() for kind, evaluator in evaluators.items()}
    return PeopleResults(
        **results,
        calibration=calibration,
        intervals=intervals,
        curves={"roc": roc, "reliability": reliable},
        notes=tuple(notes),
        left_out=measured.left_out,
    )
