"""Detect cuts: frames that differ from the previous one far more than their neighbors do."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

THUMBNAIL = (48, 27)  # width and height, px
# The change of a frame is the mean absolute difference of thumbnails, 0 to 255. Moving cameras and
# people change successive frames by similar amounts; a cut is a single frame that stands out.
LEAST_CHANGE = 12.0
TIMES_NEIGHBORS = 3.0
NEIGHBORS = 4  # frames on either side


def thumbnail(image: np.ndarray) -> np.ndarray:
    """(27, 48, 3) float32 of an (H, W, 3) uint8 RGB image."""
    step = max(1, min(image.shape[:2]) // 270)  # averaging all pixels of a large image is slow
    small = cv2.resize(image[::step, ::step], THUMBNAIL, interpolation=cv2.INTER_AREA)
    return small.astype(np.float32)


def change(before: np.ndarray, after: np.ndarray) -> float:
    """How much two thumbnails differ, 0 to 255."""
    return float(np.abs(after - before).mean())


def may_be_cut(changes: Sequence[float]) -> bool:
    """Whether a shot may begin with the last frame, given the changes of the frames up to it."""
    *before, own = changes[-NEIGHBORS - 1 :]
    usual = float(np.median(before)) if before else 0.0
    return own >= LEAST_CHANGE and own > TIMES_NEIGHBORS * usual


def find_cuts(changes: np.ndarray) -> np.ndarray:
    """Which frames begin a shot.

    Args:
        changes: (n,) ``change`` of each frame from the previous one, 0 for the first.

    Returns:
        (n,) bool; False for the first frame, which has no shot before it.

    >>> find_cuts(np.array([0, 1, 2, 60, 1, 2.0])).nonzero()[0].tolist()
    [3]
    >>> find_cuts(np.array([0, 20, 22, 25, 21, 20.0])).any().tolist()  # a camera that turns
    False
    """
    changes = np.asarray(changes, np.float64)
    if not len(changes):
        return np.zeros(0, bool)
    padded = np.pad(changes, NEIGHBORS)
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * NEIGHBORS + 1)
    others = np.delete(around, NEIGHBORS, axis=1)
    usual = np.median(others, axis=1)
    return (changes >= LEAST_CHANGE) & (changes > TIMES_NEIGHBORS * usual)
