"""Portraits: rendered faces with hair, neck, clothes, glasses, and a background.

From heads alone in front of color noise, a network would learn an outline of skin all around the
face, which photos never show. Hair and clothes are not drawn realistically, but vary the
surroundings of the face, so that only the face can be learned (domain randomization: Tobin et al.,
"Domain Randomization for Transferring Deep Neural Networks from Simulation to the Real World",
2017).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from keras_scnn.data.synthesis.appearance import FacePainter, blend, random_tone, soft
from keras_scnn.geometry.camera import project

# In sRGB: blond, red, brown and white hair, besides dark hair.
LIGHT_HAIR = np.array([[205, 175, 125], [165, 95, 55], [150, 110, 75], [205, 205, 200]]) / 255
UPPER_LIDS, BELOW_EYES = ((36, 37, 38, 39), (42, 43, 44, 45)), ((36, 41, 40), (45, 46, 47))
CREASES = ((31, 48), (35, 54))  # from the wings of the nose to the corners of the mouth
EYE_CENTERS = (range(36, 42), range(42, 48))
# Model frame, mm: the neck's upper end below the jaw, and its lower end between the shoulders.
NECK = np.array([[0.0, -45.0, -85.0], [0.0, -190.0, -115.0]])
NECK_RADIUS, SHOULDERS, GLASSES_RADIUS, FRAME_WIDTH = 54.0, (210.0, 75.0), 24.0, 2.5
SKULL_HEIGHT, SKULL_DEPTH, EAR_HEIGHT = 55.0, -45.0, 20.0  # of the vertices covered by hair, mm
FAR = 4000  # px; limit of coordinates, for OpenCV
LEAST_LEAF, MOST_LEAF = 0.02, 0.35  # radii, as a share of the image's side


@dataclass(frozen=True)
class Portrait:
    """The appearance of one random person.

    Attributes:
        texture: (T, T, 3) float32, 0 to 255.
        skin, hair, clothes: (3,) colors, 0 to 1.
        volume: of the hair over the skull, mm; 0: bald or shorn.
        length: of long hair, mm below y = -30 in the model frame; 0: short hair.
        glasses: (3,) color of the frame, 0 to 1; None: no glasses.
    """

    texture: np.ndarray
    skin: np.ndarray
    hair: np.ndarray
    clothes: np.ndarray
    volume: float
    length: float
    glasses: np.ndarray | None


class PortraitPainter(FacePainter):
    """Paints people with hair of any length, lashes, creases and shaded eyes."""

    def portrait(self, rng: np.random.Generator) -> Portrait:
        """One random person."""
        texture = self.paint(rng) / 255
        skin = np.median(texture[self._bare], axis=0)
        hair = self.hair_tone(rng, skin)
        self._shade_eyes(texture, rng)
        self._draw_lines(texture, rng)
        volume = 0.0 if rng.random() < 0.12 else rng.uniform(4, 30)
        length = rng.uniform(20, 130) if volume and rng.random() < 0.5 else 0.0
        if volume:
            mask = self._hair_mask(rng, length > 0)
            strands = _strands(mask.shape, rng)[..., None]
            texture += mask[..., None] * (np.float32(hair) * strands - texture)
        clothes, frame = rng.random(3), rng.uniform(0, 0.5) * np.ones(3) + 0.1 * rng.random(3)
        glasses = frame if rng.random() < 0.15 else None
        texture = np.float32(255 * np.clip(texture, 0, 1))
        return Portrait(texture, skin, hair, clothes, volume, length, glasses)

    def hair_tone(self, rng: np.random.Generator, skin: np.ndarray) -> np.ndarray:
        """A random color (3,) of hair that suits the skin's color."""
        if skin.mean() < 0.45 or rng.random() < 0.6:
            return np.full(3, rng.uniform(0.03, 0.3)) * rng.uniform(0.85, 1.15, 3)
        return random_tone(rng, LIGHT_HAIR)

    @property
    def _bare(self) -> np.ndarray:
        """(T, T) bool: cheeks and nose, without hair, lips and eyes."""
        return (self._height < -20) & (self._height > -50) & (self._front > -30)

    def _shade_eyes(self, texture: np.ndarray, rng) -> None:
        """Darken the eyeballs, which lie in the shadow of the lids."""
        factor = rng.uniform(0.55, 0.95)
        for ball in self.eye_boxes():
            texture[ball] *= factor

    def _draw_lines(self, texture: np.ndarray, rng) -> None:
        """Draw lashes, shadows below the eyes, and creases beside the mouth."""
        points = self._points[self._model.landmark_indices]
        groups = (
            (UPPER_LIDS, 150, rng.uniform(0.3, 1.0), 0.15),
            (BELOW_EYES, 60, rng.uniform(0.0, 0.3), 0.4),
            (CREASES, 60, rng.uniform(0.0, 0.4), 0.4),
        )
        for lines, fineness, strength, color in groups:
            mask = np.zeros(texture.shape[:2], np.float32)
            for line in lines:
                path = [np.round(16 * points[list(line)]).astype(np.int32)]
                width = max(1, round(self.size / fineness))
                cv2.polylines(mask, path, False, 1.0, width, cv2.LINE_AA, 4)
            tone = color * np.median(texture[self._bare], axis=0)
            blend(texture, soft(mask, self.size / (2 * fineness)) * np.float32(strength), tone)

    def _hair_mask(self, rng, is_long: bool) -> np.ndarray:
        """(T, T) opacity of hair above a wavy line, some with a fringe; long hair over the ears."""
        side = (self.size, self.size)
        waves = cv2.resize(
            rng.standard_normal((14, 14), np.float32), side, interpolation=cv2.INTER_CUBIC
        )
        height, front = self._height + 5 * waves, self._front + 5 * waves
        line = rng.uniform(2, 35) if rng.random() < 0.35 else rng.uniform(35, 60)
        slope = rng.uniform(0.4, 1.1) * np.minimum(front + 15, 0)
        mask = (height > line + slope) & (self._height > -15)
        if is_long:
            mask |= (front < -rng.uniform(28, 60)) & (self._height > -110)
        return soft(mask.astype(np.float32), self.size / 250)


