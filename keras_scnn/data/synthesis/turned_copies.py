"""Copies of records with the faces turned: several poses from one photo of a person."""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any

import numpy as np

from keras_scnn.data.photo_source import PhotoSource
from keras_scnn.data.records import FaceRecords
from keras_scnn.data.synthesis.profiling import turn_face
from keras_scnn.geometry.camera import euler_from_camera, project, transform_camera
from keras_scnn.geometry.crops import invert_affine
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import FaceParameters, ParameterLayout
from keras_scnn.photos.cropping import FaceBox, box_from_landmarks, crop_face
from keras_scnn.storage.shards import Failures

CONTEXT, DETAIL = 1.7, 1.25  # width and resolution of the part that is turned, relative to a crop
MAX_TURN, MAX_YAW, PITCH_DEGREES = 45.0, 75.0, 6.0
MIN_TURN = 10.0
RENDERED = ("images", "parameters", "landmarks")


def with_turned_copies(
    records: FaceRecords, source: PhotoSource, model: MorphableModel, count: int
) -> tuple[FaceRecords, Failures[str]]:
    """Records followed by ``count`` turned copies of each.

    A copy's yaw is changed within ``turn_limits``, and its pitch a little; the changes depend only
    on the photo's name. Person, identity and expression do not change; ``#1``, ``#2``, ... is
    appended to the name. The copy's landmarks are the face model's, with weights of 1, and its
    ``crop_from_image`` is NaN. A photo that cannot be turned, for example because its face is
    partly outside of it, has no copies.

    Args:
        records: in memory, with ``name`` and ``crop_from_image``.
        source: of the photos.
        model: the parameters' face model.
        count: number of copies of each photo.

    Returns:
        the records, and by the names of the copies that are missing, why they are.

    Raises:
        ValueError: the records have no ``name`` or ``crop_from_image``, or the model has no uv.
    """
    check_can_turn(model)
    if records.name is None or records.crop_from_image is None:
        raise ValueError("records need name and crop_from_image to be turned")
    made, positions, missing = [], [], Failures[str]()
    for i, name in enumerate(records.name.tolist()):
        rng = np.random.default_rng([0, zlib.crc32(name.encode())])
        try:
            image = source.read_image(name)
            made += [_turned(records, i, image, model, rng) for _ in range(count)]
            positions += [i] * count
        except (OSError, ValueError) as error:
            for k in range(1, count + 1):
                missing.note(f"{name}#{k}", error)
    if not made:
        return records, missing
    origin = np.array(positions)
    arrays = {name: getattr(records, name)[origin] for name in records.arrays()}
    arrays |= {n: np.stack(p) for n, p in zip(RENDERED, zip(*made, strict=True), strict=True)}
    numbers = np.tile(np.arange(1, count + 1), len(origin) // count)
    arrays["name"] = np.array(
        [f"{records.name[i]}#{k}" for i, k in zip(origin, numbers, strict=True)]
    )
    arrays["weight"] = np.ones((len(origin), 68), np.float32)
    arrays["crop_from_image"] = np.full((len(origin), 2, 3), np.nan, np.float32)
    if records.weight is None:  # None means weights of 1
        del arrays["weight"]
    both: dict[str, Any] = {
        name: np.concatenate([getattr(records, name), arrays[name]]) for name in arrays
    }
    return dataclasses.replace(records, **both), missing


def check_can_turn(model: MorphableModel) -> None:
    """Raise a ValueError if a model has no uv, without which no photo of it can be turned."""
    if model.uv is None:
        raise ValueError(f"face model '{model.name}' has no uv, without which no face is turned")


def turn_limits(yaw_degrees: float) -> tuple[float, float]:
    """Smallest and largest change of yaw for a face with the given yaw, degrees.

    A turned face may be turned further, up to a yaw of 75 degrees. Turning it back reveals parts
    that the photo hides, so the limit decreases with its yaw.
    """
    onwards = min(MAX_TURN, max(MAX_YAW - abs(yaw_degrees), 0.0))
    back = max(MAX_TURN - 1.2 * abs(yaw_degrees), MIN_TURN)
    return (-back, onwards) if yaw_degrees > 0 else (-onwards, back)


def _turned(records: FaceRecords, i: int, image, model, rng) -> tuple[np.ndarray, ...]:
    """Crop, parameters and landmarks of one turned copy."""
    assert records.crop_from_image is not None  # see ``with_turned_copies``
    size = records.images.shape[1]
    layout = ParameterLayout(model.n_identity, model.n_expression)
    original = FaceParameters.from_vector(records.parameters[i].astype(np.float64), layout)
    image_from_crop = invert_affine(records.crop_from_image[i].astype(np.float64))
    side = image_from_crop[0, 0] * size
    center = image_from_crop @ [(size - 1) / 2, (size - 1) / 2, 1] + 0.5
    wide = crop_face(image, FaceBox.square(center, CONTEXT * side), round(CONTEXT * DETAIL * size))
    wide_from_crop = wide.crop_from_image @ np.vstack([image_from_crop, [0, 0, 1]])
    face = dataclasses.replace(original, pose=transform_camera(wide_from_crop, original.pose))
    yaw = np.rad2deg(euler_from_camera(original.pose)[1])
    turn = rng.uniform(*turn_limits(yaw))
    turned, face = turn_face(wide.image, model, face, turn, rng.normal(0, PITCH_DEGREES))
    landmarks = project(face.pose, model.landmarks(face.identity, face.expression))
    crop = crop_face(turned, box_from_landmarks(landmarks), size)
    pose = transform_camera(crop.crop_from_image, face.pose)
    vector = FaceParameters(pose, face.identity, face.expression).to_vector()
    points = project(pose, model.landmarks(face.identity, face.expression))
    return crop.image, vector, points.astype(np.float32)
