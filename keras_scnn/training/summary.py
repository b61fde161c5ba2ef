"""The summary of a training run: why it ended, and its results beside those before training."""

from __future__ import annotations

import math
from pathlib import Path

from keras_scnn.data.records import FaceRecords
from keras_scnn.evaluation.bootstrap import numbers
from keras_scnn.evaluation.report import summary_table
from keras_scnn.models import Preset
from keras_scnn.protocols.records import RecordResults, baseline, evaluate_records
from keras_scnn.settings import typed
from keras_scnn.storage.guard import reading
from keras_scnn.storage.text import read_json, write_json
from keras_scnn.training.checkpoints import RunState

BEFORE, CONSTANT = "before.json", "constant.json"
CONSTANT_LABEL = "training mean, chance"


def measure_before(folder: Path, preset: Preset, records: FaceRecords) -> None:
    """Save the results of a network before training, for ``run_table``."""
    _write(folder / BEFORE, numbers(evaluate_records(preset, records, resamples=0)))


def read_before(folder: Path) -> dict[str, dict]:
    """The results of ``measure_before``, as a column for ``run_table``; none in older folders.

    Raises:
        ValueError: the file is damaged.
    """
    values = _read(folder / BEFORE, "the results before training")
    return {"before training": values} if values else {}


def measure_constant(folder: Path, preset: Preset, records: FaceRecords) -> dict[str, float]:
    """The results of ``protocols.records.baseline``, which are also saved for ``read_constant``."""
    return _write(folder / CONSTANT, baseline(preset, records))


def read_constant(folder: Path) -> dict[str, float]:
    """The results of ``measure_constant``; none in older folders.

    Raises:
        ValueError: the file is damaged.
    """
    return _read(folder / CONSTANT, "the results of a constant prediction")


def _write(path: Path, measured: dict[str, float]) -> dict[str, float]:
    known = {name: value for name, value in measured.items() if math.isfinite(value)}
    write_json(path, known)
    return known


def _read(path: Path, what: str) -> dict[str, float]:
    if not path.is_file():
        return {}
    with reading(path, what):
        values = dict(read_json(path, what))
        return {name: typed(one, float, name) for name, one in values.items()}


def run_table(folder: Path, constant: dict[str, float], results: RecordResults) -> str:
    """A table of about ten rows: before training, trained, and the trivial baseline.

    Args:
        folder: of the run, see ``read_before``.
        constant: see ``measure_constant``.
        results: of the trained network.
    """
    trained = numbers(results)
    measured = {path for path, value in trained.items() if not math.isnan(value)}
    lowest = {path: value for path, value in constant.items() if path in measured}
    return summary_table(read_before(folder) | {"trained": trained, CONSTANT_LABEL: lowest})


def ending(state: RunState, steps: int, minutes: float) -> str:
    """One line on why a run of at most ``steps`` and ``minutes`` ended, and how far it came."""
    took = f"{state.step} of {steps} batches in {state.seconds / 60:.1f} minutes"
    if state.step < steps and 0 < 60 * minutes <= state.seconds:
        limit = f"the time limit of {minutes:g} minutes ended training"
        return f"{limit}: {took}, {state.step / steps:.0%}; raise --minutes to continue"
    return f"training ended: {took}"
