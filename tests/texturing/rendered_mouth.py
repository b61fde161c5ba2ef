"""Photos of a rendered mouth whose colors are known."""

import numpy as np
from rendered_skin import photo_of, skin_albedo

from keras_scnn.geometry.colors import lab_from_linear, linear_from_srgb
from keras_scnn.texturing.atlas import MOUTH, Atlas
from keras_scnn.texturing.painting import mouth_light

TEETH, LINING, LIPS = (0.95, 0.88, 0.72), (0.14, 0.08, 0.18), (0.66, 0.36, 0.36)  # sRGB
SHOWN = ("mouthUpperUpLeft", "mouthUpperUpRight", "mouthLowerDownLeft", "mouthLowerDownRight")
OPEN = dict.fromkeys(SHOWN, 1.0) | {"jawOpen": 0.25}


def mouth_albedo(atlas: Atlas) -> np.ndarray:
    """(SIZE, SIZE, 3) light: skin, lips, and a mouth that is not the model's."""
    picture, light = skin_albedo(), mouth_light(atlas)[..., None]
    picture[atlas.zones.lips] = linear_from_srgb(np.array(LIPS))
    for inside, color in ((atlas.teeth, TEETH), (lining(atlas), LINING)):
        picture[inside] = linear_from_srgb(np.array(color)) * light[inside]
    return picture


def lining(atlas: Atlas) -> np.ndarray:
    """(S, S) bool: texels of lining and tongue."""
    return atlas.mask & (atlas.region == MOUTH)


def mouth_photo(model, albedo, units=OPEN, yaw=0.0, light=None, px=400):
    """A photo (px, px, 3) uint8 of the mean face that makes an expression, and its vertices."""
    weights = np.array([units.get(name, 0.0) for name in model.expression_names])
    return photo_of(model, albedo, yaw, light, px, expression=weights)


def lab_of(texture: np.ndarray) -> np.ndarray:
    """(..., 3) of sRGB (..., 3) uint8."""
    return lab_from_linear(linear_from_srgb(texture / 255))
