"""Find the faces of a photo, large and small, with BlazeFace in ai-edge-litert."""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np

from keras_scnn.photos.blazeface import (
    EMPTY,
    INPUT_SIZE,
    SAME_FACE_IOU,
    RawDetections,
    concatenate,
    decode_boxes,
    intersection_over_union,
    model_path,
    suppress,
)
from keras_scnn.photos.cropping import FaceBox, box_from_detector, check_photo, crop_face
from keras_scnn.storage.tflite import PerThread, open_interpreter

# Whatever scores so much in any pass is confirmed in a square of CONFIRM_ZOOM times its size.
CANDIDATE_SCORE = 0.4
CONFIRM_ZOOM = 2.0
# The photo at half size, for faces that fill it; then tiles of 1/2, 1/4, 1/8, for small ones, as
# long as the network does not have to enlarge them.
PADDED_ZOOM = 2.0
# Score, and share of the photo's longer side, of a face that one pass over the photo shows clearly.
CLEAR_SCORE, CLEAR_SHARE = 0.8, (0.15, 0.7)
TILE_LEVELS = (2, 4, 8)


class FaceDetector:
    """BlazeFace on the whole photo, on the photo with a margin, and on overlapping tiles.

    Every candidate is detected once more in a square of twice its size, where BlazeFace is at its
    best. On collages of 300-W faces 28 px wide this finds 78 %, tiles alone 35 %. The standard
    crop is met (IoU of 0.3 with BlazeFace's own box) on all of 257 photos of 300-W and on 99 % of
    200 photos of AFLW2000-3D. A photo of 1,500 px takes 0.4 s of one core; ``tiles=False`` takes
    0.01 s and misses small faces. It may be called from several threads at once.

    Args:
        min_score: minimum score of a face, from 0 to 1.
        tile_min_score: the same for faces that only a tile shows; tiles also show more of what is
            no face.
        tiles: look for small faces too.
        stop_early: a first pass over the whole photo that shows a face clearly is the result.

    Raises:
        FileNotFoundError: the package with the network is not installed.
        ValueError: a score is out of range.
    """

    def __init__(
        self,
        min_score: float = 0.6,
        tile_min_score: float = 0.7,
        tiles: bool = True,
        stop_early: bool = False,
    ):
        for name, value in (("min_score", min_score), ("tile_min_score", tile_min_score)):
            if not 0 < value < 1:
                raise ValueError(f"{name} is {value}; it must lie between 0 and 1")
        self._min_score, self._tile_min_score = min_score, tile_min_score
        self._tiles, self._stop_early = tiles, stop_early
        content = model_path().read_bytes()
        self._interpreter = PerThread(lambda: open_interpreter(content))
        interpreter = self._interpreter()
        self._input = interpreter.get_input_details()[0]["index"]
        outputs = {d["name"]: d["index"] for d in interpreter.get_output_details()}
        self._regressors, self._classifiers = outputs["regressors"], outputs["classificators"]

    def detect(self, image: np.ndarray) -> list[FaceBox]:
        """Find the faces of a photo.

        Args:
            image: (H, W, 3) uint8 RGB.

        Returns:
            the square crop of each face, as ``cropping.box_from_landmarks`` defines it, highest
            score first.

        Raises:
            ValueError: the image is no uint8 color image.
        """
        raw = self.detect_raw(image)
        pairs = zip(raw.boxes, raw.scores, strict=True)
        return [box_from_detector(box, float(score)) for box, score in pairs]

    def detect_raw(self, image: np.ndarray) -> RawDetections:
        """The same with BlazeFace's own boxes and keypoints, highest score first, px."""
        check_photo(image)
        height, width = image.shape[:2]
        small, factor = _halved(image)
        side, center = max(height, width), np.array([width, height]) / 2
        whole = [self._run(small, FaceBox.square(center / factor, side / factor), factor)]
        if self._stop_early and _is_clear(single := suppress(whole[0]), side):
            return single
        padded = FaceBox.square(center / factor, side * PADDED_ZOOM / factor)
        whole.append(self._run(small, padded, factor))
        faces = [self._confirmed(image, whole, self._min_score, self._min_score)]
        if self._tiles:
            squares = tiles(height, width)
            parts = [self._run(image, tile) for tile in squares]
            pairs = zip(parts, squares, strict=True)
            uncut = [raw[_inside(raw.boxes, tile, height, width)] for raw, tile in pairs]
            faces.append(self._confirmed(image, uncut, self._tile_min_score, np.inf))
        return suppress(concatenate(faces))

    def _confirmed(
        self, image, parts: list[RawDetections], min_score: float, keep_score: float
    ) -> RawDetections:
        """The candidates detected again at their best size, or above ``keep_score`` anyway."""
        candidates = suppress(concatenate([EMPTY, *parts]))
        faces = [EMPTY]
        for i, box in enumerate(candidates.boxes):
            side = CONFIRM_ZOOM * (box[2:] - box[:2]).max()
            raw = suppress(self._run(image, FaceBox.square((box[:2] + box[2:]) / 2, side)))
            same = intersection_over_union(box, raw.boxes) > SAME_FACE_IOU
            confirmed = raw[same & (raw.scores >= min_score)][:1]
            if not len(confirmed.scores) and candidates.scores[i] >= keep_score:
                confirmed = candidates[i : i + 1]
            faces.append(confirmed)
        return concatenate(faces)

    def _run(self, image: np.ndarray, square: FaceBox, factor: int = 1) -> RawDetections:
        """The candidates in a square of the photo, which is ``factor`` times as large as given."""
        crop = crop_face(image, square, INPUT_SIZE).image
        interpreter = self._interpreter()
        interpreter.set_tensor(self._input, np.float32(crop[None]) / 127.5 - 1)
        interpreter.invoke()
        raw = decode_boxes(
            interpreter.get_tensor(self._regressors)[0],
            interpreter.get_tensor(self._classifiers)[0, :, 0],
            CANDIDATE_SCORE,
        )
        side, origin = square.width * factor, np.array([square.x0, square.y0]) * factor
        return RawDetections(
            raw.boxes * side + np.tile(origin, 2), raw.keypoints * side + origin, raw.scores
        )


