"""Train networks of the released kind on an accelerator, from a pack of photos in its memory.

    KERAS_BACKEND=jax python tools/distill.py PACK.npz --network mobile=START [--network ...] \
        --recognizer dlib_face_recognition_resnet_model_v1.dat --out RUN --minutes 20

All photos, dlib's recognizer and the networks lie on the accelerator, where the batches are made
too (``device_photos``): the recognizer says of every blend of two faces whom it shows, so that
there is no end of people ("function matching": Beyer et al., "Knowledge Distillation: A Good
Teacher Is Patient and Consistent", 2022). Losses and weights are those of ``--recipe robust``. All
networks learn from the same batches. START is a preset of the same kind. Needs JAX and optax.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import cv2
import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
from device_photos import (
    CROP,
    FRAME,
    MOST_DEGREES,
    BatchPlan,
    chips,
    draw,
    move_labels,
    moves,
    recolor,
    render,
)
from dlib_network import DlibNetwork
from join_recognizer import read_tensors

from keras_scnn.data.teacher import CHIP_SIZE
from keras_scnn.data.teacher_labels import learn_posterior
from keras_scnn.face_models import load_face_model
from keras_scnn.geometry.camera import decompose
from keras_scnn.geometry.rotations import euler_from_rotation
from keras_scnn.losses import (
    EmbeddingDistance,
    GroupContrastiveLoss,
    LandmarkDistance,
    ParameterLoss,
    RelationalLoss,
    SupervisedContrastiveLoss,
)
from keras_scnn.mirroring import mirror_matrices
from keras_scnn.models import Preset, build_branch, build_encoder, build_group, load_preset
from keras_scnn.models import save_preset
from keras_scnn.models.identity_encoder import PREFIX
from keras_scnn.models.warm_start import copy_network
from keras_scnn.parameters import POSE_SIZE, ParameterLayout, Whitening
from keras_scnn.storage import read_npz

FORMAT, VERSION = "keras_scnn.photo_pack", 1
PROFILE_DEGREES, PROFILE_EMPHASIS = 45, 2.2
PEOPLE_LANDMARKS = 0.4  # weight of landmarks of people folders, which networks have placed
GROUP_SHARE = 0.55  # of the parameter loss; the photos in groups are fewer than the single ones
EVERY = 500  # steps between two lines of the log
WARMUP, MOST_KEPT = 400, 0.9995  # steps up to the highest rate; momentum of the weights' mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pack", type=Path)
    parser.add_argument("--network", action="append", required=True, metavar="NAME=START")
    parser.add_argument("--recognizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True, help="from start to end")
    parser.add_argument("--held-out", type=int, default=30, help="the last people")
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--identity-rate", type=float, default=0.25, help="of that, for the trunk")
    parser.add_argument("--plan", default="{}", help="JSON: other numbers for BatchPlan")
    parser.add_argument("--precision", default="mixed_bfloat16")
    parser.add_argument("--without", default="", help="losses to leave out, with commas")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.end = time.monotonic() + 60 * args.minutes
    keras.utils.set_random_seed(args.seed)
    run = Run(args)
    run.train()
    run.save()


class Run:
    """Data, teacher and networks of one run."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        pack = read_npz(args.pack, FORMAT, VERSION)
        model = load_face_model("open_face")
        self.model = model.replace(landmark_offsets=pack["landmark_offsets"])
        self.layout = ParameterLayout(model.n_identity, model.n_expression)
        self.plan = BatchPlan(**json.loads(args.plan))
        self.recognizer = DlibNetwork(read_tensors(args.recognizer.read_bytes()))
        self.photos = self._photos(pack)
        print(f"{len(pack['identity'])} photos on {jax.devices()[0]}", flush=True)
        self.vectors = self._labels(pack)
        self.mirrors = tuple(jnp.asarray(m) for m in mirror_matrices(self.model))
        keras.config.set_dtype_policy(args.precision)
        self.networks = {}
        for text in args.network:
            name, start = text.split("=", 1)
            self.networks[name] = Network(self, load_preset(start))

    def _photos(self, pack: dict) -> dict:
        """The arrays that batches are drawn from, on the device."""
        photos = {"frames": jnp.asarray(read_frames(pack["files"], pack["sizes"]).reshape(-1))}
        for name in ("limits", "landmarks", "identity", "source"):
            photos[name] = jnp.asarray(pack[name])
        people = np.unique(pack["identity"])
        seen = np.isin(pack["identity"], people[: len(people) - self.args.held_out])
        pose = np.float64(pack["parameters"][:, :POSE_SIZE]).reshape(-1, 3, 4)
        euler = np.rad2deg(euler_from_rotation(decompose(pose)[0]))
        frontal = np.abs(euler[:, 1:]).max(axis=1) < MOST_DEGREES
        rows = {p: np.flatnonzero(pack["identity"] == p) for p in np.unique(pack["identity"][seen])}
        several = [r for r in rows.values() if len(r) >= self.plan.photos]
        table = np.zeros((len(several), max(map(len, several))), np.int32)
        for line, own in zip(table, several, strict=True):
            line[: len(own)] = own
        single = np.flatnonzero(seen & (pack["source"] != pack["source"].max()))
        weight = 1 + (PROFILE_EMPHASIS - 1) * np.minimum(abs(euler[single, 1]) / PROFILE_DEGREES, 1)
        scale = np.where(pack["source"] == pack["source"].max(), PEOPLE_LANDMARKS, 1.0)
        photos["landmarks"] = photos["landmarks"].at[:, :, 3].multiply(scale[:, None])
        self.seen, self.frontal = seen, frontal
        self.grouped = pack["source"] == pack["source"].max()
        return photos | {
            "euler": jnp.asarray(euler, jnp.float32),
            "is_frontal": jnp.asarray(frontal),
            "frontal": jnp.asarray(np.flatnonzero(frontal & seen)),
            "of_person": jnp.asarray(table),
            "count": jnp.asarray([len(own) for own in several]),
            "single": jnp.asarray(single),
            "single_cdf": jnp.asarray(np.cumsum(weight) / weight.sum(), jnp.float32),
        }

    def _labels(self, pack: dict) -> np.ndarray:
        """(n, P) unwhitened labels of the photos as they are; and what blends need for theirs."""
        raw = np.concatenate(
            [self._embed(rows) for rows in np.array_split(np.arange(len(self.seen)), 100)]
        )
        source, used = pack["source"], self.seen & self.frontal
        means = np.stack([raw[used & (source == s)].mean(axis=0) for s in np.unique(source)])
        centered = raw - means[source]
        length = np.linalg.norm(centered[used], axis=1).mean()
        embedding = centered / length
        identity, weights = self.layout.identity, self.model.identity_weights_mm
        joint = same_means(pack["parameters"][:, identity] * weights, source, self.seen)
        own = same_means(pack["single_identity"] * weights, source, self.seen)
        posterior = learn_posterior(
            joint[used], own[used], embedding[used], pack["identity"][used]
        )
        self.embedding = np.where(self.frontal[:, None], embedding, np.nan).astype(np.float32)
        vectors = pack["parameters"].copy()
        labels = np.where(self.grouped[:, None], posterior(own, self.embedding), own)
        vectors[:, identity] = labels / weights
        self.whitening = Whitening.from_samples(vectors[self.seen])
        self.photos |= {
            name: jnp.asarray(value, jnp.float32)
            for name, value in {
                "vectors": pack["parameters"],
                "own": own,
                "means": means,
                "length": length,
                "kernel": posterior.kernel,
                "offset": posterior.offset,
                "gain": posterior.gain,
                "weights": weights,
                "whitening_mean": self.whitening.mean,
                "whitening_scale": self.whitening.scale,
            }.items()
        }
        return vectors

    def _embed(self, rows: np.ndarray) -> np.ndarray:
        """(m, 128) what the recognizer says of photos as they are."""
        nobody = {"host": jnp.asarray(rows), "guest": jnp.asarray(rows)}
        nobody["share"] = jnp.zeros(len(rows))
        return np.asarray(jax.jit(self.embed)(self.photos, nobody))

    def embed(self, photos: dict, drawn: dict):
        """(B, 128) what the recognizer says of a drawn batch."""
        chip, _ = render(photos, drawn, chips(photos, drawn), CHIP_SIZE)
        return self.recognizer(chip)

    def batch(self, key, photos: dict):
        """Images (B, 120, 120, 3), 0 to 255, and what the networks should say of them."""
        keys = jax.random.split(key, 3)
        drawn = draw(keys[0], photos, self.plan)
        matrix = moves(keys[1], photos, drawn, self.plan)
        images, inside = render(photos, drawn, matrix, CROP)
        images = recolor(keys[2], images, inside)
        host, guest, share = drawn["host"], drawn["guest"], drawn["share"][:, None]
        center = [photos["means"][photos["source"][rows]] for rows in (host, guest)]
        center = (1 - share) * center[0] + share * center[1]
        embedding = (self.embed(photos, drawn) - center) / photos["length"]
        frontal = photos["is_frontal"][host][:, None]
        told, own = embedding @ photos["kernel"] + photos["offset"], photos["own"][host]
        shape = told + (own - told) @ photos["gain"].T
        taught = frontal & (jnp.arange(len(host)) < self.plan.grouped)[:, None]
        shape = jnp.where(taught, shape, own)
        identity = self.layout.identity
        vectors = photos["vectors"][host].at[:, identity].set(shape / photos["weights"])
        landmarks, vectors = move_labels(
            matrix, photos["landmarks"][host], vectors, self.mirrors
        )
        return images, {
            "parameters": (vectors - photos["whitening_mean"]) / photos["whitening_scale"],
            "landmarks": landmarks,
            "person": drawn["person"],
            "embedding": jnp.where(frontal, embedding, jnp.nan),
        }

    def train(self) -> None:
        """Train until the time is over, the learning rate along a cosine."""
        args, begun = self.args, time.monotonic()
        step = jax.jit(self._step, donate_argnums=0)
        key = jax.random.key(args.seed, impl="rbg")
        states = {name: network.state for name, network in self.networks.items()}
        told, log, number, start = [], begun, 0, None
        while start is None or time.monotonic() < args.end:
            share = 0.0 if start is None else (time.monotonic() - start) / (args.end - start)
            rate = args.learning_rate * (1 + np.cos(np.pi * share)) / 2
            rate *= min(1.0, (number + 1) / WARMUP)
            keep = min(MOST_KEPT, (number + 1) / (number + 10))
            states, losses = step(states, jax.random.fold_in(key, number), self.photos, rate, keep)
            number += 1
            told.append(losses)
            if number == 1 or number % EVERY == 0:
                told = jax.device_get(told)
                now = time.monotonic()
                speed = len(told) * self.plan.size / (now - log)
                print(f"{number} {share:.3f} {speed:.0f}/s", _means(told), flush=True)
                told, log, start = [], now, start or now
        jax.block_until_ready(states)
        self.number, self.passed = number, time.monotonic() - start
        for name, network in self.networks.items():
            network.state = states[name]

    def _step(self, states, key, photos, rate, keep):
        images, targets = self.batch(key, photos)
        new, losses = {}, {}
        for name, network in self.networks.items():
            new[name], losses[name] = network.step(states[name], images, targets, rate, keep)
        return new, losses

    def save(self) -> None:
        """A preset of each network, by its averaged weights."""
        for name, network in self.networks.items():
            save_preset(self.args.out / name, network.averaged())
        print(f"{self.number} steps in {self.passed:.0f} s: {self.args.out}", flush=True)


