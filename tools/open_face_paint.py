"""Paints a texture for the open face model: skin, short hair, brows, lips, mouth, teeth, eyes.

Only for pictures of the model. Everything is placed by the model's own landmarks and regions in
its texture coordinates, so it works for any model with ``uv`` and ``regions``.
"""

from __future__ import annotations

import cv2
import numpy as np

from keras_scnn.data.synthesis.appearance import (
    BROW_DROP,
    BROWS_AND_EYES,
    MOUTH_COLOR,
    TEETH_COLOR,
)
from keras_scnn.geometry.rasterizer import interpolate, rasterize
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.texturing.atlas import EYES, MOUTH, OUTER_LIPS, TEETH

SIZE = 2048
SUBPIXEL = 4  # OpenCV's fixed-point drawing: 1/16 px
HAIRLINE_MM = 50.0  # above the brows, on the midline
SCLERA_COLOR, IRIS_COLOR, PUPIL_COLOR = (0.93, 0.92, 0.90), (0.30, 0.20, 0.12), (0.04, 0.04, 0.04)
IRIS_ANGLE, PUPIL_ANGLE = np.radians(27), np.radians(11)  # half angles seen from the eye's center
# The eye island's radius corresponds to an angle of pi.
IRIS_SHARE, PUPIL_SHARE = IRIS_ANGLE / np.pi, PUPIL_ANGLE / np.pi


def paint_texture(model: MorphableModel, skin: np.ndarray, hair: np.ndarray) -> np.ndarray:
    """Paint a texture.

    Args:
        model: with uv and regions.
        skin, hair: (3,) RGB in [0, 1].

    Returns:
        (SIZE, SIZE, 3) float32 in [0, 1], RGB, row 0 at v = 1.
    """
    texture = np.tile(np.float32(skin), (SIZE, SIZE, 1))
    points = _pixels(model.uv)
    landmarks = points[model.landmark_indices]
    texture = _blend(texture, 0.85 * _scalp(model, points), hair, blur=10)
    lips = np.float32(skin) * [0.84, 0.60, 0.60]
    texture = _blend(texture, _polygon(landmarks[OUTER_LIPS]), lips, blur=7)
    for brow, eye in BROWS_AND_EYES:
        sunk = (1 - BROW_DROP) * landmarks[brow] + BROW_DROP * landmarks[eye].mean(axis=0)
        texture = _blend(texture, 0.8 * _tapered_line(sunk), hair, blur=6)
    texture = _blend(texture, _triangles(model, points, MOUTH), MOUTH_COLOR, blur=0)
    texture = _blend(texture, _hull(points[model.regions == TEETH]), TEETH_COLOR, blur=0)
    texture = _blend(texture, _back_teeth(points[model.regions == TEETH]), MOUTH_COLOR, blur=0)
    for eye in EYES:
        _paint_eye(texture, points[model.regions == eye])
    return texture


def _pixels(uv: np.ndarray) -> np.ndarray:
    """Texels (..., 2) of texture coordinates, in the convention of ``sample_texture``."""
    return np.stack([uv[..., 0], 1 - uv[..., 1]], axis=-1) * (SIZE - 1)


def _fixed(points: np.ndarray) -> np.ndarray:
    return np.round(points * 2**SUBPIXEL).astype(np.int32)


def _polygon(points: np.ndarray) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), np.float32)
    cv2.fillPoly(mask, [_fixed(points)], 1.0, lineType=cv2.LINE_AA, shift=SUBPIXEL)
    return mask


def _triangles(model: MorphableModel, points: np.ndarray, region: int) -> np.ndarray:
    """Mask of every triangle that has a vertex in the region."""
    mask = np.zeros((SIZE, SIZE), np.float32)
    for triangle in model.triangles[(model.regions[model.triangles] == region).any(axis=1)]:
        cv2.fillConvexPoly(mask, _fixed(points[triangle]), 1.0, shift=SUBPIXEL)
    return mask


def _scalp(model: MorphableModel, points: np.ndarray) -> np.ndarray:
    """Mask of short hair: above a slant from the forehead's hairline down to the sideburns."""
    flat = np.concatenate([points, np.zeros((len(points), 1))], axis=1).astype(np.float32)
    skin = model.triangles[(model.regions[model.triangles] == 0).all(axis=1)]
    position = interpolate(rasterize(flat, skin, SIZE, SIZE), skin, model.mean)
    brow = model.mean[model.landmark_indices[[19, 24]]].mean(axis=0)
    _, up, front = np.moveaxis(position - brow, -1, 0)
    slant = HAIRLINE_MM + np.minimum(front + 15, 0)
    ear = (up < 25) & (front < -80)
    return ((up > slant) & (up > -10) & ~ear).astype(np.float32)


def _back_teeth(points: np.ndarray) -> np.ndarray:
    """Shade on the back teeth, which lie deep in the mouth."""
    middle, half = points.mean(axis=0), np.ptp(points[:, 0]) / 2
    share = np.abs(np.arange(SIZE) - middle[0]) / half
    return _hull(points) * np.clip(1.1 * share**2, 0, 0.75).astype(np.float32)


def _hull(points: np.ndarray) -> np.ndarray:
    """Mask of the points' convex hull with a margin, for interpolation at its edge."""
    middle = points.mean(axis=0)
    return _polygon(cv2.convexHull(np.float32(middle + 1.05 * (points - middle)))[:, 0])


def _tapered_line(points: np.ndarray) -> np.ndarray:
    """Mask of a stroke through the points: thin at the first, thickest in the middle."""
    mask = np.zeros((SIZE, SIZE), np.float32)
    t = np.linspace(0, len(points) - 1, 60)
    knots = np.arange(len(points))
    path = np.stack([np.interp(t, knots, points[:, i]) for i in (0, 1)], axis=1)
    length = np.linalg.norm(points[-1] - points[0])
    for share, center in zip(t / t[-1], path, strict=True):
        radius = length * (0.014 + 0.034 * np.sin(np.pi * min(0.85, share)))
        cv2.circle(
            mask, _fixed(center).tolist(), int(radius * 2**SUBPIXEL), 1.0, -1, shift=SUBPIXEL
        )
    return mask


def _paint_eye(texture: np.ndarray, ball: np.ndarray) -> None:
    """Disks around the center of an eyeball's points, which faces straight ahead."""
    middle = (ball.max(axis=0) + ball.min(axis=0)) / 2
    radius = np.ptp(ball, axis=0).max() / 2
    rings = (
        (1.1, SCLERA_COLOR), (1.12 * IRIS_SHARE, np.float32(IRIS_COLOR) * 0.5),
        (0.98 * IRIS_SHARE, IRIS_COLOR), (PUPIL_SHARE, PUPIL_COLOR),
    )  # fmt: skip
    for share, color in rings:
        size = int(radius * share * 2**SUBPIXEL)
        color = tuple(map(float, color))
        cv2.circle(texture, _fixed(middle).tolist(), size, color, -1, cv2.LINE_AA, SUBPIXEL)


def _blend(texture, mask: np.ndarray, color, blur: float) -> np.ndarray:
    """Paint ``color`` where ``mask`` is 1; ``blur`` softens the edge, in texels."""
    if blur:
        mask = cv2.GaussianBlur(mask, (0, 0), blur)
    return (texture + mask[..., None] * (np.float32(color) - texture)).astype(np.float32)
