"""The files in a run folder for resuming a run: the last two checkpoints, the state, the curves.

Each file is written atomically, and checkpoints are flushed to the disk. The state names the last
two checkpoints with their checksums. A run resumes from the newer one that is undamaged, with the
random number generators of the layers restored, and so ends like an uninterrupted run.
"""

from __future__ import annotations

import csv
import dataclasses
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np
import yaml

from keras_scnn.settings import SETTINGS, check_at_least, configuration, read_yaml, typed
from keras_scnn.storage import atomic_path
from keras_scnn.storage.claims import sole_run
from keras_scnn.storage.guard import reading
from keras_scnn.storage.outputs import check_out
from keras_scnn.storage.shards import file_digest, is_unused
from keras_scnn.storage.text import read_json, write_json
from keras_scnn.training.config import TrainConfig

STATE, CURVES, CHECKPOINT = "state.json", "curves.csv", "checkpoint-{step}.weights.h5"
KINDS = {"step": int, "seconds": float, "done": bool, "checkpoint": str, "checksum": str}


@dataclass(frozen=True)
class RunState:
    """The progress of a run.

    Attributes:
        step: batches trained on.
        seconds: total training time of all sessions.
        done: the step or time budget is used up.
        checkpoint: file name of the weights and the optimizer's state; '' before the first.
        checksum: SHA-256 of that file; '' if a version before 0.3 wrote it.
        random: states of the network's random number generators, in the order of its variables.
        previous: the state of the previous checkpoint, or None.
    """

    step: int = 0
    seconds: float = 0.0
    done: bool = False
    checkpoint: str = ""
    checksum: str = ""
    random: tuple[tuple[int, ...], ...] = ()
    previous: RunState | None = None


def read_state(folder: Path) -> RunState:
    """The state in a run folder; that of a new run if there is none.

    Raises:
        ValueError: the file is damaged, or missing beside checkpoints, which a new run would
            remove.
    """
    path = folder / STATE
    if not path.is_file():
        # A run that was killed before its first state may leave one checkpoint.
        if len(kept := sorted(folder.glob(CHECKPOINT.format(step="*")))) > 1:
            raise ValueError(
                f"{path}: no such file beside {kept[0].name} and {kept[1].name}, which a new run "
                "would remove: put it back, choose another --run, or delete these"
            )
        return RunState()
    with reading(path, "the state of a run"):
        return _state(read_json(path, "the state of a run"))


def _state(values: dict) -> RunState:
    if missing := {"step", "checkpoint"} - values.keys():
        raise ValueError(f"it has no {' and no '.join(sorted(missing))}")
    previous = values.get("previous")
    random = tuple(tuple(map(int, one)) for one in values.get("random", ()))
    inner = {"previous": None if previous is None else _state(previous), "random": random}
    state = RunState(**{**values, **inner})
    for name, kind in KINDS.items():
        typed(getattr(state, name), kind, name)
    check_at_least("step", state.step)
    check_at_least("seconds", state.seconds)
    if state.checkpoint == ".." or Path(state.checkpoint).name != state.checkpoint:
        raise ValueError(f"the checkpoint {state.checkpoint!r} is not the name of a file")
    return state


def check_kept(folder: Path) -> RunState:
    """The state in a run folder, after checking that its curves are readable too.

    Raises:
        ValueError: one of them is damaged.
    """
    state = read_state(folder)
    if state.checkpoint and (folder / CURVES).is_file():
        _rows(folder / CURVES)
    return state


def save_checkpoint(folder: Path, network: keras.Model, state: RunState) -> RunState:
    """Write the weights, then the state that names them, then remove all but the last two.

    Raises:
        OSError: the disk is full or not writable; the previous checkpoint is kept.
    """
    if keras.backend.backend() == "jax":
        network.jax_state_sync()
    before, path = read_state(folder), folder / CHECKPOINT.format(step=state.step)
    if before.checkpoint == path.name:  # saved twice at the same step
        before = before.previous or RunState()
    try:
        with atomic_path(path, durable=True) as temporary:
            network.save_weights(temporary)
        state = dataclasses.replace(
            state,
            checkpoint=path.name,
            checksum=file_digest(path),
            random=tuple(tuple(v) for v in random_states(network)),
            previous=dataclasses.replace(before, previous=None) if before.checkpoint else None,
        )
        write_json(folder / STATE, asdict(state), durable=True)
    except OSError as error:
        kept = f"; the checkpoint of step {before.step} is kept" if before.checkpoint else ""
        raise OSError(f"{path}: cannot be written ({error}){kept}") from error
    for old in folder.glob(CHECKPOINT.format(step="*")):
        if old.name not in (path.name, before.checkpoint):
            old.unlink()
    return state