class Network:
    """A group network, its optimizer and the running mean of its weights.

    Args:
        run: the run that it is a part of.
        start: preset of the same kind.
    """

    def __init__(self, run: Run, start: Preset):
        self._run, self._start = run, start
        encoder = build_encoder(start.encoder, CROP)
        sizes = start.feature_size, start.feature_channels, start.has_identity_encoder
        branch = build_branch(encoder, run.layout, *sizes)
        copy_network(branch, start, run.whitening)
        size = run.embedding.shape[1]
        self.model = build_group(branch, run.model, run.whitening, size)
        rates = [
            run.args.identity_rate if v.path.startswith(PREFIX) else 1.0
            for v in self.model.trainable_variables
        ]
        decay = [1e-2 if len(v.shape) > 1 else 0.0 for v in self.model.trainable_variables]
        self._optimizer = optax.chain(
            optax.clip_by_global_norm(10.0),
            optax.scale_by_adam(),
            optax.stateless(
                lambda updates, weights: [
                    r * (u + d * w)
                    for r, u, d, w in zip(rates, updates, decay, weights, strict=True)
                ]
            ),
        )
        self._losses = robust_losses(run)
        for name in filter(None, run.args.without.split(",")):
            del self._losses[name]
        weights = [v.value for v in self.model.trainable_variables]
        others = [v.value for v in self.model.non_trainable_variables]
        means = [jnp.array(w) for w in (weights, others)[0]], [jnp.array(w) for w in others]
        self.state = weights, others, self._optimizer.init(weights), means

    def step(self, state, images, targets, rate, keep):
        """One step of the optimizer: the new state, and the losses by name."""
        weights, others, moments, means = state

        def loss(weights):
            told, changed = self.model.stateless_call(weights, others, images, training=True)
            parts = {}
            for name, (part, weight, label) in self._losses.items():
                kinds = [(1.0, slice(None))]
                if name == "parameters":
                    count = self._run.plan.grouped
                    kinds = [(GROUP_SHARE, slice(count)), (1 - GROUP_SHARE, slice(count, None))]
                parts[name] = weight * sum(
                    share * part.call(targets[label][rows], told[name][rows])
                    for share, rows in kinds
                )
            return sum(parts.values()), (parts, changed)

        slopes, (parts, others) = jax.grad(loss, has_aux=True)(weights)
        updates, moments = self._optimizer.update(slopes, moments, weights)
        weights = [w - rate * u for w, u in zip(weights, updates, strict=True)]
        means = jax.tree.map(
            lambda mean, now: keep * mean + (1 - keep) * now, means, (weights, others)
        )
        return (weights, others, moments, means), parts

    def averaged(self) -> Preset:
        """The preset with the running mean of the weights."""
        means = jax.device_get(self.state[3])
        for variable, value in zip(self.model.trainable_variables, means[0], strict=True):
            variable.assign(value)
        for variable, value in zip(self.model.non_trainable_variables, means[1], strict=True):
            variable.assign(value)
        run, args = self._run, self._run.args
        config = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
        config = {k: config[k] for k in ("minutes", "learning_rate", "identity_rate", "seed")}
        config |= {"without": args.without, "plan": dataclasses.asdict(run.plan)}
        state = {"step": run.number, "seconds": round(run.passed, 1)}
        return dataclasses.replace(
            self._start,
            branch=self.model.get_layer("branch"),
            face_model=run.model,
            whitening=run.whitening,
            metadata={"config": config, "state": state},
        )


