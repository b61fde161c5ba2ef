"""The networks: encoder, heads, the Siamese pair, and presets that carry trained weights.

What is named here is imported on first use: presets and LiteRT work without Keras.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "ENCODERS": "encoders",
    "FaceDecoder": "heads",
    "Preset": "presets",
    "PresetData": "presets",
    "build_branch": "heads",
    "build_encoder": "encoders",
    "build_group": "group",
    "build_mirrored": "flip_averaging",
    "build_regressor": "heads",
    "build_siamese": "siamese",
    "load_preset": "presets",
    "preset_face_model": "presets",
    "read_preset": "presets",
    "save_preset": "presets",
    "write_metadata": "presets",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'keras_scnn.models' has no attribute '{name}'")
    return getattr(importlib.import_module(f"keras_scnn.models.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
