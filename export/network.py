"""``network.tflite`` in a preset's folder: with it, ``Reconstructor`` runs without TensorFlow.

It has only the branch: from one uint8 crop to whitened parameters and features, with weights in
half precision (in single precision if ai-edge-quantizer is not installed). It is compared with the
Keras network before it is stored; see ``keras_scnn.models.litert`` for how it is found.
"""

from __future__ import annotations

import importlib.util
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
from keras import ops

from keras_scnn.export.crops import find_crops
from keras_scnn.export.drift import output_drift, reference_outputs
from keras_scnn.export.tflite import convert
from keras_scnn.export.verify import LIMITS, VerificationError, broken_limits
from keras_scnn.models.inference import Network
from keras_scnn.models.litert import FILE, FORMAT, SIGNATURE, VERSION, LiteNetwork
from keras_scnn.models.preset_network import Preset
from keras_scnn.models.presets import load_preset, preset_digest
from keras_scnn.storage import atomic_path
from keras_scnn.storage.atomic import staged_folder
from keras_scnn.storage.tflite import with_metadata


def write_network(folder: Path, path: Path | None = None) -> dict[str, float]:
    """Write a preset's or run's network as a .tflite file, verified and atomically.

    Args:
        folder: written by ``save_preset``.
        path: of the file, which replaces an existing one; None: ``network.tflite`` in the folder.

    Returns:
        differences from Keras on synthetic crops, by the names in ``export.drift.Drift``.

    Raises:
        FileNotFoundError, ValueError: see ``load_preset``.
        VerificationError: the file disagrees with Keras; nothing is written.
        OSError: the folder cannot be written.
    """
    preset = load_preset(folder)
    half = importlib.util.find_spec("ai_edge_quantizer") is not None
    precision = "float16" if half else "float32"
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "digest": preset_digest(folder),
        "quantize": precision,
    }
    content = with_metadata(convert(_with_uint8_input(preset), precision, SIGNATURE), metadata)
    with staged_folder() as aside:
        made = aside / FILE
        made.write_bytes(content)
        drift = network_drift(preset, LiteNetwork(made), find_crops(None, preset.input_size).images)
    if broken := broken_limits(drift, LIMITS[precision]):
        raise VerificationError(f"{FILE}: disagrees with Keras: {'; '.join(broken)}")
    path = path or Path(folder) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return drift


def _with_uint8_input(preset: Preset) -> keras.Model:
    size = preset.input_size
    image = keras.Input((size, size, 3), 1, dtype="uint8", name="image")
    return keras.Model(image, preset.branch(ops.cast(image, "float32"), training=False))


def network_drift(preset: Preset, network: Network, crops: np.ndarray) -> dict[str, float]:
    """Differences between a network's faces and those of Keras.

    Args:
        preset: the Keras network and its parameter space.
        network: function from (M, S, S, 3) uint8 RGB crops to the branch's outputs.
        crops: (M, S, S, 3) uint8 RGB, M above 0.

    Returns:
        see ``write_network``.
    """
    result = reference_outputs(preset, crops, network)
    drift = asdict(output_drift(result, reference_outputs(preset, crops), preset))
    return {name: value for name, value in drift.items() if value is not None}
