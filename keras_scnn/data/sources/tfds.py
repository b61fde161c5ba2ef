"""300W-LP and AFLW2000-3D from TensorFlow Datasets: ``the300w_lp`` and ``aflw2k3d``.

Their features have been stable since version 1.0.0. Both have 450x450 photos, and landmarks that
are the .mat files' (px, counted from 1) divided by 450. ``the300w_lp`` has no folders *_Flip, no
file names and no depth; ``aflw2k3d`` has neither parameters nor file names.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
from collections.abc import Iterator

import numpy as np

from keras_scnn.data.photo_source import LabeledPhoto, PhotoSource
from keras_scnn.data.sources.bfm_landmarks import BfmLandmarks
from keras_scnn.data.sources.mat_files import IMAGE_SIZE
from keras_scnn.storage.images import decode_image

SPLIT = "train"  # the only split of both
# Number of examples read at once, and of such windows kept: single examples cannot be read.
WINDOW = 64
WINDOWS_KEPT = 4
PARAMETERS = ("shape_params", "exp_params", "pose_params")


class _TfdsSource(PhotoSource):
    """Examples named by their number in the data set's files.

    Args:
        data_dir: data folder of TensorFlow Datasets; None for its default.

    Raises:
        ImportError: tensorflow-datasets is not installed.
        FileNotFoundError: the data set is not in data_dir.
        ValueError: its files are damaged.
    """

    data_set = ""

    def __init__(self, data_dir: str | os.PathLike | None = None):
        self.data_dir = None if data_dir is None else os.fspath(data_dir)
        builder = _builder(self.data_set, self.data_dir)
        if SPLIT not in (builder.info.splits or {}):
            raise FileNotFoundError(
                f"{self.data_dir or 'the default folder of tensorflow-datasets'}: "
                f"{self.data_set} is not prepared there; run 'tfds build {self.data_set}', or name "
                "its folder"
            )
        self._count = builder.info.splits[SPLIT].num_examples

    def names(self) -> list[str]:
        return [f"{SPLIT}/{i:06d}" for i in range(self._count)]

    def _index(self, name: str) -> int:
        split, _, digits = name.partition("/")
        if split != SPLIT or not digits.isdecimal() or int(digits) >= self._count:
            raise FileNotFoundError(f"{name}: {self.data_set} has no such example")
        return int(digits)

    def _example(self, name: str) -> dict:
        start, place = divmod(self._index(name), WINDOW)
        start *= WINDOW
        stop = min(start + WINDOW, self._count)
        return _window(self.data_set, self.data_dir, start, stop)[place]


class Tfds300WLP(_TfdsSource):
    """``the300w_lp``: 61,225 photos. Photos with equal shape parameters show one person.

    Args:
        data_dir: data folder of TensorFlow Datasets; None for its default.
        basis: decodes the parameters to 68 landmarks with depth. Without it, x and y are from the
            feature landmarks_3d, and the depth is unknown, NaN.

    Raises:
        ImportError, FileNotFoundError, ValueError: see ``_TfdsSource``.
    """

    data_set = "the300w_lp"

    def __init__(
        self, data_dir: str | os.PathLike | None = None, basis: BfmLandmarks | None = None
    ):
        super().__init__(data_dir)
        self.basis = basis
        shapes = _examples(self.data_set, self.data_dir, SPLIT, only="shape_params")
        self._persons = [_person_of(example["shape_params"]) for example in shapes]

    def person(self, name: str) -> str:
        """A digest of the shape parameters."""
        return self._persons[self._index(name)]

    def load(self, name: str) -> LabeledPhoto:
        example = self._example(name)
        if self.basis is None:
            landmarks = _with_depth(example["landmarks_3d"], np.full(68, np.nan))
        else:
            landmarks = self.basis.decode(*(np.float64(example[part]) for part in PARAMETERS))
        image = functools.partial(decode_image, example["image"])
        return LabeledPhoto(name, self.person(name), landmarks, np.ones(68), image)


class TfdsAflw2000(_TfdsSource):
    """``aflw2k3d``: 2,000 photos, each of a different person. For evaluation, not for training."""

    data_set = "aflw2k3d"

    def person(self, name: str) -> str:
        return name

    def load(self, name: str) -> LabeledPhoto:
        example = self._example(name)
        depth = np.asarray(example["landmarks_68_3d_z"]).reshape(68)
        landmarks = _with_depth(example["landmarks_68_3d_xy_normalized"], depth)
        image = functools.partial(decode_image, example["image"])
        return LabeledPhoto(name, name, landmarks, np.ones(68), image)


def _person_of(shape: np.ndarray) -> str:
    return hashlib.sha256(np.asarray(shape, "<f4").tobytes()).hexdigest()[:16]


def _with_depth(normalized: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """(68, 3) px, image frame, from x and y (68, 2), counted from 1 and divided by the side."""
    return np.column_stack([np.asarray(normalized, np.float64) * IMAGE_SIZE - 1, depth])


def _tfds():
    """The package tensorflow_datasets, an optional dependency."""
    try:
        return importlib.import_module("tensorflow_datasets")
    except ImportError as error:
        raise ImportError(
            f"TensorFlow Datasets cannot be imported ({error}): pip install '.[tfds]'"
        ) from error


def _builder(data_set: str, data_dir: str | None):
    return _tfds().builder(data_set, data_dir=data_dir)


@functools.lru_cache(WINDOWS_KEPT)
def _window(data_set: str, data_dir: str | None, start: int, stop: int) -> list[dict]:
    return list(_examples(data_set, data_dir, f"{SPLIT}[{start}:{stop}]"))


def _examples(
    data_set: str, data_dir: str | None, split: str, only: str | None = None
) -> Iterator[dict]:
    """Examples in the order of the files, images still encoded; or only one of their features."""
    tfds = _tfds()
    if only:
        decoders = tfds.decode.PartialDecoding({only: True})
    else:
        decoders = {"image": tfds.decode.SkipDecoding()}
    # One file after the other, so that the n-th example is the same whichever part is read.
    config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    try:
        data = _builder(data_set, data_dir).as_dataset(
            split=split, decoders=decoders, read_config=config, shuffle_files=False
        )
        yield from tfds.as_numpy(data)
    except Exception as error:  # TensorFlow has a different exception for each kind of damage
        raise ValueError(f"{data_set}, {split}: could not be read ({error})") from error
