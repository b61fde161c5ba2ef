"""Measure how fast crops are read from a warm cache, and how long training waits for them.

    python benchmarks/input_pipeline.py

Both numbers depend on the machine; compare their ratio within one run.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from tqdm import tqdm

from keras_scnn import ParameterSpace, Whitening, build_encoder, build_siamese, load_face_model
from keras_scnn.data.records import FaceRecords, finish_records, load_records, write_shard
from keras_scnn.data.samplers import GroupSampler, PairSampler
from keras_scnn.data.stream import group_dataset, pair_dataset
from keras_scnn.losses import ContrastiveLoss, IdentityLoss, LandmarkDistance

SHARD, SIZE, BATCH = 1000, 120, 64


def make_cache(folder: Path, photos: int) -> FaceRecords:
    """A cache of noise, with four photos per person; the contents do not affect reading times."""
    rng = np.random.default_rng(0)
    model = load_face_model("open_face")
    size = 12 + model.n_identity + model.n_expression
    for number, first in enumerate(tqdm(range(0, photos, SHARD), desc="writing the cache")):
        people = np.arange(first, first + SHARD, dtype=np.int32) // 4
        images = rng.integers(0, 256, (SHARD, SIZE, SIZE, 3), np.uint8)
        vectors = rng.normal(size=(SHARD, size)).astype(np.float32)
        landmarks = rng.uniform(0, SIZE, (SHARD, 68, 3)).astype(np.float32)
        write_shard(folder, number, FaceRecords(images, vectors, landmarks, people, model.name))
    finish_records(folder, number + 1, model.name, {})
    return load_records(folder)


def crops_per_second(dataset, crops: int, batches: int) -> float:
    """Throughput of a stream after five batches; ``crops`` is the number per batch."""
    stream = iter(dataset)
    for _ in range(5):
        next(stream)
    start = time.perf_counter()
    for _ in range(batches):
        next(stream)
    return crops * batches / (time.perf_counter() - start)


def seconds_a_step(records: FaceRecords, steps: int) -> tuple[float, float]:
    """Seconds per training step with the stream, and with one repeated batch in memory.

    The difference is the time for which the network waits for data.
    """
    space = ParameterSpace.from_samples(load_face_model("open_face"), records.parameters)
    network = build_siamese(build_encoder("mobilenet_0.5", SIZE), space)
    losses = {"parameter_distance": ContrastiveLoss(margin_quantile=0.5)}
    losses |= {"feature_similarity": IdentityLoss()}
    losses |= {f"landmarks_{side}": LandmarkDistance(unit=10.0) for side in "ab"}
    network.compile("adam", losses)
    stream = pair_dataset(records, space.whitening, PairSampler(records.identity), BATCH // 2)
    again = stream.take(1).cache().repeat()
    network.fit(again, steps_per_epoch=5, verbose=0)
    seconds = {"stream": [], "memory": []}
    for _ in range(4):  # alternately, so that a busy machine affects both equally
        for name, data in (("memory", again), ("stream", stream)):
            start = time.perf_counter()
            network.fit(data, steps_per_epoch=steps, verbose=0)
            seconds[name].append((time.perf_counter() - start) / steps)
    return float(np.median(seconds["stream"])), float(np.median(seconds["memory"]))


def main() -> None:
    """Measure both with synthetic crops, and print the rates."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photos", type=int, default=10_000, help="in the cache")
    parser.add_argument("--batches", type=int, default=1000, help="to read")
    parser.add_argument("--steps", type=int, default=40, help="training steps per round, 4 rounds")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        records = make_cache(Path(folder), args.photos)
        whitening = Whitening.from_samples(records.parameters)
        pairs = pair_dataset(records, whitening, PairSampler(records.identity), BATCH // 2)
        groups = group_dataset(records, whitening, GroupSampler(records.identity, BATCH // 4, 4))
        for name, dataset in (("pairs", pairs), ("people x photos", groups)):
            print(f"{name}: {crops_per_second(dataset, BATCH, args.batches):,.0f} crops/s")
        stream, memory = seconds_a_step(records, args.steps)
        waits = max(stream - memory, 0) / stream
        print(f"training step: {1000 * stream:.1f} ms, {1000 * memory:.1f} ms without reading")
        print(f"the network waits for data {100 * waits:.1f} % of the time")


if __name__ == "__main__":
    main()
