"""Weights that a preset need not store: those of a preset of the package, or of a recognizer.

The settings record their source and a digest, so that other weights are never used by mistake.
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
NETWORK = "network/"  # prefix of a network weight's path in weights.npz
FORMAT, VERSION = "keras_scnn.preset", 1
WEIGHTS = "weights.npz"


def sources_of(core: keras.Model, recognizers: str, base: Path | None) -> dict:
    """Settings that record the sources of weights that are not stored in the preset's folder.

    Args:
        core: ``Preset.core``.
        recognizers: ``Preset.recognizers``.
        base: folder of a preset of the package; None for none.

    Raises:
        FileNotFoundError: ``base`` is not a preset.
    """
    settings: dict = {}
    if recognizers:
        from keras_scnn.models.recognizers.layers import unchanged_recognizers

        settings |= {"recognizers": recognizers, RECOGNIZERS: unchanged_recognizers(core)}
    if base:
        settings[BASE] = {"preset": base.name, "digest": file_digest(base / WEIGHTS)}
    return settings


def check_sources(settings: dict) -> None:
    """Raise a ValueError if the sources in settings do not have the form of ``sources_of``."""
    base, packaged = settings.get(BASE, {}), settings.get(RECOGNIZERS, {})
    for name, table in ((BASE, base), (RECOGNIZERS, packaged)):
        if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
            raise ValueError(f"{name} is {str(table)[:40]}, not a table of strings")
    if base and set(base) != {"preset", "digest"}:
        raise ValueError(f"{BASE} has {sorted(base)}; it needs 'preset' and 'digest'")
    known = str(settings.get("recognizers", "")).split("+")
    if unknown := set(packaged) - set(known):
        raise ValueError(f"{RECOGNIZERS} has {sorted(unknown)}, which recognizers does not name")


def base_arrays(settings: dict, presets: Path) -> dict[str, np.ndarray]:
    """All arrays of a preset's base, by name; empty if it has no base.

    Args:
        settings: of the preset; see ``sources_of``.
        presets: folder of the package's presets.

    Raises:
        FileNotFoundError: the package has no such preset.
        ValueError: the base has other weights than when the preset was saved.
    """
    if not (base := settings.get(BASE)):
        return {}
    path = presets / Path(base["preset"]).name / WEIGHTS
    if (there := file_digest(path)) != base["digest"]:
        raise ValueError(
            f"the preset is based on weights of '{base['preset']}' with digest "
            f"{base['digest'][:12]}, but here they have {there[:12]}: install the version of "
            "keras_scnn that it was made with"
        )
    return read_npz(path, FORMAT, VERSION)


def packaged_arrays(core: keras.Model, settings: dict) -> dict[str, np.ndarray]:
    """Weights of recognizers from their installed packages, by their names in weights.npz.

    Args:
        core: built from the settings; its weights are not read.
        settings: of the preset.

    Raises:
        FileNotFoundError: a package is not installed.
        ValueError: a package has other weights than when the preset was saved.
    """
    arrays: dict[str, np.ndarray] = {}
    if digests := settings.get(RECOGNIZERS):
        from keras_scnn.models.recognizers.layers import checked_weights, recognizer_layers

        layers = recognizer_layers(core)
        for name, digest in digests.items():
            paths = [NETWORK + weight.path for weight in layers[name].weights]
            arrays |= dict(zip(paths, checked_weights(name, digest), strict=True))
    return arrays


def is_own(weight: keras.Variable, shared: dict[str, np.ndarray]) -> bool:
    """Whether a weight differs from the shared one of its name, and has to be stored."""
    there, own = shared.get(NETWORK + weight.path), np.asarray(weight)
    if there is None or there.shape != own.shape:
        return True
    return not (np.array_equal(there, own) or np.array_equal(there, compact(weight)))


def compact(weight: keras.Variable) -> np.ndarray:
    """Kernels in half precision; biases and moving statistics, small and wide-ranged, in single.

    Raises:
        ValueError: a value is not finite in that precision.
    """
    array = np.asarray(weight, np.float32)
    with np.errstate(over="ignore"):
        small = array.astype(np.float16 if array.ndim > 1 else np.float32)
    if not np.isfinite(small).all():
        largest = np.abs(array).max()
        raise ValueError(f"weight {weight.path} is not finite as {small.dtype}: {largest:g}")
    return small
