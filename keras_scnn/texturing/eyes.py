"""The colors of a person's eyes, and eyeballs painted in them.

An eyeball of the model is unfolded to a disk about the point that looks ahead, whose edge is half
a turn away. A photo shows little of it, and lids where the fit is not exact. So the eye is painted
in the person's colors, its iris where the photo has it, and what the photo shows of it is laid over
that unless it has the skin's color.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from keras_scnn.texturing.atlas import EYES, Atlas, texel_of
from keras_scnn.texturing.colors import lab_from_linear, light_from_lab, linear_from_srgb
from keras_scnn.texturing.skin import ColorModel, SkinAndHair

PUPIL_COLOR, IRIS_COLOR = (0.03, 0.03, 0.03), (0.27, 0.18, 0.12)  # sRGB
# Half angles of the iris, its dark rim's inner edge, and the pupil, degrees.
IRIS, RIM, PUPIL = 28.0, 24.0, 11.0
RIM_SHADE = 0.35
SHADED = (25.0, 60.0, 0.35)  # lids shade the sclera: from, to, degrees, and what light is left
LOOK, LOOK_STEP = 30.0, 6.0  # degrees from ahead within which an iris is looked for
SEEN, LEAST_TEXELS = 0.3, 30
SCLERA_L, IRIS_L = (50.0, 84.0), (8.0, 60.0)


@dataclass(frozen=True, eq=False)
class EyeColors:
    """Both eyes.

    Attributes:
        iris, sclera: (3,) light.
        gaze: (2,) degrees that the iris lies to the right of and below the middle of the chart.
    """

    iris: np.ndarray
    sclera: np.ndarray
    gaze: np.ndarray = field(default_factory=lambda: np.zeros(2))


def eye_charts(atlas: Atlas) -> dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """By region: x and y in degrees from ahead, (S, S) float32, and which texels are the eye's."""
    model = atlas.model
    charts: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    if model.regions is None:
        return charts
    for region in np.intersect1d(EYES, model.regions):
        ball = texel_of(model, atlas.size)[model.regions == region]
        middle, radius = (ball.max(axis=0) + ball.min(axis=0)) / 2, np.ptp(ball, axis=0).max() / 2
        y, x = np.mgrid[: atlas.size, : atlas.size].astype(np.float32)
        x, y = (180 / radius * (v - m) for v, m in zip((x, y), middle, strict=True))
        charts[region] = x, y, np.hypot(x, y) < 195
    return charts


def default_eyes(skin: ColorModel) -> EyeColors:
    """Brown eyes; the sclera's L* follows the skin's, as photos show it."""
    lightness = float(np.clip(0.45 * skin.center[0] + 36, *SCLERA_L))
    return EyeColors(linear_from_srgb(np.array(IRIS_COLOR)), light_from_lab([lightness, 1, 3]))


def find_eyes(atlas: Atlas, albedo: np.ndarray, seen: np.ndarray, skin: ColorModel) -> EyeColors:
    """Colors of the eyes in a photo; brown and usual ones where no iris is seen well.

    Args:
        atlas: of the texels.
        albedo: (S, S, 3) light.
        seen: (S, S) 0 to 1.
        skin: its color.
    """
    usual, irises, whites, gazes = default_eyes(skin), [], [], []
    for x, y, inside in eye_charts(atlas).values():
        texels = inside & (seen > SEEN) & (np.hypot(x, y) < 70)
        lab, place = lab_from_linear(albedo[texels]), np.stack([x[texels], y[texels]], axis=1)
        if (center := _iris_center(place, lab[:, 0])) is None:
            continue
        gazes.append(center)
        away = np.linalg.norm(place - center, axis=1)
        irises.append(lab[(away > PUPIL) & (away < 0.85 * IRIS)])
        whites.append(lab[(away > 1.15 * IRIS) & (away < 60)])
    if not irises:
        return usual
    iris, white = np.concatenate(irises), np.concatenate(whites)
    iris = np.median(iris[iris[:, 0] <= np.quantile(iris[:, 0], 0.7)], axis=0)
    iris[0] = np.clip(iris[0], *IRIS_L)
    usual = replace(usual, iris=light_from_lab(iris), gaze=np.mean(gazes, axis=0))
    if len(white) <= LEAST_TEXELS:
        return usual
    # The lightest of the white, and half as much color, since lids are among it.
    found = np.median(white[white[:, 0] >= np.quantile(white[:, 0], 0.6)], axis=0)
    expected = lab_from_linear(usual.sclera[None])[0, 0]
    lightness = np.clip((expected + found[0]) / 2, *SCLERA_L)
    return replace(usual, sclera=light_from_lab([lightness, *np.clip(found[1:] / 2, -6, 6)]))


def eye_share(
    atlas: Atlas, albedo: np.ndarray, seen: np.ndarray, person: SkinAndHair
) -> np.ndarray:
    """(S, S) float32: texels of the eyeballs that show an eye, not a lid."""
    ball = atlas.mask & np.isin(atlas.region, EYES)
    is_lid = person.skin.share(lab_from_linear(albedo)) > 0.02
    return np.float32(ball & ~is_lid) * seen


def _iris_center(place: np.ndarray, lightness: np.ndarray) -> np.ndarray | None:
    """(2,) degrees: where a disk is darkest against the ring about it; None where none is."""
    best, found = 4.0, None  # L*
    steps = np.arange(-LOOK, LOOK + 1, LOOK_STEP)
    for center in np.stack(np.meshgrid(steps, steps / 2), axis=-1).reshape(-1, 2):
        away = np.linalg.norm(place - center, axis=1)
        disk, ring = lightness[away < 0.9 * IRIS], lightness[(away > 1.1 * IRIS) & (away < 50)]
        if min(len(disk), len(ring)) < LEAST_TEXELS / 2:
            continue
        contrast = float(np.median(ring) - np.median(disk))
        if contrast > best:
            best, found = contrast, center
    return found


def paint_eyes(atlas: Atlas, picture: np.ndarray, eyes: EyeColors) -> None:
    """Sclera, iris with a dark rim, and pupil into a picture (S, S, 3) of light, in place."""
    start, end, left = SHADED
    for x, y, inside in eye_charts(atlas).values():
        angle = np.hypot(x - eyes.gaze[0], y - eyes.gaze[1])
        texel = float(np.abs(x[0, 1] - x[0, 0]))  # degrees over which an edge is soft
        lids = np.hypot(0.6 * x, np.where(y < 0, 3.0, 2.4) * y)
        shade = 1 - (1 - left) * np.clip((lids - start) / (end - start), 0, 1)
        color = np.broadcast_to(eyes.sclera, (*x.shape, 3))
        rings = ((IRIS, RIM_SHADE * eyes.iris), (RIM, eyes.iris),
                 (0.62 * IRIS, 1.25 * eyes.iris),
                 (PUPIL, linear_from_srgb(np.array(PUPIL_COLOR))))  # fmt: skip
        for edge, ring in rings:
            share = np.clip((edge - angle) / max(texel, 3) + 0.5, 0, 1)[..., None]
            color = color + share * (ring - color)
        color = color * shade[..., None]
        np.copyto(picture, np.float32(color), where=inside[..., None])
