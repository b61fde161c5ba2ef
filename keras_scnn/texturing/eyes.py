"""The colors of a person's eyes, and eyeballs painted in them.

An eyeball of the model is unfolded to a disk about the point that looks ahead, whose edge is half
a turn away. A photo shows little of it, and lids and lashes where the fit is not exact, so it gives
colors alone; the eye itself is painted, and looks ahead when the eyeball does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_scnn.texturing.atlas import EYES, Atlas, texel_of
from keras_scnn.texturing.colors import lab_from_linear, light_from_lab, linear_from_srgb
from keras_scnn.texturing.skin import ColorModel

PUPIL_COLOR, IRIS_COLOR = (0.03, 0.03, 0.03), (0.27, 0.18, 0.12)  # sRGB
# Half angles of the iris, its dark rim's inner edge, and the pupil, degrees.
IRIS, RIM, PUPIL = 28.0, 24.0, 11.0
RIM_SHADE = 0.35
SHADED = (25.0, 75.0, 0.45)  # lids shade the sclera: from, to, degrees, and what light is left
LOOK, LOOK_STEP = 30.0, 6.0  # degrees from ahead within which an iris is looked for
SEEN, LEAST_TEXELS = 0.3, 30
SCLERA_L, IRIS_L = (58.0, 86.0), (8.0, 60.0)


@dataclass(frozen=True, eq=False)
class EyeColors:
    """Light (3,) of both eyes' parts."""

    iris: np.ndarray
    sclera: np.ndarray


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
    lightness = float(np.clip(0.45 * skin.center[0] + 42, *SCLERA_L))
    return EyeColors(linear_from_srgb(np.array(IRIS_COLOR)), light_from_lab([lightness, 1, 3]))


def find_eyes(atlas: Atlas, albedo: np.ndarray, seen: np.ndarray, skin: ColorModel) -> EyeColors:
    """Colors of the eyes in a photo; brown and usual ones where no iris is seen well.

    Args:
        atlas: of the texels.
        albedo: (S, S, 3) light.
        seen: (S, S) 0 to 1.
        skin: its color.
    """
    usual, irises, whites = default_eyes(skin), [], []
    for x, y, inside in eye_charts(atlas).values():
        texels = inside & (seen > SEEN) & (np.hypot(x, y) < 70)
        lab, place = lab_from_linear(albedo[texels]), np.stack([x[texels], y[texels]], axis=1)
        if (center := _iris_center(place, lab[:, 0])) is None:
            continue
        away = np.linalg.norm(place - center, axis=1)
        irises.append(lab[(away > PUPIL) & (away < 0.85 * IRIS)])
        whites.append(lab[(away > 1.15 * IRIS) & (away < 60)])
    if not irises:
        return usual
    iris, white = np.concatenate(irises), np.concatenate(whites)
    iris = np.median(iris[iris[:, 0] <= np.quantile(iris[:, 0], 0.7)], axis=0)
    iris[0] = np.clip(iris[0], *IRIS_L)
    if len(white) <= LEAST_TEXELS:
        return EyeColors(light_from_lab(iris), usual.sclera)
    # The lightest of the white, and half as much color, since lids are among it.
    found = np.median(white[white[:, 0] >= np.quantile(white[:, 0], 0.6)], axis=0)
    expected = lab_from_linear(usual.sclera[None])[0, 0]
    lightness = np.clip((expected + found[0]) / 2, *SCLERA_L)
    sclera = light_from_lab([lightness, *np.clip(found[1:] / 2, -6, 6)])
    return EyeColors(light_from_lab(iris), sclera)


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
        angle = np.hypot(x, y)
        texel = float(np.abs(x[0, 1] - x[0, 0]))  # degrees over which an edge is soft
        lids = np.hypot(x, np.where(y < 0, 2.2, 1.6) * y)
        shade = 1 - (1 - left) * np.clip((lids - start) / (end - start), 0, 1)
        color = eyes.sclera * shade[..., None]
        rings = ((IRIS, RIM_SHADE * eyes.iris), (RIM, eyes.iris),
                 (0.62 * IRIS, 1.25 * eyes.iris),
                 (PUPIL, linear_from_srgb(np.array(PUPIL_COLOR))))  # fmt: skip
        for edge, ring in rings:
            share = np.clip((edge - angle) / max(texel, 3) + 0.5, 0, 1)[..., None]
            color = color + share * (ring - color)
        np.copyto(picture, np.float32(color), where=inside[..., None])
