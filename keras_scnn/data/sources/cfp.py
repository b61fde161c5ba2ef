"""Reader of CFP: ten frontal and four profile photos each of many people, with 30 landmarks.

Sengupta et al., "Frontal to Profile Face Verification in the Wild", 2016. The folder has
``PERSON/{frontal,profile}_NN.jpg`` and ``labels.npz`` with name (N,) and landmarks68 (N, 68, 2) in
px of the photos: 30 points of one half of the face, the others NaN. Lower lids in reverse order are
corrected.

A preset predicts the other half. As with AFLW (see ``data.sources.aflw``), hand-made points mark
other sites than the face model's landmarks, so the systematic difference, one 3D offset per
landmark, is subtracted before both are averaged.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from keras_scnn.data.photo_source import LabeledPhoto, PhotoSource
from keras_scnn.data.sources.aflw import HAND_WEIGHT, LID_TRUST, read_labels
from keras_scnn.geometry.crops import check_crop_box
from keras_scnn.geometry.landmark_sites import site_offset
from keras_scnn.geometry.landmarks68 import JAW, OPENINGS, with_lids_in_order
from keras_scnn.io import read_image
from keras_scnn.photos.cropping import FaceBox, second_box
from keras_scnn.reconstruction.reconstructor import Reconstructor
from keras_scnn.storage.guard import FileError, is_of_content

PRESET = "accurate"  # predicts the landmarks that are not annotated
PROFILE_HAND_WEIGHT = 0.85  # instead of HAND_WEIGHT: predicted profiles are turned too little
PREDICTED_TRUST, HIDDEN_TRUST = 0.5, 0.05  # weights of landmarks only predicted: frontal, profile
PROFILE = "profile"  # in the names of such photos
LABELS = {"name": (), "landmarks68": (68, 2)}
PASSES, CHUNK = 3, 64
MIDLINE = [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]


class CfpPhotos(PhotoSource):
    """CFP's photos.

    The landmarks of all photos are predicted when the first is loaded, or by ``get_ready``, with a
    progress bar. A missing or damaged photo is among the names, and is reported when it is loaded.

    Args:
        folder: contains the people's folders and labels.npz.

    Raises:
        FileNotFoundError: the folder has no labels.npz.
        ValueError: the labels are damaged.
    """

    folder: Path
    labels = ("labels.npz",)
    preset = PRESET

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self._hand = points_by_name(self.folder)
        self._labels: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._is_ready = False
        self._unreadable: dict[str, OSError | ValueError] = {}

    def names(self) -> list[str]:
        return list(self._hand)

    def person(self, name: str) -> str:
        return name.split("/")[0]

    def get_ready(self) -> None:
        """Predict the landmarks of all photos."""
        if not self._is_ready:
            self._labels, self._is_ready = self._predicted(), True

    def load(self, name: str) -> LabeledPhoto:
        """Labels of one photo.

        Raises:
            FileNotFoundError: no photo of this name.
            ValueError: the photo is damaged.
        """
        if name not in self._hand:
            raise FileNotFoundError(f"{self.folder / name}: labels.npz has no photo of this name")
        self.get_ready()
        if name in self._unreadable:
            raise self._unreadable[name]
        landmarks, weight = self._labels[name]
        return LabeledPhoto(name, self.person(name), landmarks, weight, self.folder / name)

    def _predicted(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Landmarks (68, 3) and weights (68,) of all readable photos, by name."""
        names, parts = self.names(), []
        kept: list[str] = []
        for start in tqdm(range(0, len(names), CHUNK), desc="landmarks of CFP"):
            if photos := self._read(names[start : start + CHUNK]):
                images, boxes = zip(*photos.values(), strict=True)
                kept += photos
                parts.append(predict_landmarks(images, boxes))
        if not parts:
            return {}
        predicted, camera = (np.concatenate(part) for part in zip(*parts, strict=True))
        hand = np.stack([self._hand[name] for name in kept])
        profile = np.array([is_profile(name) for name in kept])
        labels = zip(*merge(predicted, camera, hand, profile), strict=True)
        return dict(zip(kept, labels, strict=True))

    def _read(self, names: list[str]) -> dict[str, tuple[np.ndarray, FaceBox]]:
        """Photos and boxes by name; notes the errors of unreadable photos and invalid boxes."""
        photos = {}
        for name in names:
            try:
                box = self._box(name)
                image = read_image(self.folder / name)
                with self._of_labels(name):
                    check_crop_box(box.as_array(), image.shape)
                photos[name] = image, box
            except (OSError, ValueError) as error:
                # Errors lose their cause between processes, so the type has to show whose fault
                # it is.
                has_right_type = isinstance(error, OSError) or is_of_content(error)
                self._unreadable[name] = error if has_right_type else OSError(str(error))
        return photos

    def _box(self, name: str) -> FaceBox:
        with self._of_labels(name):
            return box_of_half(self._hand[name], is_profile(name))

    @contextlib.contextmanager
    def _of_labels(self, name: str) -> Iterator[None]:
        """Errors in the labels of a photo name the photo and the file."""
        try:
            yield
        except ValueError as error:
            raise FileError(f"{self.folder / name}: in labels.npz, {error}") from error


