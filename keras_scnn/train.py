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
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from keras_scnn.config import SETTINGS, add_options, claim_folder, from_options
from keras_scnn.data.mixing import Mixture
from keras_scnn.data.records import FaceRecords, part_of, split_people
from keras_scnn.evaluate import RecordResults, evaluate_records, write_results
from keras_scnn.evaluation.plots import plot_curves
from keras_scnn.face_models import load_face_model
from keras_scnn.identity_judges import learn_scatter
from keras_scnn.models import Preset, load_preset, save_preset
from keras_scnn.models.warm_start import copy_network, solve_dense, warm_start
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import ParameterLayout, Whitening
from keras_scnn.train_config import TrainConfig, find_records, recipe_path
from keras_scnn.train_groups import build_groups, group_stream, teach
from keras_scnn.train_pairs import build_pairs, pair_stream
from keras_scnn.training import (
    Budget,
    Checkpoints,
    Progress,
    RunState,
    ShapeMonitor,
    load_checkpoint,
    read_curves,
    read_state,
)

MAY_CHANGE = ("run", "cache", "steps", "minutes")  # of a run that is resumed
STEPS_PER_EPOCH, VALIDATION_STEPS = 50, 4
HEAD_SAMPLES, SHAPE_SAMPLES = 3000, 9000  # photos from which a head, or its shape, is solved
BUILD = {"pairs": build_pairs, "groups": build_groups}
STREAM = {"pairs": pair_stream, "groups": group_stream}


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
    model = mixture.annotated(load_face_model(config.face_model))
    seen, unseen = split_people(mixture.records.identity, config.held_out)
    measured = part_of(mixture.records, unseen)  # with the labels as they came
    if config.batches == "groups":
        mixture = teach(config, mixture, model, seen)
    records = mixture.records
    whitening = Whitening.from_samples(records.parameters[seen])
    network = BUILD[config.batches](config, mixture, model, whitening)
    if config.start and not read_state(folder).checkpoint:
        take_over(config, network, records, seen, whitening)
    state = fit(config, network, mixture, model, whitening, (seen, unseen))
    metadata = {"config": dataclasses.asdict(config), "state": dataclasses.asdict(state)}
    branch = network.get_layer("branch")
    preset = Preset(branch, model, whitening, config.encoder, metadata)
    preset = dataclasses.replace(preset, shape_scatter=learn_scatter(preset, records, seen))
    save_preset(folder, preset)
    results = evaluate_records(preset, measured)
    title = f"{folder.name}: {len(unseen)} photos of people never trained on"
    print(write_results(results, folder, "results", title))
    plot_curves(read_curves(folder), folder / "curves.png")
    print(f"written: {folder}/results.json, results.png, results-curves.png, curves.png")
    print("the folder is a preset")
    return results


def take_over(
    config: TrainConfig,
    network: keras.Model,
    records: FaceRecords,
    seen: np.ndarray,
    whitening: Whitening,
) -> None:
    """Bring the network to where the preset is that the settings start from."""
    source, branch = load_preset(config.start), network.get_layer("branch")
    count = SHAPE_SAMPLES if config.start_with == "shape" else HEAD_SAMPLES
    chosen = np.sort(np.random.default_rng(config.seed).permutation(seen)[:count])
    images, labels = records.images[chosen], whitening.whiten(records.parameters[chosen])
    if config.start_with == "encoder":
        warm_start(branch, source.core, images, labels)
    else:
        copy_network(branch, source, whitening)
    if config.start_with == "shape":
        layout = ParameterLayout(source.face_model.n_identity, source.face_model.n_expression)
        told = labels[:, layout.identity]
        head = branch.get_layer("parameters")
        solve_dense(branch, head, images, told, columns=layout.identity)
    if "embedding" in network.output:  # random, it would spoil features that are good already
        known = chosen[np.isfinite(records.embedding[chosen]).all(axis=1)]
        told = records.images[known], records.embedding[known]
        if config.start_with == "encoder" and config.feature_size == told[1].shape[1]:
            solve_dense(branch, branch.get_layer("features_linear"), *told)
        solve_dense(network, network.get_layer("embedding"), *told)


def fit(
    config: TrainConfig,
    network: keras.Model,
    mixture: Mixture,
    model: MorphableModel,
    whitening: Whitening,
    parts: tuple[np.ndarray, np.ndarray],
) -> RunState:
    """Train until the budget is used up, from the last checkpoint where there is one."""
    folder = Path(config.run)
    state = read_state(folder)
    if state.checkpoint:
        load_checkpoint(folder, network, state)
    if state.step >= config.steps or 0 < 60 * config.minutes <= state.seconds:
        network.optimizer.finalize_variable_values(network.trainable_variables)
        return state
    stream = STREAM[config.batches]
    data = config, mixture, model, whitening
    budget = Budget(state, config.steps, config.minutes, config.learning_rate, config.warmup)
    monitor = ShapeMonitor(mixture.records, parts[1], model, whitening)
    network.fit(
        stream(*data, parts[0], state.step),
        initial_epoch=state.step // STEPS_PER_EPOCH,
        epochs=math.ceil(config.steps / STEPS_PER_EPOCH) + 1,
        steps_per_epoch=STEPS_PER_EPOCH,
        validation_data=stream(*data, parts[1], 0, True).take(VALIDATION_STEPS).cache(),
        callbacks=[
            budget,
            monitor,  # before what writes the logs down
            Checkpoints(folder, budget),
            keras.callbacks.TensorBoard(folder / "logs", write_graph=False),
            Progress(state.step, config.steps),
        ],
        shuffle=False,  # the sampler has done it
        verbose=0,
    )
    if monitor.collapsed:
        print("stopped: all shapes have become the mean face (shape_size in curves.csv)")
    return read_state(folder)


def parse(arguments: list[str] | None) -> TrainConfig:
    """The settings of a command line.

    Raises:
        FileNotFoundError, ValueError: a configuration file is missing or wrong.
    """
    parser = argparse.ArgumentParser("python -m keras_scnn.train", description=__doc__)
    parser.add_argument("--resume", metavar="RUN", help="go on with the settings of a run folder")
    parser.add_argument("--recipe", metavar="NAME", help="settings of the package: paper, robust")
    add_options(parser, TrainConfig)
    options = parser.parse_args(arguments)
    if sum(map(bool, (options.resume, options.config, options.recipe))) > 1:
        raise ValueError("give one of --resume, --config and --recipe")
    if options.recipe:
        options.config = str(recipe_path(options.recipe))
    if options.resume:
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
