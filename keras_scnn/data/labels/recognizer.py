"""dlib's embeddings of photos: targets of the identity loss (see ``models.recognizers.chips``).

The package dlib (wheel: dlib-bin, extra ``teacher``) runs the recognizer, one photo at a time.
"""

from __future__ import annotations

import functools
import importlib

import numpy as np

from keras_scnn.geometry.alignment import similarity_alignment
from keras_scnn.models.recognizers.chips import (
    CHIP_LANDMARKS,
    CHIP_PADDING,
    CHIP_POINTS,
    CHIP_SIZE,
    INSTALL,
    weights_path,
)
from keras_scnn.photos.cropping import crop_rotated

# The distance below which two photos show one person, according to dlib's author. For 1,934 photos
# of 90 people of CelebA, it is below for 90.2 % of the pairs of one person, and above for 99.5 % of
# the others (AUC 0.991).
SAME_PERSON = 0.6


def chip_from_landmarks(landmarks: np.ndarray) -> tuple[np.ndarray, float, float]:
    """The square that dlib's recognizer expects, from a similarity fitted to five landmarks.

    Args:
        landmarks: (68, 2 or 3) px, image frame.

    Returns:
        center (2,) in box coordinates, side in px and angle in radians for
        ``cropping.crop_rotated``.

    Raises:
        ValueError: wrong shape, or landmarks that are not finite or all coincide.
    """
    points = np.asarray(landmarks, np.float64)
    if points.ndim != 2 or len(points) != 68 or points.shape[1] not in (2, 3):
        raise ValueError(f"landmarks have the shape {points.shape}; expected (68, 2) or (68, 3)")
    points = points[CHIP_LANDMARKS, :2]
    if not np.isfinite(points).all() or not np.ptp(points, axis=0).any():
        raise ValueError("landmarks must be finite and not all in one place")
    chip = (CHIP_POINTS + CHIP_PADDING) / (1 + 2 * CHIP_PADDING) * CHIP_SIZE
    scale, rotation, shift = similarity_alignment(chip, points)
    center = scale * rotation @ np.full(2, CHIP_SIZE / 2) + shift  # as dlib's chip_details
    return center + 0.5, float(scale * CHIP_SIZE), float(np.arctan2(rotation[1, 0], rotation[0, 0]))


class FaceTeacher:
    """dlib's recognizer. Create it only once per process: it takes 0.1 s and 40 MB.

    Raises:
        FileNotFoundError: the package dlib, or the one with the weights, is not installed.
    """

    def __init__(self):
        self._network = _dlib().face_recognition_model_v1(str(weights_path()))

    def __call__(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """The embedding of one face.

        Args:
            image: (H, W, 3) uint8 RGB.
            landmarks: (68, 2 or 3) px, image frame.

        Returns:
            (128,) float32 of length about 1.5; for photos of one person, the distance is below
            ``SAME_PERSON``.

        Raises:
            ValueError: the image is not a uint8 color image; or see ``chip_from_landmarks``.
        """
        chip = crop_rotated(image, *chip_from_landmarks(landmarks), CHIP_SIZE).image
        return np.array(self._network.compute_face_descriptor(chip), np.float32)


@functools.cache
def shared_teacher() -> FaceTeacher:
    """One recognizer for the whole process; errors as ``FaceTeacher``."""
    return FaceTeacher()


def _dlib():
    """The package dlib, an optional dependency."""
    try:
        return importlib.import_module("dlib")
    except ImportError as error:
        raise FileNotFoundError(
            f"the package dlib is not installed ({error}); {INSTALL}"
        ) from error
