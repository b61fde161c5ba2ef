"""Training targets for the AFLW crops: 68 landmarks an image, in one convention.

Two sources disagree by a convention as well as by noise. The hand-made points (MERL-RAV) mark
other sites than the Basel Face Model's, which the benchmark's annotation follows; the teacher
(3DDFA_V2) has the right sites, depth and hidden points, and makes errors of its own. So the fixed
part of the difference is measured as one 3D offset a landmark in the face's frame, taken off the
hand-made points, and the two are then averaged.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

# The teacher's crop coordinates follow 3DDFA's training script, u = (x + 1 - x0) * 120 / side for a
# 0-based image x. With pixel centers at integers that is u = (x - x0 + 0.5) * 120 / side - 0.5, so
# (the labels have 1 taken off already) a quarter of a pixel is to be added at a side of 270.
TEACHER_SHIFT_PX = 0.25
JAW = slice(0, 17)
# How much of the final point comes from the hand-made one; the jaw's hand-made points slide along
# the outline, so they count half.
HAND_WEIGHT = 0.6
# The mirror image of each iBUG landmark.
MIRROR68 = np.array(
    [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31]
    + [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48]
    + [59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
)


@dataclass(frozen=True)
class AflwTargets:
    """Landmarks of the N crops.

    Attributes:
        name: (N,) file names in ``crops/``.
        landmarks: (N, 68, 3) float32, crop px (pixel centers at integers), z towards the viewer,
            its mean 0.
        yaw_degrees: (N,) float32, the size of AFLW's own yaw, noisy.
        held_out: (N,) bool, True for the photos kept for validation (one photo in 20; all faces
            of one photo are on one side).
    """

    name: np.ndarray
    landmarks: np.ndarray
    yaw_degrees: np.ndarray
    held_out: np.ndarray


def load_targets(folder: Path) -> AflwTargets:
    """Read ``labels.npz`` of the AFLW folder and merge its two sources.

    Raises:
        FileNotFoundError: the folder has no labels.npz.
    """
    path = Path(folder) / "labels.npz"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give the folder that holds crops/ too")
    with np.load(path, allow_pickle=False) as file:
        labels = {key: file[key] for key in file.files}
    photo = np.array([name.split("_")[0].split(".")[0][:10] for name in labels["name"]])
    held_out = np.isin(photo, np.unique(photo)[::20])
    teacher = labels["teacher_landmarks68"].astype(np.float64)
    teacher[..., :2] += TEACHER_SHIFT_PX
    landmarks = _merge(teacher, _image_from_face(labels["teacher_bfm62"]), labels, ~held_out)
    landmarks[..., 2] -= landmarks[..., 2].mean(axis=1, keepdims=True)
    return AflwTargets(
        labels["name"], landmarks.astype(np.float32), np.abs(labels["yaw_degrees"]), held_out
    )


def _image_from_face(teacher_parameters: np.ndarray) -> np.ndarray:
    """(N, 2, 3) px per mm: the linear part of the teacher's camera (micrometers, y up)."""
    pose = teacher_parameters[:, :12].reshape(-1, 3, 4).astype(np.float64)
    return pose[:, :2, :3] * np.array([[1000.0], [-1000.0]])


def _merge(teacher, camera, labels, train) -> np.ndarray:
    hand = np.nan_to_num(labels["landmarks68"].astype(np.float64))
    weight = np.array([0.0, 0.5, 1.0])[labels["visibility68"]]
    weight[~np.isfinite(labels["landmarks68_residual"])] = 0
    difference = hand - teacher[..., :2]
    site = np.stack(
        [_site_offset(camera[train], difference[train, i], weight[train, i]) for i in range(68)]
    )
    hand = hand - np.einsum("nij,kj->nki", camera, site)
    share = HAND_WEIGHT * weight
    share[:, JAW] *= 0.5
    merged = teacher.copy()
    merged[..., :2] += share[..., None] * (hand - teacher[..., :2])
    return merged


def _site_offset(camera, difference, weight, tolerance_px=2.0, iterations=10) -> np.ndarray:
    """The 3D offset (mm) whose projections best explain a landmark's differences (Huber, IRLS)."""
    keep = weight > 0
    camera, difference, weight = camera[keep], difference[keep], weight[keep]
    robust = weight
    for _ in range(iterations):
        normal = np.einsum("m,mij,mik->jk", robust, camera, camera)
        offset = np.linalg.solve(normal, np.einsum("m,mij,mi->j", robust, camera, difference))
        error = np.linalg.norm(difference - camera @ offset, axis=1)
        robust = weight * np.minimum(1, tolerance_px / np.maximum(error, 1e-9))
    return offset
