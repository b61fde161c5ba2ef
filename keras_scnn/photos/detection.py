"""Detect the faces of a photo, large and small, with BlazeFace in ai-edge-litert."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np

from keras_scnn.photos.blazeface import (
    EMPTY,
    HALF_RANGE,
    INPUT_SIZE,
    SAME_FACE_IOU,
    RawDetections,
    concatenate,
    decode_boxes,
    intersection_over_union,
    model_path,
    rotate_detections,
    suppress,
    without_nested,
)
from keras_scnn.photos.cropping import (
    DETECTOR_SCALE,
    FaceBox,
    box_from_detector,
    check_photo,
    crop_face,
    listed_boxes,
    turn_of,
)
from keras_scnn.photos.facemesh import FaceMesh
from keras_scnn.settings import check_score, typed
from keras_scnn.storage.tflite import per_thread_interpreter

# Minimum score of a face: in a pass over the whole photo, and in a tile or the rotated photo.
MIN_SCORE, TILE_MIN_SCORE = 0.6, 0.7
# Detections with at least this score (or a lower minimum score of a face) in any pass are
# candidates, which are detected again in a square of CONFIRM_ZOOM times their size.
CANDIDATE_SCORE = 0.4
CONFIRM_ZOOM = 2.0
# The photo is also seen with a margin, at half size, for faces that fill it.
PADDED_ZOOM = 2.0
# A whole photo is halved as long as its longer side is at least this many times the network's.
HALVE_FROM = 4
# Score, and share of the photo's longer side, of a face that one pass over the photo shows clearly.
CLEAR_SCORE, CLEAR_SHARE = 0.8, (0.15, 0.7)
# Tiles, for small faces, are 1/2, 1/4 and 1/8 of the photo's longer side; in a panorama they are
# halved further, down to this share of the shorter one. None is smaller than the network's input.
TILE_LEVELS, PANORAMA_TILE = (2, 4, 8), 1 / 4
# Smallest face that is found: px, and share of the side of the smallest tiles.
LEAST_WIDTH, LEAST_SHARE = 40, 0.12
# BlazeFace detects upside-down heads as upright ones, with scores up to 0.8. Faces that score below
# SURE_SCORE are detected again rotated by quarter turns; a rotated detection is taken if it scores
# TURN_MARGIN more and its keypoints are rotated.
SURE_SCORE, TURN_MARGIN = 0.85, 0.05
QUARTERS = (np.pi, np.pi / 2, -np.pi / 2)
# A face that scores below SURE_SCORE has to be confirmed by FaceMesh, or, since that confirms few
# profiles, by its score in a square of AFAR times its size. Fitted to faces in photos of CFP, PINS
# and 300-W and to false detections in photos of scikit-image: 96 and 6 % pass FaceMesh; of the
# rest, 85 and 19 % pass the second test.
MIN_MESH_SCORE, MIN_AFAR_SCORE, AFAR = 0.5, 0.64, 4.0


class FaceDetector:
    """BlazeFace on the whole photo, on the photo with a margin, and on overlapping tiles.

    Every candidate is detected again in a square of twice its size, at which BlazeFace is most
    accurate. One below ``SURE_SCORE`` is also detected rotated by quarter turns, for heads on their
    side or upside down, and is left out if neither FaceMesh nor a detection in a wider square
    confirms it; of nested faces the one with the highest score is kept. On collages of 300-W faces
    28 px wide this finds 78 %, tiles alone 35 %. The standard crop is found (IoU of 0.3 with
    BlazeFace's own box) on all of 257 photos of 300-W and on 99 % of 200 photos of AFLW2000-3D.
    Faces are found from 40 px and from 1.5 % of the photo's longer side (12 % without tiles). A
    photo of 1,500 px takes 0.4 s on one core; ``tiles=False`` takes 0.01 s and misses small faces.
    It may be called from several threads at once.

    Args:
        min_score: minimum score of a face, between 0 and 1, both excluded. Below 0.4 there are more
            candidates to confirm, one by one, which takes many times as long near 0 and may move
            boxes by a pixel.
        tile_min_score: the same for faces found only in a tile; tiles give more false detections.
        tiles: look for small faces too.
        stop_early: if a first pass over the whole photo shows one face clearly, return only that.
        checked: leave out unconfirmed faces, see above. This loses one profile in 75.

    Raises:
        FileNotFoundError: the package with the network is not installed.
        ValueError: a score is out of range, or another argument is neither True nor False.
    """

    def __init__(
        self,
        min_score: float = MIN_SCORE,
        tile_min_score: float = TILE_MIN_SCORE,
        tiles: bool = True,
        stop_early: bool = False,
        checked: bool = True,
    ):
        for name, value in (("min_score", min_score), ("tile_min_score", tile_min_score)):
            check_score(name, value)
        flags = {"tiles": tiles, "stop_early": stop_early, "checked": checked}
        for name, flag in flags.items():
            typed(flag, bool, name)
        self._min_score, self._tile_min_score = min_score, tile_min_score
        self._candidate_score = min(CANDIDATE_SCORE, min_score, tile_min_score)
        self._tiles, self._stop_early, self._is_checked = tiles, stop_early, checked
        content = model_path().read_bytes()
        self._interpreter = per_thread_interpreter(content)
        interpreter = self._interpreter()
        self._input = interpreter.get_input_details()[0]["index"]
        outputs = {d["name"]: d["index"] for d in interpreter.get_output_details()}
        self._regressors, self._classifiers = outputs["regressors"], outputs["classificators"]

    @functools.cached_property
    def _mesh(self) -> FaceMesh:
        """Loaded for the first face below ``SURE_SCORE``."""
        return FaceMesh(passes=1)

    def detect(self, image: np.ndarray, near: Sequence[FaceBox] = ()) -> list[FaceBox]:
        """Find the faces of a photo.

        Args:
            image: (H, W, 3) uint8 RGB.
            near: faces of a video's previous frame: squares around them are searched too, which
                finds small faces again without tiles.

        Returns:
            the square crop of each face, as ``cropping.box_from_landmarks`` defines it, highest
            score first.

        Raises:
            ValueError: the image is not a uint8 color image, or too long and narrow for a square
                crop; or ``near`` is not a list of boxes.
        """
        raw = self.detect_raw(image, near)
        rows = zip(raw.boxes, raw.scores.tolist(), raw.keypoints, strict=True)
        return [box_from_detector(*row) for row in rows]

    def detect_raw(self, image: np.ndarray, near: Sequence[FaceBox] = ()) -> RawDetections:
        """As ``detect``, but returns BlazeFace's boxes and keypoints, px, highest score first."""
        check_photo(image)
        near = listed_boxes("near", near)
        small, factor = _halved(image)
        whole = self._run(small, _around(small), factor)
        if self._stop_early and self._is_settled(image, single := suppress(whole)):
            return single
        padded = self._run(small, _around(small, PADDED_ZOOM), factor)
        parts = [whole, padded, *(self._run(image, _about(box)) for box in near)]
        faces = [self._refined(image, parts, self._min_score, self._min_score)]
        if self._tiles:
            parts = self._in_tiles(image)
            faces.append(self._refined(image, parts, self._tile_min_score, np.inf))
        result = self._confirmed(image, suppress(concatenate(faces)))
        return result if len(result.scores) else self._in_turned_photo(image, small, factor)

    def _is_settled(self, image: np.ndarray, single: RawDetections) -> bool:
        """Whether a first pass over the photo shows one face so clearly that it suffices."""
        if not _is_clear(single, max(image.shape[:2])) or single.scores[0] < self._min_score:
            return False
        return self._upright(image, single) is single and self._is_face(image, single)

    def _in_tiles(self, image: np.ndarray) -> list[RawDetections]:
        """The candidates that lie completely within a tile."""
        height, width = image.shape[:2]
        squares = tiles(height, width)
        pairs = zip([self._run(image, tile) for tile in squares], squares, strict=True)
        return [raw[_inside(raw.boxes, tile, height, width)] for raw, tile in pairs]

    def _in_turned_photo(self, image: np.ndarray, small: np.ndarray, factor: int) -> RawDetections:
        """The faces found in the photo rotated by the quarter turn with the highest score."""
        best, least = EMPTY, max(self._min_score, self._tile_min_score)
        for angle in QUARTERS:
            squares = _around(small, 1.0, angle), _around(small, PADDED_ZOOM, angle)
            parts = [self._run(small, square, factor) for square in squares]
            result = self._confirmed(image, self._refined(image, parts, least, least, angle))
            if len(result.scores) and result.scores[0] > best.scores.max(initial=0):
                best = result
        return best

    def _refined(
        self,
        image: np.ndarray,
        parts: list[RawDetections],
        min_score: float,
        keep_score: float,
        angle: float = 0.0,
    ) -> RawDetections:
        """The candidates detected again at their best size; from ``keep_score`` on all are kept."""
        candidates = suppress(concatenate([EMPTY, *parts]))
        faces = [EMPTY]
        for i, score in enumerate(candidates.scores):
            candidate = candidates[i : i + 1]
            again = self._again(image, candidate, CONFIRM_ZOOM, angle)
            confirmed = again[again.scores >= min_score]
            faces.append(confirmed if len(confirmed.scores) or score < keep_score else candidate)
        return concatenate(faces)

    def _again(
        self, image: np.ndarray, face: RawDetections, zoom: float, angle: float
    ) -> RawDetections:
        """A face detected again in a rotated square ``zoom`` times as large; or no row."""
        box = face.boxes[0]
        side = zoom * (box[2:] - box[:2]).max()
        square = FaceBox.square((box[:2] + box[2:]) / 2, side, angle=angle)
        raw = suppress(self._run(image, square))
        return raw[intersection_over_union(box, raw.boxes) > SAME_FACE_IOU][:1]

    def _confirmed(self, image: np.ndarray, detections: RawDetections) -> RawDetections:
        """The candidates with their heads' rotation, without false detections and nested faces."""
        rows = [detections[i : i + 1] for i in range(len(detections.scores))]
        faces = [self._upright(image, face) for face in rows]
        faces = [face for face in faces if self._is_face(image, face)]
        return without_nested(concatenate([EMPTY, *faces]))

    def _upright(self, image: np.ndarray, face: RawDetections) -> RawDetections:
        """The face as detected in a rotated square, if the head is rotated and scores higher so."""
        if face.scores[0] >= SURE_SCORE:
            return face
        best, least = face, face.scores[0] + TURN_MARGIN
        for angle in QUARTERS:
            seen = self._again(image, face, CONFIRM_ZOOM, angle)
            if seen.scores.max(initial=0) > least and turn_of(seen.keypoints[0]):
                best, least = seen, seen.scores[0]
        return best

    def _is_face(self, image: np.ndarray, face: RawDetections) -> bool:
        """Whether its score suffices, or FaceMesh or BlazeFace in a wider square confirms it."""
        if not self._is_checked or face.scores[0] >= SURE_SCORE:
            return True
        if self._mesh(image, face[0]).score >= MIN_MESH_SCORE:
            return True
        afar = self._again(image, face, AFAR, turn_of(face.keypoints[0]))
        return bool(afar.scores.max(initial=0) >= MIN_AFAR_SCORE)

    def _run(self, image: np.ndarray, square: FaceBox, factor: int = 1) -> RawDetections:
        """The candidates in a square of an image, in px of the photo, ``factor`` times as large."""
        crop = crop_face(image, square, INPUT_SIZE).image
        interpreter = self._interpreter()
        interpreter.set_tensor(self._input, np.float32(crop[None]) / HALF_RANGE - 1)
        interpreter.invoke()
        raw = decode_boxes(
            interpreter.get_tensor(self._regressors)[0],
            interpreter.get_tensor(self._classifiers)[0, :, 0],
            self._candidate_score,
        )
        side, origin = square.width * factor, np.array([square.x0, square.y0]) * factor
        boxes, keypoints = raw.boxes * side + np.tile(origin, 2), raw.keypoints * side + origin
        placed = RawDetections(boxes, keypoints, raw.scores)
        return (
            rotate_detections(placed, origin + side / 2, square.angle) if square.angle else placed
        )


class Detector(Protocol):
    """The interface of face detectors such as ``FaceDetector``."""

    def detect(self, image: np.ndarray) -> list[FaceBox]:
        """The square crop of each face of an (H, W, 3) uint8 RGB photo, highest score first."""


class LargestFaceDetector:
    """Finds a photo's main face, the largest; small faces only if there is no other.

    Args:
        detector: finds the faces; None makes three ``FaceDetector``, each for the photos in which
            the one before finds nothing: without tiles, without tiles and unchecked, with tiles.
            So a large unconfirmed face takes precedence over small ones: such a photo should show
            somebody, and some profiles are not confirmed.
        min_score: minimum score of a face, between 0 and 1, both excluded; None for the defaults of
            ``FaceDetector``, as a given detector has its own.

    Raises:
        FileNotFoundError: the package with the network is not installed.
        ValueError: ``min_score`` is out of range, or given together with a detector.
    """

    def __init__(self, detector: Detector | None = None, min_score: float | None = None):
        if detector is not None:
            if min_score is not None:
                raise ValueError("min_score is for the default detector; the given one has its own")
            self._detectors: list[Detector] = [detector]
            return
        scores = (MIN_SCORE, TILE_MIN_SCORE) if min_score is None else (min_score, min_score)
        self._detectors = [
            FaceDetector(*scores, tiles=False, stop_early=True),
            FaceDetector(*scores, tiles=False, checked=False),
            FaceDetector(*scores),
        ]

    def __call__(self, image: np.ndarray) -> FaceBox:
        """The standard crop of the largest face of an (H, W, 3) uint8 RGB photo.

        Raises:
            ValueError: no face was found, or the detector refuses the image.
        """
        return self.faces(image)[0]

    def faces(self, image: np.ndarray) -> list[FaceBox]:
        """The faces, at least one, the largest first; errors as above."""
        for detector in self._detectors:
            if boxes := detector.detect(image):
                return sorted(boxes, key=lambda box: -box.width)
        raise ValueError(no_face(image.shape))


def no_face(shape: Sequence[int], tiles: bool = True) -> str:
    """The message for a photo of the shape (H, W, ...) in which no face was found."""
    height, width = shape[:2]
    looked = _tile_sides(height, width) if tiles else []
    least = max(LEAST_WIDTH, LEAST_SHARE * min(looked, default=max(height, width)))
    return f"no face found; it should show one at least {least:.0f} px wide"


def _around(image: np.ndarray, zoom: float = 1.0, angle: float = 0.0) -> FaceBox:
    """The square around a whole photo, ``zoom`` times as large as necessary."""
    size = np.array(image.shape[1::-1])
    return FaceBox.square(size / 2, max(size) * zoom, angle=angle)


def _about(box: FaceBox) -> FaceBox:
    """The square in which BlazeFace detects a known face best."""
    side = CONFIRM_ZOOM / DETECTOR_SCALE * box.width
    return FaceBox.square(box.center, side, angle=box.angle)


def _halved(image: np.ndarray) -> tuple[np.ndarray, int]:
    """The photo halved while it is large for the network's input, and the factor: 1, 2, 4, ...

    Halving repeatedly is several times as fast as averaging large blocks at once.
    """
    factor = 1
    while max(image.shape[:2]) >= HALVE_FROM * INPUT_SIZE and not any(
        n % 2 for n in image.shape[:2]
    ):
        image = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        factor *= 2
    return image, factor


def _is_clear(faces: RawDetections, side: float) -> bool:
    """Whether there is exactly one candidate, with a high score and a suitable size."""
    if len(faces.scores) != 1 or faces.scores[0] < CLEAR_SCORE:
        return False
    low, high = CLEAR_SHARE
    return bool(low <= (faces.boxes[0, 2] - faces.boxes[0, 0]) / side <= high)


def tiles(height: int, width: int) -> list[FaceBox]:
    """Squares of 1/2, 1/4, ... of the longer side that cover the photo and overlap by half."""
    squares = []
    for side in _tile_sides(height, width):
        starts = [_starts(extent, side) for extent in (width, height)]
        squares += [FaceBox(x, y, x + side, y + side) for y in starts[1] for x in starts[0]]
    return squares


def _tile_sides(height: int, width: int) -> list[float]:
    """Sides of the tiles of a photo, the largest first, px."""
    sides = [max(height, width) / level for level in TILE_LEVELS]
    while sides[-1] > PANORAMA_TILE * min(height, width):
        sides.append(sides[-1] / 2)
    return [side for side in sides if side >= INPUT_SIZE]


def _starts(extent: int, side: float) -> np.ndarray:
    if extent <= side:
        return np.array([(extent - side) / 2])
    return np.linspace(0, extent - side, int(np.ceil((extent - side) / (side / 2))) + 1)


def _inside(boxes: np.ndarray, tile: FaceBox, height: int, width: int) -> np.ndarray:
    """Which boxes do not touch an edge of the tile that is not an edge of the photo."""
    low = np.where(tile.as_array()[:2] <= 0, -np.inf, tile.as_array()[:2])
    high = np.where(tile.as_array()[2:] >= [width, height], np.inf, tile.as_array()[2:])
    return np.all(boxes[:, :2] > low, axis=1) & np.all(boxes[:, 2:] < high, axis=1)
