"""Verification on pairs files with folds by person: by geometry and by feature.

Two photos of one person should give one face, whatever the pose. ``mm`` is the root mean square
distance of the neutral vertices; ``visible`` the Mahalanobis distance in which differences far
below 0.1 mm hardly count (``shape_distance.visible_coordinates``); ``scaled`` the Mahalanobis
distance without that floor; ``feature`` the cosine of the features. Chance is 50 %.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from keras_scnn.data.sources.fold_pairs import read_fold_pairs
from keras_scnn.data.sources.people_groups import groups_of_photos, read_groups
from keras_scnn.data.sources.photo_lists import ListedPairs
from keras_scnn.evaluation import Pairs, distance_ratio, with_intervals
from keras_scnn.evaluation.bootstrap import RESAMPLES, weighted_mean
from keras_scnn.evaluation.report import Row
from keras_scnn.evaluation.verification import RankedPairs, rank_pairs, summarize_pairs
from keras_scnn.protocols.groups import NOTE, group_rows, group_summary, small_groups
from keras_scnn.protocols.photo_predictions import PhotoPredictions, PhotoPredictor
from keras_scnn.protocols.yardsticks import Yardstick, bootstrap_note
from keras_scnn.shape_distance import (
    mahalanobis_coordinates,
    shape_coordinates,
    visible_coordinates,
)
from keras_scnn.storage.text import counted

KINDS = ("mm", "visible", "scaled", "feature")
CHANCE_PERCENT = 50.0


def evaluate_listed_pairs(
    predictor: PhotoPredictor,
    files: Sequence[str | os.PathLike],
    root: str | os.PathLike,
    resamples: int = RESAMPLES,
    seed: int = 0,
    groups: str | os.PathLike | None = None,
) -> Yardstick:
    """Verification on pairs files; each photo is reconstructed once.

    Args:
        predictor: of the preset.
        files: see ``data.sources.fold_pairs``; results are named by the files' stems.
        root: the photos' folder.
        resamples, seed: of the bootstrap over people.
        groups: file of ``data.sources.people_groups``, to report accuracies by group too.

    Raises:
        FileNotFoundError, ValueError: see ``read_fold_pairs`` and ``read_groups``; or two files
            have the same name, or ``groups`` has none of their people.
    """
    known = read_groups(groups) if groups else {}
    stems = _distinct_stems(files)
    listed = [read_fold_pairs(file, root) for file in files]
    paths = sorted({path for each in listed for path in each.photos.paths})
    if known and not any((of != "").any() for of in groups_of_photos(known, paths).values()):
        raise ValueError(
            f"{groups}: has a group for none of the people in {', '.join(map(str, files))}; its "
            f"column 'person' must have the photos' folders, such as {paths[0].parent.name}"
        )
    predictions = predictor(paths)
    row_of = dict(zip(paths, predictions.position, strict=True))
    vectors = identity_vectors(predictor, predictions)
    values: dict[str, dict] = {}
    intervals: dict[str, tuple[float, float]] = {}
    notes = []
    for stem, each in zip(stems, listed, strict=True):
        rows = np.array([row_of[path] for path in each.photos.paths])
        of_photos = groups_of_photos(known, each.photos.paths)
        notes += [
            f"{stem}: {name} is known for {(of != '').sum()} of {counted(len(of), 'photo')}"
            for name, of in of_photos.items()
        ]
        if small := small_groups(pairs_of(each), of_photos):
            notes.append(f"{stem}: without a row, because of too few pairs: {', '.join(small)}")
        values[stem], ends = _verified(each, rows, vectors, of_photos, resamples, seed)
        intervals |= {f"{stem}.{path}": pair for path, pair in ends.items()}
        notes.append(_note(stem, each, rows))
    return Yardstick(
        values,
        tuple(row for stem in stems for row in _rows(stem, values[stem]["by"])),
        intervals,
        (*notes, *_method(), *(NOTE,) * bool(known), *bootstrap_note(resamples)),
        predictions.left_out,
    )


def _distinct_stems(files: Sequence[str | os.PathLike]) -> list[str]:
    """The names of the files, by which their results are named."""
    stems = [Path(file).stem for file in files]
    if not stems or len(set(stems)) < len(stems):
        raise ValueError(f"{', '.join(stems) or 'no pairs files'}: give files of different names")
    return stems


def identity_vectors(
    predictor: PhotoPredictor, predictions: PhotoPredictions
) -> dict[str, np.ndarray]:
    """(n, D) vectors of each kind that the preset has, to be compared by Euclidean distance.

    Since features have unit length, their distance rises as their cosine falls.
    """
    coordinates = shape_coordinates(predictions.face_model, predictions.parameters.identity)
    vectors = {"mm": coordinates}
    if (covariance := predictor.preset.within_person_covariance) is not None:
        vectors["visible"] = visible_coordinates(coordinates, covariance)
        vectors["scaled"] = mahalanobis_coordinates(coordinates, covariance)
    if predictions.features is not None:
        vectors["feature"] = np.float64(predictions.features)
    return vectors


def _verified(
    listed: ListedPairs,
    rows: np.ndarray,
    vectors: dict,
    groups: dict[str, np.ndarray],
    resamples: int,
    seed: int,
) -> tuple[dict, dict]:
    """Numbers of one file, and their intervals; ``rows`` (n,) of its photos, -1 without a face."""
    person, pairs = listed.photos.person, pairs_of(listed)
    distances = {kind: pair_distances(v, rows, pairs) for kind, v in vectors.items()}
    ranked = {
        kind: rank_with_missing(distance, pairs.same, pairs.fold)
        for kind, distance in distances.items()
    }
    there = ~np.isnan(distances["mm"])
    shift = _shift(vectors["mm"], rows, pairs)
    by_group = group_summary(ranked, pairs, groups)

    def summary(weights: np.ndarray) -> dict:
        """All numbers; ``weights`` (n,) is how often each photo counts."""
        of_pairs = pairs.weights(weights)
        mm = np.where(there, distances["mm"], 0), pairs.same, of_pairs * there
        return {
            "coverage_percent": 100 * weighted_mean(there, of_pairs),
            **{kind: _numbers(ranked[kind], of_pairs) for kind in ranked},
            **_apart(*mm),
            "shift_mm": shift(of_pairs),
            "by": by_group(of_pairs),
        }

    return with_intervals(summary, person, resamples, seed)


def pairs_of(listed: ListedPairs) -> Pairs:
    """The pairs of a list."""
    person, first, second = listed.photos.person, listed.first, listed.second
    return Pairs(first, second, person[first] == person[second], listed.fold)


def pair_distances(vectors: np.ndarray, rows: np.ndarray, pairs: Pairs) -> np.ndarray:
    """(P,) Euclidean distances; NaN if a photo has no vector (``rows`` -1)."""
    first, second = rows[pairs.first], rows[pairs.second]
    distance = np.linalg.norm(vectors[first] - vectors[second], axis=-1)
    return np.where((first >= 0) & (second >= 0), distance, np.nan)


def rank_with_missing(
    distance: np.ndarray, same: np.ndarray, fold: np.ndarray | None
) -> RankedPairs:
    """Rank pairs (P,), of which those without a distance (NaN) are wrong at any threshold.

    No threshold refuses all pairs, or accepts all, as long as some are missing: a missing pair of
    two people would be refused, and one of one person accepted, which would be right.

    Raises:
        ValueError: as ``missing_pairs_as_errors`` and ``rank_pairs``.
    """
    ranked = rank_pairs(missing_pairs_as_errors(distance, same), same, fold=fold)
    missing = np.isnan(distance)
    least, most = (missing & ~same).sum(), len(same) - (missing & same).sum()
    return replace(ranked, is_threshold=(ranked.cuts >= least) & (ranked.cuts <= most))


def missing_pairs_as_errors(distance: np.ndarray, same: np.ndarray) -> np.ndarray:
    """Distances (P,) with NaN replaced: wrong at any threshold between the known ones.

    A pair of one person becomes farther apart than all others, a pair of two people closer.

    Raises:
        ValueError: no pair has a distance.
    """
    known = ~np.isnan(distance)
    if not known.any():
        raise ValueError(f"in none of {counted(len(distance), 'pair')} do both photos show a face")
    wrong = np.where(same, distance[known].max() + 1, distance[known].min() - 1)
    return np.where(known, distance, wrong)


def _numbers(ranked: RankedPairs, weights: np.ndarray) -> dict[str, float]:
    summary = summarize_pairs(ranked, weights)
    return {
        "accuracy_percent": summary.accuracy_percent,
        "auc": summary.auc,
        "eer_percent": summary.eer_percent,
    }


def _apart(distance: np.ndarray, same: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """Mean distances of shapes in mm within and between people, and their ratio; NaN for none."""
    return {
        "within_mm": weighted_mean(distance[same], weights[same]),
        "between_mm": weighted_mean(distance[~same], weights[~same]),
        "ratio": distance_ratio(distance, same, weights),
    }


def _shift(coordinates: np.ndarray, rows: np.ndarray, pairs: Pairs):
    """Distance from the mean shape of first photos to that of second ones, mm, by pair weights.

    Over pairs of one person: the change that all people share when the first photo is frontal and
    the second a profile. About 0 if the order of a pair has no meaning.
    """
    first, second = rows[pairs.first], rows[pairs.second]
    chosen = pairs.same & (first >= 0) & (second >= 0)
    change = coordinates[second[chosen]] - coordinates[first[chosen]]

    def of(weights: np.ndarray) -> float:
        total = weights[chosen].sum()
        return float(np.linalg.norm(weights[chosen] @ change / total)) if total else float("nan")

    return of


def _rows(stem: str, by_group: dict) -> list[Row]:
    rows = [(f"{stem}.coverage_percent", f"{stem}: pairs with both faces found", "%")]
    for kind in KINDS:
        name = f"{stem}: same person? by {kind}"
        rows += [
            (f"{stem}.{kind}.accuracy_percent", f"{name}, accuracy", "%"),
            (f"{stem}.{kind}.auc", f"{name}, AUC", ""),
        ]
    return [
        *rows,
        (f"{stem}.within_mm", f"{stem}: shapes of one person apart", "mm"),
        (f"{stem}.between_mm", f"{stem}: shapes of two people apart", "mm"),
        (f"{stem}.ratio", f"{stem}: within / between people", ""),
        (f"{stem}.shift_mm", f"{stem}: mean shape, second photos against first ones", "mm"),
        *group_rows(stem, by_group),
    ]


def _note(stem: str, listed: ListedPairs, rows: np.ndarray) -> str:
    assert listed.fold is not None  # see ``read_fold_pairs``
    people, folds = len(np.unique(listed.photos.person)), len(np.unique(listed.fold))
    return (
        f"{stem}: {len(listed.first)} pairs, {len(rows)} photos of {people} people, {folds} folds "
        f"by person; no face measured in {counted(int((rows < 0).sum()), 'photo')}"
    )


def _method() -> tuple[str, ...]:
    return (
        "the product's own detector and crops, two passes; a pair counts as wrong if no face is "
        f"found in one of its photos; chance {CHANCE_PERCENT:g} %, AUC 0.5, within / between 1",
        "mm: root mean square distance of neutral vertices; visible: Mahalanobis with a floor of "
        "0.1 mm in each direction; scaled: without that floor; feature: cosine",
    )
