"""Measure a network on single crops and on batches: LiteRT, compiled Keras, eager Keras.

    python benchmarks/one_by_one.py [PRESET] [--crops 64] [--rounds 3]

CPU time of the process per crop, the minimum over several rounds; use the ratios.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from keras_scnn.models.inference import BatchedNetwork, open_network
from keras_scnn.models.presets import load_preset
from keras_scnn.settings import DEFAULT_PRESET


def one_by_one(network: Callable, crops: np.ndarray) -> Callable[[], object]:
    """The network on (M, S, S, 3) crops, with one call per crop."""
    return lambda: [network(crops[i : i + 1]) for i in range(len(crops))]


def cpu_milliseconds(work: Callable[[], object], count: int) -> float:
    """CPU time of all threads per crop, for ``count`` crops."""
    start = time.process_time()
    work()
    return 1e3 * (time.process_time() - start) / count


def main() -> None:
    """Time single crops and batches, and print the minima over the rounds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("preset", nargs="?", default=DEFAULT_PRESET)
    parser.add_argument("--crops", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    preset = load_preset(args.preset)
    shape = (args.crops, preset.input_size, preset.input_size, 3)
    crops = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    compiled, chosen = BatchedNetwork(preset.branch), open_network(args.preset)[1]
    works = {
        "compiled Keras, batches": lambda: compiled(crops),
        f"Reconstructor's ({type(chosen).__name__}), one by one": one_by_one(chosen, crops),
        "compiled Keras, one by one": one_by_one(compiled, crops),
        "eager Keras, one by one": one_by_one(lambda x: preset.branch(x, training=False), crops),
    }
    rounds = [
        {name: cpu_milliseconds(work, args.crops) for name, work in works.items()}
        for _ in range(args.rounds + 1)
    ][1:]  # the first one includes compilation
    best = {name: min(times[name] for times in rounds) for name in works}
    unit = best["compiled Keras, batches"]
    for name, value in best.items():
        print(f"{name:45}{value:9.2f} ms{value / unit:8.2f} x")


if __name__ == "__main__":
    main()
