"""A release: presets made from data in steps; steps that are done are skipped.

The file of a release (YAML; ``recipes/release.yaml``) contains

    license: text for the presets' metadata
    prepare: {RECORDS: arguments of keras_scnn.prepare, ...}      face records, by name
    presets:
      NAME:
        runs: [{settings of keras_scnn.train}, ...]   each starts from the result of the previous
        shares: [weight of each run in the mean of their weights, ...]; 0 for a run that is only
            the start of the next
        records: the records that were trained on, separated by commas; those of people last
        held_out: number of people, the last of the records, who were not trained on
        solve_features: true to solve the feature head again at the end
        calibrate: arguments of keras_scnn.evaluate, for the probabilities of the same person
        measure: {NAME: arguments of keras_scnn.evaluate, ...}
        about: text for the card

In arguments and settings, ``{data}`` is the folder of the data sets and ``{work}`` that of the
intermediate results, in which records are ``{work}/records/NAME`` and runs
``{work}/runs/PRESET-1`` and so on.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import io
import os
import shlex
import shutil
import subprocess
import sys
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from keras_scnn.models.backend import start_keras
from keras_scnn.settings import (
    CommandParser,
    Terminated,
    check_at_least,
    command,
    configuration,
    did_you_mean,
    folders_of,
    read_yaml,
    typed,
    whole,
)
from keras_scnn.storage import atomic_path
from keras_scnn.storage.guard import existing_file, reading
from keras_scnn.storage.outputs import check_out
from keras_scnn.storage.remote import place
from keras_scnn.storage.text import open_utf8, read_json, read_plain_yaml
from keras_scnn.training.config import TrainConfig
from keras_scnn.training.digests import content_digest, run_digests
from keras_scnn.training.recipes import recipe_path
from keras_scnn.training.release_steps import Steps

STEPS = ("prepare", "train", "assemble", "calibrate")
PATIENCE = 120.0  # seconds for a stopped command to finish a training step and a checkpoint
Run = Callable[[str, list[str], dict[str, str]], int]
"""Runs a command, from its module, arguments and extra environment; returns the exit status."""


@dataclass(frozen=True)
class PresetPlan:
    """How one preset is made; see the module."""

    runs: list[dict]
    records: str
    shares: list[float] = field(default_factory=lambda: [1.0])
    held_out: int = 30
    solve_features: bool = False
    calibrate: str = ""
    measure: dict[str, str] = field(default_factory=dict)
    about: str = ""

    def __post_init__(self) -> None:
        if not self.runs or len(self.runs) != len(self.shares):
            raise ValueError(f"{len(self.runs)} runs, {len(self.shares)} shares; give one per run")
        for share in self.shares:
            check_at_least("a share", share)
        if not self.shares[-1]:
            raise ValueError(f"shares are {self.shares}; they must be 0 or more, the last above 0")
        whole("held_out", self.held_out, 0)
        _check_names("measure", self.measure)


@dataclass(frozen=True)
class ReleasePlan:
    """The content of a release's file; see the module."""

    license: str
    presets: dict[str, PresetPlan]
    prepare: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_names("presets", self.presets)
        _check_names("prepare", self.prepare)


def _check_names(what: str, names: Iterable[str]) -> None:
    """Refuse names that are not valid for files, or that another step uses for its files."""
    for name in names:
        if not name.strip(".") or set(name) & set("/\\:"):
            raise ValueError(f"{what}: the name {name!r} is not a valid file name")
        if what == "measure" and name in STEPS:
            raise ValueError(f"{what}: the name {name!r} is in use by a step; choose another")


def read_plan(path: str | os.PathLike) -> ReleasePlan:
    """Read the file of a release.

    Raises:
        FileNotFoundError: there is no such file.
        IsADirectoryError: it is a folder.
        ValueError: it is not YAML, or a key is missing, unknown or wrong.
    """
    what = "the file of a release"
    path = existing_file(path, f"{what}, in YAML")
    with reading(path, what):
        content = read_plain_yaml(path, what)
        plan = _with_keys(ReleasePlan, content, path)
        presets = _names_and_values(plan.presets, f"{path}: presets")
        made = {n: _with_keys(PresetPlan, p, f"{path}: presets: {n}") for n, p in presets.items()}
        return dataclasses.replace(plan, presets=made)


def _with_keys(cls, content, where):
    """A dataclass from names and values; raises a ValueError that begins with ``where``."""
    known = {f.name: f for f in dataclasses.fields(cls)}
    for name in _names_and_values(content, where):
        if name not in known:
            similar = did_you_mean(str(name), known)
            raise ValueError(
                f"{where}: unknown key '{name}'{similar}; choose from {', '.join(known)}"
            )
    for name, one in known.items():
        has_default = {one.default, one.default_factory} != {dataclasses.MISSING}
        if name not in content and not has_default:
            raise ValueError(f"{where}: the key '{name}' is missing")
    kinds = typing.get_type_hints(cls)
    values = {n: _of_kind(one, kinds[n], f"{where}: {n}") for n, one in content.items()}
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _of_kind(value, kind, where):
    """A value of a YAML file, checked against its field's type; raises a ValueError."""
    parts, base = typing.get_args(kind), typing.get_origin(kind) or kind
    if base is dict:
        named = _names_and_values(value, where).items()
        return {n: _of_kind(one, parts[1], f"{where}: {n}") if parts else one for n, one in named}
    if base is list:
        numbered = enumerate(typed(value, list, where), start=1)
        return [_of_kind(one, parts[0], f"{where}: {number}") for number, one in numbered]
    # Dataclasses are checked when they are created.
    return value if dataclasses.is_dataclass(base) else typed(value, base, where)


