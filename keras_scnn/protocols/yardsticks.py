"""Results of the protocols on real photos, as a table and as files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_scnn.evaluation.bootstrap import numbers
from keras_scnn.evaluation.report import Row, results_table
from keras_scnn.storage.atomic import staged_files
from keras_scnn.storage.text import json_text, open_utf8


@dataclass(frozen=True)
class Yardstick:
    """Measured numbers and their labels.

    Attributes:
        values: nested dictionaries, dataclasses and sequences of numbers.
        rows: path, label and unit of each row of the table, in order.
        intervals: (low, high) by path, see ``evaluation.bootstrap.with_intervals``.
        notes: what was measured and how, and the trivial baseline if it is a single number.
        left_out: photos that could not be measured, each with its reason.
        passed_over: files of a folder that are neither photos nor their labels.
    """

    values: dict[str, Any]
    rows: tuple[Row, ...]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()


def bootstrap_note(resamples: int, of: str = "people") -> tuple[str, ...]:
    """The note on the intervals; none without resamples."""
    return (f"[95 % interval of {resamples} bootstrap resamples of the {of}]",) * bool(resamples)


def write_yardstick(result: Yardstick, folder: Path, stem: str, inputs: dict[str, Any]) -> str:
    """Write ``stem.json`` and ``stem.txt`` into a folder, both or none.

    Args:
        result: of a protocol.
        folder: for the files.
        stem: of their names.
        inputs: for the JSON, see ``result_names.replaceable_result``.

    Returns:
        the table, as in the .txt file.
    """
    named = {
        "photos": [inputs["data"]],
        "inputs": inputs,
        "values": numbers(result.values),
        "intervals": result.intervals,
        "notes": result.notes,
        "left_out": result.left_out,
        "passed_over": result.passed_over,
        "files": [f"{stem}.txt"],
    }
    # Values may have any name, such as a file's: 'notes', too.
    shown = {
        "values": result.values,
        "intervals": {f"values.{path}": ends for path, ends in result.intervals.items()},
        "notes": result.notes,
        "left_out": result.left_out,
    }
    rows = [(f"values.{path}", label, unit) for path, label, unit in result.rows]
    table = results_table(shown, rows)
    with staged_files(folder) as aside:
        (aside / f"{stem}.json").write_text(json_text(named))
        with open_utf8(aside / f"{stem}.txt") as file:
            file.write(table + "\n")
    return table
