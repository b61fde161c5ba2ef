"""Train the released preset ``aflw-mobilenet-0.5`` on the AFLW crops.

    python tools/train_aflw_preset.py AFLW_DIR --work DIR --out PRESET_DIR

AFLW_DIR holds ``crops/*.jpg`` and ``labels.npz``. Three steps, each kept in --work and skipped when
it is there: (1) merge the landmark sources, learn the landmark offsets on the training photos and
fit the face model to every crop; (2) pretrain the encoder to regress the landmarks directly;
(3) put the parameter head on, started at the ridge regression of the fitted parameters, and train
encoder and head through the face model. No photo of the held-out part is used in any of them but
for the printed validation error, and no benchmark photo at all.
"""

from __future__ import annotations

import argparse
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import keras
import numpy as np
from keras import ops
from tqdm import tqdm

from aflw_fit import fit_targets
from keras_scnn.data.augment import ParameterMover, augment, move_landmarks
from keras_scnn.data.sources.aflw import AflwTargets, load_targets
from keras_scnn.face_models import load_face_model
from keras_scnn.models import (
    Preset,
    build_branch,
    build_encoder,
    build_regressor,
    load_preset,
    save_preset,
)
from keras_scnn.parameters import POSE_SIZE, ParameterLayout, ParameterSpace, Whitening
from keras_scnn.storage import atomic_path
from keras_scnn.training.warm_start import solve_head

SIZE, HEAD_SAMPLES = 120, 8000
DEPTH_WEIGHT = 0.3
PARAMETER_WEIGHT = 0.02
KEEP_EVERY = 500  # steps
YAW_BINS, YAW_SHARE = (30, 60), np.array([1.0, 1.5, 2.2])


def load_images(folder: Path, names: np.ndarray) -> np.ndarray:
    """(N, 120, 120, 3) uint8 RGB."""

    def read(name: str) -> np.ndarray:
        image = cv2.imread(str(folder / "crops" / name))
        if image is None or image.shape != (SIZE, SIZE, 3):
            raise ValueError(f"{folder / 'crops' / name}: not a {SIZE}x{SIZE} color image")
        return image[..., ::-1]

    with ThreadPoolExecutor() as pool:
        return np.stack(list(tqdm(pool.map(read, names), total=len(names), desc="reading crops")))


