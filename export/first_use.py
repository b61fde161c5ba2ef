"""A preset's network for LiteRT, made when a command first uses the preset."""

from __future__ import annotations

import os
import sys

from keras_scnn.models.backend import start_keras
from keras_scnn.models.litert import lite_file, place_for_lite_file
from keras_scnn.models.presets import preset_folder
from keras_scnn.storage.guard import reading
from keras_scnn.storage.text import read_json


def ensure_network(name_or_path: str | os.PathLike) -> None:
    """Make the LiteRT file of a preset or of a finished run where there is none, and keep it.

    It is compared with Keras before it gets its name. Where it cannot be made, a line on stderr
    says why, and the network runs in Keras.

    Args:
        name_or_path: as of ``load_preset``.

    Raises:
        FileNotFoundError, ValueError: there is no such preset, or its settings, or the state of
            the run, are damaged.
    """
    if lite_file(name_or_path) or _is_in_training(name_or_path):
        return
    if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        return  # files are converted by TensorFlow only
    place = place_for_lite_file(name_or_path)
    print(f"making {place} once, for faster starts ...", file=sys.stderr, flush=True)
    try:
        start_keras()
        from keras_scnn.export.network import write_network

        write_network(preset_folder(name_or_path), place)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        print(f"not made, so it runs in Keras: {reason}", file=sys.stderr)


def _is_in_training(name_or_path: str | os.PathLike) -> bool:
    """Whether it is a run that goes on, whose weights will be others soon."""
    path = preset_folder(name_or_path) / "state.json"
    if not path.is_file():
        return False
    with reading(path, "the state of a run"):
        return not read_json(path, "the state of a run").get("done", True)
