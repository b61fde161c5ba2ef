"""A preset's network in LiteRT (ai-edge-litert): crops to parameters without Keras.

A preset's folder may contain ``network.tflite``, written by ``keras_scnn.export``: it maps one
uint8 crop to the branch's outputs, with weights in half precision, and records the digest of its
preset. If a preset of the package has none, or the folder cannot be written, it is kept in the
user's cache. A file with another preset's digest is ignored.
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
from keras_scnn.storage.tflite import per_thread_runner, read_metadata

FILE, SIGNATURE = LITE_FILE, "branch"
FORMAT, VERSION = "keras_scnn.network", 1


class LiteNetwork:
    """Runs a ``network.tflite``, one crop at a time.

    It is thread-safe: each thread that calls it gets its own interpreter, which uses one thread.

    Args:
        path: of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or not written by this package.
    """

    def __init__(self, path: str | os.PathLike):
        self._runner, self.metadata = per_thread_runner(path, 1, SIGNATURE)
        with reading(path, f"a '{FORMAT}' file of version {VERSION} that LiteRT can run"):
            kind = self.metadata.get("format"), self.metadata.get("version")
            if kind != (FORMAT, VERSION):
                raise ValueError(f"{kind[0]} version {kind[1]}")
            self._size = int(self._runner().get_input_details()["image"]["shape"][1])

    def __call__(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        """The branch's outputs, float32, for (M, S, S, 3) uint8 RGB crops, M above 0.

        Raises:
            ValueError: the crops have another shape or dtype.
        """
        check_crops(crops, self._size)
        run, crops = self._runner(), np.ascontiguousarray(crops)
        rows = [run(image=crop[None]) for crop in crops]  # the runner copies its outputs
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def lite_file(name_or_path: str | os.PathLike) -> Path | None:
    """The LiteRT file of a preset; None if there is none, or only one of other weights.

    Raises:
        FileNotFoundError, ValueError: as ``presets.load_preset``.
    """
    digest = preset_digest(name_or_path)
    places = preset_folder(name_or_path) / FILE, _cached(digest)
    return next((path for path in places if _is_of(path, digest)), None)


def place_for_lite_file(name_or_path: str | os.PathLike) -> Path:
    """Path for a new LiteRT file of a preset: in its folder, or for a preset of the package, or in
    a folder that cannot be written, in ``$XDG_CACHE_HOME/keras_scnn`` (``~/.cache/keras_scnn``);
    errors as ``lite_file``.
    """
    folder = preset_folder(name_or_path)
    packaged = real_path(folder).parent == real_path(FOLDER)
    is_own = not packaged and os.access(folder, os.W_OK | os.X_OK)
    return folder / FILE if is_own else _cached(preset_digest(folder))


def _cached(digest: str) -> Path:
    return user_cache() / "networks" / f"{digest}.tflite"


def _is_of(path: Path, digest: str) -> bool:
    """Whether the file exists, is readable, and records this digest."""
    try:
        return read_metadata(path.read_bytes()).get("digest") == digest
    except (OSError, ValueError):
        return False
