"""ONNX files through tf2onnx; needs the extra ``onnx`` (tf2onnx, onnxruntime)."""

from __future__ import annotations

import os

from keras_scnn.export.exported_model import build_exported_model
from keras_scnn.export.metadata import build_metadata
from keras_scnn.export.tflite import constant_function
from keras_scnn.models import Preset
from keras_scnn.storage import atomic_path
from keras_scnn.storage.text import json_text

OPSET = 17
ENTRY = "keras_scnn"


def write_onnx(
    path: str | os.PathLike,
    preset: Preset,
    vertices: bool = False,
    name: str = "preset",
    card: str = "",
) -> None:
    """Write a preset's network as an .onnx file with a dynamic batch size, atomically.

    The input is ``image`` (B, S, S, 3) uint8 RGB; outputs are named as in ``output_table``. The
    metadata is in ``metadata_props``.

    Raises:
        ImportError: tf2onnx or onnxruntime is not installed.
        ValueError: Keras does not run on TensorFlow.
    """
    check_converter()
    model = build_exported_model(preset, vertices)
    proto = _converted(model)
    entry = proto.metadata_props.add()
    entry.key = ENTRY
    entry.value = json_text(build_metadata(preset, name, "float32", vertices, card))
    with atomic_path(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())


def check_converter() -> None:
    """Raise an ImportError that says what to install if tf2onnx or onnxruntime is missing."""
    try:
        import onnxruntime  # noqa: F401
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "ONNX files need tf2onnx and onnxruntime: pip install '.[onnx]'"
        ) from error


def _converted(model):
    import tf2onnx

    function = constant_function(model)
    proto, _ = tf2onnx.convert.from_function(function, function.input_signature, opset=OPSET)
    _name_outputs(proto, sorted(model.output))  # TensorFlow sorts a dictionary's outputs
    return proto


def _name_outputs(proto, names: list[str]) -> None:
    """Rename outputs from Identity:0 and so on to their names, and the dynamic axis to 'batch'."""
    new = {output.name: name for output, name in zip(proto.graph.output, names, strict=True)}
    for node in proto.graph.node:
        for places in (node.input, node.output):
            places[:] = [new.get(place, place) for place in places]
    for output in proto.graph.output:
        output.name = new[output.name]
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
