"""The mode ``batches: matching`` of a run."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import jax
import keras
import numpy as np

from keras_scnn.data.mixture import Mixture
from keras_scnn.data.samplers import WHOLE, Shard
from keras_scnn.data.synthesis.rendered_people import model_content
from keras_scnn.face_models import load_face_model
from keras_scnn.models.recognizers.dlib import DlibNetwork, Recognizer, read_recognizer
from keras_scnn.models.recognizers.sface import SFaceNetwork, read_sface
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.storage.shards import digest
from keras_scnn.training.config import TrainConfig
from keras_scnn.training.digests import data_digests
from keras_scnn.training.groups import group_network
from keras_scnn.training.matching.labels import Supply
from keras_scnn.training.matching.pack import VERSION, Pack
from keras_scnn.training.objectives import targets_of
from keras_scnn.training.records import synthetic_people


class MatchingMode:
    """The ``Mode`` of runs with ``batches: matching``; see ``PairMode``.

    Args:
        config, mixture, model, seen: see ``PairMode``.
        pack: the pack that ``mixture`` belongs to.

    Raises:
        FileNotFoundError, ValueError: see ``read_recognizer`` and ``Supply``.
    """

    def __init__(
        self,
        config: TrainConfig,
        mixture: Mixture,
        model: MorphableModel,
        seen: np.ndarray,
        pack: Pack,
    ):
        self._config = config
        recognizers: list[Recognizer] = [DlibNetwork(*read_recognizer(config.recognizer))]
        if config.teachers == "dlib+sface":
            recognizers.append(SFaceNetwork(read_sface(config.sface)))
        self._embedding_size = sum(one.size for one in recognizers)
        self._supply = Supply(config, pack, model, recognizers, seen)
        self.space = self._supply.space
        labels = {"parameters": self._supply.vectors, "embedding": self._supply.embedding}
        self.mixture = dataclasses.replace(
            mixture, records=dataclasses.replace(mixture.records, **labels)
        )
        self._outputs: list[str] = []

    def build(self, parts: int = 1) -> keras.Model:
        """The group network, not yet compiled; ``parts`` as for ``build_group``."""
        size = self.mixture.records.images.shape[1]
        sizes = size, self._embedding_size
        network = group_network(self._config, self.space, *sizes, parts=parts)
        self._outputs = list(network.output)
        return network

    def stream(
        self,
        part: np.ndarray,
        first_step: int,
        is_validation: bool = False,
        shard: Shard = WHOLE,
    ):
        """Batches of the photos to train on, from a step on; each depends only on seed and step.

        Args:
            part: not used: the photos to train on are chosen in ``Supply``.
            first_step: of the first batch.
            is_validation: if true, None is returned: held-out people are measured at the end.
            shard: not used: the settings allow only one process.
        """
        return None if is_validation else self._batches(first_step)

    def _batches(self, first_step: int):
        make, photos = jax.jit(self._supply.batch), self._supply.photos
        key = jax.random.key(self._config.seed, impl="rbg")  # the fast generator
        for step in itertools.count(first_step):
            images, labels = make(jax.random.fold_in(key, step), photos)
            yield images, targets_of(self._outputs, labels)


def packed_photos(config: TrainConfig) -> Path:
    """Path of the packed photos: ``data``, or a file in the cache.

    The name of that file is a digest of the photos, their labels and the face model.

    Raises:
        FileNotFoundError, ValueError: there are no face records, or no such face model.
    """
    if config.data.endswith(".npz"):
        return Path(config.data)
    model = load_face_model(config.face_model)
    photos = data_digests(config.data) if config.data else synthetic_people(config).key
    made_of = [VERSION, photos, config.photo_folders, model_content(model)]
    return Path(config.cache) / f"pack-{digest(made_of)[:16]}.npz"
