"""Teeth and lining of an open mouth, if a photo shows them well.

When people smile, most of the model's teeth are behind its lips, and its lining has few texels. So
both are painted in the colors that the photo has between the fitted lips, if these are open, nearly
frontal, sharp and not hidden, and blended with what the photo shows of the teeth. Colors lighter
and less red than skin count as teeth, colors as dark as a mouth as lining: lips have neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from keras_scnn.geometry.colors import lab_from_linear, light_from_lab
from keras_scnn.texturing.atlas import INNER_LIPS, MOUTH_MARKS, Atlas
from keras_scnn.texturing.skin import LEAST_RED, LEAST_TEXELS, ColorModel
from keras_scnn.texturing.views import SRGB_LIGHT, View, crop_around_face

UPPER_LIP, LOWER_LIP = [61, 62, 63], [67, 66, 65]  # landmarks, one below the other
LEAST_GAP_PX, LEAST_GAP = 6.0, 0.12  # between open lips: px, and of the mouth's width
FRONTAL = 0.85  # least cosine between the face and the viewer
BLURRED = 0.6  # of the gap: a mouth with wider edges is blurred
EXTREME = 0.02  # of a mouth's pixels: the steepest, the lightest, and the darkest
TEETH_L, LINING_L = 0.85, 0.5  # of the skin's L*: teeth are lighter, the lining is darker
DARK_L = 30.0  # the lining is darker; the line between light lips is not
TEETH_SHARE, LINING_SHARE = 0.1, 0.25  # of the gap: least share of teeth, or lining
INNER = 0.85  # of the gap's width and height: farther out there may be lips
LEAST_FITTING = 0.5  # of the visible teeth: if less looks like teeth, the fit is wrong
LIGHTEST = 0.6  # quantile of the teeth's L* above which no lip shades them
DULLEST, WHITEST, TEETH_CHROMA = 60.0, 90.0, 22.0  # L* of teeth: least and largest; largest chroma
LINING_LIGHT = 0.7  # share of light left on the visible lining
BLUR = 1 / 512  # of the map's side


@dataclass(frozen=True, eq=False)
class MouthColors:
    """A person's mouth.

    Attributes:
        teeth, lining: (3,) light, as they are at the lips; None if no photo shows them well.
    """

    teeth: np.ndarray | None = None
    lining: np.ndarray | None = None

    def filled(self, other: MouthColors, gain: np.ndarray) -> MouthColors:
        """Fill missing colors from another photo, adapted to this one's light by a gain (3,)."""
        pairs = (self.teeth, other.teeth), (self.lining, other.lining)
        return MouthColors(*(b * gain if a is None and b is not None else a for a, b in pairs))


def find_mouth(
    atlas: Atlas,
    image: np.ndarray,
    posed: np.ndarray,
    view: View,
    shade: np.ndarray,
    skin: ColorModel,
) -> MouthColors:
    """Colors between the lips.

    Args:
        atlas: of the texels.
        image: (H, W, 3) uint8 RGB.
        posed: (N, 3) vertices in the photo: px and depth, image frame.
        view: the photo on the map.
        shade: (S, S, 3) its light there.
        skin: the person's color.
    """
    if not _is_frontal(atlas, view):
        return MouthColors()
    pixels = _between_lips(atlas, image, posed, view.blocked)
    if len(pixels) < LEAST_TEXELS:
        return MouthColors()
    lab = lab_from_linear(SRGB_LIGHT[pixels] / np.median(shade[atlas.zones.lips], axis=0))
    teeth, lining = is_tooth(lab, skin), lab[:, 0] < min(LINING_L * skin.center[0], DARK_L)
    found = MouthColors()
    if teeth.sum() > max(TEETH_SHARE * len(lab), LEAST_TEXELS / 2):
        found = MouthColors(_teeth_color(lab[teeth]))
    if lining.mean() > LINING_SHARE:
        color = light_from_lab(np.median(lab[lining], axis=0)) / LINING_LIGHT
        found = MouthColors(found.teeth, color)
    return found