class Detector(Protocol):
    """What finds the faces of a photo, as ``FaceDetector`` does."""

    def detect(self, image: np.ndarray) -> list[FaceBox]:
        """The square crop of each face of an (H, W, 3) uint8 RGB photo, highest score first."""


class LargestFaceDetector:
    """Finds the face that a photo is of: the largest; small ones only where there is no other.

    Args:
        quick: a detector for every photo; None makes a ``FaceDetector`` without tiles.
        thorough: a detector for those in which that finds nothing; None makes one with tiles.
    """

    def __init__(self, quick: Detector | None = None, thorough: Detector | None = None):
        self._quick: Detector = quick or FaceDetector(tiles=False, stop_early=True)
        self._thorough: Detector = thorough or FaceDetector()

    def __call__(self, image: np.ndarray) -> FaceBox:
        """The standard crop of the largest face of an (H, W, 3) uint8 RGB photo.

        Raises:
            ValueError: there is none.
        """
        return self.faces(image)[0]

    def faces(self, image: np.ndarray) -> list[FaceBox]:
        """The faces, one at least, the largest first; errors as above."""
        boxes = self._quick.detect(image) or self._thorough.detect(image)
        if not boxes:
            raise ValueError("no face found; it should show one at least 40 px wide")
        return sorted(boxes, key=lambda box: -box.width)


def _halved(image: np.ndarray) -> tuple[np.ndarray, int]:
    """The photo at 1/2, 1/4, ... of its size, no smaller than the network sees it, and 2, 4, ...

    Halving again and again is several times as fast as averaging large blocks at once.
    """
    factor = 1
    while max(image.shape[:2]) >= 4 * INPUT_SIZE and not any(n % 2 for n in image.shape[:2]):
        image = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        factor *= 2
    return image, factor


def _is_clear(faces: RawDetections, side: float) -> bool:
    """Whether there is one face, and no other candidate, of a good score and size."""
    if len(faces.scores) != 1 or faces.scores[0] < CLEAR_SCORE:
        return False
    low, high = CLEAR_SHARE
    return bool(low <= (faces.boxes[0, 2] - faces.boxes[0, 0]) / side <= high)


def tiles(height: int, width: int) -> list[FaceBox]:
    """Squares of 1/2, 1/4 and 1/8 of the longer side that cover the photo and overlap by half."""
    squares = []
    for level in TILE_LEVELS:
        side = max(height, width) / level
        if side < INPUT_SIZE:
            break
        starts = [_starts(extent, side) for extent in (width, height)]
        squares += [FaceBox(x, y, x + side, y + side) for y in starts[1] for x in starts[0]]
    return squares


def _starts(extent: int, side: float) -> np.ndarray:
    if extent <= side:
        return np.array([(extent - side) / 2])
    return np.linspace(0, extent - side, int(np.ceil((extent - side) / (side / 2))) + 1)


def _inside(boxes: np.ndarray, tile: FaceBox, height: int, width: int) -> np.ndarray:
    """Which boxes do not touch an edge of the tile that is not an edge of the photo."""
    low = np.where(tile.as_array()[:2] <= 0, -np.inf, tile.as_array()[:2])
    high = np.where(tile.as_array()[2:] >= [width, height], np.inf, tile.as_array()[2:])
    return np.all(boxes[:, :2] > low, axis=1) & np.all(boxes[:, 2:] < high, axis=1)