def _strands(shape, rng) -> np.ndarray:
    """(H, W) float32 brightness of strands, around 1; it varies more across than along them."""
    noise = rng.standard_normal((shape[0] // 16, shape[1] // 2), np.float32)
    return np.exp(0.35 * cv2.resize(noise, shape[::-1], interpolation=cv2.INTER_LINEAR))


def dead_leaves(rng: np.random.Generator, size: int) -> np.ndarray:
    """A random background of shapes that occlude each other, with edges and scales as in photos.

    The dead leaves model (Lee, Mumford, Huang, "Occlusion Models for Natural Images", 2001), with
    a density of radii proportional to r^-2, under a smooth variation of brightness.

    Returns:
        (S, S, 3) float32, 0 to 255.
    """
    gray, colored = rng.uniform(20, 235), rng.normal(0, 25, 3)
    base, spread = np.clip(gray + colored, 5, 250), rng.uniform(10, 70)
    image = np.tile(np.float32(base), (size, size, 1))
    count = int(rng.integers(5, 120))
    radii = size / (1 / MOST_LEAF + rng.random(count) * (1 / LEAST_LEAF - 1 / MOST_LEAF))
    for radius in radii:
        color = np.clip(base + spread * (rng.normal() + 0.4 * rng.standard_normal(3)), 0, 255)
        center, turn = rng.uniform(0, size, 2), rng.uniform(0, 180)
        axes = np.maximum(radius * np.exp(rng.normal(0, 0.5, 2)), 1)
        if rng.random() < 0.5:
            place = tuple(center.astype(int).tolist()), tuple(axes.astype(int).tolist())
            cv2.ellipse(image, *place, turn, 0, 360, color.tolist(), -1, cv2.LINE_AA)
        else:
            corners = cv2.boxPoints((center.tolist(), (2 * axes).tolist(), turn))
            cv2.fillConvexPoly(
                image, np.round(corners).astype(np.int32), color.tolist(), cv2.LINE_AA
            )
    coarse = rng.standard_normal((4, 4, 1)).astype(np.float32)
    image *= np.exp(0.25 * cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC))[
        ..., None
    ]
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 6))


