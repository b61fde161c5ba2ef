"""Photos of a rendered person whose albedo and light are known."""

import numpy as np

from keras_scnn.geometry.camera import compose, project
from keras_scnn.geometry.colors import linear_from_srgb, srgb_from_linear
from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.geometry.shading import render
from keras_scnn.morphable_model import MorphableModel

SKIN = np.array([0.80, 0.60, 0.50])  # sRGB
SIZE = 512


def even_light() -> np.ndarray:
    """(9, 3): irradiance 1 from everywhere (the constant harmonic is 0.282095)."""
    light = np.zeros((9, 3))
    light[0] = 1 / 0.282095
    return light


def side_light() -> np.ndarray:
    """(9, 3): from the viewer's right and above, a little warm."""
    light = even_light() * 0.75
    light[1:4] = np.array([[0.3], [0.35], [0.75]]) * [1.05, 1.0, 0.93]
    return light


def skin_albedo(stripes: float = 0.0, size: int = SIZE, width: float = 1 / 60) -> np.ndarray:
    """(size, size, 3) float32 light: smooth skin, alike on both sides.

    Args:
        stripes: strength of stripes that run down on one side and across on the other.
        size: texels of a side.
        width: of two stripes, of the whole map's side.
    """
    y, x = np.mgrid[:size, :size] / (size - 1)
    waves = 0.05 * np.cos(30 * (x - 0.5)) + 0.05 * np.cos(25 * y)
    waves += stripes * np.sin(2 * np.pi / width * np.where(x < 0.5, x, y))
    return np.float32(linear_from_srgb(SKIN) * (1 + waves)[..., None])


def photo_of(
    model: MorphableModel,
    albedo: np.ndarray,
    yaw_degrees: float = 0.0,
    light: np.ndarray | None = None,
    px: int = 300,
    background: tuple[int, int, int] = (90, 110, 140),
    expression: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """A photo (px, px, 3) uint8 of the mean face, and its posed vertices.

    ``expression``: (L,) weights; None for the neutral face."""
    rotation = rotation_from_euler(np.deg2rad([0, yaw_degrees, 0]))
    center = np.array([px / 2, 0.57 * px, 0.0])
    posed = project(compose(rotation, px / 280, center), model.vertices(expression=expression))
    light = even_light() if light is None else light
    black = np.zeros((px, px, 3))
    image, mask = render(posed, model.triangles, model.uv, albedo * 255, light, black)
    srgb = np.uint8(255 * srgb_from_linear(image / 255) + 0.5)
    return np.where(mask[..., None], srgb, np.uint8(background)), posed
