"""Close the eyes of a photo, by moving the lids over the eyes in the image.

Few photos show shut eyes, so networks do not learn to close them. In the image, the skin between
brow and upper lid is stretched down over the eyeball, together with the lashes, and the lower lid
moves up a little. Nothing is rendered, and the rest of the photo does not change.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

# iBUG landmarks of each eye's upper lid, lower lid and brow, from the image's left to its right.
LIDS = {
    "right": ((36, 37, 38, 39), (36, 41, 40, 39), (17, 18, 19, 20, 21)),
    "left": ((42, 43, 44, 45), (42, 47, 46, 45), (22, 23, 24, 25, 26)),
}
RISE = 0.12  # of the opening: how far the lower lid moves up to meet the upper one
LASHES = 0.06  # of the eye's width: length of the lashes, which move with the upper lid's rim
LID_HEIGHT = (0.12, 0.6)  # of the eye's width: limits of the height of the skin that is stretched
BELOW_BROW = 0.08  # of the eye's width: distance of that skin from the brow's landmarks
CHEEK = 0.5  # of the eye's width: height of the skin below the lower lid that follows it
FADE = 0.125  # of the eye's width: distance from the corners over which the motion fades out
FINE = 3  # samples along each side of a pixel
MIN_WIDTH = 6.0  # px


@dataclass(frozen=True, eq=False)
class EyeFrame:
    """The coordinate frame of an eye: px, origin midway between its corners, x along them, y down.

    Attributes:
        landmarks: (68, 2) float64 px, image frame.
        side: 'right' or 'left', the subject's.
    """

    landmarks: np.ndarray
    side: str

    @cached_property
    def corners(self) -> np.ndarray:
        """(2, 2) px, image frame, the one on the image's left first."""
        upper = LIDS[self.side][0]
        return self.landmarks[[upper[0], upper[-1]]]

    @cached_property
    def width(self) -> float:
        """Distance of the corners, px."""
        return float(np.linalg.norm(self.corners[1] - self.corners[0]))

    @cached_property
    def axes(self) -> np.ndarray:
        """(2, 2) orthonormal rows: the directions of x and of y in the image."""
        x = (self.corners[1] - self.corners[0]) / self.width
        return np.array([x, [-x[1], x[0]]])

    def from_image(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 2), px in the image frame, in the eye's frame."""
        return (points - self.corners.mean(axis=0)) @ self.axes.T

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """The inverse of ``from_image``."""
        return points @ self.axes + self.corners.mean(axis=0)

    def height(self, line: int, x: np.ndarray) -> np.ndarray:
        """y of line 0 (upper lid), 1 (lower lid) or 2 (brow) at each x, px."""
        points = self.from_image(self.landmarks[list(LIDS[self.side][line])])
        x = np.clip(x, -self.width / 2, self.width / 2)
        if line == 2:
            order = np.argsort(points[:, 0])
            return np.interp(x, *points[order].T)
        return np.polyval(np.polyfit(points[:, 0], points[:, 1], 3), x)  # a lid has four points


def close_lid(
    image: np.ndarray, landmarks: np.ndarray, side: str, remaining: float
) -> tuple[np.ndarray, np.ndarray]:
    """Close one eye of a photo completely or partly.

    Args:
        image: (H, W, 3) uint8 RGB.
        landmarks: (68, 2 or more) float px, image frame; only x and y are read and moved.
        side: 'right' or 'left', the subject's.
        remaining: the share of the opening that remains, from 0 (shut) to 1 (unchanged).

    Returns:
        the image, and the landmarks with the eye's four lid points moved.

    Raises:
        ValueError: the eye is less than 6 px wide, or ``remaining`` is out of range.
    """
    if not 0 <= remaining <= 1:
        raise ValueError(f"remaining is {remaining}; it must be from 0 to 1")
    eye = EyeFrame(np.asarray(landmarks, np.float64)[:, :2], side)
    if not eye.width >= MIN_WIDTH:
        raise ValueError(f"the {side} eye is {eye.width:.1f} px wide; {MIN_WIDTH:g} are needed")
    return _warped(image, eye, remaining), _moved(landmarks, eye, remaining)


