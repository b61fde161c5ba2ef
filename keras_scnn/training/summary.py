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

BEFORE = "before.json"


def measure_before(folder: Path, preset: Preset, records: FaceRecords) -> None:
    """Save the results of a network before training, for ``run_table``."""
    measured = numbers(evaluate_records(preset, records, resamples=0))
    known = {path: value for path, value in measured.items() if math.isfinite(value)}
    write_json(folder / BEFORE, known)


def read_before(folder: Path) -> dict[str, dict]:
    """The results of ``measure_before``, as a column for ``run_table``; none in older folders.

    Raises:
        ValueError: the file is damaged.
    """
    path, what = folder / BEFORE, "the results before training"
    if not path.is_file():
        return {}
    with reading(path, what):
        values = dict(read_json(path, what))
        return {"before training": {n: typed(one, float, n) for n, one in values.items()}}


def run_table(folder: Path, preset: Preset, records: FaceRecords, results: RecordResults) -> str:
    """A table of about ten rows: before training, trained, and the trivial baseline.

    Args:
        folder: of the run, see ``read_before``.
        preset: the trained network. results: of the trained network on the records.
    """
    trained = numbers(results)
    measured = {path for path, value in trained.items() if not math.isnan(value)}
    lowest = {p: value for p, value in baseline(preset, records).items() if p in measured}
    columns = {"trained": trained, "training mean, chance": lowest}
    return summary_table(read_before(folder) | columns)


def ending(state: RunState, steps: int, minutes: float) -> str:
    """One line on why a run of at most ``steps`` and ``minutes`` ended, and how far it came."""
    took = f"{state.step} of {steps} batches in {state.seconds / 60:.1f} minutes"
    if state.step < steps and 0 < 60 * minutes <= state.seconds:
        limit = f"the time limit of {minutes:g} minutes ended training"
        return f"{limit}: {took}, {state.step / steps:.0%}; raise --minutes to continue"
    return f"training ended: {took}"
