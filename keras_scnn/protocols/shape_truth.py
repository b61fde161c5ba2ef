"""Reference shapes: for each photo, the fit to all other photos of the person.

The truth must not change with the labels that networks learn from, so it is fitted once, with the
settings below, and stored as vertices in millimeters: ``mean + basis @ coefficients``, with mean
and basis in the file. A face model with another basis and the same vertices can be measured too.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from tqdm import tqdm

from keras_scnn.data.sources.people import PeopleFolder
from keras_scnn.fitting import FitOptions, FitResult, fit_landmarks, fit_person_landmarks
from keras_scnn.geometry.camera import euler_from_camera
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.photos.cropping import box_from_landmarks
from keras_scnn.storage import read_npz, write_npz
from keras_scnn.storage.guard import existing_file
from keras_scnn.storage.shards import Failures
from keras_scnn.storage.text import counted

FORMAT, VERSION = "keras_scnn.shape_truth", 1
# Those of data/labels when the yardstick was made (commit 98020c8), copied so that they stay fixed.
TRUTH_FIT = FitOptions(
    noise_mm=2.0,
    depth_noise=2.0,
    identity_sd=0.4,
    expression_sd=0.5,
    iterations=15,
    tolerance=1e-3,
)
MIN_PHOTOS = 5  # per person; a fit to fewer than four photos is not a usable truth
SHAPES = {
    "photo": ("n",), "person": ("n",), "yaw_degrees": ("n",), "landmarks": ("n", 68, 3),
    "half": ("n",), "mean": ("N", 3), "basis": ("N", 3, "K"), "of_others": ("n", "K"),
    "of_own_half": ("n", "K"), "of_other_half": ("n", "K"), "mean68": (68, 3),
    "indices68": (68,), "expression68": (68, 3, "L"), "expression_bounds": ("L", 2),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class ShapeTruth:
    """The shapes of the people of n photos.

    Attributes:
        photo: (n,) paths relative to the people folder.
        person: (n,) names of the people's folders.
        yaw_degrees: (n,) from the joint fit to all photos.
        landmarks: (n, 68, 3) float32 px and depth, image frame, to which the shapes are fitted.
        half: (n,) 0 or 1: each person's photos, split alternately into two halves.
        mean: (N, 3) float32 mm, the mean face of the fitted model.
        basis: (N, 3, K) float32 mm.
        of_others: (n, K) coefficients of the fit to all other photos of the person.
        of_own_half, of_other_half: (n, K) those of the fits to the photo's half and the other one.
        mean68: (68, 3) float32 mm, landmarks of the mean face, offsets included.
        indices68: (68,) int32 vertex indices of the landmarks.
        expression68: (68, 3, L) float32 mm at weight 1.
        expression_bounds: (L, 2) float32.
        left_out: (m,) text, the people's other photos, with reasons: 'PERSON/photo.jpg: reason'.
    """

    photo: np.ndarray
    person: np.ndarray
    yaw_degrees: np.ndarray
    landmarks: np.ndarray
    half: np.ndarray
    mean: np.ndarray
    basis: np.ndarray
    of_others: np.ndarray
    of_own_half: np.ndarray
    of_other_half: np.ndarray
    mean68: np.ndarray
    indices68: np.ndarray
    expression68: np.ndarray
    expression_bounds: np.ndarray
    left_out: np.ndarray

    def deviations(self, coefficients: np.ndarray) -> np.ndarray:
        """(M, 3N) float64: vertices minus the mean face, mm / sqrt(N), from (M, K).

        Their Euclidean distances are root mean square distances of vertices.
        """
        flat = self.basis.reshape(-1, self.basis.shape[-1]).astype(np.float64)
        return coefficients @ flat.T / np.sqrt(len(self.mean))

    def deviations68(self, coefficients: np.ndarray) -> np.ndarray:
        """(M, 68, 3) mm: landmarks minus those of the mean face, from (M, K)."""
        return np.einsum("ijk,mk->mij", self.basis[self.indices68], coefficients)

    def misfit(self, shape68: np.ndarray, photos: np.ndarray) -> np.ndarray:
        """Misfit of a neutral face to the landmarks of photos, with fitted pose and expression.

        Args:
            shape68: (68, 3) mm, landmarks of the face without expression.
            photos: (m,) indices of the photos.

        Returns:
            (m,) mean squared distance in the image, squared percent of the standard crop's side.
        """
        model = MorphableModel(
            name="landmarks",
            mean=shape68,
            identity_basis=np.zeros((68, 3, 0)),
            expression_basis=self.expression68,
            triangles=np.zeros((0, 3)),
            landmark_indices=np.arange(68),
            expression_names=tuple(map(str, range(self.expression68.shape[-1]))),
            expression_bounds=self.expression_bounds,
        )
        points = self.landmarks[photos, :, :2].astype(np.float64)
        # Not the labels' own function: a change of the labels must not change this measure.
        sides = np.array([box_from_landmarks(each).width for each in points])
        return (100 * fit_landmarks(model, points, options=TRUTH_FIT).residual_px / sides) ** 2


def last_people(people: list[str], last: int | None) -> list[str]:
    """The last ``last`` of sorted people; None for all.

    Raises:
        ValueError: ``last`` is below 1, or above the number of people.
    """
    if last is not None and not 0 < last <= len(people):
        raise ValueError(f"--last is {last}; there are {counted(len(people), 'person')}")
    return people if last is None else people[-last:]


def check_comparable(model: MorphableModel, count: int, indices68: np.ndarray) -> None:
    """Raise a ValueError unless a face model's first vertices are those of a truth.

    Args:
        model: the face model of a preset; it may have more vertices, such as those of a tongue.
        count: number of vertices of the truth.
        indices68: (68,) those of the truth's landmarks, by which its vertices are recognized.
    """
    if model.n_vertices < count:
        raise ValueError(
            f"the preset's face model '{model.name}' has {model.n_vertices} vertices, the truth "
            f"{count}: they cannot be compared"
        )
    if not np.array_equal(model.landmark_indices, indices68):
        raise ValueError(
            f"the preset's face model '{model.name}' ({model.n_vertices} vertices) has its "
            f"landmarks at other vertices than the truth ({count} vertices): they are of two "
            "meshes, and cannot be compared"
        )


def fit_truth(
    folder: str | os.PathLike, last: int | None = None, measured: MorphableModel | None = None
) -> ShapeTruth:
    """Label and fit the photos of a people folder; takes about a second per photo.

    Photos that do not belong are left out (``data.sources.people``), and so are people with fewer
    than ``MIN_PHOTOS`` photos; ``ShapeTruth.left_out`` lists them.

    Args:
        folder: one sub-folder per person.
        last: use only the last ``last`` people in sorted order; None for all.
        measured: face model whose shapes will be compared with the truth; None: not checked.

    Raises:
        FileNotFoundError: the folder, or a network of the extra ``teacher``, is missing.
        OSError: a photo cannot be read for want of rights, memory or a package, so that the truth
            would be another one than on a machine that has them.
        ValueError: fewer than two people have enough photos, or ``measured`` has another mesh.
    """
    source = PeopleFolder(folder, teacher=True)
    if measured is not None:
        check_comparable(measured, source.face_model.n_vertices, source.face_model.landmark_indices)
    people = last_people(source.people(), last)
    _check_photos(folder, Counter(map(source.person, source.names())), people)
    rows: list[dict[str, np.ndarray]] = []
    left_out: list[str] = []
    for person in tqdm(people, desc="fitting people", leave=False, delay=1):
        labels = source.label(person)
        _check_lasting(folder, labels.left_out)
        photos, few = labels.photos, f"its person has {counted(len(labels.photos), 'good photo')}"
        left_out += [_reason(folder, *item) for item in labels.left_out.items()]
        if len(photos) < MIN_PHOTOS:
            left_out += [f"{photo.name}: {few}; {MIN_PHOTOS} are needed" for photo in photos]
        else:
            points = np.stack([photo.landmarks for photo in photos])
            names = np.array([photo.name for photo in photos])
            rows.append(_person(source.face_model, person, names, points))
    if len(rows) < 2:
        raise ValueError(
            f"{folder}: {counted(len(rows), 'person')} with {MIN_PHOTOS} good photos; 2 needed"
        )
    stacked = {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}
    model = _model_arrays(source.face_model)
    return ShapeTruth(**stacked, **model, left_out=np.array(left_out, np.str_))


def _check_photos(folder: str | os.PathLike, counts: Counter[str], people: list[str]) -> None:
    """Raise a ValueError unless two people have ``MIN_PHOTOS`` photos, good or not."""
    enough = [person for person in people if counts[person] >= MIN_PHOTOS]
    if len(enough) < 2:
        raise ValueError(
            f"{folder}: at most {counted(len(enough), 'person')} with {MIN_PHOTOS} good photos; "
            "2 needed"
        )


def _check_lasting(folder: str | os.PathLike, left_out: Failures[str]) -> None:
    """Raise an OSError if a photo is left out because of this machine: a truth is kept for good."""
    if left_out.passing:
        name = min(left_out.passing)
        raise OSError(
            f"{os.path.join(folder, _reason(folder, name, left_out[name]))}; the truth would lack "
            "this photo for good"
        )


def _reason(folder: str | os.PathLike, name: str, reason: str) -> str:
    """'NAME: reason' for a photo left out, where the reason does not repeat the photo's path."""
    return f"{name}: {reason.removeprefix(f'{Path(folder) / name}: ')}"