def draw_behind(
    image: np.ndarray,
    portrait: Portrait,
    camera: np.ndarray,
    posed: np.ndarray,
    mean: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Draw neck, shoulders, and the hair behind the head, in place.

    Args:
        image: (S, S, 3) float32, 0 to 255.
        portrait: the person.
        camera: (3, 4) image_from_model.
        posed: (N, 3) px, the head's vertices in the image.
        mean: (N, 3) mm, the face model's mean.
        rng: for the body's pose and brightness.
    """
    shade = rng.uniform(0.35, 1.0)
    if portrait.length:
        _hang_hair(image, portrait, camera, shade)
    _draw_body(image, portrait, camera, shade, rng)
    if portrait.volume:
        above, behind = mean[:, 1] > EAR_HEIGHT, mean[:, 2] < SKULL_DEPTH
        points = posed[(mean[:, 1] > SKULL_HEIGHT) | (above & behind), :2]
        outwards = points - points.mean(axis=0)
        outwards /= np.linalg.norm(outwards, axis=1, keepdims=True) + 1e-6
        grown = np.float32(points + outwards * _scale(camera) * portrait.volume)
        _fill(image, cv2.convexHull(grown)[:, 0], 255 * portrait.hair * shade)


def _draw_body(
    image: np.ndarray, portrait: Portrait, camera: np.ndarray, shade: float, rng
) -> None:
    scale = _scale(camera)
    top, bottom = project(camera, NECK + rng.normal(0, [[0], [20]], (2, 3)))[:, :2]
    along = bottom - top
    across = np.array([-along[1], along[0]]) / (np.linalg.norm(along) + 1e-6) * scale * NECK_RADIUS
    upper, lower = 0.9 * across, rng.uniform(0.8, 1.3) * across
    corners = [top + upper, top - upper, bottom - lower, bottom + lower]
    _fill(image, corners, 255 * portrait.skin * shade * rng.uniform(0.6, 1.0))
    axes = np.maximum(scale * np.array(SHOULDERS) * rng.uniform(0.7, 1.2, 2), 1).astype(int)
    place = np.clip(bottom, -FAR, FAR).astype(int).tolist(), axes.tolist(), rng.normal(0, 8)
    cloth = (255 * portrait.clothes * shade).tolist()
    cv2.ellipse(image, *place, 0, 360, cloth, -1, cv2.LINE_AA)


def _scale(camera: np.ndarray) -> float:
    """Pixels per millimeter."""
    return float(np.linalg.norm(camera[0, :3]))


def _hang_hair(image: np.ndarray, portrait: Portrait, camera: np.ndarray, shade: float) -> None:
    """Draw long hair behind the neck."""
    wide, low = 78 + portrait.volume, -30 - portrait.length
    corners = [(-wide, 60, -80), (wide, 60, -80), (0.9 * wide, low, -100), (-0.9 * wide, low, -100)]
    _fill(image, project(camera, np.array(corners, float))[:, :2], 255 * portrait.hair * shade)


def draw_glasses(
    image: np.ndarray, portrait: Portrait, camera: np.ndarray, landmarks: np.ndarray
) -> None:
    """Draw rims, bridge and temples of the person's glasses, if any, in place.

    Args:
        image, portrait, camera: as for ``draw_behind``.
        landmarks: (68, 3) mm, of the head.
    """
    if portrait.glasses is None:
        return
    width = max(1, round(FRAME_WIDTH * _scale(camera)))
    color = (255 * portrait.glasses).tolist()
    for line in _glasses(camera, landmarks):
        path = np.round(16 * project(camera, line)[:, :2]).astype(np.int32)
        cv2.polylines(image, [path], False, color, width, cv2.LINE_AA, 4)


def _glasses(camera: np.ndarray, landmarks: np.ndarray) -> list[np.ndarray]:
    """The lines of glasses, (n, 3) mm each: two rims, the bridge, and the visible temples."""
    circle = np.linspace(0, 2 * np.pi, 33)
    rim = np.stack([np.cos(circle), 0.8 * np.sin(circle), 0 * circle], axis=1) * GLASSES_RADIUS
    centers = np.stack([landmarks[list(eye)].mean(axis=0) for eye in EYE_CENTERS])
    centers += np.array([[-2, -3, 12], [2, -3, 12]])
    sides = np.array([[-GLASSES_RADIUS, 0, 0], [GLASSES_RADIUS, 0, 0]])
    lines = [centers[0] + rim, centers[1] + rim, centers - sides + [0, 3, 0]]
    for side, center, ear in zip(sides, centers, landmarks[[0, 16]], strict=True):
        # On a turned head the far temple is hidden: the one whose side points away from the viewer.
        if camera[2, :3] @ side > -0.3 * np.linalg.norm(camera[2, :3]) * GLASSES_RADIUS:
            lines.append(np.stack([center + side + [0, 4, 0], ear]))
    return lines


def _fill(image: np.ndarray, points, color) -> None:
    corners = np.round(16 * np.clip(points, -FAR, FAR)).astype(np.int32)
    cv2.fillPoly(image, [corners], np.asarray(color, float).tolist(), cv2.LINE_AA, 4)
