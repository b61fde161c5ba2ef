"""The photos and labels that the settings of a run ask for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from keras_scnn.data.mixture import Mixture, open_mixture
from keras_scnn.data.records import is_records
from keras_scnn.data.sharded_images import ShardedImages
from keras_scnn.data.synthesis.rendered_people import (
    SyntheticConfig,
    cached_folder,
    cached_records,
)
from keras_scnn.models.encoder_table import check_input_size
from keras_scnn.settings import folders_of
from keras_scnn.storage.outputs import check_out
from keras_scnn.storage.remote import is_url
from keras_scnn.storage.text import counted
from keras_scnn.training.config import TrainConfig


def open_records(config: TrainConfig) -> Mixture:
    """The face records of ``data``, or synthetic ones, which are rendered once.

    Raises:
        FileNotFoundError, ValueError: see ``open_mixture`` and ``cached_records``; or the limit of
            the cache is smaller than what a batch may need, the photos are larger than a network
            accepts, or all synthetic people are held out.
        OSError: the records are not in the cache, and it cannot be written.
    """
    if config.data:
        if any(map(is_url, folders_of(config.data))):
            check_out(Path(config.cache), "--cache")
        most = math.ceil(1e9 * config.cache_gigabytes) or None
        mixture = open_mixture(config.data, config.data_weights, config.cache, most)
        _check_bound(config, mixture)
        check_input_size(mixture.records.images.shape[1])
        return mixture
    check_input_size(config.crop_size)
    if config.held_out >= config.people:
        raise ValueError(
            f"held_out is {config.held_out}: none of {config.people} people are left to train on; "
            "hold out fewer, or give more people"
        )
    options = synthetic_people(config)
    if not is_records(cached_folder(options, config.cache)):
        check_out(Path(config.cache), "--cache")
    records = cached_records(options, config.cache)
    return Mixture(records, np.zeros(len(records), int))


def check_single_data(config: TrainConfig, mixture: Mixture) -> None:
    """Raise a ValueError if single photos are to be drawn from more folders than there are."""
    count = int(mixture.source.max()) + 1
    if config.single_data > count:
        raise ValueError(
            f"single_data is {config.single_data}; there are photos of {counted(count, 'folder')}: "
            "give fewer, or 0 for all"
        )


def synthetic_people(config: TrainConfig) -> SyntheticConfig:
    """The people that are rendered once if the settings have no ``data``."""
    return SyntheticConfig(
        people=config.people,
        photos=config.photos,
        seed=config.seed,
        face_model=config.face_model,
        size=config.crop_size,
        yaw_degrees=config.yaw,
        pitch_degrees=config.pitch,
        roll_degrees=config.roll,
        spread=config.spread,
        portraits=config.portraits,
    )


def _check_bound(config: TrainConfig, mixture: Mixture) -> None:
    """Raise a ValueError if shards would be downloaded again for each batch."""
    images = mixture.records.images
    if not isinstance(images, ShardedImages) or images.bound is None:
        return
    rows = -(-config.batch_rows()[0][0] // max(config.hosts, 1))  # of this process
    photos = rows * (2 if config.batches == "pairs" else 1)
    if (least := images.most_bytes(photos)) > images.bound.limit:
        raise ValueError(
            f"cache_gigabytes is {config.cache_gigabytes:g}: the {photos} photos of a batch may "
            f"lie in shards of {least / 1e9:.3g} GB; give more than that, or 0 for no limit"
        )


def fresh_people(config: TrainConfig) -> SyntheticConfig | None:
    """The people of a training batch, if new ones are rendered for each; else None.

    They differ from those of ``open_records``.
    """
    if not config.renders_batches:
        return None
    groups = config.batches == "groups"
    return dataclasses.replace(
        synthetic_people(config),
        people=config.group_people if groups else config.batch_size,
        photos=config.group_photos if groups else 2,
        first_person=config.people,
    )


@contextmanager
def naming_people(config: TrainConfig, is_validation: bool) -> Iterator[None]:
    """Prefix a ValueError of the block with the people concerned: to train on, or held out."""
    try:
        yield
    except ValueError as error:
        held_out = f"the held-out people (held_out is {config.held_out})"
        who = held_out if is_validation else "the people to train on"
        raise ValueError(f"{who}: {error}") from error
