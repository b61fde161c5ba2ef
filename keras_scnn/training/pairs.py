"""Training on pairs, as in the paper: the Siamese network, its losses and its stream."""

from __future__ import annotations

import keras
import numpy as np

from keras_scnn.data.mixture import Mixture
from keras_scnn.data.samplers import PairSampler
from keras_scnn.data.stream import fresh_pair_dataset, pair_dataset
from keras_scnn.losses import (
    ContrastiveLoss,
    ExponentialContrastiveLoss,
    IdentityLoss,
    LandmarkDistance,
    ParameterLoss,
)
from keras_scnn.models import build_encoder, build_siamese
from keras_scnn.parameters import ParameterSpace
from keras_scnn.training.config import TrainConfig, fresh_people, make_optimizer


def build_pairs(config: TrainConfig, mixture: Mixture, space: ParameterSpace) -> keras.Model:
    """The compiled Siamese network."""
    size = mixture.records.images.shape[1]
    network = build_siamese(
        build_encoder(config.encoder, size, config.encoder_weights or None),
        space,
        config.feature_size,
        config.contrast,
        config.augmentation,
        config.feature_channels,
    )
    losses = {"parameter_distance": _contrast(config), "feature_similarity": IdentityLoss()}
    weights = {
        "parameter_distance": config.contrast_weight,
        "feature_similarity": config.feature_weight,
    }
    for side in "ab":
        losses[f"parameters_{side}"] = ParameterLoss(
            space, config.parameter_weight, config.shape_weight
        )
        losses[f"landmarks_{side}"] = LandmarkDistance(unit=10.0)
        weights[f"parameters_{side}"] = 1.0
        weights[f"landmarks_{side}"] = config.landmark_weight
    network.compile(make_optimizer(config), losses, loss_weights=weights)
    return network


def _contrast(config: TrainConfig) -> keras.losses.Loss:
    if config.contrast_form == "exponential":
        return ExponentialContrastiveLoss(config.margin)
    if config.margin:
        return ContrastiveLoss(config.margin)
    return ContrastiveLoss(margin_quantile=config.margin_quantile)


def pair_stream(
    config: TrainConfig,
    mixture: Mixture,
    space: ParameterSpace,
    part: np.ndarray,
    first_step: int,
    is_validation: bool = False,
):
    """Batches of pairs of the photos at some positions, from a step on."""
    people = fresh_people(config)
    if people and not is_validation:
        return fresh_pair_dataset(people, space.whitening, config.p_same, first_step)
    seed = config.seed + is_validation
    sampler = PairSampler(
        mixture.records.identity, config.p_same, seed, among=part, **mixture.sampling()
    )
    return pair_dataset(mixture.records, space.whitening, sampler, config.batch_size, first_step)
