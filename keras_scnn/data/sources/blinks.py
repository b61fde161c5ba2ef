"""Photos whose eyes are closed in the image, since hardly any photo shows shut eyes."""

from __future__ import annotations

import numpy as np

from keras_scnn.data.photo_source import LabeledPhoto, PhotoSource
from keras_scnn.data.records import FaceRecords, split_people
from keras_scnn.data.synthesis.eyelids import LIDS, MIN_WIDTH, close_lid
from keras_scnn.evaluation.openings import openings

MIN_WEIGHT = 0.7  # of the lids' landmarks: hand-made, and not estimated behind glasses or hair
OPEN = (0.15, 0.6)  # openings of eyes that can be closed; wider ones are mislabeled
SHUT = 0.4  # share of the photos whose eyes close completely
WINKS = 0.25  # share of the photos in which only one eye closes


class ClosedEyes(PhotoSource):
    """Crops with their eyelids moved (``synthesis.eyelids``), and their labels adapted.

    The photo, the eyes and how far they close depend only on the new photo's number.
    The face model is fitted again to the moved landmarks, as for any photo.

    Args:
        records: crops, of which those with hand-made lid landmarks are used: weights of at least
            0.7.
        count: number of photos, 1 or more.
        held_out: number of people that are not used, those that training on the records holds out
            (``split_people``).

    Raises:
        ValueError: count or held_out is out of range, or no crop shows two open eyes with such
            labels.
    """

    def __init__(self, records: FaceRecords, count: int, held_out: int = 0):
        if count < 1:
            raise ValueError(f"count is {count}; it must be at least 1")
        self._records, self._count = records, count
        seen, _ = split_people(records.identity, held_out, records.mirror)
        self._chosen = seen[_can_close(records)[seen]]
        if not len(self._chosen):
            raise ValueError(
                f"none of {len(seen)} photos shows two open eyes whose lids have landmarks "
                f"weighted {MIN_WEIGHT:g} or more; take records of hand-made landmarks (aflw, pts)"
            )

    def names(self) -> list[str]:
        return [f"blink/{number:07d}" for number in range(self._count)]

    def person(self, name: str) -> str:
        return name

    def load(self, name: str) -> LabeledPhoto:
        """A photo, whose crop is the whole image."""
        row, sides, remaining = self.draw(name)
        records = self._records
        image = np.asarray(records.images[[row]])[0]
        landmarks = records.landmarks[row].astype(np.float64)
        for side in sides:
            image, landmarks = close_lid(image, landmarks, side, remaining)
        size = float(len(image))
        return LabeledPhoto(
            name=name,
            person=name,
            landmarks=landmarks,
            weight=records.weights(row).astype(np.float64),
            image=lambda: image,
            box=np.array([0.0, 0.0, size, size]),
        )

    def draw(self, name: str) -> tuple[int, list[str], float]:
        """Index of a photo's original in the records; the eyes to close; see ``close_lid``."""
        rng = np.random.default_rng([0, int(name.rpartition("/")[2])])
        row = int(rng.choice(self._chosen))
        sides = [str(rng.choice(list(LIDS)))] if rng.random() < WINKS else list(LIDS)
        return row, sides, 0.0 if rng.random() < SHUT else rng.random()


def _can_close(records: FaceRecords) -> np.ndarray:
    """(n,) bool: whether both eyes of a photo are open, wide enough, and labeled by hand."""
    points = records.landmarks[..., :2].astype(np.float64)
    widths = [np.linalg.norm(points[:, lid[0][0]] - points[:, lid[0][-1]], axis=-1)
              for lid in LIDS.values()]  # fmt: skip
    can = np.min(widths, axis=0) >= MIN_WIDTH
    can &= records.weights()[:, 36:48].min(axis=1) >= MIN_WEIGHT
    with np.errstate(divide="ignore"):
        opening = openings(points)
    for side in LIDS:
        can &= (opening[side] > OPEN[0]) & (opening[side] < OPEN[1])
    return can
