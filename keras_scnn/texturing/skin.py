"""Segments a photo on the texture map: skin, features and hair of the person, and what hides them.

The color model of the skin is the median and the median absolute deviation of the cheeks and the
nose in CIE L*a*b*, after the lighting is removed.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np
import scipy

from keras_scnn.texturing.atlas import Atlas, Zones, disk

LEAST_SPREAD, MOST_SPREAD = np.array([5.0, 2.5, 3.0]), np.array([6.5, 5.0, 6.0])  # of L*, a*, b*
HAIR_SPREAD = 2 * MOST_SPREAD
NEAR, FAR = 3.0, 5.0  # deviations up to which a color certainly belongs, and from which it does not
SIDE = 1.4  # factor on deviations beside the face, where hair and background are likelier
SHINE = 0.8  # factor on deviations of lighter texels, which may be highlights
LEAST_TEXELS = 60
SEEN, WELL_SEEN = 0.3, 0.6
BINS_MM = np.arange(8.0, 76.0, 4.0)  # heights above the brows to search for the hairline
DEFAULT_HAIRLINE = 58.0
HAIR_MARGIN = 6.0
ABOVE_BROWS = 16.0  # mm
LEAST_RED = 2.0  # CIE a* below the skin's: anything less red between the lips' edges is teeth
LIGHT_BROW = 20.0  # L* above the skin's: a hat's brim, or a window reflected in glasses
BEARDED = 0.3  # of the chin, or of the upper lip
SHADOW_CHROMA = 3.0  # above the skin's (CIE a*, b*): a shadow on skin, not hair
BLUR = 2 / 512  # of the map's side: softness of the edge of the kept texels
GLASSES = 0.15  # of the nose's bridge: with more texels unlike skin, there are glasses
MOLE = 1.5e-4  # of the map's area
# The map's side over the radius of areas too thin to be skin, and over that of the eroded edge.
THIN, EDGE = 170, 130


@dataclass(frozen=True, eq=False)
class ColorModel:
    """Colors of one kind: center and spread (3,) in L*a*b*."""

    center: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, lab: np.ndarray, widest: np.ndarray = MOST_SPREAD) -> ColorModel | None:
        """From colors (n, 3); None if there are too few."""
        if len(lab) < LEAST_TEXELS:
            return None
        center = np.median(lab, axis=0)
        spread = scipy.stats.median_abs_deviation(lab, axis=0, scale="normal")
        return cls(center, np.clip(spread, LEAST_SPREAD, widest))

    def share(self, lab: np.ndarray, strictness: np.ndarray | float = 1.0) -> np.ndarray:
        """(...) float32, 1 where a color (..., 3) belongs and 0 where it does not."""
        away = (lab - self.center) / self.spread
        away[..., 0] = np.where(away[..., 0] > 0, SHINE * away[..., 0], away[..., 0])
        distance = np.sqrt((away**2).sum(axis=-1)) * strictness
        return np.float32(np.clip((FAR - distance) / (FAR - NEAR), 0, 1))


@dataclass(frozen=True, eq=False)
class SkinAndHair:
    """Color models of a person in one photo, and the mask of the texels that show the person.

    Attributes:
        keep: (S, S) float32, 0 to 1: texels that show the person, as far as they are seen.
        skin, lips, brows, hair, beard: their colors; None if they are not seen.
        hairline: mm of the open face model above the brows; None for a bald head.
    """

    keep: np.ndarray
    skin: ColorModel
    lips: ColorModel | None
    brows: ColorModel | None
    hair: ColorModel | None
    beard: ColorModel | None
    hairline: float | None


# If no photo shows skin: a default skin, no hair.
UNKNOWN = SkinAndHair(
    np.zeros((0, 0), np.float32), ColorModel(np.array([66.0, 14, 17]), LEAST_SPREAD),
    None, None, None, None, None,
)  # fmt: skip


def find_colors(atlas: Atlas, lab: np.ndarray, seen: np.ndarray) -> SkinAndHair | None:
    """Colors and mask of a person; None if no skin is seen.

    Args:
        atlas: the map.
        lab: (S, S, 3) float32 L*a*b*, with the lighting removed.
        seen: (S, S) float32, 0 to 1.
    """
    zones, is_seen, well_seen = atlas.zones, seen > SEEN, seen > WELL_SEEN
    skin = ColorModel.of(lab[zones.cheeks & is_seen]) or ColorModel.of(lab[zones.face & is_seen])
    if skin is None:
        return None
    is_skin = skin.share(lab, np.where(zones.face, 1, SIDE))
    other = is_seen & (is_skin < 0.5)
    darker = lab[..., 0] < skin.center[0]
    dull = np.hypot(lab[..., 1], lab[..., 2]) < np.hypot(*skin.center[1:]) + SHADOW_CHROMA
    hair, hairline = _scalp_hair(zones, lab, well_seen, other & well_seen)
    beard, area = _beard(zones, lab, is_seen, other & darker & dull)
    person = SkinAndHair(
        is_skin,
        skin,
        ColorModel.of(lab[zones.lips & is_seen & (lab[..., 1] > skin.center[1] - LEAST_RED)]),
        ColorModel.of(lab[zones.brows & other & darker]),
        hair,
        beard,
        hairline,
    )
    keep = _kept(zones, lab, person, other)
    if beard is not None:
        keep = np.maximum(keep, area * beard.share(lab))
    keep = np.where(atlas.skin, keep, 1)  # the borders of eyes and mouth are not edges of hair
    keep = _soft_edges(_without_specks(np.float32(keep), atlas.size), atlas.size)
    return dataclasses.replace(person, keep=keep * seen * atlas.skin)


def _kept(zones: Zones, lab: np.ndarray, person: SkinAndHair, other: np.ndarray) -> np.ndarray:
    """(S, S), 0 to 1: skin, and features and scalp hair in their places."""
    keep = np.where(zones.features, 1, person.keep)
    if other[zones.bridge].mean() > GLASSES:
        keep = np.where(zones.eyes & ~zones.lids & ~zones.brows, person.keep, keep)
    if person.lips is not None:
        red = lab[..., 1] > person.skin.center[1] - LEAST_RED
        keep = np.where(zones.lips, person.lips.share(lab) * red, keep)
    is_light = lab[..., 0] > person.skin.center[0] + LIGHT_BROW
    keep = np.where((zones.brows & is_light) | _strands(zones, other), 0, keep)
    if person.hair is not None and person.hairline is not None:
        scalp = np.clip((zones.scalp_slant - person.hairline) / HAIR_MARGIN + 1, 0, 1)
        keep = np.maximum(keep, np.maximum(scalp, zones.temples) * person.hair.share(lab))
    return keep


def _strands(zones: Zones, other: np.ndarray) -> np.ndarray:
    """(S, S) bool: hair that hangs from the scalp over one brow, or eye, and not over the other."""
    _, label = cv2.connectedComponents(np.uint8(other & (zones.front > 0)), connectivity=4)
    from_above = np.unique(label[(zones.up > ABOVE_BROWS) & (label > 0)])
    hanging = np.isin(label, from_above) & (zones.brows | zones.eyes)
    half = hanging.shape[1] // 2
    left, right = hanging[:, :half].sum(), hanging[:, half:].sum()
    if min(left, right) > 0.3 * max(left, right):
        return np.zeros_like(hanging)
    hanging[:, half:] &= right > left
    hanging[:, :half] &= left > right
    return hanging


def _scalp_hair(zones: Zones, lab, is_seen, other) -> tuple[ColorModel | None, float | None]:
    """The hair's color, and where it begins above the brows; both None for a bald head."""
    step = BINS_MM[1] - BINS_MM[0]
    shares = []
    for low in BINS_MM:
        texels = is_seen & zones.middle & (zones.up >= low) & (zones.up < low + step)
        shares.append(other[texels].mean() if texels.sum() > 20 else np.nan)
    known = np.flatnonzero(~np.isnan(shares))
    hairline = DEFAULT_HAIRLINE
    if len(known):
        last_bald = max((i for i in known if shares[i] <= 0.5), default=-1)
        if last_bald < known[-1]:
            hairline = float(BINS_MM[last_bald + 1])
        elif BINS_MM[last_bald] > DEFAULT_HAIRLINE:
            return None, None
    return ColorModel.of(lab[other & (zones.scalp_slant > hairline)], HAIR_SPREAD), hairline


