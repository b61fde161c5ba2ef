"""One training run: from settings to a run folder that is a preset."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import keras
import numpy as np

from keras_scnn.data.labels.identity_labels import well_known
from keras_scnn.data.mixture import Mixture
from keras_scnn.data.records import FaceRecords, part_of, split_people
from keras_scnn.data.samplers import WHOLE, Shard
from keras_scnn.data.stream import original_errors
from keras_scnn.evaluation.plots import plot_curves
from keras_scnn.face_models import load_face_model
from keras_scnn.models import Preset, load_preset, save_preset
from keras_scnn.models.presets import read_preset
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import ParameterSpace
from keras_scnn.protocols.evaluation import write_results
from keras_scnn.protocols.identity import learn_covariance
from keras_scnn.protocols.records import RecordResults, evaluate_records
from keras_scnn.storage.claims import sole_run
from keras_scnn.storage.one_thread import one_thread_each
from keras_scnn.storage.outputs import check_out
from keras_scnn.training.checkpoints import (
    RunState,
    check_kept,
    check_run_folder,
    claim_run_folder,
    has_curves,
    load_checkpoint,
    read_curves,
    read_state,
    trim_curves,
)
from keras_scnn.training.config import TrainConfig
from keras_scnn.training.digests import check_inputs, run_digests
from keras_scnn.training.distribution import ALONE, Group, Trainee, join_group
from keras_scnn.training.groups import GroupMode
from keras_scnn.training.objectives import compile_network, create_variables
from keras_scnn.training.optimizers import finish, make_optimizer
from keras_scnn.training.pairs import PairMode
from keras_scnn.training.pretraining import pretrain
from keras_scnn.training.records import check_single_data, open_records
from keras_scnn.training.run_folder import (
    Budget,
    Checkpoints,
    FiniteNumbers,
    Progress,
    ShapeMonitor,
    StopRequest,
    largest_shape,
)
from keras_scnn.training.summary import (
    ending,
    measure_before,
    measure_constant,
    read_before,
    run_table,
)
from keras_scnn.training.warm_start import check_start, head_samples, init_from_preset, solve_dense

# Settings that may change when a run is resumed.
MAY_CHANGE = ("run", "cache", "cache_gigabytes", "steps", "minutes", "tensorboard")
STEPS_PER_EPOCH, VALIDATION_STEPS = 50, 4
EXECUTION_STEPS = 10


class Mode(Protocol):
    """What a run needs for its kind of batches; ``PairMode`` and others implement it."""

    mixture: Mixture
    space: ParameterSpace

    def build(self, parts: int = 1) -> keras.Model:
        """The network, not yet compiled; its layer 'branch' is the single-image model to save.

        ``parts`` is the number of micro-batches that a training batch is split into, see
        ``InParts``.
        """

    def stream(
        self,
        part: np.ndarray,
        first_step: int,
        is_validation: bool = False,
        shard: Shard = WHOLE,
    ):
        """An endless stream of ``(inputs, targets)``, the same for the same arguments."""


@dataclass(frozen=True, eq=False)
class Run:
    """A prepared training run: its settings, network and data.

    Attributes:
        config: settings. mode: for its kind of batches.
        network: compiled, on this process's first device.
        seen, unseen: positions of the photos to train on, and of those of held-out people.
        measured: the records at ``unseen``, with their original labels.
    """

    config: TrainConfig
    mode: Mode
    network: keras.Model
    seen: np.ndarray
    unseen: np.ndarray
    measured: FaceRecords

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.config.run)


def train(config: TrainConfig) -> RecordResults | None:
    """Train, or resume the run that is in the run folder; then measure and plot.

    SIGTERM and Ctrl-C end it after the step, with a checkpoint. Keras's dtype policy is restored.

    Returns:
        the results; with several processes only in the first, which measures; None in the others.

    Raises:
        FileNotFoundError: data, preset or recognizer are missing.
        ValueError: the run folder holds a run with other settings, or a damaged one, data does not
            fit the settings, the backend does not support them, or several processes differ.
        OSError: the run folder cannot be written, or another run writes to it, photos have become
            unreadable, or one of several processes did not connect in time.
    """
    policy = keras.config.dtype_policy()
    try:
        with original_errors():
            return _train(config)
    finally:
        keras.config.set_dtype_policy(policy)


def _train(config: TrainConfig) -> RecordResults | None:
    check_mode_backend(config)
    with contextlib.ExitStack() as held:
        with join_group(config) as group:
            run = set_up(config, group)
            if group.is_first:
                held.enter_context(sole_run(run.folder))
            state = fit(run, group)
        if not group.is_first:
            print(f"rank {config.rank}: training ended after step {state.step}; rank 0 measures")
            return None
        if config.weight_average:
            finish(run.network, run.mode.stream(run.seen, state.step))
        return measure(run, state)


def set_up(config: TrainConfig, group: Group = ALONE) -> Run:
    """Open the data and build the network, which the first process initializes for a new run."""
    folder, state = Path(config.run), RunState()
    if group.is_first:
        check_run_folder(folder, config.kept(), MAY_CHANGE)
        with sole_run(folder) if folder.is_dir() else contextlib.nullcontext():
            state = check_kept(folder)
        if state.step > config.steps:
            done = f"the run in {folder} has done {state.step}"
            raise ValueError(f"steps is {config.steps}, but {done}; give the total number of steps")
        read_before(folder)  # report a damaged file before training
        if config.start and not state.checkpoint:
            check_start(config)  # before preparing the data
    keras.utils.set_random_seed(config.seed)
    with group.in_turn("data"):  # render or pack the data only once
        mixture, extra = open_data(config)
    check_single_data(config, mixture)
    model = mixture.annotated(load_face_model(config.face_model))
    records = mixture.records
    seen, unseen = split_people(records.identity, config.held_out, records.mirror)
    measured = part_of(records, unseen)  # with their original labels
    check_held_out(measured, config.held_out)
    mode = make_mode(config, mixture, model, seen, extra)
    keras.config.set_dtype_policy(config.precision)
    run = Run(config, mode, compiled(config, mode), seen, unseen, measured)
    for part, is_validation in ((seen, False), (unseen, True)):
        mode.stream(part, 0, is_validation, group.shard)  # reports too few photos
    with group.in_turn("start"):
        if group.is_first:
            start(run, state)
    return run


def compiled(
    config: TrainConfig, mode: Mode, parts: int = 1, layout: Callable | None = None
) -> keras.Model:
    """The network of a run, after ``layout``, compiled; ``parts`` as for ``Mode.build``."""
    network = mode.build(parts)
    options = make_optimizer(config), execution_steps(config)
    return compile_network(layout(network) if layout else network, config, mode.space, *options)


def start(run: Run, state: RunState) -> None:
    """Initialize a new run; claim the run folder once its settings cannot be refused any more."""
    new = run.config, run.network, run.mode, run.seen
    from_preset = not state.checkpoint and bool(run.config.start)
    if from_preset:  # which may not fit
        initialize(*new)
    claim_run_folder(run.folder, run.config.kept(), MAY_CHANGE)
    check_inputs(run.folder, run.config)
    if not state.checkpoint:
        if not from_preset:  # pretraining writes into the folder
            initialize(*new)
        measure_before(run.folder, as_preset(run, RunState()), run.measured)


def measure(run: Run, state: RunState) -> RecordResults:
    """Write the preset, measure it on people never trained on, and print and plot the results."""
    folder, config = run.folder, run.config
    preset = finished_preset(run, state)
    results = evaluate_records(preset, run.measured)
    title = f"{folder.name}: {len(run.unseen)} photos of people never trained on"
    write_results(results, folder, "results", title)
    drawn = "results.png, results-curves.png"
    if has_curves(folder):  # not if it was stopped before the first row
        plot_curves(read_curves(folder), folder / "curves.png")
        drawn += ", curves.png"
    print(ending(state, config.steps, config.minutes), title, sep="\n")
    print(run_table(folder, measure_constant(folder, preset, run.measured), results))
    print(f"all numbers: {folder}/results.txt, results.json; plots: {drawn}")
    print("the folder is a preset")
    return results


def check_held_out(records: FaceRecords, held_out: int) -> None:
    """Raise a ValueError if the held-out photos make no pairs of two people."""
    photos = np.unique(records.identity, return_counts=True)[1]
    if len(np.unique(records.either_side())) < 2 and photos.max() > 1:
        raise ValueError(
            f"held_out is {held_out}: verification on the held-out people needs at least two, "
            "mirror images not counted"
        )


def check_mode_backend(config: TrainConfig) -> None:
    """Raise a ValueError if Keras's backend cannot make the batches."""
    if config.batches == "matching" and keras.backend.backend() != "jax":
        raise ValueError(
            f"batches 'matching' needs JAX as Keras's backend, which is {keras.backend.backend()}: "
            "pip install '.[matching]', and set KERAS_BACKEND=jax"
        )