def robust_losses(run: Run) -> dict:
    """Loss, weight and label of each output, as the recipe ``robust`` has them."""
    return {
        "parameters": (ParameterLoss(run.model, run.whitening, 0.02, 0.36), 1.0, "parameters"),
        "landmarks": (LandmarkDistance(10.0, 1.0), 1.0, "landmarks"),
        "shape": (GroupContrastiveLoss(margin_quantile=0.7), 0.06, "person"),
        "features": (SupervisedContrastiveLoss(), 0.06, "person"),
        "embedding": (EmbeddingDistance(), 1.2, "embedding"),
        "feature_likeness": (RelationalLoss(), 0.6, "embedding"),
    }


def same_means(shapes: np.ndarray, source: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Shapes whose data sets have one mean, that of the first; see ``align_sources``."""
    shapes = np.float64(shapes)
    wanted = shapes[seen & (source == 0)].mean(axis=0)
    for number in np.unique(source):
        shapes[source == number] += wanted - shapes[seen & (source == number)].mean(axis=0)
    return shapes


def read_frames(files: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(n, FRAME, FRAME) uint32 of JPEG files one after the other: red in the lowest byte."""
    ends = np.cumsum(sizes)
    frames = np.empty((len(sizes), FRAME, FRAME), np.uint32)
    for i, (end, size) in enumerate(zip(ends, sizes, strict=True)):
        image = cv2.imdecode(files[end - size : end], cv2.IMREAD_COLOR).astype(np.uint32)
        frames[i] = image[..., 2] | image[..., 1] << 8 | image[..., 0] << 16
    return frames


def _means(told: list[dict]) -> dict:
    names = {name: told[0][name].keys() for name in told[0]}
    return {
        network: {part: round(float(np.mean([t[network][part] for t in told])), 4) for part in parts}
        for network, parts in names.items()
    }


if __name__ == "__main__":
    main()
