"""One training run: from settings to a run folder that is a preset."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import keras
import numpy as np

from keras_scnn.data.mixture import Mixture
from keras_scnn.data.records import FaceRecords, part_of, split_people
from keras_scnn.evaluation.plots import plot_curves
from keras_scnn.face_models import load_face_model
from keras_scnn.models import Preset, load_preset, save_preset
from keras_scnn.parameters import ParameterSpace
from keras_scnn.protocols.evaluation import write_results
from keras_scnn.protocols.identity import learn_scatter
from keras_scnn.protocols.records import RecordResults, evaluate_records
from keras_scnn.settings import claim_run_folder
from keras_scnn.training.config import TrainConfig, find_records
from keras_scnn.training.groups import build_groups, group_stream, teach
from keras_scnn.training.pairs import build_pairs, pair_stream
from keras_scnn.training.run_folder import (
    Budget,
    Checkpoints,
    Progress,
    RunState,
    ShapeMonitor,
    load_checkpoint,
    read_curves,
    read_state,
)
from keras_scnn.training.warm_start import copy_network, solve_dense, warm_start

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
    claim_run_folder(folder, config, MAY_CHANGE)
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    mixture = find_records(config)
    model = mixture.annotated(load_face_model(config.face_model))
    seen, unseen = split_people(mixture.records.identity, config.held_out)
    measured = part_of(mixture.records, unseen)  # with the labels as they came
    if config.batches == "groups":
        mixture = teach(config, mixture, model, seen)
    records = mixture.records
    space = ParameterSpace.from_samples(model, records.parameters[seen])
    network = BUILD[config.batches](config, mixture, space)
    if config.start and not read_state(folder).checkpoint:
        take_over(config, network, records, seen, space)
    state = fit(config, network, mixture, space, (seen, unseen))
    metadata = {"config": dataclasses.asdict(config), "state": dataclasses.asdict(state)}
    branch = network.get_layer("branch")
    preset = Preset(branch, space, config.encoder, metadata)
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
    space: ParameterSpace,
) -> None:
    """Bring the network to where the preset is that the settings start from."""
    source, branch = load_preset(config.start), network.get_layer("branch")
    count = SHAPE_SAMPLES if config.start_with == "shape" else HEAD_SAMPLES
    chosen = np.sort(np.random.default_rng(config.seed).permutation(seen)[:count])
    images, labels = records.images[chosen], space.whiten(records.parameters[chosen])
    if config.start_with == "encoder":
        warm_start(branch, source.core, images, labels)
    else:
        copy_network(branch, source, space.whitening)
    if config.start_with == "shape":
        identity, head = space.layout.identity, branch.get_layer("parameters")
        solve_dense(branch, head, images, labels[:, identity], columns=identity)
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
    space: ParameterSpace,
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
    data = config, mixture, space
    budget = Budget(state, config.steps, config.minutes, config.learning_rate, config.warmup)
    monitor = ShapeMonitor(mixture.records, parts[1], space)
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
