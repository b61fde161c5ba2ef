"""What a reader of a data set hands on: photos with 68 landmarks, and who they show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from keras_scnn.io import read_image


@dataclass(frozen=True, eq=False)
class LabeledPhoto:
    """One face of a photo.

    Attributes:
        name: of the source file, relative to its data set's folder, and unique in it.
        person: equal for all photos of one person, and for nobody else's in the data set.
        landmarks: (68, 3) float64: x, y in px of the photo, pixel centers at integers from 0, y
            down; depth in px, larger nearer to the viewer, from any origin, NaN where unknown.
        weight: (68,) float64, 0 (no label) to 1: how far each landmark's x and y can be trusted.
        image: a file, or a function that returns the photo, (H, W, 3) uint8 RGB.
        box: (4,) float64 half-open pixel box of the face's crop where the data set gives one.
        euler: (3,) float64 annotated pitch, yaw, roll in radians, where there are any.
        extra: arrays that only some readers have, by name.
    """

    name: str
    person: str
    landmarks: np.ndarray
    weight: np.ndarray
    image: Path | Callable[[], np.ndarray]
    box: np.ndarray | None = None
    euler: np.ndarray | None = None
    extra: dict[str, np.ndarray] = field(default_factory=dict)

    def read_image(self) -> np.ndarray:
        """The photo, (H, W, 3) uint8 RGB.

        Raises:
            FileNotFoundError, ValueError: see ``io.read_image``.
        """
        return read_image(self.image) if isinstance(self.image, Path) else self.image()
