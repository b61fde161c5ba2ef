"""What can be exported; read by the command before anything heavy is imported."""

from __future__ import annotations

from keras_scnn.settings import did_you_mean

FORMATS = {"tflite": "-{precision}.tflite", "onnx": ".onnx", "savedmodel": "-savedmodel"}
"""What the names of a format's files (of the last: folders) end in after the preset's."""
QUANTIZE = ("float32", "float16", "dynamic", "int8")


def file_name(name: str, kind: str, precision: str) -> str:
    """The name of an exported file, e.g. 'aflw-mobilenet-0.5-int8.tflite'."""
    return name + FORMATS[kind].format(precision=precision)


def check_names(kind: str, precision: str = "float32") -> None:
    """Raise a ValueError for an unknown format or precision, or for two that do not fit."""
    if kind not in FORMATS:
        similar = did_you_mean(kind, FORMATS)
        raise ValueError(f"unknown format '{kind}'{similar}; known are {', '.join(FORMATS)}")
    if precision not in QUANTIZE:
        similar = did_you_mean(precision, QUANTIZE)
        known = ", ".join(QUANTIZE)
        raise ValueError(f"unknown precision '{precision}'{similar}; known are {known}")
    if kind != "tflite" and precision != "float32":
        raise ValueError(f"{kind} is written in float32; '{precision}' is for tflite")
