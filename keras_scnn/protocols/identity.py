"""What the protocols say of identity: of shapes, of scaled shapes, and of features."""

from __future__ import annotations

import dataclasses

import numpy as np

from keras_scnn.data.records import FaceRecords
from keras_scnn.evaluation import IdentityJudge, Pairs
from keras_scnn.evaluation.calibration import calibrate
from keras_scnn.models import Preset
from keras_scnn.models.inference import predict
from keras_scnn.shape_distance import (
    mahalanobis_coordinates,
    shape_coordinates,
    within_person_covariance,
)

KINDS = ("shape", "scaled_shape", "feature")
SCATTER_PHOTOS = 4000


def identity_judges(
    preset: Preset,
    identity: np.ndarray,
    features: np.ndarray | None,
    pairs: Pairs,
    person: np.ndarray | None,
) -> dict[str, IdentityJudge]:
    """A judge of the shapes and, where there are any, of the scaled shapes and of the features.

    Args:
        preset: its face model and its within-person covariance of shapes.
        identity: (n, K) coefficients.
        features: (n, F) or None.
        pairs: of the n photos.
        person: (n,) for retrieval, or None to leave that out.
    """
    vectors = {"shape": shape_coordinates(preset.face_model, identity), "feature": features}
    if preset.within_person_covariance is not None:
        vectors["scaled_shape"] = mahalanobis_coordinates(
            vectors["shape"], preset.within_person_covariance
        )
    return {k: IdentityJudge(v, pairs, person) for k, v in vectors.items() if v is not None}


def learn_covariance(preset: Preset, records: FaceRecords, among: np.ndarray) -> np.ndarray | None:
    """The within-person covariance of a network's neutral shapes.

    Args:
        preset: the network.
        records: with several photos of some people.
        among: positions of photos of people to learn from, who may be those trained on, not those
            to be measured on; at most ``SCATTER_PHOTOS`` of them are looked at.

    Returns:
        (K, K) mm², for ``Preset.within_person_covariance``; None where nobody has a second photo.
    """
    count = np.bincount(records.identity[among])[records.identity[among]]
    chosen = among[count > 1][:SCATTER_PHOTOS]
    if not len(chosen):
        return None
    told = predict(preset, np.asarray(records.images[chosen])).parameters.identity
    return within_person_covariance(
        shape_coordinates(preset.face_model, told), records.identity[chosen]
    )


def calibrate_judges(
    judges: dict[str, IdentityJudge], pairs: Pairs, person: np.ndarray
) -> tuple[dict, dict]:
    """``evaluation.calibration.calibrate`` on the judges' pairs; (n,) whom each photo shows."""
    feature = judges.get("feature")
    cosine = None if feature is None else 1 - feature.distance**2 / 2  # of vectors of length 1
    people = person[pairs.first], person[pairs.second]
    scaled = judges["scaled_shape"].distance if "scaled_shape" in judges else None
    found, reliable = calibrate(judges["shape"].distance, cosine, pairs.same, people, scaled)
    return found, {kind: dataclasses.asdict(curve) for kind, curve in reliable.items()}


def judged(judges: dict[str, IdentityJudge], weights: np.ndarray) -> dict:
    """Ratio, verification and retrieval of each kind; None where there is no judge."""
    found = {}
    for kind in KINDS:
        judge = judges.get(kind)
        parts = (None, None, None) if judge is None else judge.summary(weights)
        for name, part in zip(("ratio", "verification", "retrieval"), parts, strict=True):
            found[f"{kind}_{name}"] = part
    return found
