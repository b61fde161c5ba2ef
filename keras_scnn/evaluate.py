"""Measure a trained network: ``python -m keras_scnn.evaluate RUN_OR_PRESET --data DIR``.

DIR is a folder of AFLW2000-3D (.jpg and .mat pairs, with the benchmark's boxes in protocol.csv
where there are any) or a folder of face records, such as the synthetic ones of a training run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from tqdm import tqdm

from keras_scnn.cropping import FaceBox, box_from_landmarks, crop_face
from keras_scnn.data.aflw2000 import AnnotatedFace, read_aflw2000
from keras_scnn.data.records import FaceRecords, is_records, load_records
from keras_scnn.evaluation import (
    CONVENTIONS,
    LandmarkError,
    PoseError,
    ShapeError,
    Verification,
    distance_ratio,
    landmark_error,
    place_in_photo,
    pose_error,
    shape_error,
    verification,
    verification_pairs,
)
from keras_scnn.evaluation.report import plot_results, results_table
from keras_scnn.geometry.camera import decompose
from keras_scnn.geometry.rotations import euler_from_rotation
from keras_scnn.io import read_image
from keras_scnn.models import Preset, load_preset
from keras_scnn.parameters import FaceParameters
from keras_scnn.prediction import predict
from keras_scnn.storage import atomic_path

VERIFICATION_PAIRS = 4000


@dataclass(frozen=True)
class PhotoResults:
    """Errors on AFLW2000-3D; ``convention`` is how crop pixels were brought into the photo."""

    landmarks: LandmarkError
    pose: PoseError
    convention: str


@dataclass(frozen=True)
class RecordResults:
    """Errors on face records, whose true shapes and people are known.

    Attributes:
        landmarks, pose: as for photos.
        shape: neutral shape of the face model's vertices.
        shape_ratio: mean distance of one person's shapes over that of two people's.
        shape_verification: by the distance of the neutral shapes, mm.
            feature_ratio, feature_verification: by the Euclidean distance of the features; None
            where the network has none.
    """

    landmarks: LandmarkError
    pose: PoseError
    shape: ShapeError
    shape_ratio: float
    shape_verification: Verification
    feature_ratio: float | None
    feature_verification: Verification | None


def evaluate_aflw2000(
    preset: Preset | str | os.PathLike, folder: str | os.PathLike, convention: str = "exact"
) -> PhotoResults:
    """Errors on a folder of AFLW2000-3D.

    Args:
        preset: a preset, or its name or folder.
        folder: .jpg and .mat pairs; the crops are those of its protocol.csv, else the standard
            crop about the annotated landmarks.
        convention: 'exact' or 'field', see ``evaluation.place_in_photo``.

    Raises:
        FileNotFoundError: the preset, the folder or one of its files is missing.
        ValueError: a file is damaged, or the convention is unknown.
    """
    preset = preset if isinstance(preset, Preset) else load_preset(preset)
    faces = read_aflw2000(folder)
    boxes = [_box_of(face) for face in faces]
    crops = [
        crop_face(read_image(face.image_path), box, preset.input_size).image
        for face, box in zip(tqdm(faces, desc="reading photos"), boxes, strict=True)
    ]
    told = predict(preset, np.stack(crops))
    corners = np.array([[box.x0, box.y0, box.x1, box.y1] for box in boxes])
    placed = place_in_photo(told.landmarks, corners, preset.input_size, convention)
    annotated = np.stack([face.landmarks for face in faces])
    yaw = np.array([face.yaw_degrees for face in faces])
    euler = np.stack([face.euler for face in faces])
    return PhotoResults(
        landmark_error(placed, annotated, yaw), pose_error(told.euler, euler), convention
    )


def _box_of(face: AnnotatedFace) -> FaceBox:
    if face.box is None:
        return box_from_landmarks(face.landmarks)
    return FaceBox(*face.box.tolist())


def evaluate_records(preset: Preset | str | os.PathLike, records: FaceRecords) -> RecordResults:
    """Errors on face records, of people that the network should never have seen.

    Raises:
        ValueError: the records are of another face model or crop size than the preset, or of too
            few people to make pairs of.
    """
    preset = preset if isinstance(preset, Preset) else load_preset(preset)
    _check_records(preset, records)
    told = predict(preset, np.asarray(records.images))
    true = FaceParameters.from_vector(records.parameters, preset.layout)
    euler = euler_from_rotation(decompose(true.pose)[0])
    model = preset.face_model
    pairs = verification_pairs(records.identity, VERIFICATION_PAIRS)
    by_shape = pair_distances(told.parameters.identity * model.identity_weights_mm, pairs)
    shape = judge_pairs(by_shape, pairs[2])
    feature = (None, None)
    if told.features is not None:
        feature = judge_pairs(pair_distances(told.features, pairs), pairs[2])
    return RecordResults(
        landmark_error(told.landmarks, records.landmarks, np.rad2deg(euler[:, 1])),
        pose_error(told.euler, euler),
        shape_error(
            model.vertices(told.parameters.identity), model.vertices(true.identity), model.mean
        ),
        *shape,
        *feature,
    )


def pair_distances(vectors: np.ndarray, pairs: tuple) -> np.ndarray:
    """Euclidean distances (P,) of the (n, D) vectors of pairs from ``verification_pairs``."""
    return np.linalg.norm(vectors[pairs[0]] - vectors[pairs[1]], axis=-1)


def judge_pairs(distance: np.ndarray, same: np.ndarray) -> tuple[float, Verification]:
    """The distance ratio and the verification of (P,) distances."""
    return distance_ratio(distance, same), verification(distance, same)


def _check_records(preset: Preset, records: FaceRecords) -> None:
    if records.face_model != preset.face_model.name:
        raise ValueError(
            f"the records are of the face model '{records.face_model}'; the preset was trained "
            f"with '{preset.face_model.name}'"
        )
    size, expected = records.parameters.shape[1], preset.layout.size
    if size != expected:
        raise ValueError(f"the records have {size} parameters; the preset has {expected}")
    if records.images.shape[1:3] != (preset.input_size,) * 2:
        raise ValueError(
            f"the records' images are {records.images.shape[1:3]}; the preset takes "
            f"{preset.input_size} px crops"
        )


def write_results(
    results: PhotoResults | RecordResults, folder: Path, stem: str, title: str
) -> str:
    """Write ``stem.json`` and ``stem.png`` into the folder, and return the table as text."""
    folder.mkdir(parents=True, exist_ok=True)
    named = asdict(results)
    with atomic_path(folder / f"{stem}.json") as temporary:
        temporary.write_text(json.dumps(_without_nan(named), indent=2) + "\n")
    with atomic_path(folder / f"{stem}.png") as temporary:
        plot_results(named, temporary, title)
    return results_table(named)


def _without_nan(value):
    """NaN, which JSON does not have, as None, in nested dictionaries and sequences."""
    if isinstance(value, dict):
        return {name: _without_nan(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(part) for part in value]
    return None if value != value else value


def main(arguments: list[str] | None = None) -> int:
    """The command; ``arguments`` as on the command line."""
    parser = argparse.ArgumentParser("python -m keras_scnn.evaluate", description=__doc__)
    parser.add_argument("preset", metavar="RUN_OR_PRESET", help="a folder, or a preset's name")
    parser.add_argument("--data", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--out", type=Path, default=Path("evaluation"), metavar="DIR", help="for results"
    )
    parser.add_argument(
        "--convention",
        choices=CONVENTIONS,
        default="exact",
        help="how crop pixels are brought into photos: exactly, or as the field's script does",
    )
    try:
        _evaluate(parser.parse_args(arguments))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _evaluate(args: argparse.Namespace) -> None:
    preset = load_preset(args.preset)
    if is_records(args.data):
        results = evaluate_records(preset, load_records(args.data))
    else:
        results = evaluate_aflw2000(preset, args.data, args.convention)
    name, data = Path(args.preset).resolve().name, args.data.resolve().name
    print(write_results(results, args.out, f"{name}-{data}", f"{name} on {data}"))
    print(f"written: {args.out / name}-{data}.json and .png")


if __name__ == "__main__":
    sys.exit(main())