class Batches:
    """An endless stream of augmented (images, landmarks, whitened parameters) batches.

    One thread makes them ahead of time.
    """

    def __init__(self, images, targets: AflwTargets, parameters, move, whitening, args):
        self._images, self._landmarks, self._parameters = images, targets.landmarks, parameters
        self._move, self._whitening, self._size = move, whitening, args.batch_size
        self._pool = np.flatnonzero(~targets.held_out)
        share = YAW_SHARE[np.digitize(targets.yaw_degrees[self._pool], YAW_BINS)]
        self._share = share / share.sum()
        self._rng = np.random.default_rng(args.seed)
        self._queue: queue.Queue = queue.Queue(16)
        threading.Thread(target=self._fill, daemon=True).start()

    def _fill(self) -> None:
        while True:
            index = self._rng.choice(self._pool, self._size, p=self._share)
            made = [self._sample(i) for i in index]
            images, landmarks, vectors = (np.stack(part) for part in zip(*made, strict=True))
            self._queue.put((images, landmarks, self._whitening.whiten(vectors)))

    def _sample(self, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        image, matrix = augment(self._rng, self._images[i], self._landmarks[i])
        landmarks = move_landmarks(matrix, self._landmarks[i])
        return image, landmarks, self._move(matrix, self._parameters[i])

    def __next__(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self._queue.get()


def landmark_loss(target, predicted):
    """Mean distance in units of half a crop; depth counts less, since only the teacher gives it."""
    difference = (target - predicted) / (SIZE / 2)
    distance = ops.sqrt(ops.sum(difference[..., :2] ** 2, axis=-1) + 1e-5)
    depth = difference[..., 2] - ops.mean(difference[..., 2], axis=-1, keepdims=True)
    return ops.mean(distance) + DEPTH_WEIGHT * ops.mean(ops.abs(depth))


def validation_nme(images, truth, model) -> float:
    """Landmark error on (M, S, S, 3) crops, % of the root of the landmark box's area."""
    predicted = model.predict(images, batch_size=128, verbose=0)["landmarks"]
    error = np.linalg.norm((predicted - truth)[..., :2], axis=-1).mean(axis=1)
    box = np.ptp(truth[..., :2], axis=1)
    return float(100 * np.mean(error / np.sqrt(box.prod(axis=1))))


def parameter_loss(target, predicted):
    """Mean square of whitened parameters; the camera's depth shift, which is free, is left out."""
    counted = np.ones(target.shape[-1], np.float32)
    counted[POSE_SIZE - 1] = 0
    return ops.mean(counted * (target - predicted) ** 2)


LOSSES = {"landmarks": landmark_loss, "parameters": parameter_loss}
LOSS_WEIGHTS = {"landmarks": 1.0, "parameters": PARAMETER_WEIGHT}


def train(model, batches, steps: int, peak: float, final: float, weights: Path, validate) -> None:
    """AdamW under a cosine schedule with an average of the weights, which is what is kept."""
    schedule = keras.optimizers.schedules.CosineDecay(
        peak / 10, steps, alpha=final, warmup_target=peak, warmup_steps=min(300, steps // 10 + 1)
    )
    optimizer = keras.optimizers.AdamW(
        schedule, weight_decay=1e-4, use_ema=True, ema_momentum=0.998, global_clipnorm=1.0
    )
    told = model.output.keys()
    losses, shares = ({k: d[k] for k in told} for d in (LOSSES, LOSS_WEIGHTS))
    model.compile(optimizer=optimizer, loss=losses, loss_weights=shares)
    bar, recent = tqdm(range(steps), desc=weights.name), []
    for step in bar:
        images, landmarks, parameters = next(batches)
        labels = {"landmarks": landmarks, "parameters": parameters}
        result = model.train_on_batch(images, {k: labels[k] for k in told}, return_dict=True)
        recent.append(float(result["loss"]))
        if (step + 1) % KEEP_EVERY == 0:
            bar.set_postfix(loss=f"{np.mean(recent[-KEEP_EVERY:]):.4f}")
            save_weights(model, weights.with_name(f"running-{weights.name}"))
    optimizer.finalize_variable_values(model.trainable_variables)
    save_weights(model, weights)
    print(f"{weights.name}: held-out NME {validate(model):.2f} %", flush=True)


def save_weights(model, path: Path) -> None:
    with atomic_path(path) as temporary:
        model.save_weights(temporary)


def pretrained_encoder(targets, batches, held_out, args) -> keras.Model:
    """The encoder after regressing the 68 landmarks directly through one linear layer."""
    encoder = build_encoder(args.encoder, input_size=SIZE)
    mean = targets.landmarks[~targets.held_out].mean(axis=0)
    linear = keras.layers.Dense(mean.size, name="landmarks_linear")
    scaled = keras.layers.Reshape((68, 3))(linear(encoder.output))
    output = keras.layers.Rescaling(SIZE / 2, offset=mean, name="landmarks")(scaled)
    model = keras.Model(encoder.input, {"landmarks": output})
    weights = args.work / "pretrain.weights.h5"
    if weights.is_file():
        model.load_weights(weights)
    else:
        steps = args.pretrain_crops // args.batch_size
        train(model, batches, steps, 2e-3, 0.5, weights, partial(validation_nme, *held_out))
    return encoder


def start_head(branch, whitened, images, targets) -> None:
    """Solve the parameter head for the fitted parameters of some training crops."""
    pool = np.flatnonzero(~targets.held_out)
    chosen = np.sort(np.random.default_rng(0).permutation(pool)[:HEAD_SAMPLES])
    solve_head(branch, images[chosen], whitened[chosen])


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("aflw", type=Path, help="folder with crops/ and labels.npz")
    parser.add_argument(
        "--work", type=Path, required=True, help="where intermediate steps are kept"
    )
    parser.add_argument("--out", type=Path, required=True, help="the preset's folder")
    parser.add_argument("--encoder", default="mobilenet_0.5")
    parser.add_argument("--start", help="preset whose encoder is taken in place of step 2")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--pretrain-crops", type=int, default=390_000)
    parser.add_argument("--crops", type=int, default=480_000)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(0)
    keras.utils.set_random_seed(args.seed)
    targets = load_targets(args.aflw)
    images = load_images(args.aflw, targets.name)
    model, parameters = fit_targets(load_face_model("open_face"), targets, args.work / "fit.npz")
    whitening = Whitening.from_samples(parameters[~targets.held_out])
    move = ParameterMover(model)
    batches = Batches(images, targets, parameters, move, whitening, args)
    held_out = images[targets.held_out], targets.landmarks[targets.held_out]
    if args.start:
        preset = load_preset(args.start)
        branch, args.encoder = preset.branch, preset.encoder
    else:
        encoder = pretrained_encoder(targets, batches, held_out, args)
        branch = build_branch(encoder, ParameterLayout(model.n_identity, model.n_expression), 0)
    start_head(branch, whitening.whiten(parameters), images, targets)
    space = ParameterSpace(model, whitening)
    regressor = build_regressor(branch, space)
    print(f"head started: held-out NME {validation_nme(*held_out, regressor):.2f} %")
    steps, weights = args.crops // args.batch_size, args.work / "train.weights.h5"
    train(regressor, batches, steps, 1.5e-3, 0.005, weights, partial(validation_nme, *held_out))
    metadata = {"data": "AFLW crops", "seed": args.seed, "crops": args.crops}
    save_preset(args.out, Preset(branch, space, args.encoder, metadata))
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
