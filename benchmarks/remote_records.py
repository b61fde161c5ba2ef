"""Measure face records over HTTP and in a local folder: memory, start-up, records per second.

    python benchmarks/remote_records.py --records 1000000

Records with photos of 16 px and labels of the usual size are generated and served on loopback. Each
way of opening them runs in a separate process, which draws batches of 64 random pairs.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from keras_scnn.data.mixture import open_mixture
from keras_scnn.data.records import FaceRecords, finish_records, write_shard
from keras_scnn.data.samplers import PairSampler
from keras_scnn.data.stream import pair_batch
from keras_scnn.parameters import Whitening

SHARD, PHOTOS_A_PERSON, SIZE, PARAMETERS, PAIRS = 500, 10, 16, 140, 64


def generate(folder: Path, count: int) -> None:
    """Write records of random numbers, with few different labels, so that writing is fast."""
    rng = np.random.default_rng(0)
    parameters = rng.normal(size=(8, PARAMETERS)).astype(np.float32)
    landmarks = rng.normal(size=(8, 68, 3)).astype(np.float32)
    for number in range(count // SHARD):
        first = number * SHARD // PHOTOS_A_PERSON
        records = FaceRecords(
            rng.integers(0, 256, (SHARD, SIZE, SIZE, 3), np.uint8),
            parameters[np.arange(SHARD) % 8],
            landmarks[np.arange(SHARD) % 8],
            np.int32(first + np.arange(SHARD) // PHOTOS_A_PERSON),
            "open_face",
            weight=np.ones((SHARD, 68), np.float32),
        )
        write_shard(folder, number, records)
    finish_records(folder, count // SHARD, "open_face", {})


def memory() -> str:
    """Memory of this process (Linux): anonymous, and peak including reclaimable file pages."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith("kB")}
    peak, own = kib["VmHWM"] / 1024, kib["RssAnon"] / 1024
    return f"{own:.0f} MB anonymous, peak {peak:.0f} MB including file pages"


def draw(name: str, source: str, cache: str, seconds: float) -> None:
    """Open records, and draw batches for three times ``seconds``."""
    before = memory()
    start = time.perf_counter()
    records = open_mixture(source, cache=cache).records
    opened = time.perf_counter() - start
    sampler = PairSampler(records.identity, seed=1)
    space = Whitening(np.zeros(PARAMETERS), np.ones(PARAMETERS))
    rates, step = [], 0
    for _ in range(3):
        start, drawn = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            pair_batch(records, space, sampler, step, PAIRS)
            step, drawn = step + 1, drawn + 2 * PAIRS
        rates.append(f"{drawn / (time.perf_counter() - start):,.0f}")
    print(f"{name}: start {opened:.1f} s; records/s in thirds of {3 * seconds:g} s: {rates}")
    print(f"    memory: {memory()} (before: {before})", flush=True)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A file server that keeps connections open and writes no log."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments) -> None:
        pass


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=10, help="of each third")
    parser.add_argument("--draw", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.draw:
        draw(*args.draw, args.seconds)
        return
    with tempfile.TemporaryDirectory() as home:
        folder, cache = Path(home, "records"), Path(home, "cache")
        folder.mkdir()
        start = time.perf_counter()
        generate(folder, args.records)
        size = sum(path.stat().st_size for path in folder.iterdir())
        seconds = time.perf_counter() - start
        print(f"{args.records:,} records in {size / 1e9:.2f} GB, made in {seconds:.0f} s")
        handler = functools.partial(Quiet, directory=str(folder))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_address[1]}"
            ways = (("local", str(folder)), ("HTTP, first run", url), ("HTTP, cached", url))
            for name, source in ways:
                words = ["--seconds", str(args.seconds), "--draw", name, source, str(cache)]
                subprocess.run([sys.executable, __file__, *words], check=True)
            server.shutdown()


if __name__ == "__main__":
    main()
