"""The photos of AFLW2000-3D as the benchmark cuts them."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from keras_scnn.cropping import FaceBox, box_from_landmarks, crop_face
from keras_scnn.data.aflw2000 import AnnotatedFace, read_good_faces
from keras_scnn.io import read_image


@dataclass(frozen=True, eq=False)
class BenchmarkPhotos:
    """The M photos that can be read.

    Attributes:
        faces: their annotations.
        boxes: (M, 4) float64 half-open pixel boxes of the crops.
        crops: (M, S, S, 3) uint8 RGB.
        kept: (M,) their positions in ``listed``.
        listed: names of all photos, in the order of protocol.csv, else sorted.
        left_out: why the others are missing.
    """

    faces: list[AnnotatedFace]
    boxes: np.ndarray
    crops: np.ndarray
    kept: np.ndarray
    listed: list[str]
    left_out: tuple[str, ...]


def read_photos(folder: str | os.PathLike, size: int) -> BenchmarkPhotos:
    """Read all photos that can be read, and cut their faces.

    Args:
        folder: of AFLW2000-3D; the crops are those of its protocol.csv, else the standard crop
            about the annotated landmarks.
        size: of the crops, S px.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: none of the photos can be read, or protocol.csv is damaged.
    """
    found, listed = read_good_faces(folder)
    kept, crops, left_out = [], [], []
    for i, face in enumerate(tqdm(found, desc="reading photos", leave=False, delay=1)):
        if isinstance(face, str):
            left_out.append(face)
            continue
        try:
            crops.append(crop_face(read_image(face.image_path), _box_of(face), size).image)
            kept.append(i)
        except (OSError, ValueError) as error:
            left_out.append(str(error))
    if not kept:
        raise ValueError(f"none of {len(found)} photos can be read; the first: {left_out[0]}")
    faces = [found[i] for i in kept]
    boxes = np.array([_box_of(face).as_array() for face in faces])
    return BenchmarkPhotos(faces, boxes, np.stack(crops), np.array(kept), listed, tuple(left_out))


def _box_of(face: AnnotatedFace) -> FaceBox:
    if face.box is None:
        return box_from_landmarks(face.landmarks)
    return FaceBox(*face.box.tolist())
