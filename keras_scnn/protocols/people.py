"""Verification and retrieval on photos of people, with faces detected and cropped here."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_scnn.data.sources.photo_lists import ListedPairs, people_photos, read_pairs
from keras_scnn.evaluation import Pairs, distinct_pairs, with_intervals
from keras_scnn.evaluation.bootstrap import RESAMPLES
from keras_scnn.evaluation.pairs import check_people
from keras_scnn.evaluation.verification import FOLDS, check_folds
from keras_scnn.protocols.identity import (
    IdentityResults,
    calibrate_evaluators,
    identity_evaluators,
    identity_results,
)
from keras_scnn.protocols.listed_pairs import pairs_of
from keras_scnn.protocols.photo_predictions import PhotoPredictions, PhotoPredictor
from keras_scnn.protocols.yardsticks import bootstrap_note
from keras_scnn.storage.text import counted

MIN_PAIRS = FOLDS  # of each kind


@dataclass(frozen=True, kw_only=True)
class PeopleResults(IdentityResults):
    """How consistently photos of one person give one face.

    Attributes:
        left_out: photos that could not be read or show no face, with reasons.
        passed_over: files of the folder that are not photos of a person.
    """

    left_out: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()


def evaluate_people(
    predictor: PhotoPredictor,
    folder: str | os.PathLike,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PeopleResults:
    """Verification and retrieval on a people folder: one sub-folder per person, any photos.

    Args:
        predictor: of the preset.
        folder: see ``data.sources.photo_lists.people_photos``.
        resamples, seed: of the bootstrap over people.

    Raises:
        FileNotFoundError: the folder is missing.
        ValueError: there are too few people or photos.
    """
    photos = people_photos(folder)
    check_people(photos.person)  # before all photos are measured
    faces = predictor(photos.paths)
    person = photos.person[faces.kept]
    try:
        pairs = distinct_pairs(person)
        check_folds(pairs.same)
    except ValueError as error:
        raise ValueError(f"{error}{_first_reason(faces)}") from error
    folds = min(FOLDS, len(pairs.same) // 2)
    how = f"{len(pairs.same)} pairs, half of one person, at most 100 of each; {folds} random folds"
    results = _results(predictor, faces, person, pairs, True, how, resamples, seed)
    return dataclasses.replace(results, passed_over=photos.passed_over)


def evaluate_pairs(
    predictor: PhotoPredictor,
    file: str | os.PathLike,
    photos: str | os.PathLike,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PeopleResults:
    """Verification on the pairs and folds of a file in LFW's format; no retrieval.

    Args:
        predictor: of the preset.
        file: see ``data.sources.photo_lists.read_pairs``.
        photos: folder of the photos; missing photos are listed as left out.
        resamples, seed: of the bootstrap over people.

    Raises:
        FileNotFoundError: the file or the folder is missing.
        ValueError: the file is in another format, or too few pairs can be measured.
    """
    listed = read_pairs(file, photos)
    _check_listed(file, photos, listed)
    faces = predictor(listed.photos.paths, missing_ok=True)
    pairs, lost = _measured_pairs(listed, faces)
    person = listed.photos.person[faces.kept]
    folds = f"{FOLDS} random folds"
    if pairs.fold is not None:
        folds = f"{len(np.unique(pairs.fold))} folds of the file"
    how = f"{len(pairs.same)} pairs of {Path(file).name}, {folds}; {counted(lost, 'pair')} left out"
    results = _results(predictor, faces, person, pairs, False, how, resamples, seed)
    return dataclasses.replace(results, passed_over=listed.photos.passed_over)


def _check_listed(file: str | os.PathLike, photos: str | os.PathLike, listed: ListedPairs) -> None:
    """Raise a ValueError for fewer than ``MIN_PAIRS`` pairs of a kind whose photos exist."""
    pairs, exists = pairs_of(listed), np.array([*map(os.path.isfile, listed.photos.paths)])
    one, two = _counts(pairs, exists[pairs.first] & exists[pairs.second])
    if min(one, two) < MIN_PAIRS:
        raise ValueError(
            f"{file}: {photos} has both photos of {counted(one, 'pair')} of one person and {two} "
            f"of two, of {pairs.same.sum()} and {(~pairs.same).sum()}; {MIN_PAIRS} of each are "
            "needed"
        )


def _counts(pairs: Pairs, chosen: np.ndarray) -> tuple[int, int]:
    """Numbers of the chosen pairs, (P,) bool, of one person and of two."""
    return int((pairs.same & chosen).sum()), int((~pairs.same & chosen).sum())


def _measured_pairs(listed: ListedPairs, faces: PhotoPredictions) -> tuple[Pairs, int]:
    """The pairs whose photos were both measured, and the number of the others."""
    pairs = pairs_of(listed)
    first, second = faces.position[pairs.first], faces.position[pairs.second]
    there = (first >= 0) & (second >= 0)
    one, two = _counts(pairs, there)
    if min(one, two) < MIN_PAIRS:
        raise ValueError(
            f"both photos can be measured for {counted(one, 'pair')} of one person and {two} of "
            f"two; {MIN_PAIRS} of each are needed{_first_reason(faces)}"
        )
    fold = None if pairs.fold is None else pairs.fold[there]
    if fold is not None and len(np.unique(fold)) < 2:
        raise ValueError(
            "all pairs of which both photos can be measured are of one fold; two are needed"
            + _first_reason(faces)
        )
    return Pairs(first[there], second[there], pairs.same[there], fold), int((~there).sum())


def _first_reason(faces: PhotoPredictions) -> str:
    """Why the first of the photos left out has no face, to end a message with; '' for none."""
    return "".join(f"; left out: {reason}" for reason in faces.left_out[:1])


def _results(
    predictor: PhotoPredictor,
    faces: PhotoPredictions,
    person: np.ndarray,
    pairs: Pairs,
    retrieval: bool,
    how: str,
    resamples: int,
    seed: int,
) -> PeopleResults:
    """``person`` (n,) is that of each measured photo; ``pairs`` are pairs of these photos."""
    gallery = person if retrieval else None
    evaluators = identity_evaluators(
        predictor.preset, faces.parameters.identity, faces.features, pairs, gallery
    )
    results, intervals = with_intervals(
        lambda w: identity_results(evaluators, w), person, resamples, seed
    )
    calibration, reliable = calibrate_evaluators(evaluators, pairs, person)
    roc = {kind: evaluator.roc() for kind, evaluator in evaluators.items()}
    notes = (
        f"people: {len(person)} photos of {len(np.unique(person))} people, largest face of each, "
        "standard crop by the detector, then by the first pass's landmarks",
        how,
        "shapes by the root mean square distance of the neutral vertices (geometry alone)",
        *bootstrap_note(resamples),
    )
    return PeopleResults(
        **results,
        calibration=calibration,
        intervals=intervals,
        curves={"roc": roc, "reliability": reliable},
        notes=notes,
        left_out=faces.left_out,
    )
