"""Comparison of two faces: distances, cosine, probability of one person, and a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_scnn.evaluation.calibration import SIGNS, checked_calibration, probability
from keras_scnn.geometry.alignment import apply_similarity, similarity_alignment
from keras_scnn.models.preset_network import Preset, PresetData
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.reconstruction.drawing import draw_comparison
from keras_scnn.reconstruction.faces import Reconstruction, features_of
from keras_scnn.reconstruction.quality import certainty as certainty_of
from keras_scnn.reconstruction.reconstructor import Reconstructor
from keras_scnn.shape_distance import mahalanobis_coordinates, shape_coordinates
from keras_scnn.storage import short_name
from keras_scnn.storage.images import ReducedImage
from keras_scnn.storage.outputs import Results

KINDS = {
    "shape": ("shape",),
    "scaled_shape": ("scaled shape",),
    "feature": ("features",),
    "both": ("shape", "features"),
}
"""What each kind of probability is based on, in the order of its weights. The last kind that is
known is the answer, here and on the browser page (export/web/src/comparison.ts)."""
REPORTED_BELOW = 0.95
"""A report mentions a certainty below this."""
HOW_TO_CALIBRATE = (
    "no probability is known: this preset is not calibrated; with photos of people that it was not "
    "trained on, run: python -m keras_scnn.evaluate PRESET_FOLDER --data PEOPLE_FOLDER --calibrate"
)


@dataclass(frozen=True, eq=False)
class Comparison:
    """The comparison of two faces.

    Attributes:
        faces: the two.
        distance_mm: root mean square distance of the neutral vertices in the model frame, by which
            ``keras_scnn.evaluate`` verifies.
        aligned_mm: the same after aligning the second face with the first by the best similarity
            (Umeyama 1991), which also removes differences in size.
        cosine: of the features, -1 to 1; None if the preset has none.
        probabilities: of one person, 0 to 1, with equal priors; by kind ('shape', 'scaled_shape',
            'feature', 'both'), for the kinds that the preset's calibration has.
        n_faces: number of faces found in each photo; the largest was used.
        scaled_distance: of the neutral vertices, in standard deviations of one person's photos
            (``shape_distance.mahalanobis_coordinates``); None if the preset has no within-person
            covariance.
        probability_by: what ``probability`` is based on, in words, see ``basis``; None if that is
            None.
        certainty: 0 to 1: how much of the evidence is left for small, turned and half-hidden faces.
            The probabilities include it; see ``quality.certainty``.
    """

    faces: tuple[Reconstruction, Reconstruction]
    distance_mm: float
    aligned_mm: float
    cosine: float | None
    probabilities: dict[str, float]
    n_faces: tuple[int, int] = (1, 1)
    scaled_distance: float | None = None
    probability_by: str | None = None
    certainty: float = 1.0

    @property
    def probability(self) -> float | None:
        """Based on all available evidence; None if the preset is not calibrated."""
        kind = answering_kind(self.probabilities)
        return None if kind is None else self.probabilities[kind]

    def to_json(self) -> dict:
        """The numbers, as values that JSON can hold."""
        return {
            "distance_mm": self.distance_mm,
            "aligned_mm": self.aligned_mm,
            "scaled_distance": self.scaled_distance,
            "cosine": self.cosine,
            "probability": self.probability,
            "probability_by": self.probability_by,
            "probabilities": self.probabilities,
            "certainty": self.certainty,
            "quality": [face.quality for face in self.faces],
            "faces_found": list(self.n_faces),
            "boxes": [face.box.as_array().tolist() for face in self.faces],
        }


def compare_faces(
    preset: Preset | PresetData,
    first: Reconstruction,
    second: Reconstruction,
    n_faces: tuple[int, int] = (1, 1),
) -> Comparison:
    """Compare two faces reconstructed with the preset.

    Raises:
        ValueError: a face has another face model than the preset, the features differ in length, or
            the preset's calibration is damaged.
    """
    _check_faces(preset.face_model, first, second)
    identity = np.stack([face.parameters.identity for face in (first, second)])
    coordinates = shape_coordinates(preset.face_model, identity)
    distance, scaled = float(np.linalg.norm(coordinates[0] - coordinates[1])), None
    if preset.within_person_covariance is not None:
        one, other = mahalanobis_coordinates(coordinates, preset.within_person_covariance)
        scaled = float(np.linalg.norm(one - other))
    shapes = np.stack([first.neutral_vertices, second.neutral_vertices])
    cosine = None
    if (features := features_of((first, second))) is not None:  # of length 1, except for rounding
        cosine = float(np.clip(features[0] @ features[1], -1, 1))
    calibration = preset.metadata.get("verification")
    certainty = certainty_of(first.quality, second.quality)
    by_kind = probabilities(calibration, distance, cosine, scaled, certainty)
    kind = answering_kind(by_kind)
    return Comparison(
        faces=(first, second),
        distance_mm=distance,
        aligned_mm=_aligned_mm(shapes),
        cosine=cosine,
        probabilities=by_kind,
        n_faces=n_faces,
        scaled_distance=scaled,
        probability_by=basis(calibration, kind) if calibration and kind else None,
        certainty=certainty,
    )


def _check_faces(model: MorphableModel, *faces: Reconstruction) -> None:
    for face in faces:
        if face.model is not model and face.model.digest != model.digest:
            raise ValueError(
                f"a face was reconstructed with another face model (named '{face.model.name}') "
                f"than the preset's ('{model.name}'); reconstruct both faces with the preset"
            )
    lengths = [len(face.features) for face in faces if face.features is not None]
    if len(set(lengths)) > 1:
        raise ValueError(
            f"features of the lengths {lengths}; both faces must be reconstructed with the preset"
        )


def _aligned_mm(shapes: np.ndarray) -> float:
    moved = apply_similarity(*similarity_alignment(shapes[1], shapes[0]), shapes[1])
    return float(np.sqrt(((moved - shapes[0]) ** 2).sum(axis=-1).mean()))


def probabilities(
    calibration: dict | None,
    distance_mm: float,
    cosine: float | None,
    scaled_distance: float | None = None,
    certainty: float = 1.0,
) -> dict[str, float]:
    """Probabilities of one person by kind, as in ``Comparison``.

    Args:
        calibration: the entry 'verification' of a preset's metadata, or None.
        distance_mm: of the shapes.
        cosine: of the features, or None.
        scaled_distance: of the shapes, or None.
        certainty: 0 to 1, a factor on the log-odds.

    Raises:
        ValueError: the calibration is damaged.
    """
    best = distance_mm if scaled_distance is None else scaled_distance
    values = {"shape": np.array(distance_mm)}
    if scaled_distance is not None:
        values["scaled_shape"] = np.array(scaled_distance)
    if cosine is not None:
        values |= {"feature": np.array(cosine), "both": np.array([best, cosine])}
    curves = checked_calibration(calibration) or {}
    known = [kind for kind in SIGNS if kind in values and kind in curves]
    return {kind: float(probability(curves[kind], values[kind], certainty)) for kind in known}


def answering_kind(known: dict[str, float]) -> str | None:
    """The kind of probability that is the answer: the last known one of ``KINDS``, or None."""
    return next((kind for kind in reversed(KINDS) if kind in known), None)


def basis(calibration: dict, kind: str) -> str:
    """What a kind of probability is based on, in words, including what has a weight of 0.

    >>> basis({"both": {"a": [0.0, 8.5], "b": -2.0}}, "both")
    'features; the calibration gives the shape no weight'
    """
    weights = dict(zip(KINDS[kind], np.atleast_1d(calibration[kind]["a"]), strict=True))
    used = " and ".join(name for name, weight in weights.items() if weight) or "nothing"
    unused = " and the ".join(name for name, weight in weights.items() if not weight)
    return f"{used}; the calibration gives the {unused} no weight" if unused else used


def compare_photos(
    reconstructor: Reconstructor,
    photos: tuple[np.ndarray, np.ndarray],
    names: tuple[str, str] = ("first photo", "second photo"),
) -> Comparison:
    """Compare the largest faces of two (H, W, 3) uint8 RGB photos.

    Args:
        reconstructor: of the preset; its ``find_largest`` finds the faces.
        photos: the two.
        names: of the photos, for error messages.

    Raises:
        FileNotFoundError: the face detector's package is missing.
        ValueError: the photos are not two, or one of them shows no face.
    """
    if len(photos) != 2:
        raise ValueError(f"photos has the length {len(photos)}; it must be 2")
    (first, n_first), (second, n_second) = (
        _largest_face(reconstructor, photo, name) for name, photo in zip(names, photos, strict=True)
    )
    return compare_faces(reconstructor.preset, first, second, (n_first, n_second))


def _largest_face(
    reconstructor: Reconstructor, photo: np.ndarray, name: str
) -> tuple[Reconstruction, int]:
    """The largest face, and the number of faces."""
    try:
        boxes = reconstructor.find_largest.faces(photo)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return reconstructor.reconstruct_boxes(photo, boxes[:1])[0], len(boxes)


def report(comparison: Comparison, names: tuple[str, str], calibration: dict | None) -> list[str]:
    """The comparison as lines of text."""
    lines = [
        f"{name}: {count} faces found; the largest was taken"
        for name, count in zip(names, comparison.n_faces, strict=True)
        if count > 1
    ]
    lines += [
        f"distance of the neutral shapes  {comparison.distance_mm:.2f} mm "
        f"({comparison.aligned_mm:.2f} mm after the best similarity)"
    ]
    if comparison.cosine is not None:
        lines += [f"cosine of the features          {comparison.cosine:.3f}"]
    if not comparison.probabilities or calibration is None:
        return [*lines, HOW_TO_CALIBRATE]
    for kind, value in comparison.probabilities.items():
        by = basis(calibration, kind)
        lines += [f"probability of one person       {100 * value:.1f} % by {by}"]
    if comparison.certainty < REPORTED_BELOW:
        lines += [
            f"certainty of the faces          {comparison.certainty:.2f}; small, turned or "
            "half-hidden faces move probabilities towards 50 %"
        ]
    pairs, data = (calibration.get(name, "unknown") for name in ("pairs", "data"))
    people = f" of photos of {calibration['people']} people" if "people" in calibration else ""
    likely = "one person and two are equally likely beforehand"
    return [*lines, f"calibrated on {pairs} pairs{people} ({data}); {likely}"]


def write_comparison(
    comparison: Comparison,
    photos: tuple[ReducedImage, ReducedImage],
    results: Results,
) -> Path:
    """Write FIRST-SECOND.json and .png, and return their path without suffix.

    Args:
        comparison: of the photos.
        photos: as they were read.
        results: the output folder, and the files of the photos.

    Raises:
        ValueError: a file of that name exists and is not a result of these photos.
    """
    first, second = results.photos
    title = f"{comparison.distance_mm:.2f} mm apart"
    if comparison.probability is not None:
        title += f", one person with a probability of {100 * comparison.probability:.0f} %"
    shapes = np.stack([face.neutral_vertices for face in comparison.faces])
    boxes = comparison.faces[0].box, comparison.faces[1].box
    model, labels = comparison.faces[0].model, (first.name, second.name)

    def write(stem: Path) -> None:
        path = stem.with_name(f"{stem.name}.png")
        images = photos[0].image, photos[1].image
        draw_comparison(path, model, images, boxes, shapes, labels, title)

    read = {
        "photo_sizes": [[photo.image.shape[1], photo.image.shape[0]] for photo in photos],
        "photos_reduced_by": [photo.reduced_by for photo in photos],
    }
    return results.publish(pair_name(first, second), comparison.to_json() | read, write)


def pair_name(first: Path, second: Path) -> str:
    """The name of a comparison's files, without suffix."""
    return short_name(f"{first.stem}-{second.stem}")
