"""The identity part of the protocols: by shapes, by Mahalanobis shape distance, by features."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np

from keras_scnn.data.records import FaceRecords, photos_of_each
from keras_scnn.evaluation import IdentityEvaluator, Pairs, Retrieval, Verification
from keras_scnn.evaluation.calibration import calibrate
from keras_scnn.models.inference import predict
from keras_scnn.models.preset_network import Preset, PresetData
from keras_scnn.shape_distance import (
    mahalanobis_coordinates,
    shape_coordinates,
    within_person_covariance,
)

KINDS = ("shape", "scaled_shape", "feature")
COVARIANCE_PHOTOS = 4000


@dataclass(frozen=True, kw_only=True)
class IdentityResults:
    """How consistently photos of one person give one face.

    Attributes:
        shape_ratio: mean distance between one person's shapes over that between two people's.
        shape_verification: by the root mean square distance of the neutral vertices, mm.
        scaled_shape_ratio, scaled_shape_verification: by the Mahalanobis distance of the neutral
            vertices, in which directions that vary between photos of one person count less
            (``shape_distance.mahalanobis_coordinates``); None if the preset has no within-person
            covariance.
        feature_ratio, feature_verification: by the Euclidean distance of the features; None if
            the network has none.
        shape_retrieval, scaled_shape_retrieval, feature_retrieval: each photo as a probe against
            all others; None if no retrieval was measured.
        calibration: see ``evaluation.calibration.calibrate``.
        intervals: (low, high) by the path of a number, see ``evaluation.bootstrap.with_intervals``.
        curves: data to plot: 'roc' and 'reliability' by kind, and a subclass's own.
        notes: what was measured, and how.

    All measures are None if nobody has two photos.
    """

    shape_ratio: float | None = None
    shape_verification: Verification | None = None
    shape_retrieval: Retrieval | None = None
    scaled_shape_ratio: float | None = None
    scaled_shape_verification: Verification | None = None
    scaled_shape_retrieval: Retrieval | None = None
    feature_ratio: float | None = None
    feature_verification: Verification | None = None
    feature_retrieval: Retrieval | None = None
    calibration: dict | None = None
    intervals: dict = field(default_factory=dict)
    curves: dict = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def identity_evaluators(
    preset: Preset | PresetData,
    identity: np.ndarray,
    features: np.ndarray | None,
    pairs: Pairs,
    person: np.ndarray | None,
    either_side: np.ndarray | None = None,
) -> dict[str, IdentityEvaluator]:
    """Evaluators of the shapes and, if available, of the scaled shapes and the features.

    Args:
        preset: has the face model, and the within-person covariance that scales shapes.
        identity: (n, K) coefficients.
        features: (n, F) or None.
        pairs: of the n photos.
        person: (n,) for retrieval, or None to skip it.
        either_side: (n,) see ``evaluation.identity.retrieval_ranks``.
    """
    vectors = {"shape": shape_coordinates(preset.face_model, identity)}
    if features is not None:
        vectors["feature"] = features
    if (covariance := preset.within_person_covariance) is not None:
        vectors["scaled_shape"] = mahalanobis_coordinates(vectors["shape"], covariance)
    return {kind: IdentityEvaluator(v, pairs, person, either_side) for kind, v in vectors.items()}


def learn_covariance(preset: Preset, records: FaceRecords, among: np.ndarray) -> np.ndarray | None:
    """The within-person covariance of the shapes that a network predicts.

    Args:
        preset: the network.
        records: with several photos of some people.
        among: indices of the photos to learn from; their people may be in the training data, but
            not in the test data. At most ``COVARIANCE_PHOTOS`` are used, all photos of a person
            before those of the next one.

    Returns:
        (K, K) mm², for ``Preset.within_person_covariance``; None if nobody has a second photo.
    """
    person = records.identity[among]
    several = photos_of_each(person) > 1
    _, first, number = np.unique(person, return_index=True, return_inverse=True)
    together = np.argsort(first[number], kind="stable")
    chosen = among[together][several[together]][:COVARIANCE_PHOTOS]
    if not len(chosen):
        return None
    coefficients = predict(preset, np.asarray(records.images[chosen])).parameters.identity
    return within_person_covariance(
        shape_coordinates(preset.face_model, coefficients), records.identity[chosen]
    )


def calibrate_evaluators(
    evaluators: dict[str, IdentityEvaluator], pairs: Pairs, person: np.ndarray
) -> tuple[dict, dict]:
    """``calibrate`` on the evaluators' pairs; ``person`` (n,) or ``either_side`` of each photo."""
    feature = evaluators.get("feature")
    cosine = None if feature is None else 1 - feature.distance**2 / 2  # for unit vectors
    people = person[pairs.first], person[pairs.second]
    scaled = evaluators["scaled_shape"].distance if "scaled_shape" in evaluators else None
    results, reliable = calibrate(evaluators["shape"].distance, cosine, pairs.same, people, scaled)
    return results, {kind: dataclasses.asdict(curve) for kind, curve in reliable.items()}


def identity_results(evaluators: dict[str, IdentityEvaluator], weights: np.ndarray) -> dict:
    """Ratio, verification and retrieval of each kind; None if it has no evaluator."""
    results = {}
    for kind in KINDS:
        evaluator = evaluators.get(kind)
        parts = (None, None, None) if evaluator is None else evaluator.summary(weights)
        for name, part in zip(("ratio", "verification", "retrieval"), parts, strict=True):
            results[f"{kind}_{name}"] = part
    return results
