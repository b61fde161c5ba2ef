"""Eyes that close: the lids of a photo, moved over the eye in the image.

Few photos show shut eyes, so networks learn that there are none. In the image, the skin between
brow and upper lid is stretched down over the eyeball, which stays where it is, and takes the lashes
along; the lower lid comes up a little. Nothing is rendered: the closing alone is new in the photo.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

# iBUG's numbers, from the outer corner to the inner one or back: upper lid, lower lid, brow.
LIDS = {
    "right": ((36, 37, 38, 39), (36, 41, 40, 39), (17, 18, 19, 20, 21)),
    "left": ((42, 43, 44, 45), (42, 47, 46, 45), (22, 23, 24, 25, 26)),
}
RISE = 0.12  # of the opening: how far the lower lid comes up to meet the upper one
LASHES = 0.06  # of the eye's width: what moves with the upper lid's rim
LID_HEIGHT = (0.12, 0.6)  # of the eye's width: least and most skin above the rim that stretches
BELOW_BROW = 0.08  # of the eye's width: from the brow's points down to the skin that stretches
CHEEK = 0.5  # of the eye's width: skin below the lower lid that follows it
FADE = 0.125  # of the eye's width: beyond the corners, over which the movement fades out
FINE = 3  # places sampled along each side of a pixel
MIN_WIDTH = 6.0  # px


@dataclass(frozen=True, eq=False)
class EyeFrame:
    """One eye in the frame of its corners: x from corner to corner, y down, px, origin between.

    Attributes:
        landmarks: (68, 2) float64 px, image frame.
        side: 'right' or 'left', the subject's.
    """

    landmarks: np.ndarray
    side: str

    @cached_property
    def corners(self) -> np.ndarray:
        """(2, 2) px, image frame, the one at the image's left first."""
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
        """(..., 2) px, image frame, to the eye's frame."""
        return (points - self.corners.mean(axis=0)) @ self.axes.T

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """The inverse of ``from_image``."""
        return points @ self.axes + self.corners.mean(axis=0)

    def height(self, line: int, x: np.ndarray) -> np.ndarray:
        """y of the upper lid (0), the lower lid (1) or the brow (2) at some x, px."""
        points = self.from_image(self.landmarks[list(LIDS[self.side][line])])
        x = np.clip(x, -self.width / 2, self.width / 2)
        if line == 2:
            order = np.argsort(points[:, 0])
            return np.interp(x, *points[order].T)
        return np.polyval(np.polyfit(points[:, 0], points[:, 1], 3), x)  # a lid has four points


def close_lid(
    image: np.ndarray, landmarks: np.ndarray, side: str, remaining: float
) -> tuple[np.ndarray, np.ndarray]:
    """Close one eye of a photo, all or in part.

    Args:
        image: (H, W, 3) uint8 RGB.
        landmarks: (68, 2 or more) float px, image frame; only x and y are read and moved.
        side: 'right' or 'left', the subject's.
        remaining: 0 (shut) to 1 (as it was): the share of the opening that stays.

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
    """Heights of both lids at some x, before (upper, lower) and after (upper, lower)."""
    lower = eye.height(1, x)
    upper = np.minimum(eye.height(0, x), lower)
    closing = 1 - remaining
    new_lower = lower - RISE * closing * (lower - upper)
    return upper, lower, new_lower - remaining * (lower - upper), new_lower


def _moved(landmarks: np.ndarray, eye: EyeFrame, remaining: float) -> np.ndarray:
    landmarks = np.array(landmarks)
    inner = np.array([line[1:3] for line in LIDS[eye.side][:2]])
    places = eye.from_image(eye.landmarks[inner])
    middle = places[..., 0].mean(axis=0)  # where an upper and a lower point meet
    places[..., 0] = middle + remaining * (places[..., 0] - middle)
    for line in (0, 1):
        places[line, :, 1] = _rims(eye, places[line, :, 0], remaining)[2 + line]
    landmarks[inner, :2] = eye.to_image(places)
    return landmarks


def _warped(image: np.ndarray, eye: EyeFrame, remaining: float) -> np.ndarray:
    """The image with every place of the eye's surroundings taken from where it was before."""
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
    """The height from which each place of the eye's frame is taken, px."""
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
