"""Reader of AFLW2000-3D: a folder of .jpg and .mat pairs, and optionally the benchmark's boxes.

Zhu et al., "Face Alignment Across Large Poses: A 3D Solution", 2016. The files' pixel coordinates
count from 1, those that this module returns from 0. The labels are for photos of 450 x 450 px; a
photo of another size is refused when it is read.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from keras_scnn.data.photo_source import LabeledPhoto, PhotoSource, of_size
from keras_scnn.data.sources.mat_files import (
    FACE,
    LANDMARKS,
    PHOTO_SIZE,
    POSE,
    image_landmarks,
    read_mat,
)
from keras_scnn.io import read_image
from keras_scnn.photos.files import beside, either_case
from keras_scnn.storage.guard import reading
from keras_scnn.storage.text import utf8_text

PROTOCOL = "protocol.csv"
COLUMNS = ("name", "yaw_degrees", "crop_x0", "crop_y0", "crop_x1", "crop_y1")


@dataclass(frozen=True, eq=False)
class AnnotatedFace:
    """One photo of AFLW2000-3D and its annotation.

    Attributes:
        name: file name without suffix.
        image_path: the photo.
        landmarks: (68, 3) float64: x, y in px of the photo, pixel centers at integers from 0, y
            down; depth in px, larger nearer to the viewer.
        euler: (3,) float64: pitch, yaw, roll in radians, for ``rotation_from_euler``.
        yaw_degrees: the yaw that determines the face's bin in the benchmark.
        box: (4,) float64 half-open pixel box of the benchmark's crop; None if the folder has no
            protocol.csv.
        parameters: pose (7,), and if the file has them shape (199,) and expression (29,), as in
            ``mat_files.BfmAnnotation``.
    """

    name: str
    image_path: Path
    landmarks: np.ndarray
    euler: np.ndarray
    yaw_degrees: float
    box: np.ndarray | None
    parameters: dict[str, np.ndarray] = field(default_factory=dict)

    def read_image(self) -> np.ndarray:
        """The photo, (450, 450, 3) uint8 RGB.

        Raises:
            FileNotFoundError, ValueError: see ``io.read_image``; or it has another size, so that
                its labels do not fit.
        """
        return of_size(read_image(self.image_path), self.image_path, PHOTO_SIZE)


def read_aflw2000(folder: str | os.PathLike) -> list[AnnotatedFace]:
    """Read all annotations of a folder, in the order of protocol.csv or else sorted by name.

    Raises:
        FileNotFoundError: the folder, or a file that protocol.csv names, is missing.
        ValueError: the folder has no .mat file, or a file is damaged or of another format.
    """
    return [_read_face(*row) for row in _scan(folder)]


def read_good_faces(folder: str | os.PathLike) -> tuple[list[AnnotatedFace | str], list[str]]:
    """As ``read_aflw2000``, but continues after a face that cannot be read.

    Returns:
        for each face its annotation, or the reason why it cannot be read; and the faces' names.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder has no .mat file, or its protocol.csv is damaged.
    """
    faces: list[AnnotatedFace | str] = []
    rows = _scan(folder)
    for row in rows:
        try:
            faces.append(_read_face(*row))
        except (FileNotFoundError, ValueError) as error:
            faces.append(str(error))
    return faces, [path.stem for path, *_ in rows]


def _scan(folder: str | os.PathLike) -> list[tuple[Path, float | None, np.ndarray | None]]:
    """The .mat file, yaw and box of every face; yaw and box are None without protocol.csv."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected .jpg and .mat pairs")
    if (folder / PROTOCOL).is_file():
        rows = _read_protocol(folder / PROTOCOL)
        return [(beside(folder / f"{name}.mat", ".mat"), yaw, box) for name, yaw, box in rows]
    files = sorted(path for path in folder.iterdir() if path.name.endswith(either_case(".mat")))
    if not files:
        raise ValueError(f"{folder}: no .mat files; expected AFLW2000-3D's .jpg and .mat pairs")
    return [(path, None, None) for path in files]


def _read_protocol(path: Path) -> list[tuple[str, float, np.ndarray]]:
    what = f"a table whose columns are {', '.join(COLUMNS)}"
    with reading(path, what):
        rows = list(csv.DictReader(io.StringIO(utf8_text(path), newline="")))
        if not rows:
            raise ValueError("no face below the header")
        (name, times), *_ = Counter(row["name"] for row in rows).most_common(1)
        if times > 1:
            raise ValueError(f"{name} is listed {times} times")
        numbers = np.array([[float(row[column]) for column in COLUMNS[1:]] for row in rows])
        if not np.isfinite(numbers).all():
            raise ValueError("numbers must be finite")
        return [(row["name"], float(n[0]), n[1:]) for row, n in zip(rows, numbers, strict=True)]


def _read_face(path: Path, yaw_degrees: float | None, box: np.ndarray | None) -> AnnotatedFace:
    image = beside(path, ".jpg")
    for file in (path, image):
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such file; photos and .mat files come in pairs")
    arrays = read_mat(path, {**LANDMARKS, **POSE}, "AFLW2000-3D", optional=FACE)
    pose = arrays["Pose_Para"][0]
    yaw = float(np.rad2deg(pose[1])) if yaw_degrees is None else yaw_degrees
    given = {"pose": pose}
    for name, key in (("shape", "Shape_Para"), ("expression", "Exp_Para")):
        if key in arrays:
            given[name] = arrays[key].reshape(-1)
    landmarks = image_landmarks(arrays["pt3d_68"])
    return AnnotatedFace(path.stem, image, landmarks, pose[:3], yaw, box, given)


class Aflw2000(PhotoSource):
    """AFLW2000-3D as a data set; every photo is a different person.

    It is the field's benchmark: a network that is evaluated on it must not be trained on it.

    Args:
        folder: as for ``read_aflw2000``.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder has no .mat file, or its protocol.csv is damaged.
    """

    folder: Path
    labels = (".mat", PROTOCOL)

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self._rows = {beside(row[0], ".jpg").name: row for row in _scan(folder)}

    def names(self) -> list[str]:
        return list(self._rows)

    def person(self, name: str) -> str:
        return name

    def load(self, name: str) -> LabeledPhoto:
        if name not in self._rows:
            raise FileNotFoundError(f"{name}: the data set has no such photo")
        face = _read_face(*self._rows[name])
        return LabeledPhoto(
            name=name,
            person=name,
            landmarks=face.landmarks,
            weight=np.ones(68),
            image=face.image_path,
            box=face.box,
            size=PHOTO_SIZE,
        )
