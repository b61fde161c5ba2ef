"""Train a network of the released kind on an accelerator, from a pack of photos in its memory.

    KERAS_BACKEND=jax python tools/distill.py PACK.npz --start mobile --out RUN --minutes 10 \
        --recognizer dlib_face_recognition_resnet_model_v1.dat

All photos, dlib's recognizer and the network lie on the accelerator, where the batches are made too
(``device_photos``): the recognizer says of every blend of two faces whom it shows, so that there is
no end of people ("function matching": Beyer et al., "Knowledge Distillation: A Good Teacher Is
Patient and Consistent", 2022). Losses and weights are those of ``--recipe robust``; the labels are
those of ``device_supply``. --start is a preset of the same kind; the run folder is a preset. Needs
JAX and optax.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import keras
import numpy as np

from device_network import Network
from device_photos import BatchPlan
from device_supply import Supply
from dlib_network import DlibNetwork
from join_recognizer import read_tensors
from keras_scnn.models import load_preset, save_preset
from keras_scnn.storage import read_npz
from pack_photos import FORMAT, VERSION

EVERY = 500  # steps between two lines of the log
WARMUP, MOST_KEPT = 400, 0.9995  # steps up to the highest rate; momentum of the weights' mean
TOLD = ("minutes", "learning_rate", "identity_rate", "without", "seed")


def main() -> None:
    """Train as the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pack", type=Path)
    parser.add_argument("--start", required=True, metavar="PRESET")
    parser.add_argument("--recognizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True, help="from start to end")
    parser.add_argument("--held-out", type=int, default=30, help="the last people")
    parser.add_argument("--learning-rate", type=float, default=1.2e-3)
    parser.add_argument("--identity-rate", type=float, default=0.4, help="of that, for the trunk")
    parser.add_argument("--plan", default="{}", help="JSON: other numbers for BatchPlan")
    parser.add_argument("--precision", default="mixed_bfloat16")
    parser.add_argument("--without", default="", help="losses to leave out, with commas")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    end = time.monotonic() + 60 * args.minutes
    keras.utils.set_random_seed(args.seed)
    recognizer = DlibNetwork(read_tensors(args.recognizer.read_bytes()))
    plan = BatchPlan(**json.loads(args.plan))
    supply = Supply(read_npz(args.pack, FORMAT, VERSION), recognizer, plan, args.held_out)
    keras.config.set_dtype_policy(args.precision)
    without = args.without.split(",")
    network = Network(supply, load_preset(args.start), args.identity_rate, without)
    state = train(network, supply, end, args.learning_rate, args.seed)
    config = {name: getattr(args, name) for name in TOLD} | {"plan": dataclasses.asdict(plan)}
    save_preset(args.out, network.averaged({"config": config, "state": state}))
    print(f"{state['step']} steps in {state['seconds']} s: {args.out}", flush=True)


def train(network: Network, supply: Supply, end: float, peak: float, seed: int) -> dict:
    """Train until the time is over, the learning rate along a cosine; returns how far it came.

    Args:
        network, supply: who learns, and from what.
        end: on the clock ``time.monotonic``.
        peak: highest learning rate.
        seed: of the batches.
    """

    def step(state, key, photos, rate, keep):
        return network.step(state, *supply.batch(key, photos), rate, keep)

    step = jax.jit(step, donate_argnums=0)
    key = jax.random.key(seed, impl="rbg")  # the fast generator
    state, told, number, start, log = network.state, [], 0, None, time.monotonic()
    while start is None or time.monotonic() < end:
        share = 0.0 if start is None else (time.monotonic() - start) / (end - start)
        rate = peak * (1 + np.cos(np.pi * share)) / 2 * min(1.0, (number + 1) / WARMUP)
        keep = min(MOST_KEPT, (number + 1) / (number + 10))
        key_now = jax.random.fold_in(key, number)
        state, losses = step(state, key_now, supply.photos, rate, keep)
        told.append(losses)
        number += 1
        if number == 1 or number % EVERY == 0:
            told, now = jax.device_get(told), time.monotonic()
            speed = len(told) * supply.plan.size / (now - log)
            means = {name: f"{np.mean([t[name] for t in told]):.4f}" for name in told[0]}
            print(f"{number} {share:.3f} {speed:.0f} photos/s {means}", flush=True)
            told, log, start = [], now, start or now
    network.state = jax.block_until_ready(state)
    return {"step": number, "seconds": round(time.monotonic() - start, 1)}


if __name__ == "__main__":
    main()
