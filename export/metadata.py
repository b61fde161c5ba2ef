"""Metadata of an exported file: its inputs and outputs, license terms and accuracy."""

from __future__ import annotations

import os

import keras_scnn
from keras_scnn.export.exported_model import output_table
from keras_scnn.export.pipeline import describe_crop
from keras_scnn.models import Preset
from keras_scnn.models.presets import preset_folder
from keras_scnn.parameters import POSE_SIZE
from keras_scnn.storage.text import utf8_text

FORMAT, VERSION = "keras_scnn.export", 1
CARD = "CARD.md"
GROUPS = ("pose", "identity", "expression")  # groups of parameters, as named in ParameterLayout
WHITENING = "undone inside the graph: parameters are in px, px per mm and the model's units"


def build_metadata(
    preset: Preset, name: str, quantize: str = "float32", vertices: bool = False, card: str = ""
) -> dict:
    """Everything about an exported file that a user without this package needs, for JSON.

    Args:
        preset: the exported preset.
        name: of the preset.
        quantize: precision of the weights.
        vertices: whether all vertices are an output.
        card: text of the preset's card: data, terms, accuracy.
    """
    model, size = preset.face_model, preset.input_size
    outputs = output_table(preset, vertices)
    return {
        "format": FORMAT,
        "version": VERSION,
        "made_by": f"keras_scnn {keras_scnn.__version__}",
        "preset": name,
        "encoder": preset.encoder,
        "quantize": quantize,
        "input": {"name": "image", "shape": [size, size, 3], "dtype": "uint8", "range": "RGB"},
        "outputs": {k: {"shape": list(o.shape), "unit": o.unit} for k, o in outputs.items()},
        "crop": describe_crop(size),
        "whitening": WHITENING,
        "parameters": {
            "pose": POSE_SIZE,
            "identity": model.n_identity,
            "expression": list(model.expression_names),
            "slices": {name: _ends(getattr(preset.layout, name)) for name in GROUPS},
        },
        "face_model": {
            "name": model.name,
            "license": model.license,
            "vertices": model.n_vertices,
            "triangles": len(model.triangles),
        },
        "license": preset.metadata.get("license", "see card; the weights' data set has terms"),
        "accuracy": preset.metadata.get("results", "see card"),
        "training": preset.metadata,
        "card": card,
    }


def _ends(part: slice) -> list[int]:
    return [part.start, part.stop]


def read_card(name_or_path: str | os.PathLike) -> str:
    """The text of a preset's card, '' without one; errors as ``preset_folder``."""
    path = preset_folder(name_or_path) / CARD
    return utf8_text(path) if path.is_file() else ""