def _names_and_values(content, where) -> dict:
    if not isinstance(content, dict):
        raise ValueError(f"{where}: must hold names and values, not {type(content).__name__}")
    if odd := [name for name in content if not isinstance(name, str)]:
        raise ValueError(f"{where}: the name {odd[0]!r} is not text; put it in quotes")
    return content


def run_command(module: str, words: list[str], environment: dict[str, str]) -> int:
    """Run a command of the package in its own process, which may use another backend.

    If this process is stopped, so is the command, with time to write a checkpoint.
    """
    line = [sys.executable, "-m", module, *words]
    with subprocess.Popen(line, env={**os.environ, **environment}) as process:
        try:
            return process.wait()
        except KeyboardInterrupt as stop:
            if isinstance(stop, Terminated):  # Ctrl-C reaches all processes of a terminal
                process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
            raise
        finally:
            process.kill()  # if it still runs


def _check_words(module: str, words: list[str], where: str) -> None:
    """Raise a ValueError if a command of the package does not accept these arguments."""
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output):
            importlib.import_module(f"keras_scnn.{module}").parse(words)
    except (SystemExit, ValueError) as error:
        reason = output.getvalue().strip().rpartition("error: ")[2] or error
        raise ValueError(f"{where}: keras-scnn {module} {shlex.join(words)}: {reason}") from None


