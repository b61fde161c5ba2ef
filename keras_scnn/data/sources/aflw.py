"""Reader of face crops of AFLW: a folder with crops/*.jpg and labels.npz.

``labels.npz`` has, for N crops of 120x120 px: name (N,), yaw_degrees (N,), landmarks68 (N, 68, 2)
with visibility68 (N, 68: 2 visible, 1 hidden but estimated, 0 missing) and landmarks68_residual
(N,; NaN for a crop without landmarks68), teacher_landmarks68 (N, 68, 3) and teacher_bfm62 (N, 62).

The two kinds of landmarks differ systematically as well as by noise. The hand-made points
(MERL-RAV) mark other sites than the Basel Face Model's, which the benchmark's annotation uses; the
teacher (3DDFA_V2) has the right sites, depth and hidden points, but its own errors. So the
systematic difference is estimated as one 3D offset per landmark in the face's frame, and subtracted
from the hand-made points; then the two are averaged.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_scnn.data.photo_source import LabeledPhoto, PhotoSource
from keras_scnn.data.sources.choices import AFLW_PARTS
from keras_scnn.geometry.landmark_sites import site_offset
from keras_scnn.geometry.landmarks68 import JAW, OPENINGS
from keras_scnn.storage.arrays import read_arrays
from keras_scnn.storage.guard import FileError, reading

CROP_SIZE = 120

# The teacher's crop coordinates follow 3DDFA's training script, u = (x + 1 - x0) * 120 / side for a
# 0-based image x. With pixel centers at integers the correct u is (x - x0 + 0.5) * 120 / side -
# 0.5. The labels have 1 subtracted already, so at a side of 270 a quarter of a pixel is missing.
TEACHER_SHIFT_PX = 0.25
# Weight of the hand-made point in the merged one. The jaw's hand-made points slide along the
# outline, so they have half the weight. For eyelids and inner lips only hand-made points are used:
# the teacher hardly closes eyes.
HAND_WEIGHT = 0.6
# Weight of a landmark that only the teacher labels, and of such a landmark on a lid or inner lip.
TEACHER_TRUST, LID_TRUST = 0.5, 0.1
# Arrays, and their shapes after the first axis, that of the crops.
LABELS = {
    "name": (),
    "yaw_degrees": (),
    "landmarks68": (68, 2),
    "visibility68": (68,),
    "landmarks68_residual": (),
    "teacher_landmarks68": (68, 3),
    "teacher_bfm62": (62,),
}


@dataclass(frozen=True)
class AflwTargets:
    """Merged landmarks of N crops.

    Attributes:
        name: (N,) file names in ``crops/``.
        landmarks: (N, 68, 3) float32, crop px (pixel centers at integers), z towards the viewer
            with mean 0; NaN for a crop whose labels by the teacher are not finite.
        yaw_degrees: (N,) float32, the absolute value of AFLW's yaw, which is noisy.
        held_out: (N,) bool, True for validation: one photo in 20, with all its faces.
        weight: (N, 68) float32, 0 to 1: reliability of x and y; 0 where the landmarks are NaN.
    """

    name: np.ndarray
    landmarks: np.ndarray
    yaw_degrees: np.ndarray
    held_out: np.ndarray
    weight: np.ndarray


def load_targets(folder: str | os.PathLike) -> AflwTargets:
    """Read ``labels.npz`` of the AFLW folder and merge its two kinds of landmarks.

    Raises:
        FileNotFoundError: the folder has no labels.npz.
        ValueError: the file is damaged, or an array is missing or has another shape.
    """
    path = Path(folder) / "labels.npz"
    labels = read_labels(path, LABELS)
    with reading(path, "labels of AFLW's crops"):
        return _targets(labels)


def _targets(labels: dict[str, np.ndarray]) -> AflwTargets:
    """The two kinds of landmarks merged."""
    photo = np.array([name.split("_")[0].split(".")[0][:10] for name in labels["name"]])
    held_out = np.isin(photo, np.unique(photo)[::20])
    teacher = labels["teacher_landmarks68"].astype(np.float64)
    teacher[..., :2] += TEACHER_SHIFT_PX
    share = _hand_share(labels)
    camera = _image_from_face(labels["teacher_bfm62"])
    is_lost = ~(np.isfinite(teacher).all(axis=(1, 2)) & np.isfinite(camera).all(axis=(1, 2)))
    landmarks = _merge(teacher, camera, labels, share, ~held_out & ~is_lost)
    landmarks[is_lost] = np.nan
    landmarks[..., 2] -= landmarks[..., 2].mean(axis=1, keepdims=True)
    yaw = np.abs(labels["yaw_degrees"])
    trust = np.minimum(share / HAND_WEIGHT, 1)
    weight = TEACHER_TRUST + (1 - TEACHER_TRUST) * trust
    weight[:, OPENINGS] = np.maximum(LID_TRUST, share[:, OPENINGS])
    weight[is_lost] = 0
    return AflwTargets(
        labels["name"], landmarks.astype(np.float32), yaw, held_out, weight.astype(np.float32)
    )


def read_labels(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Read the arrays of a labels.npz, all with one row per photo.

    Args:
        path: of the file.
        shapes: the arrays' shapes after the first axis, by name, including ``name``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, an array is missing or has another shape or type, or it lists no
            photo, or one twice.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give the folder of the photos")
    labels = read_arrays(path, shapes)
    count = labels["name"].size if "name" in labels else "N"
    for key, rest in shapes.items():
        shape = labels[key].shape if key in labels else "missing"
        if shape != (count, *rest):
            raise ValueError(f"{path}: {key} is {shape}; expected {(count, *rest)}")
        kind, codes = ("text", "U") if key == "name" else ("numbers", "biuf")
        if labels[key].dtype.kind not in codes:
            raise ValueError(f"{path}: {key} has the dtype {labels[key].dtype}; expected {kind}")
    if not count:
        raise ValueError(f"{path}: lists no photo")
    names, times = np.unique(labels["name"], return_counts=True)
    if (times > 1).any():
        raise ValueError(f"{path}: {names[times.argmax()]} is listed {times.max()} times")
    return labels


def _image_from_face(teacher_parameters: np.ndarray) -> np.ndarray:
    """(N, 2, 3) px per mm: the linear part of the teacher's camera (micrometers, y up)."""
    pose = teacher_parameters[:, :12].reshape(-1, 3, 4).astype(np.float64)
    return pose[:, :2, :3] * np.array([[1000.0], [-1000.0]])


