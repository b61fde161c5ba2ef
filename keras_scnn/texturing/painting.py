"""Plain skin, features, eyes and mouth in a person's colors, for what no photo shows."""

from __future__ import annotations

import cv2
import numpy as np

from keras_scnn.geometry.colors import PLAIN_MOUTH, PLAIN_TEETH, light_from_lab, linear_from_srgb
from keras_scnn.texturing.atlas import MOUTH, TEETH, Atlas
from keras_scnn.texturing.eyes import EyeColors, paint_eyes
from keras_scnn.texturing.mouth import MouthColors
from keras_scnn.texturing.skin import SkinAndHair

LIP_TINT = np.array([0.74, 0.42, 0.42])  # of the skin's light
BROW_SHARE = 0.6
GRAY = 3.0  # skin of less chroma (CIE a*, b*) is from a gray photo
# Distances behind the lips, mm of the open face model, and the light that is left there.
MOUTH_LIGHT = (0.0, 10.0, 45.0), (1.0, 0.9, 0.5)
TEETH_LIGHT = (0.0, 8.0, 30.0), (0.95, 0.9, 0.4)


def paint_plain(
    atlas: Atlas, person: SkinAndHair, eyes: EyeColors, mouth: MouthColors
) -> np.ndarray:
    """(S, S, 3) float32 light: an unlit face in a person's colors."""
    zones, soft = atlas.zones, atlas.size / 150
    skin = light_from_lab(person.skin.center)
    picture = np.broadcast_to(np.float32(skin), (atlas.size, atlas.size, 3)).copy()
    hair = person.hair or person.brows
    if hair is not None and person.hairline is not None:
        scalp = np.clip((zones.scalp_slant - person.hairline) / 5, 0, 1) * atlas.skin
        _blend(picture, np.float32(scalp), light_from_lab(hair.center), 2 * soft)
    lips = skin * LIP_TINT if person.lips is None else light_from_lab(person.lips.center)
    _blend(picture, zones.lips, lips, soft)
    if (brows := person.brows or hair) is not None:
        _blend(picture, BROW_SHARE * zones.brow_strokes, light_from_lab(brows.center), soft)
    _paint_mouth(atlas, picture, mouth)
    paint_eyes(atlas, picture, eyes)
    if np.hypot(*person.skin.center[1:]) < GRAY:
        picture[:] = picture.mean(axis=-1, keepdims=True)
    return picture


def _paint_mouth(atlas: Atlas, picture: np.ndarray, mouth: MouthColors) -> None:
    """Lining, tongue and teeth, darker the deeper they are behind the lips."""
    light = mouth_light(atlas)[..., None]
    for region, color, usual in (
        (MOUTH, mouth.lining, PLAIN_MOUTH),
        (TEETH, mouth.teeth, PLAIN_TEETH),
    ):
        inside = atlas.mask & (atlas.region == region)
        color = linear_from_srgb(np.array(usual)) if color is None else color
        picture[inside] = color * light[inside]


def mouth_light(atlas: Atlas) -> np.ndarray:
    """(S, S) float32: the share of light that is left in the mouth, and 0 elsewhere."""
    front = atlas.mean_face[atlas.model.landmark_indices[[51, 57]], 2].max()
    depth = front - atlas.at_texels(atlas.mean_face)[..., 2]
    left = np.zeros((atlas.size, atlas.size), np.float32)
    for region, light in ((MOUTH, MOUTH_LIGHT), (TEETH, TEETH_LIGHT)):
        inside = atlas.mask & (atlas.region == region)
        left[inside] = np.interp(depth[inside], *light)
    return left


def _blend(picture: np.ndarray, share: np.ndarray, color: np.ndarray, soft: float) -> None:
    share = cv2.GaussianBlur(np.float32(share), (0, 0), soft)[..., None]
    picture += share * (np.float32(color) - picture)