def execution_steps(config: TrainConfig) -> int:
    """Steps between two calls of the callbacks, at which an accelerator waits for the host."""
    if config.batches != "matching":
        return 1
    return math.gcd(config.steps, STEPS_PER_EPOCH, EXECUTION_STEPS)


def open_data(config: TrainConfig) -> tuple[Mixture, dict]:
    """The records of ``data``, or synthetic ones, rendered once; and further arguments of the mode.

    For matching the photos are packed once; a pack may be given as ``data`` too.

    Raises:
        FileNotFoundError, ValueError: see ``open_mixture``, ``write_pack`` and ``read_pack``; or
            too few people have enough photos to learn identity labels from.
        OSError: the cache cannot be written.
    """
    if config.batches != "matching":
        return open_records(config), {}
    from keras_scnn.training.matching.mode import packed_photos
    from keras_scnn.training.matching.pack import read_pack, write_pack

    path = packed_photos(config)
    if not path.is_file() and not config.data.endswith(".npz"):
        check_out(path.parent, "--cache")
        if not config.data:  # before any is rendered
            well_known(np.repeat(np.arange(config.people), config.photos))
        mixture = open_records(config)
        well_known(mixture.records.identity)  # before any photo is packed
        path.parent.mkdir(parents=True, exist_ok=True)
        model = mixture.annotated(load_face_model(config.face_model))
        write_pack(path, mixture, model, config.photo_folders)
    pack = read_pack(path)
    return pack.mixture, {"pack": pack}