def load_checkpoint(folder: Path, network: keras.Model, state: RunState) -> RunState:
    """Restore a compiled network, with its optimizer, from the checkpoint of ``state`` or before.

    Returns:
        the state that was restored.

    Raises:
        ValueError: neither checkpoint can be read.
    """
    problems = []
    for one in (state, state.previous):
        if one is None:
            continue
        try:
            _load(folder / one.checkpoint, network, one)
        except (OSError, ValueError) as error:
            problems.append(str(error))
            continue
        if problems:
            print(f"{problems[0]}; continuing from step {one.step}", file=sys.stderr)
        return one
    raise ValueError(
        f"{'; '.join(problems)}. No checkpoint of the run can be read: choose another --run, or "
        f"delete {folder}"
    )


def _load(path: Path, network: keras.Model, state: RunState) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, but {STATE} names it")
    if state.checksum and file_digest(path) != state.checksum:
        raise ValueError(f"{path}: damaged: its checksum is not the one in {STATE}")
    with reading(path, "a checkpoint of this network"):
        network.optimizer.build(network.trainable_variables)
        network.load_weights(path)
        generators = _generators(network)
        if state.random and len(state.random) != len(generators):
            raise ValueError(f"{len(state.random)} states of {len(generators)} random generators")
        for variable, value in zip(generators, state.random, strict=False):
            variable.assign(np.array(value, variable.dtype))


def random_states(network: keras.Model) -> list[list[int]]:
    """The states of a network's random number generators, which Keras's weight files leave out."""
    return [keras.ops.convert_to_numpy(v).tolist() for v in _generators(network)]


def _generators(network: keras.Model) -> list[keras.Variable]:
    return [v for v in network.variables if v.path.endswith("seed_generator_state")]


def add_to_curves(folder: Path, row: dict[str, float]) -> None:
    """Append a row; called before its checkpoint is saved, so that no row is ever missing."""
    path = folder / CURVES
    _write_rows(path, [*(_rows(path) if path.is_file() else []), row])


def trim_curves(folder: Path, step: int) -> None:
    """Remove rows of steps that will be trained again.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / CURVES
    if path.is_file():
        rows = _rows(path)
        kept = [row for row in rows if float(row["step"]) <= step]
        if not kept:
            path.unlink()
        elif len(kept) < len(rows):
            _write_rows(path, kept)


def has_curves(folder: Path) -> bool:
    """Whether a run has written the first row of its CSV file."""
    return (folder / CURVES).is_file()


def read_curves(folder: Path) -> dict[str, np.ndarray]:
    """The columns of a run's CSV file: (epochs,) float64 each.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged.
    """
    rows = _rows(folder / CURVES)
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}


def _rows(path: Path) -> list[dict]:
    with reading(path, "the curves of a run"), path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
        for number, row in enumerate(rows, 2):
            if None in row or None in row.values():
                raise ValueError(f"line {number} has another number of columns than the first")
            [float(value or "nan") for value in row.values()]
        if not rows or "step" not in rows[0]:
            raise ValueError("there is no row, or no column 'step'")
        if not all(np.isfinite(float(row["step"] or "nan")) for row in rows):
            raise ValueError("a row has no step")
        return rows


def _write_rows(path: Path, rows: list[dict]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def check_run_folder(folder: Path, config: TrainConfig, may_change: tuple[str, ...]) -> None:
    """Check that a run may use this folder: for a new run, or one with the same settings.

    Args:
        folder: the run's.
        config: its settings.
        may_change: settings that a resumed run may change.

    Raises:
        OSError: the folder cannot be written.
        ValueError: the folder holds a run with other settings, or other files; or it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; a run needs a folder, new or of the same run")
    check_out(folder, "--run")
    path = folder / SETTINGS
    if path.is_file():
        values = read_yaml(path)
        if missing := {"run", "seed"} - values.keys():  # else the rest would be defaults
            lost = " and no ".join(sorted(missing))
            raise ValueError(f"{path}: not the settings of a run, or damaged: it has no {lost}")
        there = dataclasses.asdict(configuration(type(config), values, str(path)))
        wanted = dataclasses.asdict(config)
        differ = [n for n in wanted if wanted[n] != there[n] and n not in may_change]
        if differ:
            began = ", ".join(f"{n} {there[n]!r}, not {wanted[n]!r}" for n in differ)
            raise ValueError(
                f"{folder} holds a run that was started with {began}; choose another --run, or "
                f"continue with --resume {folder} without these"
            )
    elif not is_unused(folder):
        raise ValueError(f"{folder} is not empty, and holds no run; choose another --run")


def claim_run_folder(folder: Path, config: TrainConfig, may_change: tuple[str, ...]) -> None:
    """Create a run folder and write the settings into it, if ``check_run_folder`` allows it.

    Raises:
        OSError: it cannot be written, or another run writes to it.
        ValueError: as ``check_run_folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with sole_run(folder):
        check_run_folder(folder, config, may_change)  # again: another run may have begun since
        with atomic_path(folder / SETTINGS, durable=True) as temporary:
            temporary.write_text(yaml.safe_dump(dataclasses.asdict(config), sort_keys=False))
