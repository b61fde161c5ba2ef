"""A preset's network in LiteRT (ai-edge-litert): crops to parameters without Keras.

The folder of a preset may hold ``network.tflite``, which ``keras_scnn.export`` writes: one uint8
crop to the branch's outputs, weights in half precision, and the digest of the preset that it was
made from. For presets of the package that come without, it lies in the user's cache. A file whose
digest is not that of its folder is not used.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from keras_scnn.models.crops import check_crops
from keras_scnn.models.presets import FOLDER, LITE_FILE, preset_digest, preset_folder
from keras_scnn.storage.downloads import user_cache
from keras_scnn.storage.guard import reading
from keras_scnn.storage.outputs import real_path
from keras_scnn.storage.tflite import (
    checked_threads,
    per_thread_runner,
    read_lite_file,
    read_metadata,
)

FILE, SIGNATURE = LITE_FILE, "branch"
FORMAT, VERSION = "keras_scnn.network", 1


class LiteNetwork:
    """Runs a ``network.tflite``, one crop after the other.

    It may be called from several threads: each gets an interpreter of its own.

    Args:
        path: of the file.
        threads: that the runtime may use in each call.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or not one of this package, or ``threads`` is no number.
    """

    def __init__(self, path: str | os.PathLike, threads: int = 1):
        threads = checked_threads(threads)
        content, self.metadata = read_lite_file(path)
        self._runner = per_thread_runner(content, threads, SIGNATURE)
        with reading(path, f"a '{FORMAT}' file of version {VERSION} that LiteRT can run"):
            kind = self.metadata.get("format"), self.metadata.get("version")
            if kind != (FORMAT, VERSION):
                raise ValueError(f"{kind[0]} version {kind[1]}")
            self._size = int(self._runner().get_input_details()["image"]["shape"][1])

    def __call__(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        """The branch's outputs, float32, for (M, S, S, 3) uint8 RGB crops, M above 0.

        Raises:
            ValueError: the crops are something else.
        """
        check_crops(crops, self._size)
        run, crops = self._runner(), np.ascontiguousarray(crops)
        rows = [run(image=crop[None]) for crop in crops]  # the runner copies its outputs
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def lite_file(name_or_path: str | os.PathLike) -> Path | None:
    """The LiteRT file of a preset; None where there is none, or one of other weights.

    Raises:
        FileNotFoundError, ValueError: as ``presets.load_preset``.
    """
    digest = preset_digest(name_or_path)
    places = preset_folder(name_or_path) / FILE, _cached(digest)
    return next((path for path in places if _is_of(path, digest)), None)


def place_for_lite_file(name_or_path: str | os.PathLike) -> Path:
    """Where to keep a LiteRT file that is made: the folder itself, or for a preset of the package
    ``$XDG_CACHE_HOME/keras_scnn`` (``~/.cache/keras_scnn``); errors as ``lite_file``.
    """
    folder = preset_folder(name_or_path)
    packaged = real_path(folder).parent == real_path(FOLDER)
    return _cached(preset_digest(folder)) if packaged else folder / FILE


def _cached(digest: str) -> Path:
    return user_cache() / "networks" / f"{digest}.tflite"


def _is_of(path: Path, digest: str) -> bool:
    """Whether a file is there, readable, and of the weights of this digest."""
    try:
        return read_metadata(path.read_bytes()).get("digest") == digest
    except (OSError, ValueError):
        return False