def _hand_weight(labels: dict[str, np.ndarray]) -> np.ndarray:
    """(N, 68) reliability of the hand-made points: 1 visible, 0.5 estimated, 0 missing."""
    visibility = labels["visibility68"]
    if visibility.dtype.kind not in "iu":
        raise ValueError(f"visibility68 has the dtype {visibility.dtype}; expected integers")
    if (odd := np.flatnonzero(~np.isin(visibility, (0, 1, 2)).all(axis=1))).size:
        raise ValueError(f"{labels['name'][odd[0]]} has a visibility68 that is not 0, 1 or 2")
    weight = np.array([0.0, 0.5, 1.0])[visibility]
    weight[~np.isfinite(labels["landmarks68_residual"])] = 0
    is_lost = (weight > 0) & ~np.isfinite(labels["landmarks68"]).all(axis=-1)
    if (lost := np.flatnonzero(is_lost.any(axis=1))).size:
        raise ValueError(f"{labels['name'][lost[0]]} has a visible landmark that is not finite")
    return weight


def _hand_share(labels: dict[str, np.ndarray]) -> np.ndarray:
    """(N, 68) weight of the hand-made point in the merged one."""
    weight = _hand_weight(labels)
    share = HAND_WEIGHT * weight
    share[:, JAW] *= 0.5
    share[:, OPENINGS] = weight[:, OPENINGS]
    return share


def _merge(teacher, camera, labels, share, train) -> np.ndarray:
    hand = np.nan_to_num(labels["landmarks68"].astype(np.float64))
    weight = _hand_weight(labels)
    difference = hand - teacher[..., :2]
    site = np.stack(
        [site_offset(camera[train], difference[train, i], weight[train, i]) for i in range(68)]
    )
    hand = hand - np.einsum("nij,kj->nki", camera, site)
    merged = teacher.copy()
    merged[..., :2] += share[..., None] * (hand - teacher[..., :2])
    return merged


class AflwCrops(PhotoSource):
    """The crops as a data set; every crop is a different person.

    Args:
        folder: contains crops/ and labels.npz.
        part: "train" or "held_out" (see ``AflwTargets``), or "all".

    Raises:
        FileNotFoundError: the folder has no labels.npz.
        ValueError: the labels are damaged, or ``part`` is unknown.
    """

    folder: Path
    labels = ("labels.npz",)

    def __init__(self, folder: str | os.PathLike, part: str = "all"):
        if part not in AFLW_PARTS:
            raise ValueError(f"part is '{part}'; it must be one of {', '.join(AFLW_PARTS)}")
        self.folder = Path(folder)
        self._targets = load_targets(folder)
        held_out = self._targets.held_out
        masks = {"all": np.ones_like(held_out), "train": ~held_out, "held_out": held_out}
        chosen = np.flatnonzero(masks[part])
        self._rows = {f"crops/{self._targets.name[i]}": int(i) for i in chosen}

    def names(self) -> list[str]:
        return list(self._rows)

    def listed(self) -> list[str]:
        return [f"crops/{name}" for name in self._targets.name]

    def person(self, name: str) -> str:
        return name

    def load(self, name: str) -> LabeledPhoto:
        """Labels of one crop, whose box is the whole image.

        Raises:
            FileNotFoundError: no crop of this name.
            ValueError: its labels by the teacher are not finite.
        """
        image, row = self.folder / name, self._rows.get(name)
        if row is None or not image.is_file():
            raise FileNotFoundError(f"{image}: no such crop, or labels.npz has no row of it")
        if np.isnan(self._targets.landmarks[row]).any():
            raise FileError(
                f"{image}: in labels.npz, its teacher_landmarks68 or teacher_bfm62 is not finite"
            )
        return LabeledPhoto(
            name=name,
            person=name,
            landmarks=self._targets.landmarks[row].astype(np.float64),
            weight=self._targets.weight[row].astype(np.float64),
            image=image,
            box=np.array([0.0, 0.0, CROP_SIZE, CROP_SIZE]),
        )
