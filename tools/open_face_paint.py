"""Paints a texture for the open face model: skin, brows, lips, mouth, teeth and eyes.

Only for pictures of the model. Everything is placed by the model's own landmarks and regions in
its texture coordinates, so it holds for any model that has ``uv`` and ``regions``.
"""

from __future__ import annotations

import cv2
import numpy as np

from keras_scnn.morphable_model import MorphableModel

SIZE = 2048
SUBPIXEL = 4  # OpenCV's fixed-point drawing: 1/16 px
BROWS = (range(17, 22), range(26, 21, -1))  # from the temple to the nose
OUTER_LIPS, INNER_LIPS = range(48, 60), range(60, 68)
MOUTH, TEETH, EYES = 1, 2, (3, 4)
MOUTH_COLOR, TEETH_COLOR = (0.42, 0.13, 0.12), (0.93, 0.91, 0.86)
SCLERA_COLOR, PUPIL_COLOR = (0.93, 0.92, 0.90), (0.04, 0.04, 0.04)
IRIS_ANGLE, PUPIL_ANGLE = np.radians(27), np.radians(11)  # half angles seen from the eye's center
# An unfolded half turn is the eye island's radius.
IRIS_SHARE, PUPIL_SHARE = IRIS_ANGLE / np.pi, PUPIL_ANGLE / np.pi


def paint_texture(
    model: MorphableModel, skin: np.ndarray, hair: np.ndarray, iris=(0.30, 0.20, 0.12)
) -> np.ndarray:
    """A texture.

    Args:
        model: with uv and regions.
        skin, hair, iris: (3,) RGB in [0, 1].

    Returns:
        (SIZE, SIZE, 3) float32 in [0, 1], RGB, row 0 at v = 1.
    """
    texture = np.tile(np.float32(skin), (SIZE, SIZE, 1))
    points = _pixels(model.uv)
    landmarks = points[model.landmark_indices]
    lips = np.float32(skin) * [0.86, 0.62, 0.60]
    texture = _blend(texture, _polygon(landmarks[OUTER_LIPS]), lips, blur=7)
    texture = _blend(texture, _polygon(landmarks[INNER_LIPS]), MOUTH_COLOR, blur=1)
    for brow in BROWS:
        texture = _blend(texture, 0.8 * _tapered_line(landmarks[brow]), hair, blur=9)
    texture = _blend(texture, _hull(points[model.regions == TEETH]), TEETH_COLOR, blur=0)
    for eye in EYES:
        _paint_eye(texture, model, points, eye, iris)
    return texture


def sample(texture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Bilinear colors (H, W, 3) of a (S, S, 3) texture at (H, W, 2) texture coordinates."""
    pixels = _pixels(uv).astype(np.float32)
    return cv2.remap(texture, pixels, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _pixels(uv: np.ndarray) -> np.ndarray:
    return np.stack([uv[..., 0], 1 - uv[..., 1]], axis=-1) * SIZE - 0.5


def _fixed(points: np.ndarray) -> np.ndarray:
    return np.round(points * 2**SUBPIXEL).astype(np.int32)


def _polygon(points: np.ndarray) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), np.float32)
    cv2.fillPoly(mask, [_fixed(points)], 1.0, lineType=cv2.LINE_AA, shift=SUBPIXEL)
    return mask


def _hull(points: np.ndarray) -> np.ndarray:
    """The points' convex hull with a margin, so that interpolation at its edge stays inside."""
    middle = points.mean(axis=0)
    return _polygon(cv2.convexHull(np.float32(middle + 1.05 * (points - middle)))[:, 0])


def _tapered_line(points: np.ndarray) -> np.ndarray:
    """A stroke through the points: thin at its first, thick from the middle to its last."""
    mask = np.zeros((SIZE, SIZE), np.float32)
    t = np.linspace(0, len(points) - 1, 60)
    knots = np.arange(len(points))
    path = np.stack([np.interp(t, knots, points[:, i]) for i in (0, 1)], axis=1)
    length = np.linalg.norm(points[-1] - points[0])
    for share, center in zip(t / t[-1], path, strict=True):
        radius = length * (0.02 + 0.05 * min(1.0, 1.6 * share))
        cv2.circle(
            mask, _fixed(center).tolist(), int(radius * 2**SUBPIXEL), 1.0, -1, shift=SUBPIXEL
        )
    return mask


def _paint_eye(texture, model: MorphableModel, points: np.ndarray, eye: int, iris) -> None:
    """Disks about the eye island's middle, which faces straight ahead."""
    ball = points[model.regions == eye]
    middle = (ball.max(axis=0) + ball.min(axis=0)) / 2
    radius = np.ptp(ball, axis=0).max() / 2
    rings = (
        (1.1, SCLERA_COLOR), (1.12 * IRIS_SHARE, np.float32(iris) * 0.5),
        (0.98 * IRIS_SHARE, iris), (PUPIL_SHARE, PUPIL_COLOR),
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
