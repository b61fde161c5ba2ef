"""Training on groups: all pairs of a batch are compared; a recognizer's embeddings are labels."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from keras_scnn.data.augment import GroupAugmenter
from keras_scnn.data.labels.identity_labels import (
    align_sources,
    comparable_embeddings,
    regress_identity,
)
from keras_scnn.data.mixture import Mixture
from keras_scnn.data.records import photos_of_each
from keras_scnn.data.samplers import WHOLE, GroupSampler, JoinedSampler, Shard
from keras_scnn.data.stream import fresh_group_dataset, group_dataset
from keras_scnn.models import build_branch, build_encoder, build_group
from keras_scnn.models.heads import FINE, GAZE, fine_layers
from keras_scnn.models.presets import read_preset
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import ParameterSpace
from keras_scnn.training.config import TrainConfig
from keras_scnn.training.objectives import targets_of
from keras_scnn.training.records import fresh_people, naming_people

OF_EMBEDDINGS = ("embedding_weight", "likeness_weight", "shape_likeness_weight", "teacher_share")


class GroupMode:
    """The ``Mode`` of runs with batches of groups; see ``PairMode``.

    The labels are made comparable across data sets, and the identity labels are in part regressed
    from the recognizer's embeddings. Losses that need embeddings are left out, with a note, if the
    data has none.
    """

    def __init__(
        self, config: TrainConfig, mixture: Mixture, model: MorphableModel, seen: np.ndarray
    ):
        self._config = config
        note_left_out(config, mixture)
        self.mixture = comparable_labels(config, mixture, model, seen)
        if config.trained == "expression":
            self.space = read_preset(config.start, model).space  # unchanged, like the network
        else:
            self.space = ParameterSpace.from_samples(model, self.mixture.records.parameters[seen])
        self._outputs: list[str] = []

    def build(self, parts: int = 1) -> keras.Model:
        """The group network, not yet compiled; ``parts`` as for ``build_group``."""
        config, records = self._config, self.mixture.records
        size = 0 if records.embedding is None else records.embedding.shape[1]
        augmentation = config.augmentation if config.augment_on == "device" else 0.0
        sizes = records.images.shape[1], size
        network = group_network(config, self.space, *sizes, augmentation, parts)
        self._outputs = list(network.output)
        return network

    def stream(
        self,
        part: np.ndarray,
        first_step: int,
        is_validation: bool = False,
        shard: Shard = WHOLE,
    ):
        """Batches of groups and single photos of those at positions ``part``, from a step on."""
        config, records = self._config, self.mixture.records
        people = fresh_people(config)
        if people and not is_validation:
            whitening = self.space.whitening
            return self._with_targets(fresh_group_dataset(people, whitening, first_step, shard))
        seed, augmenter = config.seed + is_validation, None
        with naming_people(config, is_validation):
            sampler = JoinedSampler(self._samplers(part, seed, is_validation))
        if config.augmentation and config.augment_on == "host" and not is_validation:
            in_group = photos_of_each(records.identity) > 1
            augmenter = GroupAugmenter(self.space.face_model, in_group, seed)
        source = records, self.space.whitening, sampler
        return self._with_targets(group_dataset(*source, first_step, augmenter, shard))

    def _samplers(self, part: np.ndarray, seed: int, is_validation: bool) -> list[GroupSampler]:
        """Samplers of groups, and of single photos, which validation leaves out beside groups."""
        config, samplers = self._config, []
        if config.group_people:
            shape = config.group_people, config.group_photos
            options = {"among": part, "seed": seed, **self.mixture.sampling()}
            samplers = [GroupSampler(self.mixture.records.identity, *shape, **options)]
        if config.single_photos and not (is_validation and samplers):
            samplers.append(self._singles(part))
        return samplers

    def _with_targets(self, data):
        """The data set with a label for each output of the network that was built."""
        return data.map(lambda images, labels: (images, targets_of(self._outputs, labels)))

    def _singles(self, part: np.ndarray) -> GroupSampler:
        """A sampler of single photos, profiles more often."""
        config, records = self._config, self.mixture.records
        if config.single_data:
            part = part[self.mixture.source[part] < config.single_data]
        return GroupSampler(
            records.identity,
            config.single_photos,
            photos=1,
            emphasis=emphasis(config, records.euler_degrees()[:, 1]),
            among=part,
            seed=config.seed + 2,
            **self.mixture.sampling(),
        )


def group_network(
    config: TrainConfig,
    space: ParameterSpace,
    size: int,
    embedding_size: int,
    augmentation: float = 0.0,
    parts: int = 1,
) -> keras.Model:
    """``build_group`` with the settings, for crops of ``size`` px; other arguments as there."""
    encoder = build_encoder(config.encoder, size, config.encoder_weights or None)
    sizes = config.feature_size, config.feature_channels
    heads = config.identity_encoder, config.joint_head
    fine = config.expression_channels, config.gaze_channels
    branch = build_branch(encoder, space.layout, *sizes, *heads, *fine)
    freeze(branch, config.trained)
    teach = config.landmarks_teach_identity
    return build_group(branch, space, embedding_size, augmentation, teach, parts)


def freeze(branch: keras.Model, trained: str) -> None:
    """Freeze layers, batch norm statistics included.

    Args:
        branch: of ``build_branch``.
        trained: 'all' freezes none; 'expression' all but the expression head; 'others' that head,
            a gaze head, and the layers that they depend on, so that their outputs stay the same.
    """
    if trained == "all":
        return
    names = [layer.name for layer in branch.layers if layer.name.startswith(FINE)]
    head = {name for name in names if not name.startswith(GAZE)}
    if trained == "others":
        below = keras.Model(branch.inputs, [layer.output for layer in fine_layers(branch)])
        head = {layer.name for layer in below.layers}
    for layer in branch.layers:
        layer.trainable = (layer.name in head) == (trained == "expression")


def emphasis(config: TrainConfig, yaw: np.ndarray) -> np.ndarray:
    """(n,) relative frequency of single photos, 1 if frontal, from their yaw (n,) in degrees."""
    turned = np.minimum(np.abs(yaw) / config.profile_degrees, 1)
    return 1 + (config.profile_emphasis - 1) * turned


def note_left_out(config: TrainConfig, mixture: Mixture) -> None:
    """Print which settings have no effect because the data has no embeddings of a recognizer."""
    wanted = [name for name in OF_EMBEDDINGS if getattr(config, name)]
    if wanted and mixture.records.embedding is None:
        print(
            f"without effect: {', '.join(wanted)}; the photos have no embeddings of a face "
            "recognizer (keras-scnn prepare --teacher-embeddings)"
        )


def comparable_labels(
    config: TrainConfig, mixture: Mixture, model: MorphableModel, seen: np.ndarray
) -> Mixture:
    """The mixture with labels comparable across data sets, identity regressed from embeddings.

    Args:
        config, mixture, model: of the run.
        seen: positions of the photos to learn from.
    """
    records = align_sources(mixture.records, mixture.source, model)
    embeddings = comparable_embeddings(records, mixture.source)
    if embeddings is not None and config.teacher_share:
        among = seen[mixture.photographed()[seen]]
        records = regress_identity(records, embeddings, among, model, config.teacher_share)
    return dataclasses.replace(mixture, records=dataclasses.replace(records, embedding=embeddings))