def points_by_name(folder: str | os.PathLike) -> dict[str, np.ndarray]:
    """The hand-made points (68, 2) of each photo by name, px, NaN if not given.

    Raises:
        FileNotFoundError: the folder has no labels.npz.
        ValueError: the labels are damaged.
    """
    labels = read_labels(Path(folder) / "labels.npz", LABELS)
    points, _ = with_lids_in_order(np.float64(labels["landmarks68"]))
    return dict(zip(labels["name"].tolist(), points, strict=True))


def is_profile(name: str) -> bool:
    """Whether a photo is a profile, by its name."""
    return PROFILE in name.split("/")[-1]


def box_of_half(points: np.ndarray, is_profile: bool) -> FaceBox:
    """The approximate standard crop of a face with landmarks on only one half.

    Args:
        points: (68, 2) px, NaN if not given.
        is_profile: True: the other half is hidden; False: it is as wide as the given one.

    Raises:
        ValueError: there are too few landmarks for a box.
    """
    is_given = np.isfinite(points).all(axis=1)
    known = points[is_given]
    if len(known) < 2 or not np.ptp(known, axis=0).any():
        raise ValueError(f"a box needs two landmarks in different places; {len(known)} given")
    low, high = known.min(axis=0), known.max(axis=0)
    if not is_profile:
        if not is_given[MIDLINE].any():
            raise ValueError("no landmark of the midline is given; a frontal face needs one")
        middle = np.nanmean(points[MIDLINE, 0])
        reach = np.abs(known[:, 0] - middle).max()
        low[0], high[0] = middle - reach, middle + reach
    return FaceBox.square((low + high) / 2 + 0.5, float(np.linalg.norm(high - low)))


def predict_landmarks(
    images: Sequence[np.ndarray], boxes: Sequence[FaceBox]
) -> tuple[np.ndarray, np.ndarray]:
    """Predict landmarks in a few passes, each in the previous one's standard crop.

    Args:
        images: (H, W, 3) uint8 RGB each.
        boxes: of the first pass.

    Returns:
        (n, 68, 3) landmarks, px of the photos and depth; (n, 2, 3) px per mm, the linear part of
        each photo's camera, without the row of depth.
    """
    reconstructor = _reconstructor()
    for _ in range(PASSES):
        faces = reconstructor.reconstruct_many(images, boxes, passes=1)
        landmarks = faces.landmarks
        boxes = [second_box(points, box) for points, box in zip(landmarks, boxes, strict=True)]
    return landmarks, faces.parameters.pose[:, :2, :3]


@functools.cache
def _reconstructor() -> Reconstructor:
    """The preset, opened once per process."""
    return Reconstructor.from_preset(PRESET)


def merge(
    predicted: np.ndarray, camera: np.ndarray, hand: np.ndarray, is_profile: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Merge predicted and hand-made landmarks.

    Args:
        predicted: (n, 68, 3) px and depth.
        camera: (n, 2, 3) px per mm.
        hand: (n, 68, 2) px, NaN if not given.
        is_profile: (n,) bool.

    Returns:
        (n, 68, 3) landmarks, px, with depth NaN, since the person's profiles determine it better
        than the preset; and (n, 68) weights, 0 to 1.
    """
    known = np.isfinite(hand).all(axis=2)
    share = known * np.where(is_profile, PROFILE_HAND_WEIGHT, HAND_WEIGHT)[:, None]
    share[:, JAW] *= 0.5
    difference = np.where(known[..., None], hand - predicted[..., :2], 0)
    for i in np.flatnonzero(known.any(axis=0)):
        site = site_offset(camera, difference[:, i], known[:, i].astype(float))
        difference[:, i] -= np.where(known[:, i, None], camera @ site, 0)
    merged = predicted.copy()
    merged[..., :2] += share[..., None] * difference
    merged[..., 2] = np.nan
    other = np.where(is_profile, HIDDEN_TRUST, PREDICTED_TRUST)[:, None]
    weight = np.where(known, 1.0, other)
    lids = known[:, OPENINGS]
    weight[:, OPENINGS] = np.where(lids, 1.0, np.minimum(LID_TRUST, other[..., None]))
    return merged, weight
