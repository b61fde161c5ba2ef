"""Kill a training run repeatedly, and check that it ends like an uninterrupted one.

    python tests/fuzz/kills.py --kills 200

A tiny run of augmented pairs, with a checkpoint every two steps, is killed (SIGKILL) after a random
time and started again until it ends; its weights, curves and state must be those of a run that was
never killed, and nothing half-written may be left.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import keras
from tiny_encoder import known_encoder

from keras_scnn.protocols import records
from keras_scnn.training import run
from keras_scnn.training.config import TrainConfig

STEPS, STEPS_PER_EPOCH, RESAMPLES = 12, 2, 20


def config(folder: Path, cache: Path, encoder: str) -> TrainConfig:
    """Pairs of six rendered people, augmented inside of the network."""
    return TrainConfig(
        run=str(folder), cache=str(cache), encoder=encoder, start="", people=6, photos=4,
        held_out=2, crop_size=32, feature_size=8, batch_size=2, warmup=1, minutes=0.0,
        steps=STEPS, augmentation=1.0, tensorboard=False, fresh=False,
    )  # fmt: skip


def make_quick() -> None:
    """Epochs of two steps, run op by op, for tracing takes longer; few bootstrap resamples."""
    compiled, whole = keras.Model.compile, records.with_intervals

    def eager(self, *args, **kwargs):
        compiled(self, *args, **kwargs)
        self.run_eagerly = True

    keras.Model.compile = eager
    records.with_intervals = lambda summary, groups, _, seed: whole(
        summary, groups, RESAMPLES, seed
    )
    run.STEPS_PER_EPOCH = STEPS_PER_EPOCH


def start(settings: TrainConfig, log: Path) -> int:
    """Train in a process of its own; return its number."""
    if process := os.fork():
        return process
    with log.open("a") as file:  # only the child comes here
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        status = 1
        try:
            make_quick()
            run.train(settings)
            status = 0
        finally:
            os._exit(status)


def finished(process: int, seconds: float) -> bool:
    """Wait for a process; kill it if it takes longer. True if it ended by itself.

    Raises:
        RuntimeError: it failed.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            if status:
                raise RuntimeError(f"the run failed with status {status}")
            return True
        time.sleep(0.02)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return False


def kept(folder: Path) -> dict:
    """The results that must equal those of an uninterrupted run."""
    state = json.loads((folder / "state.json").read_text())
    curves = [line.split(",") for line in (folder / "curves.csv").read_text().splitlines()]
    seconds = curves[0].index("seconds")
    with np.load(folder / "weights.npz", allow_pickle=False) as file:
        weights = {name: file[name].tobytes() for name in file.files}
    return {
        "step": state["step"],
        "random": state["random"],
        "curves": [[v for i, v in enumerate(row) if i != seconds] for row in curves],
        "weights": weights,
        "leftovers": sorted(path.name for path in folder.glob(".partial-*")),
    }


def compare_killed(kills: int, seed: int, place: Path) -> tuple[int, int, list[str]]:
    """Repeat runs until ``kills`` kills have happened.

    Returns:
        kills, runs, and how runs differ from the one that was not killed.
    """
    rng, counted, runs, differing = np.random.default_rng(seed), 0, 0, []
    with known_encoder() as encoder, tqdm(total=kills) as bar:
        whole = config(place / "whole", place / "cache", encoder)
        for _ in range(2):  # the first renders the people
            shutil.rmtree(place / "whole", ignore_errors=True)
            began = time.monotonic()
            assert finished(start(whole, place / "log.txt"), 600)
        longest, expected = time.monotonic() - began, kept(place / "whole")
        while counted < kills:
            folder = place / f"run-{runs}"
            settings = config(folder, place / "cache", encoder)
            while not finished(
                start(settings, place / "log.txt"),
                rng.uniform(0, longest) if counted < kills else 600.0,
            ):
                counted += 1
                bar.update()
            runs += 1
            differing += [
                f"{folder.name}: {k}" for k, v in kept(folder).items() if v != expected[k]
            ]
            shutil.rmtree(folder)
    return counted, runs, differing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--place", type=Path, help="folder to keep; else a temporary one")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        place = args.place or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place.mkdir(parents=True, exist_ok=True)
        counted, runs, differing = compare_killed(args.kills, args.seed, place)
    print(f"{counted} kills in {runs} runs; {len(differing)} differ from the uninterrupted one")
    print("\n".join(differing))
    return bool(differing)


if __name__ == "__main__":
    sys.exit(main())
