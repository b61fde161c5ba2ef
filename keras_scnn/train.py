"""Train a Siamese network: ``python -m keras_scnn.train``.

Without an argument it renders synthetic identity pairs from the embedded face model, trains on
them for a few minutes, and measures the network on people that it never saw. The run folder holds
all there is to know: settings, checkpoints, TensorBoard logs, results, plots; it can be resumed,
and it is a preset for ``keras_scnn.evaluate`` and ``keras_scnn.reconstruct``.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from keras_scnn.config import SETTINGS, add_options, claim_folder, from_options
from keras_scnn.data.mixing import Mixture, open_mixture
from keras_scnn.data.pairs import PairSampler
from keras_scnn.data.pipeline import pair_dataset
from keras_scnn.data.records import part_of, split_people
from keras_scnn.data.synthetic import SyntheticConfig, cached_records
from keras_scnn.evaluate import RecordResults, evaluate_records, write_results
from keras_scnn.evaluation.plots import plot_curves
from keras_scnn.face_models import load_face_model
from keras_scnn.losses import ContrastiveLoss, IdentityLoss, LandmarkDistance, ParameterLoss
from keras_scnn.models import Preset, build_encoder, build_siamese, load_preset, save_preset
from keras_scnn.models.warm_start import warm_start
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import Whitening
from keras_scnn.training import (
    Budget,
    Checkpoints,
    Progress,
    RunState,
    load_checkpoint,
    read_curves,
    read_state,
)

MAY_CHANGE = ("run", "cache", "steps", "minutes")  # of a run that is resumed
STEPS_PER_EPOCH, VALIDATION_STEPS, HEAD_SAMPLES = 50, 4, 3000


def _option(default, text: str):
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run; ``python -m keras_scnn.train --help`` explains each."""

    run: str = _option("runs/synthetic", "run folder; a run that is there goes on")
    data: str = _option("", "face records, folders with commas; none renders synthetic people")
    data_weights: str = _option("", "how often each folder is drawn from; by its people if empty")
    cache: str = _option("runs/data", "where rendered records are kept")
    people: int = _option(900, "synthetic people")
    photos: int = _option(8, "photos of each synthetic person")
    crop_size: int = _option(120, "width and height of synthetic photos, px")
    held_out: int = _option(100, "people kept for the final measurement, the last ones")
    face_model: str = _option("open_face", "'open_face', or a file of MorphableModel.save")
    encoder: str = _option("mobilenet_0.5", "a name of models.ENCODERS")
    start: str = _option("aflw-mobilenet-0.5", "preset whose encoder is the start; '' for none")
    encoder_weights: str = _option("", "'imagenet': Keras's weights, with --start ''; else random")
    feature_size: int = _option(512, "length of the identity feature")
    steps: int = _option(1400, "batches to train on")
    minutes: float = _option(5.0, "training time at most; 0 for no limit")
    batch_size: int = _option(32, "pairs in a batch")
    learning_rate: float = _option(2e-3, "highest; it follows a cosine down to 0")
    warmup: int = _option(30, "steps up to the highest learning rate")
    p_same: float = _option(0.4, "share of pairs of one person")
    parameter_weight: float = _option(0.02, "of the weighted parameter distance cost")
    shape_weight: float = _option(0.3, "of the squared error of the neutral shape, mm")
    landmark_weight: float = _option(1.0, "of the landmark distance, per 10 px")
    contrast_weight: float = _option(0.1, "of the contrastive loss on shapes, mm")
    feature_weight: float = _option(4.0, "of the identity loss on features")
    margin_quantile: float = _option(0.5, "of the different pairs' distances: the push's margin")
    augmentation: float = _option(0.0, "strength of the photos' random changes; 1 for real ones")
    precision: str = _option("float32", "Keras's dtype policy; mixed_bfloat16 is for GPUs")
    seed: int = _option(0, "of people, pairs and weights")

    def __post_init__(self) -> None:
        for name in ("people", "photos", "held_out", "steps", "batch_size", "warmup"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if self.minutes < 0:
            raise ValueError(f"minutes is {self.minutes}; it must be 0 (no limit) or more")


def train(config: TrainConfig) -> RecordResults:
    """Train, or go on with the run that is in the run folder; then measure and draw.

    Raises:
        ValueError: the run folder holds a run with other settings, or a setting is out of range.
    """
    folder = Path(config.run)
    claim_folder(folder, config, MAY_CHANGE)
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    mixture = find_records(config)
    records, model = mixture.records, mixture.annotated(load_face_model(config.face_model))
    seen, unseen = split_people(records.identity, config.held_out)
    whitening = Whitening.from_samples(records.parameters[seen])
    network = build_network(config, model, whitening, records.images.shape[1])
    if config.start and not read_state(folder).checkpoint:
        chosen = np.sort(np.random.default_rng(config.seed).permutation(seen)[:HEAD_SAMPLES])
        labels = whitening.whiten(records.parameters[chosen])
        source = load_preset(config.start).branch
        warm_start(network.get_layer("branch"), source, records.images[chosen], labels)
    state = fit(config, network, mixture, whitening, (seen, unseen))
    metadata = {"config": dataclasses.asdict(config), "state": dataclasses.asdict(state)}
    branch = network.get_layer("branch")
    preset = Preset(branch, model, whitening, config.encoder, metadata)
    save_preset(folder, preset)
    results = evaluate_records(preset, part_of(records, unseen))
    title = f"{folder.name}: {len(unseen)} photos of people never trained on"
    print(write_results(results, folder, "results", title))
    plot_curves(read_curves(folder), folder / "curves.png")
    print(f"written: {folder}/results.json, results.png, results-curves.png, curves.png")
    print("the folder is a preset")
    return results


def find_records(config: TrainConfig) -> Mixture:
    """The records of --data, or synthetic ones, which are rendered once."""
    if config.data:
        return open_mixture(config.data, config.data_weights)
    options = SyntheticConfig(
        people=config.people,
        photos=config.photos,
        seed=config.seed,
        face_model=config.face_model,
        size=config.crop_size,
    )
    records = cached_records(options, config.cache)
    return Mixture(records, np.zeros(len(records), int))


def build_network(
    config: TrainConfig, model: MorphableModel, whitening: Whitening, crop_size: int
) -> keras.Model:
    """The compiled Siamese network for crops of ``crop_size`` px."""
    encoder = build_encoder(config.encoder, crop_size, config.encoder_weights or None)
    network = build_siamese(
        encoder, model, whitening, config.feature_size, augmentation=config.augmentation
    )
    losses = {"parameter_distance": ContrastiveLoss(margin_quantile=config.margin_quantile)}
    losses["feature_similarity"] = IdentityLoss()
    weights = {
        "parameter_distance": config.contrast_weight,
        "feature_similarity": config.feature_weight,
    }
    for side in "ab":
        losses[f"parameters_{side}"] = ParameterLoss(
            model, whitening, config.parameter_weight, config.shape_weight
        )
        losses[f"landmarks_{side}"] = LandmarkDistance(unit=10.0)
        weights[f"parameters_{side}"] = 1.0
        weights[f"landmarks_{side}"] = config.landmark_weight
    optimizer = keras.optimizers.Adam(config.learning_rate, global_clipnorm=10.0)
    network.compile(optimizer, losses, loss_weights=weights)
    return network


def fit(
    config: TrainConfig,
    network: keras.Model,
    mixture: Mixture,
    whitening: Whitening,
    parts: tuple[np.ndarray, np.ndarray],
) -> RunState:
    """Train until the budget is used up, from the last checkpoint where there is one."""
    folder = Path(config.run)
    state = read_state(folder)
    if state.checkpoint:
        load_checkpoint(folder, network, state)
    if state.step >= config.steps or 0 < 60 * config.minutes <= state.seconds:
        return state
    streams = []
    for i, first_step in enumerate((state.step, 0)):
        sampler = PairSampler(
            mixture.records.identity,
            config.p_same,
            config.seed + i,
            among=parts[i],
            **mixture.sampling(),
        )
        streams.append(
            pair_dataset(mixture.records, whitening, sampler, config.batch_size, first_step)
        )
    budget = Budget(state, config.steps, config.minutes, config.learning_rate, config.warmup)
    network.fit(
        streams[0],
        initial_epoch=state.step // STEPS_PER_EPOCH,
        epochs=math.ceil(config.steps / STEPS_PER_EPOCH) + 1,
        steps_per_epoch=STEPS_PER_EPOCH,
        validation_data=streams[1].take(VALIDATION_STEPS).cache(),
        callbacks=[
            budget,
            Checkpoints(folder, budget),
            keras.callbacks.TensorBoard(folder / "logs", write_graph=False),
            Progress(state.step, config.steps),
        ],
        shuffle=False,  # the sampler has done it
        verbose=0,
    )
    return read_state(folder)


def parse(arguments: list[str] | None) -> TrainConfig:
    """The settings of a command line.

    Raises:
        FileNotFoundError, ValueError: a configuration file is missing or wrong.
    """
    parser = argparse.ArgumentParser("python -m keras_scnn.train", description=__doc__)
    parser.add_argument("--resume", metavar="RUN", help="go on with the settings of a run folder")
    add_options(parser, TrainConfig)
    options = parser.parse_args(arguments)
    if options.resume:
        if options.config:
            raise ValueError("give either --resume or --config")
        options.config, options.run = str(Path(options.resume) / SETTINGS), options.resume
    return from_options(TrainConfig, options)


def main(arguments: list[str] | None = None) -> int:
    """The command; ``arguments`` as on the command line."""
    try:
        train(parse(arguments))
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