def make_mode(
    config: TrainConfig, mixture: Mixture, model: MorphableModel, seen: np.ndarray, extra: dict
) -> Mode:
    """The mode of the settings; ``extra`` is from ``open_data``."""
    if config.batches == "matching":
        from keras_scnn.training.matching.mode import MatchingMode

        return MatchingMode(config, mixture, model, seen, **extra)
    if config.batches == "groups":
        return GroupMode(config, mixture, model, seen)
    return PairMode(config, mixture, model, seen)


def initialize(config: TrainConfig, network: keras.Model, mode: Mode, seen: np.ndarray) -> None:
    """Initialize a new network as the settings ask: from a preset, or by pretraining."""
    records = mode.mixture.records
    if config.start:
        init_from_preset(config, network, load_preset(config.start), records, seen, mode.space)
    elif config.pretrain_steps:
        pretrain(config, network, mode, seen)
        chosen = head_samples(config, seen)
        labels = mode.space.whiten(records.parameters[chosen])
        branch = network.get_layer("branch")
        solve_dense(branch, branch.get_layer("parameters"), records.images[chosen], labels)


def fit(run: Run, group: Group = ALONE) -> RunState:
    """Train until the budget is used up, from the last checkpoint if there is one."""
    config, state = run.config, RunState()
    if group.is_first:
        state = read_state(run.folder)
        if state.checkpoint:
            state = load_checkpoint(run.folder, run.network, state)
        trim_curves(run.folder, state.step)
    (now,) = group.broadcast([np.array([state.step, 10 * state.seconds], np.int32)])
    step, seconds = int(now[0]), float(now[1] / 10)
    if step >= config.steps or 0 < 60 * config.minutes <= seconds:
        return state
    return _fit(run, group, state if group.is_first else RunState(step, seconds))


