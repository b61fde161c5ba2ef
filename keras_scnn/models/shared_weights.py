"""Weights that a preset need not keep: those of a preset of the package, or of a recognizer's.

The settings name where they come from and a digest, so that no other weights are taken for them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_scnn.storage import read_npz
from keras_scnn.storage.shards import file_digest

if TYPE_CHECKING:
    import keras

BASE, RECOGNIZERS = "base", "packaged_recognizers"
NETWORK = "network/"  # before a weight's path, in the file of a preset's weights
FORMAT, VERSION = "keras_scnn.preset", 1
WEIGHTS = "weights.npz"


def sources_of(core: keras.Model, recognizers: str, base: Path | None) -> dict:
    """Settings that say where weights of a network are besides.

    Args:
        core: of a preset.
        recognizers: of the preset.
        base: folder of a preset of the package; None for none.

    Raises:
        FileNotFoundError: ``base`` is no preset.
    """
    settings: dict = {}
    if recognizers:
        from keras_scnn.models.recognizers.layers import unchanged_recognizers

        settings |= {"recognizers": recognizers, RECOGNIZERS: unchanged_recognizers(core)}
    if base:
        settings[BASE] = {"preset": base.name, "digest": file_digest(base / WEIGHTS)}
    return settings


def shared_arrays(core: keras.Model, settings: dict, presets: Path) -> dict[str, np.ndarray]:
    """These weights, by their names in the file of a preset's weights.

    Args:
        core: built as the settings describe; its weights are not read.
        settings: of the preset; see ``sources_of``.
        presets: folder of the package's presets.

    Raises:
        FileNotFoundError: a recognizer's package is not installed.
        ValueError: the package, or the base, has other weights than it had.
    """
    arrays = _base_arrays(settings, presets)
    if digests := settings.get(RECOGNIZERS):
        from keras_scnn.models.recognizers.layers import packaged_arrays, recognizer_layers

        layers = recognizer_layers(core)
        for name, digest in digests.items():
            paths = [NETWORK + weight.path for weight in layers[name].weights]
            arrays |= dict(zip(paths, packaged_arrays(name, digest), strict=True))
    return arrays


def _base_arrays(settings: dict, presets: Path) -> dict[str, np.ndarray]:
    if not (base := settings.get(BASE)):
        return {}
    path = presets / Path(base["preset"]).name / WEIGHTS
    if (there := file_digest(path)) != base["digest"]:
        raise ValueError(
            f"the preset is based on the weights {base['digest'][:12]} of '{base['preset']}', "
            f"which has {there[:12]} here: install the version of keras_scnn that it was made with"
        )
    return read_npz(path, FORMAT, VERSION)