def _person(model: MorphableModel, person: str, names, points) -> dict[str, np.ndarray]:
    """The arrays of one person's photos."""
    half, every = np.arange(len(points)) % 2, np.arange(len(points))
    halves = np.stack([_fit(model, points[half == part]).shared_identity for part in (0, 1)])
    poses = _fit(model, points).parameters.pose
    return {
        "photo": names,
        "person": np.full(len(names), person),
        "yaw_degrees": np.degrees(euler_from_camera(poses)[:, 1]),
        "landmarks": points.astype(np.float32),
        "half": half,
        "of_others": np.stack([_fit(model, points[every != i]).shared_identity for i in every]),
        "of_own_half": halves[half],
        "of_other_half": halves[1 - half],
    }


def _fit(model: MorphableModel, points: np.ndarray) -> FitResult:
    """The joint fit to some photos' landmarks."""
    return fit_person_landmarks(model, points, options=TRUTH_FIT)


def _model_arrays(model: MorphableModel) -> dict[str, np.ndarray]:
    mean68, _, expression68 = model.landmark_basis()
    return {
        "mean": model.mean,
        "basis": model.identity_basis,
        "mean68": mean68,
        "indices68": model.landmark_indices,
        "expression68": expression68,
        "expression_bounds": model.expression_bounds,
    }


