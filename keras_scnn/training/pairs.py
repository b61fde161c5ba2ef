"""Training on pairs, as in the paper: the Siamese network and its stream."""

from __future__ import annotations

import keras
import numpy as np

from keras_scnn.data.mixture import Mixture
from keras_scnn.data.samplers import WHOLE, PairSampler, Shard
from keras_scnn.data.stream import fresh_pair_dataset, pair_dataset
from keras_scnn.models import build_encoder, build_siamese
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import ParameterSpace
from keras_scnn.training.config import TrainConfig
from keras_scnn.training.records import fresh_people, naming_people


class PairMode:
    """The ``Mode`` of runs with batches of pairs.

    Args:
        config: of the run.
        mixture: photos and labels.
        model: face model of the labels.
        seen: positions of the photos to train on.

    Attributes:
        mixture: with the labels to learn.
        space: parameter space of these labels.
    """

    def __init__(
        self, config: TrainConfig, mixture: Mixture, model: MorphableModel, seen: np.ndarray
    ):
        self._config, self.mixture = config, mixture
        self.space = ParameterSpace.from_samples(model, mixture.records.parameters[seen])

    def build(self, parts: int = 1) -> keras.Model:
        """The Siamese network, not yet compiled; ``parts`` as for ``build_siamese``."""
        config, size = self._config, self.mixture.records.images.shape[1]
        return build_siamese(
            build_encoder(config.encoder, size, config.encoder_weights or None),
            self.space,
            config.feature_size,
            config.contrast,
            config.augmentation,
            config.feature_channels,
            parts,
        )

    def stream(
        self,
        part: np.ndarray,
        first_step: int,
        is_validation: bool = False,
        shard: Shard = WHOLE,
    ):
        """Batches of pairs of the photos at positions ``part``, from a step on."""
        config, records = self._config, self.mixture.records
        people = fresh_people(config)
        if people and not is_validation:
            whitening = self.space.whitening
            return fresh_pair_dataset(people, whitening, config.p_same, first_step, shard)
        seed = config.seed + is_validation
        options = {"among": part, **self.mixture.sampling()}
        with naming_people(config, is_validation):
            sampler = PairSampler(records.identity, config.p_same, seed, **options)
        options = {"batch_size": config.batch_size, "first_step": first_step, "shard": shard}
        return pair_dataset(records, self.space.whitening, sampler, **options)
