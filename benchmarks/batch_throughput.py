"""Compare the batch command, from files to Parquet, with the network alone: crops per second.

    python benchmarks/batch_throughput.py

Both run alternately in the same worker processes, one per core with one thread each: one shard of
JPEG crops to a Parquet file, then as many decoded crops through the network alone, so that the
ratio does not depend on other load on the machine. The whole command, including the start of Python
and TensorFlow in every worker, is timed as well, and the memory of its processes is measured.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import PIL.Image

from keras_scnn.data.synthesis.rendered_people import SyntheticConfig, render_person
from keras_scnn.folders.batch import BatchSettings
from keras_scnn.folders.job import FACES, FolderJob
from keras_scnn.models.inference import MAX_BATCH
from keras_scnn.models.presets import load_preset
from keras_scnn.storage.shards import WORKER_ENVIRONMENT, run_shards

SIZE, SHARD = 120, 256


def write_crops(folder: Path, count: int) -> list[str]:
    """Write JPEG files of synthetic faces, of which only a hundred are different."""
    crops = [c for person in range(20) for c in render_person(SyntheticConfig(photos=5), person)[0]]
    names = [f"{i:06d}.jpg" for i in range(count)]
    for i, name in enumerate(names):
        PIL.Image.fromarray(crops[i % len(crops)]).save(folder / name, quality=90)
    return names


def clocks() -> np.ndarray:
    """Wall-clock seconds, and the CPU seconds of this process."""
    return np.array([time.perf_counter(), time.process_time()])


@dataclass(eq=False)
class Contest:
    """Times one shard of the command and as many crops through the bare network, alternately."""

    job: FolderJob
    rounds: int

    def make(self, number: int, names: list[str]) -> list[np.ndarray]:
        """Seconds per crop, (2, 2), for each round after a warm-up.

        Rows: command and network. Columns: wall-clock time and CPU time.
        """
        self._both(number, names)
        return [self._both(number, names) for _ in range(self.rounds)]

    def _both(self, number: int, names: list[str]) -> np.ndarray:
        crops = np.zeros((MAX_BATCH, SIZE, SIZE, 3), np.uint8)
        start = clocks()
        self.job.make(number, names)
        middle = clocks()
        for _ in range(len(names) // MAX_BATCH):
            self._branch.predict_on_batch(crops)
        return np.array([middle - start, clocks() - middle]) / len(names)

    @cached_property
    def _branch(self) -> keras.Model:
        return load_preset(self.job.settings.preset).branch


def ratio(folder: Path, out: Path, names: list[str], workers: int, rounds: int) -> None:
    """Print the speeds from files to Parquet and of the bare network, measured alternately."""
    shards = [names[i * SHARD : (i + 1) * SHARD] for i in range(workers)]
    (out / FACES).mkdir(parents=True)
    settings = replace(BatchSettings(crops=True), shard_photos=SHARD)
    job = FolderJob(folder, out, settings, {}, [""] * workers)
    os.environ.update(WORKER_ENVIRONMENT)
    total = run_shards(Contest(job, rounds), dict(enumerate(shards)), workers)
    times = np.array([pair for _, pairs in total for pair in pairs])
    command, network = workers / np.median(times[:, :, 0], axis=0)
    print(f"{workers} workers, crops/s: files to Parquet {command:,.0f}, bare {network:,.0f}")
    clock, cpu = np.median(times[:, 0] / times[:, 1], axis=0)
    print(f"files to Parquet / bare network, median of pairs: time {clock:.2f}, CPU time {cpu:.2f}")


def whole_command(folder: Path, out: Path, count: int, workers: int) -> None:
    """Run the whole command, and measure the memory of its processes once a second.

    Raises:
        CalledProcessError: the command failed, so its time is no result.
    """
    words = ["-m", "keras_scnn.reconstruct", str(folder), "--out", str(out), "--crops"]
    start = time.perf_counter()
    run = subprocess.Popen([sys.executable, *words, "--workers", str(workers)])
    series = []
    while run.poll() is None:
        series.append(memory(run.pid))
        time.sleep(1)
    seconds = time.perf_counter() - start
    if run.returncode:
        raise subprocess.CalledProcessError(run.returncode, run.args)
    print(f"whole command: {count} crops in {seconds:.1f} s, {count / seconds:,.0f} crops/s")
    thirds = [max(part) for part in np.array_split(series, 3)]
    print("memory of all processes, MB, peak in each third:", [round(t / 1e6) for t in thirds])


def memory(pid: int) -> int:
    """Memory of a process and its children in bytes, shared pages counted once (Linux)."""
    listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True)
    total = 0
    for one in (pid, *map(int, listing.stdout.split())):
        try:
            text = Path(f"/proc/{one}/smaps_rollup").read_text()
        except OSError:
            continue  # it has just ended
        total += 1024 * int(text.split("Pss:")[1].split()[0])
    return total


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--crops", type=int, default=20_000, help="for the whole command (20000)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="(one per core)")
    parser.add_argument("--rounds", type=int, default=8)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        crops, results = Path(folder) / "crops", Path(folder) / "results"
        crops.mkdir()
        names = write_crops(crops, max(args.crops, SHARD * args.workers))
        ratio(crops, results / "ratio", names, args.workers, args.rounds)
        if args.crops:
            whole_command(crops, results / "whole", len(names), args.workers)


if __name__ == "__main__":
    main()
