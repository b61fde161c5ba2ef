"""Measure faces per second on Ray and in the local pool, and the effect of killed workers.

    python benchmarks/ray_engine.py --crops 100000 --kills 10

Generated crops are processed by the local pool and by ``--engine ray`` on a cluster on this
machine, in which some actors are killed (SIGKILL) at random moments. Every photo must then have
exactly one row, and the parts must be identical to the local pool's, bit for bit.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
from batch_throughput import write_crops

from keras_scnn.folders.batch import BatchSettings
from keras_scnn.folders.folder import reconstruct_folder
from keras_scnn.folders.job import FACES


def actors() -> list[int]:
    """Process ids of Ray's actors that process shards."""
    listing = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True).stdout
    return [int(row.split()[0]) for row in listing.splitlines() if "ray::_Worker" in row]


def kill_some(out: Path, parts: int, kills: int, killed: list[float], end: threading.Event) -> None:
    """Kill an actor at a random moment after each 1 / (kills + 1) of the parts is done."""
    rng, start = random.Random(0), time.perf_counter()
    while len(killed) < kills and not end.wait(0.05):
        done = len(list((out / FACES).glob("part-*"))) if (out / FACES).is_dir() else 0
        if done >= parts * (len(killed) + 1) / (kills + 1) and (there := actors()):
            time.sleep(rng.uniform(0, 0.5))
            try:
                os.kill(rng.choice(there), signal.SIGKILL)
            except ProcessLookupError:
                continue
            killed.append(time.perf_counter() - start)


def checked(out: Path, names: list[str]) -> str:
    """A digest of all parts; an error if a photo does not have exactly one row."""
    photos = pq.read_table(out / FACES, columns=["photo"])["photo"].to_pylist()
    if sorted(photos) != sorted(names):
        raise SystemExit(f"{out}: {len(photos)} rows of {len(set(photos))} of {len(names)} photos")
    value = hashlib.sha256()
    for path in sorted((out / FACES).iterdir()):
        value.update(path.read_bytes())
    return value.hexdigest()


def timed(crops: Path, out: Path, engine: str, workers: int) -> float:
    """Wall-clock seconds of a run."""
    start = time.perf_counter()
    done = reconstruct_folder(crops, out, BatchSettings(crops=True), workers, engine=engine)
    seconds = time.perf_counter() - start
    print(f"{engine}: {done.faces} faces, {seconds:.1f} s, {done.faces / seconds:.0f} faces/s")
    return seconds


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--crops", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        crops, local, ray = (Path(home, name) for name in ("crops", "local", "ray"))
        crops.mkdir()
        names = write_crops(crops, args.crops)
        timed(crops, local, "local", args.workers)
        parts, killed, end = len(list((local / FACES).iterdir())), [], threading.Event()
        killer = threading.Thread(target=kill_some, args=(ray, parts, args.kills, killed, end))
        killer.start()
        try:
            timed(crops, ray, "ray", args.workers)
        finally:
            end.set()
            killer.join()
        print(f"{len(killed)} actors killed, at {', '.join(f'{s:.0f}' for s in killed)} s")
        same = checked(local, names) == checked(ray, names)
        print(f"{len(names)} photos, each with one row; parts bit for bit the same: {same}")


if __name__ == "__main__":
    main()
