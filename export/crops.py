"""Crops to calibrate and verify exported files with: a user's own, or synthetic ones."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_scnn.data.records import is_records, load_records
from keras_scnn.data.synthesis.rendered_people import SyntheticConfig, render_person
from keras_scnn.io import read_image
from keras_scnn.photos.files import PHOTO_SUFFIXES, describe_passed_over, find_photos

MAX_CROPS, MIN_CROPS = 400, 2
PEOPLE, PHOTOS = 50, 8  # synthetic ones


@dataclass(frozen=True, eq=False)
class Crops:
    """Crops for one purpose.

    Attributes:
        images: (M, S, S, 3) uint8 RGB.
        landmarks: (M, 68, 3) float32, annotated, crop px; None without annotation.
        source: where they come from, for reports.
        are_rendered: whether they are synthetic, because no folder was given.
    """

    images: np.ndarray
    landmarks: np.ndarray | None
    source: str
    are_rendered: bool = False

    def __len__(self) -> int:
        return len(self.images)


def split_crops(crops: Crops) -> tuple[Crops, Crops]:
    """Every second crop, to calibrate with, and the others, to verify with."""
    return _every_second(crops, 0), _every_second(crops, 1)


def _every_second(crops: Crops, start: int) -> Crops:
    landmarks = None if crops.landmarks is None else crops.landmarks[start::2]
    images = crops.images[start::2]
    return Crops(images, landmarks, f"{len(images)} of {crops.source}", crops.are_rendered)


def calibration_and_held_out(
    folder: Path | None, held_out: Path | None, size: int
) -> tuple[Crops, Crops]:
    """Crops to calibrate with, and others to verify with.

    Args:
        folder: see ``find_crops``.
        held_out: folder of crops to verify with; None uses every second crop of ``folder``.
        size: width and height of the network's input, px.

    Raises:
        FileNotFoundError, ValueError: see ``find_crops``.
    """
    crops = find_crops(folder, size)
    return split_crops(crops) if held_out is None else (crops, find_crops(held_out, size))


def check_folder(folder: Path | None) -> None:
    """Raise a FileNotFoundError if a folder of crops is given but does not exist."""
    if folder is not None and not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of crops")


def find_crops(folder: Path | None, size: int, max_crops: int = MAX_CROPS) -> Crops:
    """Crops of ``size`` px: from face records, from a folder of square images, or synthetic ones.

    Args:
        folder: a folder of face records, or of images; None renders synthetic people.
        size: width and height of the network's input, px; images of another size are not resized.
        max_crops: maximum number of crops, spread evenly over the folder.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder has too few crops, crops of another size, or a damaged file.
    """
    if folder is None:
        return _synthetic(size, max_crops)
    check_folder(folder)
    if is_records(folder):
        crops = _of_records(folder, max_crops)
    else:
        crops = _of_images(folder, max_crops, size)
    if crops.images.shape[1:3] != (size, size):
        width = crops.images.shape[2]
        raise ValueError(f"{folder}: crops of {width} px; the network needs {size} px")
    if len(crops) < MIN_CROPS:
        raise ValueError(f"{folder}: {len(crops)} crop; at least {MIN_CROPS} are needed")
    return crops


def _spread(count: int, max_crops: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, max_crops)).astype(int))


def _of_records(folder: Path, max_crops: int) -> Crops:
    records = load_records(folder)
    chosen = _spread(len(records), max_crops)
    images = np.asarray(records.images[chosen])
    return Crops(images, records.landmarks[chosen], f"{len(chosen)} face records of {folder.name}")


def _of_images(folder: Path, max_crops: int, size: int) -> Crops:
    files = find_photos(folder)
    if files.passed_over:
        print(describe_passed_over(files.passed_over), file=sys.stderr)
    if not files.photos:
        raise ValueError(
            f"{folder}: neither face records (manifest.json) nor images "
            f"({', '.join(PHOTO_SUFFIXES)})"
        )
    chosen = [folder / files.photos[i] for i in _spread(len(files.photos), max_crops)]
    images = [_read_crop(path, size) for path in chosen]
    return Crops(np.stack(images), None, f"{len(images)} images of {folder.name}")


def _read_crop(path: Path, size: int) -> np.ndarray:
    image = read_image(path)
    if image.shape != (size, size, 3):
        height, width = image.shape[:2]
        raise ValueError(f"{path}: {width} x {height} px; crops must be {size} x {size}")
    return image


def _synthetic(size: int, max_crops: int) -> Crops:
    photos = min(PHOTOS, max_crops)
    people = max(1, min(PEOPLE, max_crops // photos))
    config = SyntheticConfig(people=people, photos=photos, size=size)
    parts = [render_person(config, person) for person in range(people)]
    images = np.concatenate([crops for crops, _, _ in parts])
    # Without landmarks: these are the model's own, while a preset's may have annotators' offsets.
    return Crops(images, None, f"{len(images)} synthetic crops", are_rendered=True)
