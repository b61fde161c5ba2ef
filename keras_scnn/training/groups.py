"""Training on groups: all pairs of a batch are compared, and a teacher says who looks alike."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from keras_scnn.data.augment import GroupAugmenter
from keras_scnn.data.labels.identity_labels import (
    align_sources,
    comparable_embeddings,
    teach_shapes,
    yaw_degrees,
)
from keras_scnn.data.mixture import Mixture
from keras_scnn.data.samplers import GroupSampler, JoinedSampler
from keras_scnn.data.stream import fresh_group_dataset, group_dataset
from keras_scnn.losses import (
    EmbeddingDistance,
    GroupContrastiveLoss,
    LandmarkDistance,
    ParameterLoss,
    RelationalLoss,
    SupervisedContrastiveLoss,
)
from keras_scnn.models import build_branch, build_encoder, build_group
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import ParameterSpace
from keras_scnn.training.config import TrainConfig, fresh_people, make_optimizer

PROFILE_DEGREES = 45


def teach(
    config: TrainConfig, mixture: Mixture, model: MorphableModel, seen: np.ndarray
) -> Mixture:
    """The mixture with comparable data sets, and identity labels that listen to the teacher.

    Args:
        config, mixture, model: of the run.
        seen: positions of the photos to learn from.
    """
    records = align_sources(mixture.records, mixture.source, model)
    embeddings = comparable_embeddings(records, mixture.source)
    if embeddings is not None and config.teacher_share:
        among = seen[mixture.photographed()[seen]]
        records = teach_shapes(records, embeddings, among, model, config.teacher_share)
    return dataclasses.replace(mixture, records=dataclasses.replace(records, embedding=embeddings))


def build_groups(config: TrainConfig, mixture: Mixture, space: ParameterSpace) -> keras.Model:
    """The compiled group network; losses that need a teacher are there where the data has one."""
    size, embedding = mixture.records.images.shape[1], mixture.records.embedding
    encoder = build_encoder(config.encoder, size, config.encoder_weights or None)
    sizes = config.feature_size, config.feature_channels
    branch = build_branch(encoder, space.layout, *sizes, config.identity_encoder)
    inside = config.augmentation if config.augment_on == "device" else 0.0
    known = 0 if embedding is None else embedding.shape[1]
    network = build_group(branch, space, known, inside)
    losses = {
        "parameters": ParameterLoss(space, config.parameter_weight, config.shape_weight),
        "landmarks": LandmarkDistance(10.0, config.depth_weight),
        "shape": GroupContrastiveLoss(config.margin or None, config.margin_quantile),
        "features": SupervisedContrastiveLoss(),
        "embedding": EmbeddingDistance(),
        "feature_likeness": RelationalLoss(),
        "shape_likeness": RelationalLoss(),
    }
    weights = {
        "parameters": 1.0,
        "landmarks": config.landmark_weight,
        "shape": config.contrast_weight,
        "features": config.feature_weight,
        "embedding": config.embedding_weight,
        "feature_likeness": config.likeness_weight,
        "shape_likeness": config.shape_likeness_weight,
    }
    told = network.output.keys()
    losses, weights = ({name: part[name] for name in told} for part in (losses, weights))
    network.compile(make_optimizer(config), losses, loss_weights=weights)
    return network


def group_stream(
    config: TrainConfig,
    mixture: Mixture,
    space: ParameterSpace,
    part: np.ndarray,
    first_step: int,
    is_validation: bool = False,
):
    """Batches of groups, and of single photos, of the photos at some positions, from a step on."""
    people = fresh_people(config)
    if people and not is_validation:
        return fresh_group_dataset(people, space.whitening, first_step)
    records, seed = mixture.records, config.seed + is_validation
    shape = config.group_people, config.group_photos
    options = {"among": part, "seed": seed, **mixture.sampling()}
    samplers = [GroupSampler(records.identity, *shape, **options)]
    if config.single_photos and not is_validation:
        samplers.append(_singles(config, mixture, part))
    augmenter = None
    if config.augmentation and config.augment_on == "host" and not is_validation:
        in_group = np.bincount(records.identity)[records.identity] > 1
        augmenter = GroupAugmenter(space.face_model, in_group, seed)
    sampler = JoinedSampler(samplers)
    return group_dataset(records, space.whitening, sampler, first_step, augmenter)


def _singles(config: TrainConfig, mixture: Mixture, part: np.ndarray) -> GroupSampler:
    """One photo each of anybody, profiles more often."""
    records, options = mixture.records, mixture.sampling()
    if config.single_data:
        part = part[mixture.source[part] < config.single_data]
    turned = np.minimum(np.abs(yaw_degrees(records)) / PROFILE_DEGREES, 1)
    emphasis = 1 + (config.profile_emphasis - 1) * turned
    return GroupSampler(
        records.identity,
        config.single_photos,
        photos=1,
        emphasis=emphasis,
        among=part,
        seed=config.seed + 2,
        **options,
    )
