"""Formats and precisions of exported files; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence

from keras_scnn.settings import did_you_mean

FORMATS = {
    "tflite": "-{precision}.tflite",
    "onnx": ".onnx",
    "savedmodel": "-savedmodel",
    "bundle": "-{precision}-bundle",
}
"""Formats, and what their files' (for the last two: folders') names append to the preset's."""
QUANTIZE = ("float32", "float16", "dynamic", "int8")
QUANTIZED = ("tflite", "bundle")
"""Formats that support all of these precisions; the others are float32."""


def file_name(name: str, kind: str, precision: str) -> str:
    """The name of an exported file, e.g. 'aflw-mobilenet-0.5-int8.tflite'."""
    return name + FORMATS[kind].format(precision=precision)


def check_names(kind: str, precision: str = "float32") -> None:
    """Raise a ValueError for an unknown format or precision, or an unsupported combination."""
    if kind not in FORMATS:
        similar = did_you_mean(kind, FORMATS)
        raise ValueError(f"unknown format '{kind}'{similar}; choose from {', '.join(FORMATS)}")
    if precision not in QUANTIZE:
        similar = did_you_mean(precision, QUANTIZE)
        known = ", ".join(QUANTIZE)
        raise ValueError(f"unknown precision '{precision}'{similar}; choose from {known}")
    if kind not in QUANTIZED and precision != "float32":
        raise ValueError(
            f"{kind} is written in float32; '{precision}' is for {' and '.join(QUANTIZED)}"
        )


def jobs_of(
    kinds: Sequence[str],
    precisions: Sequence[str],
    names: tuple[str, str] = ("kinds", "precisions"),
) -> list[tuple[str, str]]:
    """(format, precision) of each file to write, without duplicates; errors as ``check_names``.

    Args:
        kinds: some of ``FORMATS``.
        precisions: of the formats in ``QUANTIZED``; the others are float32.
        names: of the two arguments, in errors.

    Raises:
        TypeError: a str instead of a sequence of them.
        ValueError: precisions other than float32 without a format that has them, or no file.
    """
    for name, value in zip(names, (kinds, precisions), strict=True):
        if isinstance(value, str):
            raise TypeError(f"{name} is '{value}'; it must be a sequence, such as ['{value}']")
    jobs = [(k, p) for k in kinds for p in (precisions if k in QUANTIZED else ["float32"])]
    for kind, precision in [*jobs, *((QUANTIZED[0], one) for one in precisions)]:
        check_names(kind, precision)
    to, quantize = names
    other = [one for one in precisions if one != "float32"]
    if other and not set(QUANTIZED) & set(kinds):
        given, known = ", ".join(f"'{one}'" for one in other), " or ".join(QUANTIZED)
        raise ValueError(f"{quantize}: {given} needs {known}; add one to {to}")
    if not (jobs and precisions):
        raise ValueError(f"{to} and {quantize} name nothing; formats are {', '.join(FORMATS)}")
    return list(dict.fromkeys(jobs))
