"""Random skin, hair, eyes and light for synthetic faces, painted in texture coordinates.

Brows, lips and eyes are placed by the face model's own landmarks and regions, so any model with
``uv`` and ``regions`` can be painted.
"""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit

from keras_scnn.geometry.rasterizer import interpolate, rasterize
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.texturing.atlas import EYES, MOUTH, OUTER_LIPS, TEETH

# Brows from the temple to the nose, each with the eye below it.
BROWS_AND_EYES = ((range(17, 22), range(36, 42)), (range(26, 21, -1), range(42, 48)))
BROW_DROP = 0.14  # the landmarks lie on the brow's upper edge; the hair is a little lower
MOUTH_COLOR, TEETH_COLOR, SCLERA_COLOR = (0.42, 0.13, 0.12), (0.93, 0.91, 0.86), (0.92, 0.9, 0.88)
PUPIL_COLOR = (0.05, 0.05, 0.05)
# Half angles of iris and pupil: 27 and 11 degrees. The radius of an eye's uv island is 180 degrees.
IRIS_SHARE, PUPIL_SHARE = 27 / 180, 11 / 180
# Cells along the texture, and standard deviation of the log brightness.
SKIN_VARIATION, PORES = ((4, 0.06), (12, 0.04), (48, 0.03)), 0.02
# Light to dark, in sRGB; a random tone is interpolated between two neighbors.
SKIN_TONES = (
    np.array(
        [
            [241, 204, 184],
            [224, 172, 146],
            [198, 145, 115],
            [160, 112, 84],
            [112, 76, 56],
            [72, 48, 38],
        ]
    )
    / 255.0
)
HAIR_TONES = (
    np.array([[150, 112, 70], [98, 70, 48], [62, 44, 34], [30, 25, 24], [120, 118, 116]]) / 255.0
)
IRIS_TONES = np.array([[70, 45, 30], [95, 70, 40], [85, 105, 80], [95, 125, 150]]) / 255.0


