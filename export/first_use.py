"""A preset's network as a LiteRT file, made when a command first uses the preset."""

from __future__ import annotations

import os
import sys

from keras_scnn.models.backend import start_keras
from keras_scnn.models.litert import lite_file, place_for_lite_file
from keras_scnn.models.presets import preset_folder
from keras_scnn.storage.guard import reading
from keras_scnn.storage.outputs import check_out
from keras_scnn.storage.text import read_json


def ensure_network(name_or_path: str | os.PathLike) -> None:
    """Make the LiteRT file of a preset or of a finished run, unless it exists, and keep it.

    It is compared with Keras before it is stored. If it cannot be made, a line on stderr gives the
    reason, and the network runs in Keras.

    Args:
        name_or_path: see ``load_preset``.

    Raises:
        FileNotFoundError, ValueError: there is no such preset, or its settings or the run's state
            are damaged.
    """
    if lite_file(name_or_path) or _is_in_training(name_or_path):
        return
    if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        return  # only TensorFlow can convert files
    place = place_for_lite_file(name_or_path)
    try:
        check_out(place.parent, f"{place.name} in")
        print(f"making {place} once, for faster starts ...", file=sys.stderr, flush=True)
        start_keras()
        from keras_scnn.export.network import write_network

        write_network(preset_folder(name_or_path), place)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        print(f"not made; the network runs in Keras: {reason}", file=sys.stderr)


def _is_in_training(name_or_path: str | os.PathLike) -> bool:
    """Whether it is an unfinished run, whose weights will still change."""
    path = preset_folder(name_or_path) / "state.json"
    if not path.is_file():
        return False
    with reading(path, "the state of a run"):
        return not read_json(path, "the state of a run").get("done", True)
