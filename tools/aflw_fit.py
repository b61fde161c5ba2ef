"""Fit the face model to the AFLW targets, and learn where the benchmark puts its landmarks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tqdm import tqdm

from keras_scnn.data.sources.aflw import AflwTargets
from keras_scnn.fitting import FitOptions, fit_landmarks
from keras_scnn.geometry.camera import FLIP, decompose
from keras_scnn.geometry.landmarks68 import MIRROR68
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.storage import read_npz, write_npz

KIND, VERSION = "keras_scnn.aflw_fit", 1
ROUNDS, SAMPLES, CHUNK = 5, 1500, 256
OPTIONS = FitOptions(iterations=10, tolerance=1e-3)


def fit_targets(
    model: MorphableModel, targets: AflwTargets, cache: Path
) -> tuple[MorphableModel, np.ndarray]:
    """The model with the learnt landmark offsets, and the parameters of every crop.

    The offsets come from photos that are not held out. What ``cache`` holds is not made again.

    Returns:
        The face model, and (N, 12 + K + L) float32 unwhitened parameters, pose crop_from_model.
    """
    if not cache.is_file():
        offsets = _learn_offsets(model, targets)
        vectors = _fit(model.replace(landmark_offsets=offsets), targets.landmarks)
        write_npz(cache, KIND, VERSION, landmark_offsets=offsets, parameters=vectors)
    fitted = read_npz(cache, KIND, VERSION)
    return model.replace(landmark_offsets=fitted["landmark_offsets"]), fitted["parameters"]


def _fit(model: MorphableModel, landmarks: np.ndarray) -> np.ndarray:
    chunks = np.array_split(landmarks, max(1, len(landmarks) // CHUNK))
    fits = [
        fit_landmarks(model, c, options=OPTIONS).parameters.to_vector()
        for c in tqdm(chunks, desc="fitting")
    ]
    return np.concatenate(fits)


def _learn_offsets(model: MorphableModel, targets: AflwTargets) -> np.ndarray:
    """(68, 3) mm: the mean of what the fits leave over, in the face's own frame, made symmetric."""
    pool = np.flatnonzero(~targets.held_out)
    chosen = np.random.default_rng(0).choice(pool, min(SAMPLES, len(pool)), replace=False)
    landmarks, offsets = targets.landmarks[chosen], np.zeros((68, 3))
    for _ in range(ROUNDS):
        left = _residual_mm(model.replace(landmark_offsets=offsets), landmarks)
        offsets = offsets + np.median(left, axis=0)
        offsets = (offsets + offsets[MIRROR68] * [-1, 1, 1]) / 2
        print(f"offsets: {np.linalg.norm(left, axis=-1).mean():.2f} mm left over", flush=True)
    return offsets


def _residual_mm(model: MorphableModel, landmarks: np.ndarray) -> np.ndarray:
    """(M, 68, 3) mm, model frame: targets minus the fitted model's landmarks."""
    fit = fit_landmarks(model, landmarks, options=OPTIONS)
    rotation, scale, _ = decompose(fit.parameters.pose)
    difference = landmarks - fit.landmarks
    difference[..., 2] -= difference[..., 2].mean(axis=1, keepdims=True)
    return difference @ (FLIP @ rotation) / scale[:, None, None]