def _rims(eye: EyeFrame, x: np.ndarray, remaining: float) -> tuple[np.ndarray, ...]:
    """y of the upper and the lower lid at each x before closing, then of both after it."""
    lower = eye.height(1, x)
    upper = np.minimum(eye.height(0, x), lower)
    closing = 1 - remaining
    new_lower = lower - RISE * closing * (lower - upper)
    return upper, lower, new_lower - remaining * (lower - upper), new_lower


def _moved(landmarks: np.ndarray, eye: EyeFrame, remaining: float) -> np.ndarray:
    landmarks = np.array(landmarks)
    inner = np.array([line[1:3] for line in LIDS[eye.side][:2]])
    places = eye.from_image(eye.landmarks[inner])
    middle = places[..., 0].mean(axis=0)  # where an upper and a lower point meet in a shut eye
    places[..., 0] = middle + remaining * (places[..., 0] - middle)
    for line in (0, 1):
        places[line, :, 1] = _rims(eye, places[line, :, 0], remaining)[2 + line]
    landmarks[inner, :2] = eye.to_image(places)
    return landmarks


def _warped(image: np.ndarray, eye: EyeFrame, remaining: float) -> np.ndarray:
    """The image with the surroundings of the eye resampled from their places before closing."""
    reach = int(np.ceil(1.3 * eye.width)) + 2
    x0, y0 = np.maximum(np.round(eye.corners.mean(axis=0)).astype(int) - reach, 0)
    patch = image[y0 : y0 + 2 * reach, x0 : x0 + 2 * reach]
    if not patch.size:
        return image
    rows, columns = ((np.arange(n * FINE) + 0.5) / FINE - 0.5 for n in patch.shape[:2])
    x, y = np.moveaxis(eye.from_image(np.stack(np.meshgrid(columns + x0, rows + y0), -1)), -1, 0)
    source = _source(eye, x, y, remaining)
    place = np.float32(eye.to_image(np.stack([x, source], axis=-1)) - (x0, y0))
    moved = cv2.remap(
        patch, place[..., 0], place[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    size = patch.shape[1::-1]
    moved = cv2.resize(moved, size, interpolation=cv2.INTER_AREA)
    changed = np.float32(np.abs(source - y) > 1e-6)
    share = cv2.resize(changed, size, interpolation=cv2.INTER_AREA)[..., None]
    result = image.copy()
    result[y0 : y0 + 2 * reach, x0 : x0 + 2 * reach] = np.where(share > 0, moved, patch)
    return result


def _source(eye: EyeFrame, x: np.ndarray, y: np.ndarray, remaining: float) -> np.ndarray:
    """For each place (x, y) of the eye's frame after closing, the y of its content before, px."""
    upper, lower, new_upper, new_lower = _rims(eye, x, remaining)
    least, most = (upper - share * eye.width for share in LID_HEIGHT)
    top = np.clip(eye.height(2, x) + BELOW_BROW * eye.width, most, least)
    along = np.clip(1 - (2 * x / eye.width) ** 2, 0, 1)  # no lashes at the corners
    rim = np.minimum(upper + (1 - remaining) * LASHES * eye.width * along, lower)
    bottom = lower + CHEEK * eye.width
    skin = top + (y - top) * (rim - top) / np.maximum(new_upper - top, 1e-6)
    cheek = lower + (y - new_lower) * (bottom - lower) / (bottom - new_lower)
    source = np.where((y > top) & (y <= new_upper), skin, y)
    source = np.where((y > new_lower) & (y < bottom), cheek, source)
    beyond = np.abs(x) - eye.width / 2
    return y + (source - y) * np.clip(1 - beyond / (FADE * eye.width), 0, 1)
