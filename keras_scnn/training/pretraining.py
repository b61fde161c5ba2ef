"""Pretraining of an encoder from scratch: it regresses the 68 landmarks, without a face model."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_scnn.data.records import FaceRecords
from keras_scnn.losses import LandmarkDistance
from keras_scnn.storage import atomic_path
from keras_scnn.storage.guard import reading
from keras_scnn.training.checkpoints import RunState
from keras_scnn.training.config import TrainConfig
from keras_scnn.training.objectives import LANDMARK_UNIT, create_variables
from keras_scnn.training.optimizers import finish, make_optimizer
from keras_scnn.training.run_folder import Budget, Progress

WEIGHTS, STEPS_PER_EPOCH = "pretrained.weights.h5", 500


def pretrain(config: TrainConfig, network: keras.Model, mode: Any, seen: np.ndarray) -> None:
    """Train the encoder of a group network on the landmarks through one linear layer.

    The weights are saved in the run folder; if they are already there, they are loaded instead.

    Args:
        config: of the run; ``pretrain_steps`` batches are trained on, at its learning rate.
        network: of ``build_group``, whose branch has the encoder.
        mode: of the run, see ``training.run.Mode``.
        seen: positions of the photos to train on.

    Raises:
        ValueError: the weights in the run folder are damaged.
    """
    branch = network.get_layer("branch")
    mean = mean_landmarks(mode.mixture.records, seen, branch.input_shape[1])
    model = landmark_regressor(branch, mean)
    path = Path(config.run) / WEIGHTS
    if path.is_file():
        with reading(path, "pretrained weights (delete it to pretrain the encoder again)"):
            model.load_weights(path)
        return
    loss = LandmarkDistance(LANDMARK_UNIT, config.depth_weight)
    model.compile(make_optimizer(config), {"landmarks": loss})
    steps = config.pretrain_steps
    budget = Budget(RunState(), steps, 0, config.learning_rate, config.warmup)
    progress = Progress(budget, steps)
    stream = mode.stream(seen, 0).map(_landmarks_alone)
    create_variables(model, stream)
    with contextlib.closing(progress):
        model.fit(
            stream,
            epochs=-(-steps // STEPS_PER_EPOCH),
            steps_per_epoch=min(steps, STEPS_PER_EPOCH),
            callbacks=[budget, progress],
            shuffle=False,
            verbose=0,
        )
    if config.weight_average:
        finish(model, mode.stream(seen, steps))
    with atomic_path(path) as temporary:
        model.save_weights(temporary)


def mean_landmarks(records: FaceRecords, seen: np.ndarray, size: int) -> np.ndarray:
    """(68, 3) crop px: the mean of the labels with a weight above 0 at positions ``seen`` (m,).

    One that no photo has gets (size - 1) / 2 in all coordinates, the middle of a crop of ``size``
    px.
    """
    points = records.landmarks[seen]
    unknown = np.broadcast_to(records.weights(seen)[..., None] <= 0, points.shape)
    return np.ma.array(points, mask=unknown).mean(axis=0).filled((size - 1) / 2)


def landmark_regressor(branch: keras.Model, mean: np.ndarray) -> keras.Model:
    """The encoder of a branch with a linear layer to landmarks.

    Args:
        branch: from ``build_branch``; the encoder's weights are shared.
        mean: (68, 3) crop px, the mean landmarks, which the layer's outputs are relative to.

    Returns:
        a model from (B, S, S, 3) images to ``landmarks`` (B, 68, 3), crop px.
    """
    encoded, size = branch.get_layer("parameters").input, branch.input_shape[1]
    linear = keras.layers.Dense(mean.size, dtype="float32", name="landmarks_linear")(encoded)
    scaled = keras.layers.Reshape(mean.shape)(linear)
    output = keras.layers.Rescaling(size / 2, mean, dtype="float32", name="landmarks")(scaled)
    return keras.Model(branch.inputs[0], {"landmarks": output}, name="pretraining")


def _landmarks_alone(inputs, targets):
    return inputs, {"landmarks": targets["landmarks"]}
