"""The table of objectives: the loss, weight and label of each network output."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_scnn.losses import (
    ContrastiveLoss,
    EmbeddingDistance,
    ExponentialContrastiveLoss,
    GroupContrastiveLoss,
    IdentityLoss,
    LandmarkDistance,
    NeighborhoodLoss,
    ParameterLoss,
    RelationalLoss,
    SupervisedContrastiveLoss,
)
from keras_scnn.parameters import ParameterSpace
from keras_scnn.training.config import TrainConfig

LANDMARK_UNIT = 10.0  # px that count as 1


@dataclass(frozen=True)
class Objective:
    """The training objective of one output.

    Attributes:
        loss: makes its loss from the settings and the space of the parameters.
        weight: name of the setting that is its weight; None: the loss applies the weights itself.
        label: name of its label: parameters, landmarks, person (its number), same (1 if a pair is
            of one person), embedding (the recognizer's).
    """

    loss: Callable[[TrainConfig, ParameterSpace], keras.losses.Loss]
    weight: str | None
    label: str


def _parameter_loss(config: TrainConfig, space: ParameterSpace) -> keras.losses.Loss:
    loss = ParameterLoss(space, config.parameter_weight, config.shape_weight)
    if not config.group_share:
        return loss
    return SplitLoss(loss, config.group_people * config.group_photos, config.group_share)


def _landmark_distance(config: TrainConfig, space: ParameterSpace) -> keras.losses.Loss:
    return LandmarkDistance(LANDMARK_UNIT, config.depth_weight, config.opening_weight)


def _pair_contrast(config: TrainConfig, space: ParameterSpace) -> keras.losses.Loss:
    if config.contrast_form == "exponential":
        return ExponentialContrastiveLoss(config.margin)
    return _hinge(ContrastiveLoss, config)


def _group_contrast(config: TrainConfig, space: ParameterSpace) -> keras.losses.Loss:
    if config.contrast_form == "neighborhood":
        return NeighborhoodLoss(config.margin)
    return _hinge(GroupContrastiveLoss, config)


def _hinge(kind: Callable, config: TrainConfig) -> keras.losses.Loss:
    if config.margin:
        return kind(config.margin)
    return kind(margin_quantile=config.margin_quantile)


def _plain(kind: Callable[[], keras.losses.Loss]) -> Callable:
    return lambda config, space: kind()


PARAMETERS = Objective(_parameter_loss, None, "parameters")
LANDMARKS = Objective(_landmark_distance, "landmark_weight", "landmarks")
OBJECTIVES = {
    "parameters": PARAMETERS,
    "parameters_a": PARAMETERS,
    "parameters_b": PARAMETERS,
    "landmarks": LANDMARKS,
    "landmarks_a": LANDMARKS,
    "landmarks_b": LANDMARKS,
    "parameter_distance": Objective(_pair_contrast, "contrast_weight", "same"),
    "feature_similarity": Objective(_plain(IdentityLoss), "feature_weight", "same"),
    "shape": Objective(_group_contrast, "contrast_weight", "person"),
    "features": Objective(_plain(SupervisedContrastiveLoss), "feature_weight", "person"),
    "embedding": Objective(_plain(EmbeddingDistance), "embedding_weight", "embedding"),
    "feature_likeness": Objective(_plain(RelationalLoss), "likeness_weight", "embedding"),
    "shape_likeness": Objective(_plain(RelationalLoss), "shape_likeness_weight", "embedding"),
}
"""Objectives by the name of an output of ``build_siamese`` or ``build_group``."""


def compile_network(
    network: keras.Model,
    config: TrainConfig,
    space: ParameterSpace,
    optimizer: keras.optimizers.Optimizer,
    execution_steps: int = 1,
) -> keras.Model:
    """Compile a Siamese or group network for the objectives of its outputs, and return it.

    Args:
        network: of ``build_siamese`` or ``build_group``.
        config: weights and margins.
        space: of the network's parameters.
        optimizer: see ``make_optimizer``.
        execution_steps: ``steps_per_execution`` of ``keras.Model.compile``.
    """
    objectives = {name: OBJECTIVES[name] for name in network.output}
    losses = {name: one.loss(config, space) for name, one in objectives.items()}
    weights = {
        name: 1.0 if one.weight is None else getattr(config, one.weight)
        for name, one in objectives.items()
    }
    network.compile(optimizer, losses, loss_weights=weights, steps_per_execution=execution_steps)
    return network


def create_variables(network: keras.Model, stream: Any) -> None:
    """Create the variables of a compiled network's losses and optimizer, before it is trained.

    On TensorFlow Keras creates them while it traces the first step, and so traces it twice, which
    takes seconds. On other backends Keras creates them beforehand itself.

    Args:
        network: compiled.
        stream: the data for ``fit``; no batch is taken from it.
    """
    specs = getattr(stream, "element_spec", None)
    if keras.backend.backend() != "tensorflow" or specs is None:
        return
    inputs, labels = (keras.tree.map_structure(_zeros, part) for part in specs[:2])
    count = len(keras.tree.flatten(inputs)[0])
    # Not the network's own outputs: its random layers would draw numbers, and a resumed run would
    # draw others.
    outputs = keras.tree.map_structure(partial(_zeros, count=count), network.output)
    network.compute_loss(inputs, labels, outputs, training=False)
    network.compute_metrics(inputs, labels, outputs)
    network.reset_metrics()
    network.optimizer.build(network.trainable_variables)


def _zeros(spec: Any, count: int = 2) -> np.ndarray:
    """An array of a tensor's specification; sizes that it leaves open are ``count``."""
    dtype = getattr(spec.dtype, "name", spec.dtype)
    return np.zeros([count if size is None else size for size in spec.shape], dtype)


def targets_of(outputs: Iterable[str], labels: dict) -> dict:
    """The label of each output, from labels by their names in the table."""
    return {name: labels[OBJECTIVES[name].label] for name in outputs}


@keras.saving.register_keras_serializable("keras_scnn")
class SplitLoss(keras.losses.Loss):
    """A loss in which the first rows of a batch, and the others, have fixed shares.

    Args:
        loss: applied to both parts.
        count: number of the first rows, the photos in groups; above 0, below the batch size.
        share: of these rows in the loss, 0 to 1.
    """

    def __init__(self, loss: keras.losses.Loss, count: int, share: float):
        super().__init__(name=loss.name)
        self._loss, self._count, self._share = loss, count, share

    def call(self, y_true, y_pred):
        first, rest = slice(self._count), slice(self._count, None)
        one, other = (self._loss.call(y_true[rows], y_pred[rows]) for rows in (first, rest))
        count = ops.cast(ops.shape(y_true)[0], "float32")
        # One value per sample, scaled so that the mean over the batch has the shares.
        return ops.concatenate(
            [
                one * (self._share * count / self._count),
                other * ((1 - self._share) * count / (count - self._count)),
            ]
        )

    def get_config(self) -> dict:
        loss = keras.saving.serialize_keras_object(self._loss)
        return {"loss": loss, "count": self._count, "share": self._share}

    @classmethod
    def from_config(cls, config: dict) -> SplitLoss:
        loss = keras.saving.deserialize_keras_object(config["loss"])
        return cls(**{**config, "loss": loss})