def save_truth(path: str | os.PathLike, truth: ShapeTruth) -> None:
    """Write an .npz file atomically."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    arrays = {field.name: getattr(truth, field.name) for field in fields(truth)}
    write_npz(path, FORMAT, VERSION, **arrays)


def existing_truth(path: str | os.PathLike) -> Path:
    """The path of a file of ``save_truth``, which must exist.

    Raises:
        FileNotFoundError: there is no such file; the message says how to make it.
        IsADirectoryError: it is a folder.
    """
    return existing_file(path, "a shape truth (--fit-truth fits and stores it)")


def load_truth(path: str | os.PathLike) -> ShapeTruth:
    """Read a file of ``save_truth``.

    Raises:
        FileNotFoundError, IsADirectoryError: see ``existing_truth``.
        ValueError: the file is damaged, or of another kind.
    """
    arrays = read_npz(existing_truth(path), FORMAT, VERSION)
    sizes: dict[str, int] = {}
    for name, shape in SHAPES.items():
        given = arrays[name].shape if name in arrays else ()
        wanted = [
            sizes.setdefault(n, size) if isinstance(n, str) else n
            for n, size in zip(shape, given, strict=False)
        ]
        if tuple(wanted) != given or len(given) != len(shape):
            raise ValueError(f"{path}: damaged: '{name}' has the shape {given}, not {shape}")
    _check_numbers(path, arrays)
    none = np.zeros(0, np.str_)  # files of version 0.2 have no 'left_out'
    left_out = arrays.get("left_out", none).astype(np.str_).ravel()
    return ShapeTruth(**{name: arrays[name] for name in SHAPES}, left_out=left_out)


def _check_numbers(path: str | os.PathLike, arrays: dict[str, np.ndarray]) -> None:
    """Raise a ValueError for numbers that are not finite, and for indices out of range."""
    for name in SHAPES.keys() - {"photo", "person"}:
        if arrays[name].dtype.kind not in "iuf" or not np.isfinite(arrays[name]).all():
            raise ValueError(f"{path}: damaged: '{name}' must hold finite numbers")
    for name, count in (("half", 2), ("indices68", len(arrays["mean"]))):
        is_whole = arrays[name].dtype.kind in "iu"
        if not is_whole or not np.isin(arrays[name], np.arange(count)).all():
            raise ValueError(
                f"{path}: damaged: '{name}' must be whole numbers from 0 to {count - 1}"
            )