def _teeth_color(lab: np.ndarray) -> np.ndarray | None:
    """(3,) light of unshaded teeth among colors (n, 3) in L*a*b*; None if too dark or colored."""
    light = lab[lab[:, 0] >= np.quantile(lab[:, 0], LIGHTEST)]
    lightness, *tint = np.median(light, axis=0)
    if lightness < DULLEST or np.hypot(*tint) > TEETH_CHROMA:
        return None
    return light_from_lab([min(lightness, WHITEST), *tint])


def is_tooth(lab: np.ndarray, skin: ColorModel) -> np.ndarray:
    """(...) bool: colors (..., 3) in L*a*b* that are light, and less red than skin."""
    is_light = lab[..., 0] > TEETH_L * skin.center[0]
    return is_light & (lab[..., 1] < skin.center[1] - LEAST_RED)


def teeth_share(atlas: Atlas, albedo: np.ndarray, seen: np.ndarray, skin: ColorModel) -> np.ndarray:
    """(S, S) float32, 0 to 1: texels of the teeth that show teeth, in a photo that shows some."""
    seen = seen * atlas.teeth
    share = np.float32(seen * is_tooth(lab_from_linear(albedo), skin))
    if share.sum() < LEAST_FITTING * seen.sum():
        return np.zeros_like(share)
    return np.minimum(2 * cv2.GaussianBlur(share, (0, 0), BLUR * atlas.size), share)


def _is_frontal(atlas: Atlas, view: View) -> bool:
    normal = view.normals[atlas.zones.face].sum(axis=0)
    return bool(normal[2] > FRONTAL * np.linalg.norm(normal))


def _between_lips(
    atlas: Atlas, image: np.ndarray, posed: np.ndarray, blocked: np.ndarray
) -> np.ndarray:
    """(n, 3) uint8 pixels of an open mouth; none where it is closed, small, blurred or hidden."""
    marks, nothing = atlas.model.landmark_indices, np.zeros((0, 3), np.uint8)
    if not _is_free(posed[marks[INNER_LIPS], :2], blocked):
        return nothing
    image, posed = crop_around_face(image, posed, atlas.size)
    points = posed[marks, :2]
    gap = np.linalg.norm(points[UPPER_LIP] - points[LOWER_LIP], axis=1).mean()
    width = np.linalg.norm(points[INNER_LIPS[4]] - points[INNER_LIPS[0]])
    is_open = gap > max(LEAST_GAP_PX, LEAST_GAP * width)
    if not is_open or edge_width(image, points[MOUTH_MARKS]) > BLURRED * gap:
        return nothing
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return image[_inside(points[INNER_LIPS], x, y)]


def _is_free(points: np.ndarray, blocked: np.ndarray) -> bool:
    """Whether the bounding box of points (n, 2) is inside the photo and nowhere blocked."""
    low, high = np.floor(points.min(axis=0)).astype(int), np.ceil(points.max(axis=0)).astype(int)
    is_inside = low.min() >= 0 and high[0] < blocked.shape[1] and high[1] < blocked.shape[0]
    return bool(is_inside and not blocked[low[1] : high[1] + 1, low[0] : high[0] + 1].any())


def edge_width(image: np.ndarray, points: np.ndarray) -> float:
    """Width, px, of the steepest edges from dark to light in the bounding box of points (n, 2)."""
    low = np.maximum(np.floor(points.min(axis=0)), 0).astype(int)
    high = np.ceil(points.max(axis=0)).astype(int) + 1
    gray = image[low[1] : high[1], low[0] : high[0]].mean(axis=-1)
    steepest = np.quantile(np.hypot(*np.gradient(gray)), 1 - EXTREME)
    dark, light = np.quantile(gray, [EXTREME, 1 - EXTREME])
    return float((light - dark) / max(steepest, 1e-6))


def _inside(polygon: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(...) bool: positions (...) in a polygon (n, 2) without its margin, see ``INNER``."""
    polygon = polygon.mean(axis=0) + INNER * (polygon - polygon.mean(axis=0))
    inside = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        crosses = (y0 > y) != (y1 > y)
        inside ^= crosses & (x < x0 + (x1 - x0) * (y - y0) / np.where(crosses, y1 - y0, 1))
    return inside
