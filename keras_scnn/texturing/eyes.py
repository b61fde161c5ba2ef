"""The colors of a person's eyes, and eyeballs painted in them.

An eyeball of the model is unfolded to a disk around the point that looks straight ahead; the disk's
edge is 180 degrees away. A photo shows little of it, and lids where the fit is not exact. So the
eye is painted in the person's colors, with the iris where the photo has it, and blended with what
the photo shows of it, except where that has the skin's color.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from keras_scnn.geometry.colors import lab_from_linear, light_from_lab, linear_from_srgb
from keras_scnn.texturing.atlas import EYES, Atlas, texel_of
from keras_scnn.texturing.skin import ColorModel, SkinAndHair

PUPIL_COLOR, IRIS_COLOR = (0.03, 0.03, 0.03), (0.27, 0.18, 0.12)  # sRGB
# Half angles of the iris, its dark rim's inner edge, and the pupil, degrees.
IRIS, RIM, PUPIL = 28.0, 24.0, 11.0
RIM_SHADE = 0.35
SHADED = (25.0, 60.0, 0.35)  # shade of the lids: start and end in degrees, and remaining light
LOOK, LOOK_STEP = 30.0, 6.0  # range and step of the search for an iris, degrees from ahead
SEEN, LEAST_TEXELS = 0.3, 30
SCLERA_L, IRIS_L = (50.0, 84.0), (8.0, 60.0)


@dataclass(frozen=True, eq=False)
class EyeColors:
    """Colors of both eyes, and their gaze.

    Attributes:
        iris, sclera: (3,) light.
        gaze: (2,) position of the iris, degrees to the right of and below the chart's center.
    """

    iris: np.ndarray
    sclera: np.ndarray
    gaze: np.ndarray = field(default_factory=lambda: np.zeros(2))


@dataclass(frozen=True, eq=False)
class EyeChart:
    """One eyeball on the map.

    Attributes:
        window: rows and columns of the map that contain it.
        x, y: (H, W) float32 of the window, degrees from ahead, to the right and down.
        inside: (H, W) bool: texels of the chart, with a small margin.
        step: degrees per texel.
    """

    window: tuple[slice, slice]
    x: np.ndarray
    y: np.ndarray
    inside: np.ndarray
    step: float


def eye_charts(atlas: Atlas) -> list[EyeChart]:
    """The charts of the model's eyeballs; [] if it has none."""
    model, charts = atlas.model, []
    for region in [] if model.regions is None else np.intersect1d(EYES, model.regions):
        ball = texel_of(model, atlas.size)[model.regions == region]
        middle, radius = (ball.max(axis=0) + ball.min(axis=0)) / 2, np.ptp(ball, axis=0).max() / 2
        low = np.maximum(np.floor(middle - 1.1 * radius), 0).astype(int)
        high = np.ceil(middle + 1.1 * radius).astype(int) + 1
        window = slice(low[1], min(high[1], atlas.size)), slice(low[0], min(high[0], atlas.size))
        y, x = np.float32(np.mgrid[window])
        x, y = (180 / radius * (v - m) for v, m in zip((x, y), middle, strict=True))
        charts.append(EyeChart(window, x, y, np.hypot(x, y) < 195, 180 / radius))
    return charts


def default_eyes(skin: ColorModel) -> EyeColors:
    """Brown eyes; the sclera's L* follows the skin's, as photos show it."""
    lightness = float(np.clip(0.45 * skin.center[0] + 36, *SCLERA_L))
    return EyeColors(linear_from_srgb(np.array(IRIS_COLOR)), light_from_lab([lightness, 1, 3]))


def find_eyes(atlas: Atlas, albedo: np.ndarray, seen: np.ndarray, skin: ColorModel) -> EyeColors:
    """Colors of the eyes in a photo; those of ``default_eyes`` if no iris is seen well.

    Args:
        atlas: of the texels.
        albedo: (S, S, 3) light.
        seen: (S, S) 0 to 1.
        skin: the person's color.
    """
    usual, irises, whites, gazes = default_eyes(skin), [], [], []
    for chart in eye_charts(atlas):
        x, y = chart.x, chart.y
        texels = chart.inside & (seen[chart.window] > SEEN) & (np.hypot(x, y) < 70)
        lab = lab_from_linear(albedo[chart.window][texels])
        place = np.stack([x[texels], y[texels]], axis=1)
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
    # The lightest part of the white, with half its chroma, since it includes lids.
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
    """(2,) degrees: center of the disk that is darkest relative to its ring; None if none is."""
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
    """Paint sclera, iris with a dark rim, and pupil into a picture (S, S, 3) of light, in place."""
    start, end, left = SHADED
    for chart in eye_charts(atlas):
        x, y = chart.x, chart.y
        angle = np.hypot(x - eyes.gaze[0], y - eyes.gaze[1])
        lids = np.hypot(0.6 * x, np.where(y < 0, 3.0, 2.4) * y)
        shade = 1 - (1 - left) * np.clip((lids - start) / (end - start), 0, 1)
        color = np.broadcast_to(eyes.sclera, (*x.shape, 3))
        rings = ((IRIS, RIM_SHADE * eyes.iris), (RIM, eyes.iris),
                 (0.62 * IRIS, 1.25 * eyes.iris),
                 (PUPIL, linear_from_srgb(np.array(PUPIL_COLOR))))  # fmt: skip
        for edge, ring in rings:
            share = np.clip((edge - angle) / max(chart.step, 3) + 0.5, 0, 1)[..., None]
            color = color + share * (ring - color)
        color = np.float32(color * shade[..., None])
        np.copyto(picture[chart.window], color, where=chart.inside[..., None])
