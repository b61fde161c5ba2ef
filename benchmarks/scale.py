"""Measure the CPU time per photo, step by step, and the scaling with processes (docs/scale.md).

    python benchmarks/scale.py [FOLDER]

FOLDER has photos; without it only generated crops are measured. CPU time does not depend on other
load on the machine, but rates do: so 1, 2 and 4 processes take turns; use the median ratios.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import PIL.Image
from batch_throughput import write_crops

from keras_scnn.folders import job as job_module
from keras_scnn.folders.batch import BatchSettings
from keras_scnn.folders.folder import reconstruct_folder
from keras_scnn.folders.job import FACES, FolderJob, part_path
from keras_scnn.folders.table import read_part
from keras_scnn.photos.files import PhotoFiles, find_photos
from keras_scnn.storage.remote import THREADS, place
from keras_scnn.storage.shards import WORKER_ENVIRONMENT, digest

SHARD, ROUNDS = 256, 7


def parts_of_cost(folder: Path, names: list[str], settings: BatchSettings) -> None:
    """Print CPU milliseconds per photo: decoding, detector, network, writing, and the rest."""
    spent: dict[str, float] = defaultdict(float)

    def timed(name: str, function):
        def run(*arguments, **options):
            start = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                spent[name] += time.process_time() - start

        return run

    with tempfile.TemporaryDirectory() as out:
        (Path(out) / FACES).mkdir()
        job = FolderJob(folder, Path(out), settings, {}, ["", ""])
        job.make(0, names[:8])  # loads everything
        worker = job._reconstruct.reconstructor
        worker._network = timed("network", worker._network)
        worker.detect = timed("detector", worker.detect)
        job._read = timed("decoding", job._read)
        write, job_module.write_part = (
            job_module.write_part,
            timed("Parquet", job_module.write_part),
        )
        start = time.process_time()
        faces = job.make(1, names)[1]
        total = time.process_time() - start
        job_module.write_part = write
        size = part_path(Path(out), 1).stat().st_size
        begin = time.perf_counter()
        read_part(part_path(Path(out), 1))
        reading = time.perf_counter() - begin
    spent["crops, geometry"] = total - sum(spent.values())
    each = ", ".join(f"{name} {1000 * s / len(names):.2f}" for name, s in spent.items())
    print(f"  {len(names)} photos, {faces} faces: {1000 * total / len(names):.2f} CPU ms per photo")
    print(f"    {each}; {size / max(faces, 1):.0f} bytes per face; reading a part: {reading:.3f} s")


def resized(folder: Path, home: Path, count: int, side: int) -> list[str]:
    """Write resized JPEG copies of some of a folder's photos; return their names."""
    home.mkdir()
    photos = find_photos(folder).photos
    names = []
    for i, name in enumerate(photos[:: max(1, len(photos) // count)][:count]):
        with PIL.Image.open(folder / name) as image:
            factor = side / max(image.size)
            size = [round(factor * length) for length in image.size]
            names.append(f"{i:04d}.jpg")
            image.convert("RGB").resize(size, 1).save(home / names[-1], quality=85)
    total = sum((home / name).stat().st_size for name in names)
    print(f"photos: {side} px, {total / len(names) / 1000:.0f} kB each")
    return names


def fetching(folder: Path, names: list[str]) -> None:
    """Print this process's CPU milliseconds for fetching a file from a store, 16 at once."""
    words = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    log = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(words, cwd=folder, **log) as server:
        port = server.stdout.readline().split("port ")[1].split()[0]
        home = place(f"http://127.0.0.1:{port}")
        (home / names[0]).read_bytes()
        cpu, start = time.process_time(), time.perf_counter()
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda name: (home / name).read_bytes(), names))
        cpu, seconds = time.process_time() - cpu, time.perf_counter() - start
        server.terminate()
    print(f"  fetching: {1000 * cpu / len(names):.2f} CPU ms, {len(names) / seconds:.0f} files/s")


def one_shard(folder: str, home: str, names: list[str], wait_until: float) -> tuple[float, float]:
    """Wall-clock and CPU seconds for a shard in this process."""
    global _job
    if "_job" not in globals():
        out = Path(home) / str(os.getpid())
        (out / FACES).mkdir(parents=True)
        settings = replace(BatchSettings(crops=True), shard_photos=len(names))
        _job = FolderJob(Path(folder), out, settings, {}, [""])
        _job.make(0, names[:8])
    time.sleep(max(0.0, wait_until - time.time()))
    start, cpu = time.perf_counter(), time.process_time()
    _job.make(0, names)
    return time.perf_counter() - start, time.process_time() - cpu


def growth(folder: Path, names: list[str]) -> None:
    """Print crops per second of 1, 2 and 4 processes, which take turns."""
    os.environ.update(WORKER_ENVIRONMENT)
    rates: dict[int, list[float]] = defaultdict(list)
    costs: dict[int, list[float]] = defaultdict(list)
    with (
        tempfile.TemporaryDirectory() as home,
        ProcessPoolExecutor(4, get_context("spawn")) as pool,
    ):
        for turn in range(ROUNDS + 1):
            for count in (4, 2, 1):
                at = time.time() + (30 if turn == 0 and count == 4 else 0.1)
                jobs = [pool.submit(one_shard, str(folder), home, names, at) for _ in range(count)]
                times = [one.result() for one in jobs]
                if turn:
                    rates[count].append(count * len(names) / max(clock for clock, _ in times))
                    costs[count].append(1000 * np.mean([cpu for _, cpu in times]) / len(names))
    for count in (1, 2, 4):
        ratio = np.median(np.array(rates[count]) / np.array(rates[1]))
        rate, cost = np.median(rates[count]), np.median(costs[count])
        print(f"  {count} processes: {rate:.0f} crops/s ({ratio:.2f} x), {cost:.2f} CPU ms each")


def planning(count: int) -> None:
    """Print the planning process's memory and time for ``count`` photos in a store."""
    tracemalloc.start()
    names = [f"year/month/day/camera/{i:012d}.jpg" for i in range(count)]
    marks = {name: [123456, f'"{digest(i)[:32]}"'] for i, name in enumerate(names)}
    files = PhotoFiles(tuple(names), (), marks)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    start = time.perf_counter()
    digest(list(files.photos))
    for i in range(0, count, SHARD):
        digest([files.marks[name] for name in files.photos[i : i + SHARD]])
    seconds = time.perf_counter() - start
    print(f"  {count:,} names: {held / 1e6:.0f} MB, digests in {seconds:.1f} s")


def whole_run(folder: Path, names: list[str]) -> None:
    """Print the time of a whole run with one and two processes, and of a run with nothing to do."""
    with tempfile.TemporaryDirectory() as home:
        for workers in (1, 2):
            start = time.perf_counter()
            reconstruct_folder(folder, f"{home}/{workers}", BatchSettings(crops=True), workers)
            print(f"  {workers} workers: {len(names) / (time.perf_counter() - start):.0f} crops/s")
        start = time.perf_counter()
        reconstruct_folder(folder, f"{home}/2", BatchSettings(crops=True), 2)
        print(f"  nothing left to do: {time.perf_counter() - start:.2f} s")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, help="of photos")
    parser.add_argument("--photos", type=int, default=60, help="number of photos to use (60)")
    parser.add_argument("--side", type=int, default=1024, help="px, their resized longer side")
    parser.add_argument("--parts-only", action="store_true", help="no whole runs")
    args = parser.parse_args()
    if args.folder and not find_photos(args.folder).photos:
        parser.error(f"{args.folder}: no photos")
    with tempfile.TemporaryDirectory() as home:
        names = write_crops(Path(home), 4 * SHARD)
        print("crops of 120 px:")
        parts_of_cost(Path(home), names, BatchSettings(crops=True))
        fetching(Path(home), names)
        if args.folder:
            photos = resized(args.folder, Path(home) / "photos", args.photos, args.side)
            for tiles in (False, True):
                print(f"photos, {'small faces too' if tiles else 'large faces only (--no-tiles)'}:")
                parts_of_cost(Path(home) / "photos", photos, BatchSettings(tiles=tiles))
        if args.parts_only:
            return
        print("processes, in turn:")
        growth(Path(home), names[:SHARD])
        print("whole runs:")
        whole_run(Path(home), names)
        print("planning:")
        planning(1_000_000)


if __name__ == "__main__":
    main()
