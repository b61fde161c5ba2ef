"""The networks: encoder, heads, the Siamese pair, and presets that carry trained weights."""

from keras_scnn.models.encoders import ENCODERS, build_encoder
from keras_scnn.models.flip_averaging import build_flip_averaged
from keras_scnn.models.group import build_group
from keras_scnn.models.heads import FaceDecoder, build_branch, build_regressor
from keras_scnn.models.presets import (
    Preset,
    load_preset,
    preset_face_model,
    save_preset,
    write_metadata,
)
from keras_scnn.models.siamese import build_siamese

__all__ = [
    "ENCODERS",
    "FaceDecoder",
    "Preset",
    "build_branch",
    "build_encoder",
    "build_group",
    "build_flip_averaged",
    "build_regressor",
    "build_siamese",
    "load_preset",
    "preset_face_model",
    "save_preset",
    "write_metadata",
]