class Release:
    """Makes the presets of a plan.

    Args:
        plan: see ``read_plan``.
        data, work: folders of the data sets, and of intermediate results.
        out: folder of the presets.
        run: runs a command.
    """

    def __init__(
        self, plan: ReleasePlan, data: Path, work: Path, out: Path, run: Run = run_command
    ):
        self._plan, self._run, self._out = plan, run, out
        self._places = {"data": str(data), "work": str(work)}
        self._work, self._steps = work, Steps(work / "steps")

    def check(self) -> None:
        """Raise a ValueError for an invalid command or run of the plan, before any is started."""
        for name, words in self._plan.prepare.items():
            _check_words("prepare", [*self._filled(words), "--out", name], f"prepare: {name}")
        for name, plan in self._plan.presets.items():
            where = f"presets: {name}"
            for number, (_, settings) in enumerate(self._runs(name, plan), start=1):
                configuration(TrainConfig, settings, f"{where}: run {number}")
            for what, words in ({"calibrate": plan.calibrate} | plan.measure).items():
                if words:
                    _check_words("evaluate", [name, *self._filled(words)], f"{where}: {what}")

    def make(self) -> None:
        """Do all steps of all presets.

        Raises:
            RuntimeError: a command failed.
        """
        for name, words in self._plan.prepare.items():
            self._prepare(name, self._filled(words))
        for name, plan in self._plan.presets.items():
            runs = self._train(name, plan)
            self._assemble(name, plan, runs)
            if plan.calibrate:
                calibration = [*self._filled(plan.calibrate), "--calibrate"]
                self._evaluation(name, "calibrate", calibration)
            results = {
                what: self._measure(name, what, self._filled(words))
                for what, words in plan.measure.items()
            }
            self._write_card(name, plan, results)

    def _filled(self, words: str) -> list[str]:
        try:
            return [self._value(word) for word in shlex.split(words)]
        except ValueError as error:
            raise ValueError(f"'{words}': {error}") from None

    def _inputs(self, words: list[str]) -> dict:
        """A command's arguments, and digests of the files and folders that they name."""
        named = (Path(part) for word in words for part in folders_of(word.rpartition("=")[2]))
        made = self._work, self._out
        files = [content_digest(path, made, with_times=True) for path in named if path.exists()]
        return {"words": words, "files": files}

    def _command(self, module: str, words: list[str], allowed=(0,), environment=None) -> None:
        status = self._run(f"keras_scnn.{module}", words, environment or {})
        if status not in allowed:
            line = f"keras_scnn.{module} {shlex.join(words)}"
            raise RuntimeError(f"{line} failed with exit status {status}")

    def _prepare(self, name: str, words: list[str]) -> None:
        result = self._work / "records" / name
        inputs = self._inputs(words)
        command = [*words, "--out", str(result)]
        self._steps.do(
            f"prepare-{name}",
            inputs,
            result,
            # Exit status 1: some photos were left out, and listed.
            lambda: self._command("prepare", command, (0, 1)),
            continues=[result],
        )

    def _train(self, name: str, plan: PresetPlan) -> list[Path]:
        """Do the preset's runs; return their folders."""
        runs = self._runs(name, plan)
        folders = [folder for folder, _ in runs]
        for number, (_, settings) in enumerate(runs, start=1):
            self._train_one(f"train-{name}-{number}", folders[number - 1 :], settings)
        return folders

    def _runs(self, name: str, plan: PresetPlan) -> list[tuple[Path, dict]]:
        """Folder and settings of each run; each starts from the network of the previous one.

        A run's own settings override that start, which overrides the settings of its recipe.
        """
        runs: list[tuple[Path, dict]] = []
        for number, settings in enumerate(plan.runs, start=1):
            own = {key: self._value(value) for key, value in settings.items()}
            recipe = typed(own.pop("recipe", ""), str, f"presets: {name}: run {number}: recipe")
            start = {"start": str(runs[-1][0]), "start_with": "network"} if runs else {}
            values = (read_yaml(recipe_path(recipe)) if recipe else {}) | start | own
            runs.append((self._work / "runs" / f"{name}-{number}", values))
        return runs

    def _value(self, value):
        if not isinstance(value, str):
            return value
        try:
            return value.format(**self._places)
        except (LookupError, ValueError):
            what = f"'{value}': only {{data}} and {{work}} are allowed in braces"
            raise ValueError(what) from None

    def _train_one(self, step: str, folders: list[Path], settings: dict) -> None:
        """Do the run of the first folder, from which those of the other folders start."""
        folder = folders[0]
        path = self._work / "runs" / f"{folder.name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        config = configuration(TrainConfig, settings, step)
        path.write_text(yaml.safe_dump(settings, sort_keys=False))
        inputs = {"settings": settings} | run_digests(config)
        backend = {"KERAS_BACKEND": "jax"} if config.batches == "matching" else {}
        words = ["--config", str(path), "--run", str(folder)]
        self._steps.do(
            step,
            inputs,
            folder / "weights.npz",
            lambda: self._command("train", words, environment=backend),
            continues=folders,
        )

    def _assemble(self, name: str, plan: PresetPlan, runs: list[Path]) -> None:
        """Write the preset: the runs' mean, its within-person covariance, a solved feature head."""
        from keras_scnn.training.release_weights import assemble

        records = self._value(plan.records)
        inputs = {
            "runs": [content_digest(run) for run in runs],
            "data": [content_digest(place(folder)) for folder in folders_of(records)],
            "plan": [plan.shares, plan.held_out, plan.solve_features, self._plan.license],
        }
        options = plan.shares, records, plan.held_out, plan.solve_features, self._plan.license

        def make() -> None:
            self._steps.forget(f"calibrate-{name}")  # its result is written into the preset
            assemble(self._out / name, runs, *options)

        self._steps.do(f"assemble-{name}", inputs, self._out / name / "weights.npz", make)

    def _evaluation(self, name: str, what: str, words: list[str]) -> None:
        folder = self._work / "results" / f"{name}-{what}"
        inputs = self._inputs(words) | {"preset": content_digest(self._out / name)}
        command = [str(self._out / name), *words, "--out", str(folder)]

        def make() -> None:
            if folder.is_dir():  # results of another protocol would stay, under other names
                shutil.rmtree(folder)
            self._command("evaluate", command)

        self._steps.do(f"{what}-{name}", inputs, folder, make)

    def _measure(self, name: str, what: str, words: list[str]) -> dict:
        """Evaluate a protocol; return its results."""
        self._evaluation(name, what, words)
        (path,) = (self._work / "results" / f"{name}-{what}").glob("*.json")
        return read_json(path)

    def _write_card(self, name: str, plan: PresetPlan, results: dict[str, dict]) -> None:
        from keras_scnn.training.release_weights import card

        text = card(name, self._out / name, dataclasses.asdict(plan), results)
        path = self._out / name / "CARD.md"
        with atomic_path(path) as temporary, open_utf8(temporary) as file:
            file.write(text)
        print(f"written: {self._out / name}")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse a command line."""
    parser = CommandParser("release", __doc__.split("\n")[0])
    add = parser.add_argument
    add("plan", type=Path, metavar="FILE.yaml", help="plan of the release")
    data, work, out = map(Path, ("data", "release", "presets"))
    add("--data", type=Path, default=data, metavar="DIR", help=f"folder of the data sets ({data})")
    add("--work", type=Path, default=work, metavar="DIR", help=f"for records and runs ({work})")
    add("--out", type=Path, default=out, metavar="DIR", help=f"for the presets ({out})")
    return parser.parse_args(arguments)


@command
def main(arguments: list[str] | None = None) -> None:
    """The command; ``arguments`` as on the command line."""
    args = parse(arguments)
    check_out(args.work, "--work")
    check_out(args.out, "--out")
    release = Release(read_plan(args.plan), args.data, args.work, args.out)
    release.check()
    start_keras()
    release.make()


if __name__ == "__main__":
    sys.exit(main())
