"""The networks: encoder, heads, the Siamese pair, and presets that carry trained weights.

Submodules are imported on first use, so that presets and LiteRT work without Keras.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from keras_scnn.models.encoder_table import ENCODERS
    from keras_scnn.models.encoders import build_encoder
    from keras_scnn.models.flip_averaging import build_flip_averaged
    from keras_scnn.models.group import build_group
    from keras_scnn.models.heads import FaceDecoder, build_branch, build_regressor
    from keras_scnn.models.preset_network import Preset, PresetData
    from keras_scnn.models.presets import (
        load_preset,
        preset_face_model,
        read_preset,
        save_preset,
        write_metadata,
    )
    from keras_scnn.models.siamese import build_siamese

__all__ = [
    "ENCODERS",
    "FaceDecoder",
    "Preset",
    "PresetData",
    "build_branch",
    "build_encoder",
    "build_flip_averaged",
    "build_group",
    "build_regressor",
    "build_siamese",
    "load_preset",
    "preset_face_model",
    "read_preset",
    "save_preset",
    "write_metadata",
]

_HOMES = {
    "encoder_table": ["ENCODERS"],
    "encoders": ["build_encoder"],
    "flip_averaging": ["build_flip_averaged"],
    "group": ["build_group"],
    "heads": ["FaceDecoder", "build_branch", "build_regressor"],
    "preset_network": ["Preset", "PresetData"],
    "presets": ["load_preset", "preset_face_model", "read_preset", "save_preset"]
    + ["write_metadata"],
    "siamese": ["build_siamese"],
}
__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs=_HOMES)
