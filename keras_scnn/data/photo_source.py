"""Interface of data-set readers: photos with 68 landmarks, and the person that each shows."""

from __future__ import annotations

import abc
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_scnn.io import read_image
from keras_scnn.photos.files import beside, either_case, find_photos


@dataclass(frozen=True, eq=False)
class LabeledPhoto:
    """One face of a photo.

    Attributes:
        name: of the source file, relative to its data set's folder, and unique in it.
        person: key of the person shown, unique in the data set.
        landmarks: (68, 3) float64: x, y in px of the photo, pixel centers at integers from 0, y
            down; depth in px, increasing towards the viewer, with any origin, NaN if unknown.
        weight: (68,) float64, 0 (no label) to 1: reliability of each landmark's x and y.
        image: a file, or a function that returns the photo, (H, W, 3) uint8 RGB.
        box: (4,) float64 half-open pixel box of the face's crop, if the data set has one.
        parameters: (12 + K + L,) of the face model that is fitted, with the pose image_from_model;
            None if the source does not fit it.
        embedding: (E,) by a face recognizer; None if the source has none.
        size: width and height, px, of the labeled photo; None if unknown.
    """

    name: str
    person: str
    landmarks: np.ndarray
    weight: np.ndarray
    image: Path | Callable[[], np.ndarray]
    box: np.ndarray | None = None
    parameters: np.ndarray | None = None
    embedding: np.ndarray | None = None
    size: tuple[int, int] | None = None

    def read_image(self) -> np.ndarray:
        """The photo, (H, W, 3) uint8 RGB.

        Raises:
            FileNotFoundError, ValueError: see ``io.read_image``.
            ValueError: it has another size than the labels are of.
        """
        if not isinstance(self.image, Path):
            return of_size(self.image(), self.name, self.size)
        return of_size(read_image(self.image), self.image, self.size)


def of_size(image: np.ndarray, name: str | os.PathLike, size: tuple[int, int] | None) -> np.ndarray:
    """The photo (H, W, 3) itself; a ValueError unless (W, H) is the ``size``, None for any."""
    if size is not None and image.shape[1::-1] != size:
        raise ValueError(
            f"{name}: {image.shape[1]} x {image.shape[0]} px; its labels are of the photo of "
            f"{size[0]} x {size[1]} px"
        )
    return image


class PhotoSource(abc.ABC):
    """A data set that is listed as a whole and read one photo at a time.

    Listing decodes no image. A source can be pickled, so that worker processes can load from it.

    Attributes:
        folder: of the photos; None if they are not files in one folder.
        embedding_size: length of the embedding; 0 without one.
        labels: the files that labels are read from: suffixes of files beside each photo, and names
            of tables in the folder.
        preset: name or folder of the preset that predicts labels; '' without one.
    """

    folder: Path | None = None
    embedding_size: int = 0
    labels: tuple[str, ...] = ()
    preset: str = ""

    @abc.abstractmethod
    def names(self) -> list[str]:
        """Names of all photos, including unreadable ones; unique, in a fixed order."""

    @abc.abstractmethod
    def person(self, name: str) -> str:
        """The ``LabeledPhoto.person`` of the photo of that name, without reading it."""

    @abc.abstractmethod
    def load(self, name: str) -> LabeledPhoto:
        """Read the labels of one photo. Its image is read by ``LabeledPhoto.read_image``.

        Raises:
            FileNotFoundError: a file of the photo is missing.
            ValueError: a file of the photo is damaged or of the wrong kind.
        """

    def read_image(self, name: str) -> np.ndarray:
        """One photo that ``load`` labels, (H, W, 3) uint8 RGB.

        Raises:
            FileNotFoundError, ValueError: see ``load`` and ``LabeledPhoto.read_image``.
        """
        return self.load(name).read_image()

    def get_ready(self) -> None:  # noqa: B027 (most need nothing)
        """Compute data that all photos need; called once, before the source is sent to workers.

        ``load`` also works without it, but then each process computes the data itself.
        """

    def mirror_of(self, person: str) -> str | None:
        """The key of a person's mirror image; None if the data set has no mirror images.

        A mirrored face is neither the same person nor a different one, so the two never form a
        pair. The source need not have photos of both.
        """
        return None

    def listed(self) -> list[str]:
        """All photos that the labels list, of which ``names`` may be a subset."""
        return self.names()

    def passed_over(self, *without: str | os.PathLike | None) -> tuple[str, ...]:
        """Files of the folder that are neither a listed photo nor its labels, see ``photos.files``.

        Args:
            without: files and folders to ignore, such as that of the records.
        """
        if self.folder is None:
            return ()
        suffixes, tables = self._label_files()
        cases = [case for suffix in suffixes for case in either_case(suffix)]
        used = {*self.listed(), *tables}
        used |= {Path(name).with_suffix(s).as_posix() for name in self.listed() for s in cases}
        files = find_photos(self.folder, *without)
        return tuple(sorted({*files.photos, *files.passed_over} - used))

    def inputs(self, names: Sequence[str]) -> list[Path]:
        """The files of photos and their labels; when they change, records are made again.

        These are photos in the folder and the ``labels``; some may not exist.
        """
        if self.folder is None:
            return []
        suffixes, tables = self._label_files()
        photos = [self.folder / name for name in names]
        labels = [beside(photo, suffix) for photo in photos for suffix in suffixes]
        return [*photos, *labels, *(self.folder / table for table in tables)]

    def _label_files(self) -> tuple[list[str], list[str]]:
        """Suffixes of files beside each photo, and names of the folder's tables."""
        suffixes = [one for one in self.labels if one.startswith(".")]
        return suffixes, [one for one in self.labels if not one.startswith(".")]
