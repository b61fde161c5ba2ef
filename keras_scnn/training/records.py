"""The photos and labels that the settings of a run ask for."""

from __future__ import annotations

import numpy as np

from keras_scnn.data.mixture import Mixture, open_mixture
from keras_scnn.data.synthesis.rendered_people import SyntheticConfig, cached_records
from keras_scnn.training.config import TrainConfig


def open_records(config: TrainConfig) -> Mixture:
    """The face records of ``data``, or synthetic ones, which are rendered once.

    Raises:
        FileNotFoundError, ValueError: see ``open_mixture`` and ``cached_records``.
    """
    if config.data:
        return open_mixture(config.data, config.data_weights, config.cache)
    options = SyntheticConfig(
        people=config.people,
        photos=config.photos,
        seed=config.seed,
        face_model=config.face_model,
        size=config.crop_size,
        yaw_degrees=config.yaw,
    )
    records = cached_records(options, config.cache)
    return Mixture(records, np.zeros(len(records), int))


def fresh_people(config: TrainConfig) -> SyntheticConfig | None:
    """The people of each training batch where they are rendered for it alone; else None.

    They are none of those of ``open_records``.
    """
    if config.data or not config.fresh:
        return None
    groups = config.batches == "groups"
    return SyntheticConfig(
        people=config.group_people if groups else config.batch_size,
        photos=config.group_photos if groups else 2,
        seed=config.seed,
        first_person=config.people,
        face_model=config.face_model,
        size=config.crop_size,
        yaw_degrees=config.yaw,
    )
