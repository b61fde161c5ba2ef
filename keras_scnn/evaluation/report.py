"""Results as a text table: every number with its unit and its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

from keras_scnn.evaluation.bootstrap import numbers
from keras_scnn.evaluation.nme import YAW_BINS_DEGREES
from keras_scnn.storage.text import counted

LANDMARKS = {
    "landmarks": "landmark error 2D",
    "landmarks_3d": "landmark error 3D",
    "reannotated": "landmark error 2D, re-annotated",
}
SHAPES = {"shape": "neutral vertices", "shape68": "neutral 68 landmarks"}
Row = tuple[str, str, str]
"""Path of a number, its label and its unit."""
KINDS = {"shape": "shape", "scaled_shape": "scaled shape", "feature": "feature"}
PROBABILITIES = KINDS | {"both": "both"}


def _bin_rows(path: str, label: str, unit: str) -> list[Row]:
    return [
        (f"{path}.{i}", f"{label}, |yaw| {low}-{high}", unit)
        for i, (low, high) in enumerate(YAW_BINS_DEGREES)
    ]


def _landmark_rows(name: str, label: str) -> list[Row]:
    return [
        *_bin_rows(f"{name}.bins_percent", label, "%"),
        (f"{name}.mean_percent", f"{label}, mean of bins", "%"),
        (f"{name}.faces_percent", f"{label}, mean of faces", "%"),
    ]


def _shape_rows(name: str, label: str) -> list[Row]:
    """Rows of the aligned errors, then of the raw ones."""
    rows = []
    for prefix, how in (("", "aligned"), ("raw_", "raw")):
        rows += [
            (f"{name}.{prefix}vertex_mm", f"{label}, {how}", "mm"),
            (f"{name}.{prefix}mean_face_mm", f"{label}, {how}, mean face", "mm"),
            (f"{name}.{prefix}relative", f"{label}, {how}, relative to the mean face", ""),
            (f"{name}.{prefix}explained_variance", f"{label}, {how}, explained variance", ""),
        ]
    return rows


def _identity_rows(name: str, label: str) -> list[Row]:
    verify, retrieval = f"{name}_verification", f"{name}_retrieval"
    return [
        (f"{name}_ratio", f"within / between distance by {label}", ""),
        (f"{verify}.d_prime", f"d-prime by {label}", ""),
        (f"{verify}.accuracy_percent", f"verification by {label}, accuracy", "%"),
        (f"{verify}.auc", f"verification by {label}, AUC", ""),
        (f"{verify}.eer_percent", f"verification by {label}, EER", "%"),
        (
            f"{verify}.tar_percent_at_far_1e2",
            f"verification by {label}, TAR at FAR 1e-2",
            "%",
        ),
        (
            f"{verify}.tar_percent_at_far_1e3",
            f"verification by {label}, TAR at FAR 1e-3",
            "%",
        ),
        (f"{retrieval}.rank1_percent", f"retrieval by {label}, rank 1", "%"),
        (f"{retrieval}.rank5_percent", f"retrieval by {label}, rank 5", "%"),
        (f"{retrieval}.mean_reciprocal_rank", f"retrieval by {label}, mean reciprocal rank", ""),
    ]


ROWS: list[Row] = [
    *(row for name, label in LANDMARKS.items() for row in _landmark_rows(name, label)),
    ("dense_percent", "dense vertex error 2D", "%"),
    ("dense_3d_percent", "dense vertex error 3D", "%"),
    *((f"pose.{n}_degrees", f"pose error, {n}", "degrees") for n in ("yaw", "pitch", "roll")),
    ("pose.mean_degrees", "pose error, mean", "degrees"),
    *_bin_rows("pose.bins_degrees", "pose error, mean", "degrees"),
    ("pose.rotation_degrees", "pose error, rotation", "degrees"),
    *_bin_rows("pose.rotation_bins_degrees", "pose error, rotation", "degrees"),
    *(row for name, label in SHAPES.items() for row in _shape_rows(name, label)),
    ("model_mean_mm", "neutral 68 landmarks, aligned, the face model's mean face", "mm"),
    *(row for name, label in KINDS.items() for row in _identity_rows(name, label)),
    *(
        (
            f"calibration.{kind}.expected_calibration_error",
            f"probability of one person by {label}, expected calibration error",
            "",
        )
        for kind, label in PROBABILITIES.items()
    ),
]
"""Path, label and unit of every number in a table, in order."""


SUMMARY: tuple[Row, ...] = (
    ("landmarks.mean_percent", "landmark error 2D, mean of bins", "%"),
    ("landmarks_3d.mean_percent", "landmark error 3D, mean of bins", "%"),
    ("pose.mean_degrees", "pose error", "°"),
    ("shape.vertex_mm", "neutral shape, error", "mm"),
    ("shape.relative", "neutral shape, error relative to the mean face", ""),
    ("shape.explained_variance", "neutral shape, explained variance", ""),
    ("shape_verification.accuracy_percent", "same person? by shape", "%"),
    ("scaled_shape_verification.accuracy_percent", "same person? by scaled shape", "%"),
    ("feature_verification.accuracy_percent", "same person? by feature", "%"),
    ("shape_ratio", "distance within / between people, shape", ""),
    ("feature_ratio", "distance within / between people, feature", ""),
)
"""Path, label and unit of the rows of ``summary_table``."""


def summary_table(columns: dict[str, dict[str, float]]) -> str:
    """The rows of ``SUMMARY`` as lines of text, with a column per network or baseline.

    Args:
        columns: by the column's heading: numbers by path (``bootstrap.numbers``). A missing or NaN
            number is left blank, and a row without numbers is left out.
    """
    rows = [["", *columns]]
    for path, label, unit in SUMMARY:
        cells = [_short(column.get(path, math.nan), unit) for column in columns.values()]
        if any(cells):
            rows.append([label, *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    )


def _short(value: float, unit: str) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.1f} {unit}" if unit == "%" and value >= 20 else f"{value:.2f} {unit}".rstrip()


def results_table(results: dict, chosen: Sequence[Row] = ()) -> str:
    """The results of ``evaluate`` as lines of text: notes first, then one number per line.

    Args:
        results: a results dataclass as nested dictionaries (``dataclasses.asdict``).
        chosen: the rows to show; () for ``ROWS``.
    """
    rows = table_rows(results, chosen)
    width = max((len(name) for name, _ in rows), default=0)
    lines = [f"{name:<{width}}  {value}".rstrip() for name, value in rows]
    left_out = results.get("left_out", ())
    if left_out:
        lines.append(f"left out: {counted(len(left_out), 'photo')} that could not be measured")
    return "\n".join([*results.get("notes", ()), *lines])


def table_rows(results: dict, chosen: Sequence[Row] = ()) -> list[tuple[str, str]]:
    """Label and value of each row of the table, without numbers that were not measured."""
    values, intervals = numbers(results), results.get("intervals", {})
    return [
        (label, f"{_with_unit(values[path], unit)}{_interval(intervals.get(path), unit)}{count}")
        for path, label, unit in chosen or ROWS
        if not math.isnan(values.get(path, math.nan))
        for count in [_count(results, path)]
    ]


def _with_unit(value: float, unit: str) -> str:
    return f"{value:7.2f} {unit:<7}" if unit else f"{value:8.3f}{'':<7}"


def _interval(ends: tuple[float, float] | None, unit: str) -> str:
    """With the decimals of ``_with_unit``; otherwise the interval might not contain the number."""
    if ends is None or math.isnan(ends[0]):
        return ""
    decimals = 2 if unit else 3
    return f"  [{ends[0]:.{decimals}f}, {ends[1]:.{decimals}f}]"


def _count(results: dict, path: str) -> str:
    """The number of faces in a bin of yaw, as text; '' for other rows."""
    name, _, rest = path.partition(".")
    if not rest.startswith("bins_percent."):
        return ""
    return f"  ({counted(results[name]['bins_count'][int(rest[-1])], 'face')})"
