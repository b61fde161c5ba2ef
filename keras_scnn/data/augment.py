"""Augmentation on the CPU with OpenCV: random moves and photometric changes of crops and labels.

For training without an accelerator, where the layers of ``models.augmentation`` would take as
long as a small network itself.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import cv2
import numpy as np

from keras_scnn.geometry.similarities import move_landmarks, move_parameters
from keras_scnn.morphable_model import MorphableModel, mirror_matrices

BORDERS = (cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE, cv2.BORDER_REFLECT_101)
SMALL_BOX = 0.5
MIRRORING, MOVING = 0, 1
STREAM = zlib.crc32(b"augment")  # so that its random numbers differ from a sampler's of that seed


@dataclass(frozen=True)
class Jitter:
    """How far crops are moved: standard deviations around the standard crop of their landmarks.

    Attributes:
        shift: as a share of the crop's side.
        scale: of the logarithm of the size.
        degrees: of the in-plane rotation.
        wide: share of the crops that are rotated uniformly by up to ``wide_degrees`` instead.
        wide_degrees: see ``wide``.
        any_angle: share of the crops that are rotated by any angle, as for people lying down.
    """

    shift: float = 0.035
    scale: float = 0.07
    degrees: float = 15.0
    wide: float = 0.3
    wide_degrees: float = 42.0
    any_angle: float = 0.08


UPRIGHT = Jitter(shift=0.025, scale=0.05, degrees=6.0, wide=0.0, any_angle=0.0)


def augment(
    rng: np.random.Generator,
    image: np.ndarray,
    landmarks: np.ndarray,
    jitter: Jitter = Jitter(),
    mirror: bool | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """One random variant of a crop.

    Args:
        rng: the source of randomness.
        image: (S, S, 3) uint8 RGB.
        landmarks: (n, 2 or more) crop px, the known ones; the jitter is relative to their standard
            crop, or without any to the given crop.
        jitter: how far it is moved.
        mirror: whether to mirror it; None: at random, with probability 0.5.

    Returns:
        The new image (S, S, 3) uint8, and the (2, 3) matrix from the old crop's pixels to the new
        one's, whose linear part has a negative determinant if it mirrors.
    """
    size = image.shape[0]
    matrix = _move(rng, landmarks, size, jitter)
    if rng.random() < 0.5 if mirror is None else mirror:
        matrix = np.array([[-1.0, 0, size - 1], [0, 1, 0]]) @ np.vstack([matrix, [0, 0, 1]])
    border = BORDERS[rng.integers(len(BORDERS))]
    image = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=border)
    return _photometric(rng, image), matrix


def _move(rng, landmarks, size, jitter: Jitter) -> np.ndarray:
    """A random similarity (2, 3) that maps the landmarks' standard crop close to the image."""
    points = landmarks[:, :2] if len(landmarks) else np.full((1, 2), (size - 1) / 2)
    low, high = points.min(axis=0), points.max(axis=0)
    side = np.linalg.norm(high - low)
    zoom = size / side if side > SMALL_BOX * size else 1.0
    scale = zoom * np.exp(rng.normal(0, jitter.scale))
    degrees = rng.normal(0, jitter.degrees)
    if rng.random() < jitter.wide:
        degrees = rng.uniform(-jitter.wide_degrees, jitter.wide_degrees)
    if rng.random() < jitter.any_angle:
        degrees = rng.uniform(-180, 180)
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    linear = scale * np.array([[cosine, -sine], [sine, cosine]])
    target = (size - 1) / 2 + rng.normal(0, jitter.shift * size, 2)
    return np.column_stack([linear, target - linear @ ((low + high) / 2)])


def _photometric(rng, image) -> np.ndarray:
    if rng.random() < 0.2:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=-1)
    if rng.random() < 0.2:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.6))
    gain = np.exp(rng.normal(0, 0.15) + rng.normal(0, 0.06, 3)).astype(np.float32)
    image = np.clip(image * gain + np.float32(rng.normal(0, 14)), 0, 255).astype(np.uint8)
    if rng.random() < 0.25:
        _occlude(rng, image)
    return image


def _occlude(rng, image) -> None:
    size = image.shape[0]
    height, width = rng.integers(size // 10, int(size * 0.42), 2)
    y, x = rng.integers(0, size - height), rng.integers(0, size - width)
    image[y : y + height, x : x + width] = rng.integers(0, 256, 3)


class GroupAugmenter:
    """Augments a batch of several photos each of several people, with its labels.

    Either all photos of a person in a batch are mirrored or none, since a mirror image shows a
    different person.

    Args:
        model: the parameters' face model, with mirror partners.
        upright: (n,) bool for each record: True for ``UPRIGHT``, to recognize people; False for
            ``Jitter()``, for landmarks.
        seed: the same seed gives the same variants of a step's batch, or of any part of it: each
            row has its own random numbers.
    """

    def __init__(self, model: MorphableModel, upright: np.ndarray, seed: int = 0):
        self._mirrors, self._upright, self._seed = mirror_matrices(model), upright, seed

    def __call__(
        self,
        step: int,
        first: int,
        photo: np.ndarray,
        person: np.ndarray,
        images: np.ndarray,
        landmarks: np.ndarray,
        vectors: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Augment the photos of a batch, or a part of it.

        Args:
            step: of the batch.
            first: the first photo's row in the batch.
            photo: (B,) int, indices of the photos' records.
            person: (B,) int, their identities.
            images: (B, S, S, 3) uint8 RGB.
            landmarks: (B, 68, 3 or 4) float: x, y in crop px, depth, and optionally a weight; those
                with a weight of 0 may be NaN.
            vectors: (B, P) float, unwhitened parameters.

        Returns:
            images (B, S, S, 3) uint8, landmarks (B, 68, 3 or 4) and vectors (B, P) float32.
        """
        moved = []
        for i, record in enumerate(photo):
            jitter = UPRIGHT if self._upright[record] else Jitter()
            mirrored = self._random(step, MIRRORING, int(person[i]) % 2**32).random() < 0.5
            rng = self._random(step, MOVING, first + i)
            known = landmarks[i][(landmarks[i, :, 3:] > 0).all(axis=1)]
            moved.append(augment(rng, images[i], known, jitter, mirrored))
        images, matrices = (np.stack(part) for part in zip(*moved, strict=True))
        landmarks = move_landmarks(landmarks, matrices)
        vectors = move_parameters(vectors, matrices, self._mirrors)
        return images, landmarks.astype(np.float32), vectors.astype(np.float32)

    def _random(self, *numbers: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, STREAM, *numbers])
