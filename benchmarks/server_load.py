"""Compare a server with the network alone: start-up, memory, requests per CPU second, latency.

    python benchmarks/server_load.py [PRESET] [--seconds 10] [--clients 1 8]

Requests, sent by this process, are a JPEG of one face (300 px), as the body or in JSON with the
face's box. Only the server's CPU time counts; it is compared with that of one run of the network on
a crop, in one thread, in the same minute. For Keras, the preset is disguised as an unfinished run.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL.Image
import psutil

from keras_scnn.models.inference import open_network
from keras_scnn.models.presets import preset_folder
from keras_scnn.photos.detection import FaceDetector
from keras_scnn.reconstruction.reconstructor import Reconstructor

PATH = "/v1/models/scnn:predict"


class Server:
    """A server process for a preset, with seconds until it listened, memory and CPU time.

    A context manager, which stops it.
    """

    def __init__(self, preset: str):
        begin = time.perf_counter()
        words = ["-m", "keras_scnn.serve", preset, "--port", "0", "--no-access-log"]
        self._run = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True)
        lines = (re.search(r"at http://([\d.]+):(\d+)", line) for line in self._run.stdout)
        found = next(filter(None, lines), None)
        if found is None:
            raise RuntimeError(f"the server of {preset} ended with status {self._run.wait()}")
        host, port = found.groups()
        self.start_s, self.place = time.perf_counter() - begin, (host, int(port))
        self._process = psutil.Process(self._run.pid)

    @property
    def memory_mb(self) -> float:
        return self._process.memory_info().rss / 1e6

    def cpu_s(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error) -> None:
        self._run.terminate()
        self._run.wait(40)
        self._run.stdout.close()


def jpeg() -> bytes:
    """Head and shoulders of scikit-image's astronaut."""
    from skimage import data

    file = io.BytesIO()
    PIL.Image.fromarray(data.astronaut()[:300, 80:380]).save(file, "JPEG", quality=90)
    return file.getvalue()


class Client(threading.local):
    """One open connection per thread."""

    def __init__(self, place: tuple[str, int]):
        self._connection = http.client.HTTPConnection(*place)

    def seconds(self, body: bytes, kind: str) -> float:
        """Seconds until a request is completely answered."""
        begin = time.perf_counter()
        self._connection.request("POST", PATH, body, {"Content-Type": kind})
        answer = self._connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
        return time.perf_counter() - begin


def load(server: Server, clients: int, body: bytes, kind: str, seconds: float) -> dict:
    """Run clients that each send one request at a time: CPU seconds per request, latencies."""
    client, end = Client(server.place), time.perf_counter() + seconds

    def one_client(_: int) -> list[float]:
        times = []
        while time.perf_counter() < end:
            times.append(client.seconds(body, kind))
        return times

    before = server.cpu_s()
    with ThreadPoolExecutor(clients) as pool:
        times = np.array([t for part in pool.map(one_client, range(clients)) for t in part])
    cpu = (server.cpu_s() - before) / len(times)
    return {"cpu": cpu, "p50": np.percentile(times, 50), "p99": np.percentile(times, 99)}


def cpu_seconds(work: Callable[[], object], seconds: float) -> float:
    """Mean CPU time of a call of ``work``, measured for ``seconds``."""
    work()
    count, before, end = 0, time.process_time(), time.perf_counter() + seconds
    while time.perf_counter() < end:
        work()
        count += 1
    return (time.process_time() - before) / count


def start_up(preset: str, folder: Path) -> None:
    """Print a server's start-up time and memory before its first request, in LiteRT and Keras."""
    in_keras = folder / "in_training"
    shutil.copytree(preset_folder(preset), in_keras)
    (in_keras / "network.tflite").unlink(missing_ok=True)
    (in_keras / "state.json").write_text(json.dumps({"done": False}))
    for name, one in (("LiteRT", preset), ("Keras", str(in_keras))):
        with Server(one) as server:
            print(
                f"{name}: listens after {server.start_s:.1f} s ({server.cpu_s():.1f} s CPU), "
                f"{server.memory_mb:.0f} MB",
                flush=True,
            )


def contest(preset: str, clients: list[int], seconds: float) -> None:
    """Print each kind of request as a multiple of the network alone in the same minute."""
    photo = jpeg()
    image = np.asarray(PIL.Image.open(io.BytesIO(photo)))
    data, network = open_network(preset)
    (box,) = FaceDetector().detect(image)
    crop = np.full((1, data.input_size, data.input_size, 3), 90, np.uint8)
    whole = Reconstructor(data, FaceDetector(), network)
    text = base64.b64encode(photo).decode()
    boxed = {"instances": [{"b64": text, "box": [float(v) for v in box.as_array()]}]}
    kinds = {"photo as body": (photo, "image/jpeg")}
    kinds["JSON with box"] = (json.dumps(boxed).encode(), "application/json")
    with Server(preset) as server:
        for count, (name, (body, kind)) in itertools.product(clients, kinds.items()):
            load(server, count, body, kind, seconds / 10)
            bare = cpu_seconds(lambda: network(crop), seconds / 3)
            python = cpu_seconds(lambda: whole(image), seconds / 3)
            got = load(server, count, body, kind, seconds)
            print(
                f"{count} clients, {name}: {1 / got['cpu']:.0f} requests per CPU second, "
                f"{got['cpu'] / bare:.1f} x the bare network ({1e3 * bare:.1f} ms), "
                f"{got['cpu'] / python:.2f} x detection and network in Python; "
                f"p50 {got['p50'] / bare:.1f} x, p99 {got['p99'] / bare:.1f} x the bare network",
                flush=True,
            )
        print(f"memory after that: {server.memory_mb:.0f} MB")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("preset", nargs="?", default="mobile")
    parser.add_argument("--seconds", type=float, default=10, help="per measurement (10)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8], help="at once (1 8)")
    args = parser.parse_args()
    print("load of the machine, cores:", os.getloadavg()[0], os.cpu_count())
    with tempfile.TemporaryDirectory() as folder:
        start_up(args.preset, Path(folder))
    contest(args.preset, args.clients, args.seconds)


if __name__ == "__main__":
    main()
