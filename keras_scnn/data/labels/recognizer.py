"""dlib's embeddings of a photo: the target of the identity loss (see ``models.recognizers.chips``).

The code that runs dlib's weights one photo at a time is the package dlib (wheel: dlib-bin), of the
extra ``teacher``.
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

# The distance below which dlib's author calls two photos one person. On 1,934 photos of 90 people
# of CelebA 90.2 % of the pairs of one person are below, 99.5 % of the others above (AUC 0.991).
SAME_PERSON = 0.6


def chip_from_landmarks(landmarks: np.ndarray) -> tuple[np.ndarray, float, float]:
    """The square that dlib's recognizer expects, by a similarity of five landmarks.

    Args:
        landmarks: (68, 2 or 3) px, image frame.

    Returns:
        center (2,) in box coordinates, side in px and angle in radians for
        ``cropping.crop_rotated``.

    Raises:
        ValueError: wrong shape, or landmarks that are not finite or all in one place.
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
    """dlib's recognizer. One process should make one and keep it (0.1 s, 40 MB).

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
            (128,) float32, about 1.5 long; photos of one person are nearer than ``SAME_PERSON`` to
            each other.

        Raises:
            ValueError: the image is no uint8 color image, or see ``chip_from_landmarks``.
        """
        chip = crop_rotated(image, *chip_from_landmarks(landmarks), CHIP_SIZE).image
        return np.array(self._network.compute_face_descriptor(chip), np.float32)


@functools.cache
def shared_teacher() -> FaceTeacher:
    """One recognizer for the whole process; errors as ``FaceTeacher``."""
    return FaceTeacher()


def _dlib():
    """The package dlib, imported when it is needed: it is an extra."""
    try:
        return importlib.import_module("dlib")
    except ImportError as error:
        raise FileNotFoundError(
            f"the package dlib is not installed ({error}); {INSTALL}"
        ) from error