def _fit(run: Run, group: Group, state: RunState) -> RunState:
    config, mode = run.config, run.mode
    trainee = Trainee(run.network, run.network)
    if group is not ALONE or config.accumulate > 1:
        copy = partial(compiled, config, mode, config.accumulate)
        trainee = Trainee.of(run.network, group, copy)
    budget = Budget(state, config.steps, config.minutes, config.learning_rate, config.warmup)
    kept = trainee.synced
    photos = mode.mixture.records, run.unseen, mode.space
    monitor = ShapeMonitor(*photos, kept, group, largest_shape(run.folder))
    checkpoints = Checkpoints(run.folder, budget, kept, group)
    stop, progress = StopRequest(checkpoints, budget, group), Progress(budget, config.steps)
    validation = mode.stream(run.unseen, 0, True, group.shard)
    if validation is not None:
        validation = validation.take(VALIDATION_STEPS).cache()
    callbacks = [budget, FiniteNumbers(run.folder, budget), monitor]  # before the checkpoints
    if group.is_first:
        callbacks += [checkpoints, *_tensorboard(config), progress]
    stream = mode.stream(run.seen, state.step, shard=group.shard)
    if group is ALONE:
        create_variables(trainee.trained, stream)
    calm = one_thread_each()  # batches may be rendered meanwhile
    with stop.listening(), contextlib.closing(progress), calm, group.scope():
        trainee.trained.fit(
            stream,
            initial_epoch=state.step // STEPS_PER_EPOCH,
            epochs=math.ceil(config.steps / STEPS_PER_EPOCH) + 1,
            steps_per_epoch=STEPS_PER_EPOCH,
            validation_data=validation,
            callbacks=[*callbacks, stop],
            shuffle=False,  # the sampler does it
            verbose=0,
        )
    kept()
    if monitor.collapsed:
        print("stopped: all shapes have collapsed to the mean face (shape_size in curves.csv)")
    return read_state(run.folder) if group.is_first else budget.state


def _tensorboard(config: TrainConfig) -> list[keras.callbacks.Callback]:
    if not config.tensorboard or importlib.util.find_spec("tensorflow") is None:
        return []
    return [keras.callbacks.TensorBoard(Path(config.run) / "logs", write_graph=False)]


def finished_preset(run: Run, state: RunState) -> Preset:
    """Write the run's preset, its within-person covariance included, and return it in float32."""
    preset = as_preset(run, state)
    preset.metadata["digests"] = run_digests(run.config)
    save_preset(run.folder, preset)
    if run.config.precision != "float32":
        keras.config.set_dtype_policy("float32")
        preset = load_preset(run.folder, run.mode.space.face_model)
    return preset


def as_preset(run: Run, state: RunState) -> Preset:
    """The network as a preset, with the within-person covariance of the photos trained on."""
    config, space = run.config, run.mode.space
    metadata = {"config": dataclasses.asdict(config.kept()), "state": dataclasses.asdict(state)}
    preset = Preset(run.network.get_layer("branch"), space, config.encoder, metadata)
    if config.trained != "expression":
        covariance = learn_covariance(preset, run.mode.mixture.records, run.seen)
    else:  # shapes are unchanged
        covariance = read_preset(config.start, space.face_model).within_person_covariance
    return dataclasses.replace(preset, within_person_covariance=covariance)
