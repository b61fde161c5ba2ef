"""300-W's landmark files (.pts), and folders of photos with such a file beside each.

Sagonas et al., "300 Faces In-the-Wild Challenge", 2013. The files' pixel coordinates count from 1,
as in MATLAB; results of this module count from 0.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from keras_scnn.data.photo_source import LabeledPhoto, PhotoSource
from keras_scnn.geometry.landmarks68 import JAW
from keras_scnn.photos.files import PHOTO_SUFFIXES, beside, either_case, find_photos, is_photo
from keras_scnn.storage.guard import existing_file, reading
from keras_scnn.storage.text import counted

LAYOUT = re.compile(r"\s*version:\s*1\s+n_points:\s*(\d+)\s*\{([^{}]*)\}\s*")
# Hand-made jaw points follow the visible contour, which on a turned head is not the jaw.
JAW_WEIGHT = 0.5


def read_pts(path: str | os.PathLike) -> np.ndarray:
    """Read the landmarks of a .pts file.

    Returns:
        (n, 2) float64 px, image frame (pixel centers at integers from 0).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or of another format.
    """
    path = existing_file(path, "a .pts file beside each photo")
    with reading(path, "a .pts file ('version: 1', 'n_points: 68', '{', ..., '}')"):
        match = LAYOUT.fullmatch(path.read_bytes().decode("ascii", errors="replace"))
        if match is None:
            raise ValueError("unexpected layout")
        numbers = np.array(match[2].split(), np.float64)
        if numbers.size != 2 * int(match[1]) or not np.isfinite(numbers).all():
            raise ValueError(f"{numbers.size} numbers; {match[1]} points have 2 finite ones each")
        return numbers.reshape(-1, 2) - 1


class PtsFolder(PhotoSource):
    """Photos with a .pts file of 68 landmarks beside each; every photo is a different person.

    Sub-folders are searched too. A photo without a .pts file, or a .pts file without a photo, is
    among the names, and is reported when it is loaded.

    Args:
        folder: contains photos and .pts files.

    Raises:
        FileNotFoundError: there is no such folder, or it has no .pts file.
    """

    folder: Path
    labels = (".pts",)

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self._names = _scan(self.folder)

    def names(self) -> list[str]:
        return list(self._names)

    def person(self, name: str) -> str:
        return name

    def load(self, name: str) -> LabeledPhoto:
        """Labels of one photo; the depth is unknown, NaN."""
        image = self.folder / name
        if not is_photo(image) or not image.is_file():
            raise FileNotFoundError(f"{image}: no photo ({', '.join(PHOTO_SUFFIXES)}) of this name")
        file = beside(image, ".pts")
        points = read_pts(file)
        if len(points) != 68:
            raise ValueError(f"{file}: {counted(len(points), 'point')}; expected 68")
        weight = np.ones(68)
        weight[JAW] = JAW_WEIGHT
        landmarks = np.column_stack([points, np.full(68, np.nan)])
        return LabeledPhoto(name, name, landmarks, weight, image)


def _scan(folder: Path) -> list[str]:
    """Relative names of the photos, and of .pts files without a photo."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected photos and .pts files")
    result = find_photos(folder)
    points = [name for name in result.passed_over if name.endswith(either_case(".pts"))]
    if not points:
        raise FileNotFoundError(f"{folder}: no .pts files; expected one beside each photo")
    stems = {Path(name).with_suffix("") for name in result.photos}
    alone = [name for name in points if Path(name).with_suffix("") not in stems]
    return sorted([*result.photos, *alone])
