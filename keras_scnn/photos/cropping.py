"""From a face's box to the square crop that the network sees; all margins are defined here.

Boxes are half-open pixel slices, see ``geometry.crops``: the box 0, 0, 4, 4 covers the pixels 0 to
3, and pixel coordinate x is x + 0.5 in box coordinates.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from keras_scnn.geometry.crops import check_crop_box, check_patch, crop_from_image
from keras_scnn.settings import check_number, check_share

CROP_SIZE = 120
# From BlazeFace's square to the standard crop: shift down and scale factor, in units of its side.
# Fitted (least squares, soft L1) to the 68 landmarks of 1,537 photos of 300-W and 1,476 crops of
# AFLW; the mean error is then 3.3 % of the side for the center, 5.5 % for the side. Linear
# combinations of BlazeFace's six keypoints were hardly better.
DETECTOR_SHIFT = 0.055
DETECTOR_SCALE = 1.336
# A head rotated in the image by less is not rotated back: up to 75 degrees either way the networks
# work well.
MIN_TURN = np.deg2rad(80)
MAX_RESIZE = 3.0  # a second crop whose side differs by a larger factor is taken for a failure


@dataclass(frozen=True)
class FaceBox:
    """A box around a face, px: a half-open slice x0, y0, x1, y1 that may extend beyond the photo.

    Attributes:
        x0, y0, x1, y1: the edges; x1 > x0 and y1 > y0.
        score: the detector's, from 0 to 1.
        angle: in-plane rotation of a head on its side or upside down, radians, clockwise in the
            photo; the crop is the box rotated by it about its center. 0: no rotation is needed.

    Raises:
        ValueError: an edge or the angle is not a finite number, the box is empty, or the score is
            not a number from 0 to 1.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    score: float = 1.0
    angle: float = 0.0

    def __post_init__(self) -> None:
        for name in ("x0", "y0", "x1", "y1", "angle"):
            check_number(name, getattr(self, name))
        check_share("score", self.score)
        if not np.isfinite(self.angle):
            raise ValueError(f"a face box needs a finite angle in radians; got {self.angle}")
        extent = np.array([self.width, self.height])
        if not (np.isfinite(extent).all() and (extent > 0).all()):
            raise ValueError(
                f"a face box needs finite edges with x1 > x0 and y1 > y0; got {self.as_array()}"
            )

    def as_array(self) -> np.ndarray:
        """(4,) float64: x0, y0, x1, y1, before the box is rotated."""
        return np.array([self.x0, self.y0, self.x1, self.y1], np.float64)

    @property
    def width(self) -> float:
        return float(self.x1) - float(self.x0)  # NumPy's small integers would overflow

    @property
    def height(self) -> float:
        return float(self.y1) - float(self.y0)

    @property
    def center(self) -> np.ndarray:
        """(2,) float64 px, box coordinates: x, y."""
        edges = self.as_array()
        return (edges[:2] + edges[2:]) / 2

    @classmethod
    def square(
        cls, center: np.ndarray, side: float, score: float = 1.0, angle: float = 0.0
    ) -> FaceBox:
        """A square of ``side`` px about ``center``, a point (2,) in box coordinates."""
        (x, y), half = np.asarray(center, np.float64), side / 2
        edges = float(x - half), float(y - half), float(x + half), float(y + half)
        return cls(*edges, score, angle)


def listed_boxes(name: str, boxes: Iterable[FaceBox]) -> list[FaceBox]:
    """Boxes as a list.

    Args:
        name: of the argument, for the message.
        boxes: any number; a single box outside of a list is refused.

    Raises:
        ValueError: ``boxes`` is not an iterable of ``FaceBox``.
    """
    listed = list(boxes) if isinstance(boxes, Iterable) else [None]
    if not all(isinstance(box, FaceBox) for box in listed):
        raise ValueError(
            f"{name} must be a list of FaceBox, as a detector finds them; one is given as [box]"
        )
    return listed


@dataclass(frozen=True, eq=False)
class FaceCrop:
    """The square image that the network sees.

    Attributes:
        image: (S, S, 3) uint8 RGB.
        crop_from_image: (2, 3) float64, from px of the photo to px of the crop.
    """

    image: np.ndarray
    crop_from_image: np.ndarray

    def mirrored(self) -> FaceCrop:
        """The crop's mirror image, left and right exchanged, with a transform that mirrors too."""
        to_crop = self.crop_from_image * [[-1], [1]]
        to_crop[0, 2] += self.image.shape[1] - 1
        return FaceCrop(self.image[:, ::-1], to_crop)