def _beard(zones: Zones, lab, is_seen, other) -> tuple[ColorModel | None, np.ndarray]:
    """The beard's color, and where it grows: only around the mouth if the chin is bare.

    If both sides are seen, a beard is on both, unlike a hand or a shadow.
    """
    goatee, half = zones.beard & zones.middle, lab.shape[1] // 2
    for zone, area in ((zones.chin, zones.beard), (zones.moustache, goatee)):
        seen = zone & is_seen
        sides = [(other[:, s][seen[:, s]]) for s in (slice(half), slice(half, None))]
        shares = [side.mean() for side in sides if len(side) >= LEAST_TEXELS / 2]
        if shares and min(shares) > BEARDED:
            return ColorModel.of(lab[other & goatee], HAIR_SPREAD), area
    return None, goatee


def _without_specks(keep: np.ndarray, size: int) -> np.ndarray:
    """Keep moles; remove thin areas of hair taken for skin, and the mixed colors at its edge.

    A mole is small; a strand of hair, or a rim of glasses, is as thin but long.
    """
    hidden = np.uint8(keep < 0.5)
    _, label, stats, _ = cv2.connectedComponentsWithStats(hidden, connectivity=8)
    small = stats[:, cv2.CC_STAT_AREA] < MOLE * size**2
    small[0] = False
    keep = np.where(small[label], 1, keep)
    keep = cv2.morphologyEx(np.float32(keep), cv2.MORPH_OPEN, disk(size / THIN))
    return cv2.erode(keep, disk(size / EDGE))


def _soft_edges(keep: np.ndarray, size: int) -> np.ndarray:
    """Shares that fade to 0 towards the texels that are left out."""
    return np.minimum(cv2.GaussianBlur(keep, (0, 0), BLUR * size), 4 * keep)
