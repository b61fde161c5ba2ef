"""The protocol for face records, whose true shapes and people are known."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass

import numpy as np

from keras_scnn.data.known_landmarks import known_landmarks
from keras_scnn.data.records import FaceRecords, model_digests, photos_of_each
from keras_scnn.evaluation import (
    IdentityEvaluator,
    LandmarkError,
    Pairs,
    PoseError,
    ShapeError,
    angle_errors,
    draw_pairs,
    normalized_mean_error,
    shape_distances,
    summarize_angles,
    summarize_by_yaw,
    summarize_shapes,
    with_intervals,
)
from keras_scnn.evaluation.bootstrap import RESAMPLES, numbers, weighted_mean
from keras_scnn.evaluation.nme import box_side
from keras_scnn.evaluation.pose import within_limit
from keras_scnn.evaluation.shape import ShapeDistances
from keras_scnn.evaluation.verification import check_folds
from keras_scnn.geometry.camera import euler_from_camera, project
from keras_scnn.models import Preset, load_preset
from keras_scnn.models.inference import Predictions, predict
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import FaceParameters
from keras_scnn.protocols.identity import (
    KINDS,
    IdentityResults,
    calibrate_evaluators,
    identity_evaluators,
    identity_results,
)
from keras_scnn.protocols.yardsticks import bootstrap_note
from keras_scnn.storage.text import counted

VERIFICATION_PAIRS = 4000
CHUNK = 256


@dataclass(frozen=True, kw_only=True)
class RecordResults(IdentityResults):
    """Errors on face records, and identity.

    Attributes:
        landmarks, pose: as in ``PhotoResults``, but measured in the crop.
        shape: of the neutral shape, over the face model's vertices.
        landmarks_3d: including depth, after aligning each face's mean depth with the true one.
        dense_percent, dense_3d_percent: mean error of all vertices over all faces, in % of the
            root of the landmark box's area, 2D and 3D.
    """

    landmarks: LandmarkError
    pose: PoseError
    shape: ShapeError
    landmarks_3d: LandmarkError | None = None
    dense_percent: float | None = None
    dense_3d_percent: float | None = None


def evaluate_records(
    preset: Preset | str | os.PathLike,
    records: FaceRecords,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> RecordResults:
    """Errors on face records, whose people should not be in the training data.

    Args:
        preset: a preset, or its name or folder.
        records: the faces.
        resamples, seed: of the bootstrap over people.

    Raises:
        ValueError: the records' face model, number of parameters or crop size is not the preset's,
            they have too few people to form pairs, a face's landmarks span no area, or no face has
            angles within the limit of ``evaluation.pose_error``.
    """
    preset = preset if isinstance(preset, Preset) else load_preset(preset)
    check_records(preset, records)
    pairs = _pairs(records)
    true = FaceParameters.from_vector(records.parameters, preset.layout)
    euler, landmarks = euler_from_camera(true.pose), known_landmarks(records, preset.face_model)
    within_limit(euler)  # both raise an error before all photos are measured
    box_side(landmarks)
    predicted = predict(preset, np.asarray(records.images))
    yaw, angles = np.rad2deg(euler[:, 1]), angle_errors(predicted.euler, euler)
    errors = _errors(preset.face_model, predicted, true, landmarks)
    shapes = _shapes(preset.face_model, predicted.parameters.identity, true.identity)
    evaluators, calibration, reliable = _identity(preset, predicted, records, pairs)

    def summary(weights: np.ndarray) -> dict:
        """All numbers; ``weights`` (n,) is how often each photo counts."""
        return {
            "landmarks": summarize_by_yaw(errors["error_2d"], yaw, weights),
            "landmarks_3d": summarize_by_yaw(errors["error_3d"], yaw, weights),
            "dense_percent": weighted_mean(errors["dense_2d"], weights),
            "dense_3d_percent": weighted_mean(errors["dense_3d"], weights),
            "pose": summarize_angles(angles, yaw, weights),
            "shape": summarize_shapes(shapes, weights),
            **identity_results(evaluators, weights),
        }

    summarized, intervals = with_intervals(summary, records.either_side(), resamples, seed)
    curves = {name: part.round(4).tolist() for name, part in errors.items()}
    curves |= {"yaw_degrees": yaw.tolist(), "roc": {k: j.roc() for k, j in evaluators.items()}}
    return RecordResults(
        **summarized,
        calibration=calibration,
        intervals=intervals,
        curves=curves | {"reliability": reliable},
        notes=_notes(records, pairs, resamples),
    )


def _pairs(records: FaceRecords) -> Pairs | None:
    """Pairs for verification; None if nobody has two photos."""
    if photos_of_each(records.identity).max() < 2:
        return None
    pairs = without_mirror_pairs(draw_pairs(records.identity, VERIFICATION_PAIRS), records)
    check_folds(pairs.same)
    return pairs


def _identity(
    preset: Preset, predicted: Predictions, records: FaceRecords, pairs: Pairs | None
) -> tuple[dict[str, IdentityEvaluator], dict | None, dict]:
    """Evaluators, calibration and reliability; empty without pairs."""
    if pairs is None:
        return {}, None, {}
    person, either = records.identity, records.either_side()
    evaluators = identity_evaluators(
        preset, predicted.parameters.identity, predicted.features, pairs, person, either
    )
    return evaluators, *calibrate_evaluators(evaluators, pairs, either)


def without_mirror_pairs(pairs: Pairs, records: FaceRecords) -> Pairs:
    """Pairs without those of a person and their mirror image, neither the same nor another person.

    Raises:
        ValueError: no pair of two people is left.
    """
    either = records.either_side()
    kept = pairs.same | (either[pairs.first] != either[pairs.second])
    if pairs.same[kept].all():
        raise ValueError("all pairs of two people are of mirror images; more people are needed")
    return Pairs(pairs.first[kept], pairs.second[kept], pairs.same[kept])


def baseline(preset: Preset, records: FaceRecords) -> dict[str, float]:
    """What a constant prediction for every photo, the mean of the training data, would reach.

    Returns:
        numbers by path in ``RecordResults``: landmark, pose and shape errors of the mean
        parameters, and chance level where two photos are compared. Where real people differ from
        the face model's mean face on average, this shape is better than that face.
    """
    zeros = np.zeros((len(records), preset.layout.size), np.float32)
    constant = Predictions(preset.face_model, preset.space.parameters(zeros), None)
    true = FaceParameters.from_vector(records.parameters, preset.layout)
    euler = euler_from_camera(true.pose)
    yaw, angles = np.rad2deg(euler[:, 1]), angle_errors(constant.euler, euler)
    annotated = known_landmarks(records, preset.face_model)
    errors = {
        name: summarize_by_yaw(
            normalized_mean_error(constant.landmarks, annotated, dimensions=d), yaw
        )
        for name, d in (("landmarks", 2), ("landmarks_3d", 3))
    }
    shapes = _shapes(preset.face_model, constant.parameters.identity, true.identity)
    measured = {**errors, "pose": summarize_angles(angles, yaw), "shape": summarize_shapes(shapes)}
    chance = {f"{kind}_verification.accuracy_percent": 50.0 for kind in KINDS}
    return numbers(measured) | chance | {f"{kind}_ratio": 1.0 for kind in KINDS}


def _errors(
    model, predicted: Predictions, true: FaceParameters, landmarks
) -> dict[str, np.ndarray]:
    """Errors in percent of the landmark box, (M,) each."""
    errors = {
        f"error_{d}d": normalized_mean_error(predicted.landmarks, landmarks, dimensions=d)
        for d in (2, 3)
    }
    dense: dict[int, list[np.ndarray]] = {2: [], 3: []}
    for part in _chunks(len(landmarks)):
        ours, theirs = (_posed(model, p, part) for p in (predicted.parameters, true))
        for d, distances in dense.items():
            distances.append(normalized_mean_error(ours, theirs, d, box_points=landmarks[part]))
    return errors | {f"dense_{d}d": np.concatenate(parts) for d, parts in dense.items()}


def _posed(model: MorphableModel, parameters: FaceParameters, part: slice) -> np.ndarray:
    vertices = model.vertices(parameters.identity[part], parameters.expression[part])
    return project(parameters.pose[part], vertices)


def _shapes(model: MorphableModel, ours: np.ndarray, theirs: np.ndarray) -> ShapeDistances:
    """In chunks, since the vertices of all faces would not fit into memory."""
    chunks = [
        shape_distances(model.vertices(ours[part]), model.vertices(theirs[part]), model.mean)
        for part in _chunks(len(ours))
    ]
    names = [f.name for f in dataclasses.fields(ShapeDistances)]
    return ShapeDistances(**{n: np.concatenate([getattr(c, n) for c in chunks]) for n in names})


def _chunks(count: int) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, count, CHUNK)]


def check_records(preset: Preset, records: FaceRecords) -> None:
    """Raise a ValueError if the records do not match the preset."""
    if records.face_model != preset.face_model.name:
        raise ValueError(
            f"the records are of the face model '{records.face_model}'; the preset was trained "
            f"with '{preset.face_model.name}'"
        )
    size, expected = records.parameters.shape[1], preset.layout.size
    if size != expected:
        raise ValueError(f"the records have {size} parameters; the preset has {expected}")
    if not model_digests(records.config) <= {preset.face_model.digest}:
        raise ValueError(
            f"the records are of another face model named '{records.face_model}' than the one that "
            "the preset was trained with"
        )
    if records.images.shape[1:3] != (preset.input_size,) * 2:
        raise ValueError(
            f"the records' images are {records.images.shape[1:3]}; the preset takes "
            f"{preset.input_size} px crops"
        )


def _notes(records: FaceRecords, pairs: Pairs | None, resamples: int) -> tuple[str, ...]:
    people = len(np.unique(records.identity))
    compared = (
        f"{VERIFICATION_PAIRS} pairs drawn, half of one person, or all there are; 10 folds, or "
        "as many as there are pairs of a kind; shapes by the root mean square distance of the "
        "neutral vertices"
    )
    return (
        f"face records: {counted(len(records), 'photo')} of {counted(people, 'person')}, landmark "
        "errors in % of the landmarks' box",
        "no photos are compared, since nobody has two" if pairs is None else compared,
        *bootstrap_note(resamples),
    )