def box_from_landmarks(landmarks: np.ndarray, score: float = 1.0) -> FaceBox:
    """The field's standard crop of a face with known landmarks.

    The square around the center of the landmarks' bounding box whose side is the bounding box's
    diagonal, ``sqrt(w^2 + h^2)``. (The crops of AFLW and of AFLW2000-3D are such squares up to a
    few percent: each toolbox adds its own margin, and training jitters the crop by more.)

    Args:
        landmarks: (68, 2) or (68, 3) px, image frame; only x and y are used. Any two or more of
            the 68 are accepted, for a face of which only these are known.
        score: of the box.

    Raises:
        ValueError: wrong shape, points that are not finite, or all points coincide.
    """
    points = np.asarray(landmarks, np.float64)
    if points.ndim != 2 or points.shape[1] not in (2, 3) or len(points) < 2:
        raise ValueError(f"landmarks have the shape {points.shape}; expected (68, 2) or (68, 3)")
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    return FaceBox.square((low + high) / 2 + 0.5, float(np.linalg.norm(high - low)), score)


def second_box(landmarks: np.ndarray, first: FaceBox) -> FaceBox:
    """The standard crop of the landmarks found in a first crop; the first box if that fails.

    It fails if the landmarks have no box, or if the sides differ by a factor of ``MAX_RESIZE``.

    Args:
        landmarks: as for ``box_from_landmarks``.
        first: the box in which they were found; the new box takes its score.
    """
    try:
        box = box_from_landmarks(landmarks, first.score)
    except ValueError:
        return first
    return box if 1 / MAX_RESIZE < box.width / first.width < MAX_RESIZE else first


def box_from_detector(
    box: np.ndarray, score: float = 1.0, keypoints: np.ndarray | None = None
) -> FaceBox:
    """The standard crop for a detection of BlazeFace.

    Args:
        box: (4,) px, box coordinates: x0, y0, x1, y1.
        score: of the box.
        keypoints: (6, 2) px, box coordinates, of ``RawDetections``; if they show a head on its
            side or upside down, they determine the ``angle``. None for an upright head.
    """
    box = np.asarray(box, np.float64)
    side = (box[2:] - box[:2]).mean()
    angle = 0.0 if keypoints is None else turn_of(keypoints)
    down = np.array([-np.sin(angle), np.cos(angle)])
    center = (box[:2] + box[2:]) / 2 + DETECTOR_SHIFT * side * down
    return FaceBox.square(center, DETECTOR_SCALE * side, score, angle)


def turn_of(keypoints: np.ndarray) -> float:
    """In-plane rotation of the head, radians clockwise, from BlazeFace's (6, 2) keypoints.

    0 if it is below ``MIN_TURN``.
    """
    points = np.asarray(keypoints, np.float64)
    x, y = points[3] - points[:2].mean(axis=0)  # from between the eyes to the mouth
    angle = float(np.arctan2(-x, y))
    return angle if abs(angle) >= MIN_TURN else 0.0


def crop_face(image: np.ndarray, box: FaceBox, size: int = CROP_SIZE) -> FaceCrop:
    """Crop a square from a photo and resample it to ``size`` px, with exact pixel centers.

    If the box is much larger than the crop, blocks of pixels are averaged first to prevent
    aliasing. What lies outside of the photo is black.

    Args:
        image: (H, W, 3) uint8.
        box: a square, up to 5 %; with an angle it is cropped by ``crop_rotated``.
        size: side of the crop, px.

    Raises:
        ValueError: the image is not a uint8 color image, the box is refused by
            ``geometry.crops.check_crop_box``, or the photo is so narrow that the crop would take
            far more memory than the photo.
    """
    check_photo(image)
    edges = box.as_array()
    check_crop_box(edges, image.shape)
    if box.angle:
        return crop_rotated(image, box.center, box.width, box.angle, size)
    to_crop = crop_from_image(edges, size)
    if image.shape[:2] == (size, size) and (box.x0, box.y0, box.x1, box.y1) == (0, 0, size, size):
        return FaceCrop(image, to_crop)
    patch, patch_from_image = _averaged_patch(image, edges, max(1, round(box.width / size)))
    return FaceCrop(_resampled(patch, to_crop, patch_from_image, size), to_crop)