class FacePainter:
    """Paints textures, (S, S, 3) float32, 0 to 255, with the first row at v = 1.

    Args:
        model: with uv and regions.
        size: S, texels.

    Raises:
        ValueError: the model lacks uv or regions.
    """

    def __init__(self, model: MorphableModel, size: int = 256):
        if model.uv is None or model.regions is None:
            raise ValueError(
                f"face model '{model.name}' lacks uv or regions, so it cannot be painted"
            )
        self._model, self._regions, self.size = model, model.regions, size
        self._points = np.stack([model.uv[:, 0], 1 - model.uv[:, 1]], axis=-1) * (size - 1)
        landmarks = self._points[model.landmark_indices]
        edge = size / 300
        self._lips = soft(self._polygon(landmarks[OUTER_LIPS]), edge)
        self._brows = sum(soft(self._brow(landmarks, *pair), edge) for pair in BROWS_AND_EYES)
        self._height, self._front = self._position()
        self._mouth = self._triangles(MOUTH)
        self._teeth = self._hull(self._points[self._regions == TEETH])

    def paint(self, rng: np.random.Generator) -> np.ndarray:
        """The texture of one random person."""
        skin, hair = random_tone(rng, SKIN_TONES), random_tone(rng, HAIR_TONES)
        if skin.mean() < 0.45:
            hair = hair * 0.4
        texture = self._skin(skin, rng)
        lips = skin * np.array([0.88, 0.62, 0.62]) ** rng.uniform(0.5, 1.6)
        blend(texture, self._lips, lips)
        blend(texture, self._brows * np.float32(rng.uniform(0.35, 0.95)), hair)
        blend(texture, self._scalp(rng) * np.float32(rng.uniform(0.6, 1.0)), hair)
        if rng.random() < 0.25:
            blend(texture, self._beard(rng) * np.float32(rng.uniform(0.15, 0.6)), hair)
        blend(texture, self._mouth, np.array(MOUTH_COLOR))
        blend(texture, self._teeth, np.array(TEETH_COLOR))
        iris = random_tone(rng, IRIS_TONES)
        for eye in EYES:
            self._paint_eye(texture, eye, iris)
        return 255 * np.clip(texture, 0, 1, out=texture)

    def _skin(self, tone: np.ndarray, rng) -> np.ndarray:
        """Skin of the given tone, with smooth variation at several scales, and pores."""
        side = (self.size, self.size)
        field = rng.standard_normal((*side, 1), np.float32) * np.float32(PORES)
        field = np.repeat(field, 3, axis=2)
        for cells, strength in SKIN_VARIATION:
            gray = rng.standard_normal((cells, cells, 1), np.float32)
            color = rng.standard_normal((cells, cells, 3), np.float32) / 3
            coarse = (gray + color) * np.float32(strength)
            field += cv2.resize(coarse, side, interpolation=cv2.INTER_CUBIC)
        np.exp(field, out=field)
        field *= np.float32(tone)
        return field

    def _scalp(self, rng) -> np.ndarray:
        """(S, S) mask of short hair above a random hairline, down to the sideburns."""
        slant = rng.uniform(38, 62) + np.minimum(self._front + 15, 0) * rng.uniform(0.7, 1.1)
        return soft(
            ((self._height > slant) & (self._height > -10)).astype(np.float32), self.size / 200
        )

    def _beard(self, rng) -> np.ndarray:
        """(S, S) mask of a beard: below the nose and along the jaw, not on the lips."""
        top = -rng.uniform(64, 72) - 0.35 * np.minimum(self._front + 30, 0)
        area = ((self._height < top) & (self._lips < 0.3)).astype(np.float32)
        return soft(area, self.size / 90)

    def _position(self) -> tuple[np.ndarray, np.ndarray]:
        """(S, S) each: height above the brows, and distance in front of them, mm."""
        model = self._model
        flat = np.column_stack([self._points, np.zeros(len(self._points))])
        skin = model.triangles[(self._regions[model.triangles] == 0).all(axis=1)]
        brow = model.mean[model.landmark_indices[[19, 24]]].mean(axis=0)
        seen = rasterize(flat, skin, self.size, self.size, cull_back_faces=False)
        place = interpolate(seen, skin, model.mean - brow)
        return place[..., 1], place[..., 2]

    def eye_boxes(self) -> list[tuple[slice, slice]]:
        """Rows and columns of the texture that hold each eyeball."""
        boxes = []
        for region in EYES:
            middle, radius = self._ball(region)
            low, high = np.floor(middle - radius).astype(int), np.ceil(middle + radius).astype(int)
            boxes.append((slice(low[1], high[1] + 1), slice(low[0], high[0] + 1)))
        return boxes

    def _ball(self, region: int) -> tuple[np.ndarray, float]:
        """Center (2,) and radius of an eyeball's uv island, texels."""
        ball = self._points[self._regions == region]
        return (ball.max(axis=0) + ball.min(axis=0)) / 2, np.ptp(ball, axis=0).max() / 2

    def _paint_eye(self, texture: np.ndarray, region: int, iris: np.ndarray) -> None:
        middle, radius = self._ball(region)
        rings = (
            (1.1, SCLERA_COLOR),
            (1.1 * IRIS_SHARE, iris / 2),
            (IRIS_SHARE, iris),
            (PUPIL_SHARE, PUPIL_COLOR),
        )
        for share, color in rings:
            disk = tuple(int(round(16 * v)) for v in middle), int(16 * radius * share)
            cv2.circle(texture, *disk, tuple(map(float, color)), -1, cv2.LINE_AA, 4)

    def _polygon(self, points: np.ndarray) -> np.ndarray:
        mask = np.zeros((self.size, self.size), np.float32)
        cv2.fillPoly(mask, [np.round(16 * points).astype(np.int32)], 1.0, cv2.LINE_AA, 4)
        return mask

    def _hull(self, points: np.ndarray) -> np.ndarray:
        return self._polygon(cv2.convexHull(np.float32(points))[:, 0])

    def _triangles(self, region: int) -> np.ndarray:
        mask = np.zeros((self.size, self.size), np.float32)
        chosen = (self._regions[self._model.triangles] == region).any(axis=1)
        for triangle in self._model.triangles[chosen]:
            points = np.round(16 * self._points[triangle]).astype(np.int32)
            cv2.fillConvexPoly(mask, points, 1.0, shift=4)
        return mask

    def _brow(self, landmarks: np.ndarray, brow: range, eye: range) -> np.ndarray:
        """A stroke that is thin at the temple and thickest in the middle."""
        line = (1 - BROW_DROP) * landmarks[brow] + BROW_DROP * landmarks[eye].mean(axis=0)
        length, mask = (
            np.linalg.norm(line[-1] - line[0]),
            np.zeros((self.size, self.size), np.float32),
        )
        for t in np.linspace(0, 1, 60):
            center = [np.interp(t * (len(line) - 1), range(len(line)), line[:, i]) for i in (0, 1)]
            radius = length * (0.014 + 0.034 * np.sin(np.pi * min(0.85, t)))
            place = tuple(int(round(16 * v)) for v in center)
            cv2.circle(mask, place, int(16 * radius), 1.0, -1, cv2.LINE_AA, 4)
        return mask


def random_light(rng: np.random.Generator) -> np.ndarray:
    """(9, 3) random spherical-harmonics light: ambient, one main direction, slightly colored."""
    yaw, pitch = rng.uniform(-1.3, 1.3), rng.uniform(-0.3, 0.9)
    x, y, z = np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)
    strength = rng.uniform(0.2, 1.0)
    light = np.zeros(9)
    light[0] = rng.uniform(2.5, 4.2)
    light[1:4] = strength * np.array([y, z, x])
    light[4:] = rng.normal(0, 0.08, 5)
    return light[:, None] * np.exp(rng.normal(0, 0.06, 3))


def random_tone(rng: np.random.Generator, tones: np.ndarray) -> np.ndarray:
    """A random color (3,), 0.02 to 1, interpolated between neighbors of ``tones`` (n, 3)."""
    i, share = rng.integers(len(tones) - 1), rng.random()
    return np.clip((1 - share) * tones[i] + share * tones[i + 1] + rng.normal(0, 0.015, 3), 0.02, 1)


def soft(mask: np.ndarray, sigma: float) -> np.ndarray:
    """A mask (S, S) float32 with its edges blurred by ``sigma`` texels."""
    return cv2.GaussianBlur(mask, (0, 0), max(sigma, 0.3))


@njit(cache=True, nogil=True)
def _mix(texture, mask, color):
    for y in range(texture.shape[0]):
        for x in range(texture.shape[1]):
            share = mask[y, x]
            if share > 0:
                for ch in range(3):
                    texture[y, x, ch] += share * (color[ch] - texture[y, x, ch])


def blend(texture: np.ndarray, mask: np.ndarray, color: np.ndarray) -> None:
    """Blend a color (3,) into a texture (S, S, 3) with the opacity ``mask`` (S, S), in place."""
    _mix(texture, mask, np.float32(color))