def crop_rotated(
    image: np.ndarray, center: np.ndarray, side: float, angle: float, size: int
) -> FaceCrop:
    """Crop a rotated square from a photo; otherwise as ``crop_face``.

    Args:
        image: (H, W, 3) uint8.
        center: (2,) the square's center, box coordinates (pixel centers at .5).
        side: of the square, px of the photo.
        angle: radians from the photo's x axis to the crop's, clockwise in the photo (y is down).
        size: side of the crop, px.

    Raises:
        ValueError: the image is not a uint8 color image; the square is empty, not finite, or far
            larger than the photo (``geometry.crops.check_crop_box``); or the photo is so narrow
            that the crop would take far more memory than the photo.
    """
    check_photo(image)
    check_crop_box(FaceBox.square(center, side).as_array(), image.shape)
    cos, sin = np.cos(angle), np.sin(angle)
    around = FaceBox.square(center, side * (abs(cos) + abs(sin)))
    linear = size / side * np.array([[cos, sin], [-sin, cos]])
    to_crop = np.c_[linear, (size - 1) / 2 - linear @ (np.asarray(center) - 0.5)]
    block = max(1, round(side / size))
    patch, patch_from_image = _averaged_patch(image, around.as_array(), block)
    return FaceCrop(_resampled(patch, to_crop, patch_from_image, size), to_crop)


def crop_upright(image: np.ndarray, landmarks: np.ndarray, angle: float, size: int) -> FaceCrop:
    """The standard crop of a face as it would be if the head were upright; see ``crop_rotated``.

    Args:
        image: (H, W, 3) uint8 RGB.
        landmarks: (68, 2) or (68, 3) px, image frame; only x and y are used.
        angle: in-plane rotation of the head, radians, clockwise in the photo.
        size: side of the crop, px.

    Raises:
        ValueError: see ``crop_rotated`` and ``box_from_landmarks``.
    """
    cos, sin = np.cos(angle), np.sin(angle)
    upright_from_image = np.array([[cos, sin], [-sin, cos]])
    box = box_from_landmarks(np.asarray(landmarks, np.float64)[:, :2] @ upright_from_image.T)
    center = upright_from_image.T @ (box.center - 0.5) + 0.5
    return crop_rotated(image, center, box.width, angle, size)


def _averaged_patch(image, edges: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """The photo around a box, averaged in blocks of ``block`` px, and patch_from_image (2, 3)."""
    limit = np.array(image.shape[1::-1])
    low = np.clip(np.floor(edges[:2]).astype(int) - 2 * block, 0, limit - 1)
    high = np.clip(np.ceil(edges[2:]).astype(int) + 2 * block, low + 1, limit)
    patch = image[low[1] : high[1], low[0] : high[0]]
    check_patch(image.shape, high - low, block)
    if block > 1:
        missing = -(high - low) % block
        if missing.any():
            patch = cv2.copyMakeBorder(patch, 0, missing[1], 0, missing[0], cv2.BORDER_REPLICATE)
        patch = cv2.resize(patch, None, fx=1 / block, fy=1 / block, interpolation=cv2.INTER_AREA)
    return patch, crop_from_image(np.array([*low, *(low + block)]), 1)


def _resampled(
    patch: np.ndarray, crop_from_image: np.ndarray, patch_from_image: np.ndarray, size: int
) -> np.ndarray:
    """The crop (S, S, 3) from a patch of the photo, bilinear; black outside of the patch."""
    matrix = crop_from_image @ np.linalg.inv(np.vstack([patch_from_image, [0, 0, 1]]))
    if patch.shape[:2] == (size, size) and np.array_equal(matrix, np.eye(2, 3)):
        return patch  # resampling would take as long as BlazeFace's first layers
    return cv2.warpAffine(patch, matrix, (size, size), flags=cv2.INTER_LINEAR)


def check_photo(image: np.ndarray) -> None:
    """Raise a ValueError unless ``image`` is an (H, W, 3) uint8 array with at least one pixel."""
    shape, dtype = np.shape(image), getattr(image, "dtype", type(image).__name__)
    is_array = isinstance(image, np.ndarray)
    if not is_array or len(shape) != 3 or shape[2] != 3 or 0 in shape or dtype != np.uint8:
        kind = "" if is_array else f", and is a {type(image).__name__}"
        raise ValueError(
            f"image has the shape {shape} and dtype {dtype}{kind}; expected (H, W, 3) uint8 RGB, "
            "a NumPy array"
        )
