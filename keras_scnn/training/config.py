"""Settings of a training run, and the data that they ask for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_scnn.settings import did_you_mean

if TYPE_CHECKING:
    import keras

    from keras_scnn.data.mixture import Mixture
    from keras_scnn.data.synthesis.rendered_people import SyntheticConfig

RECIPES = Path(__file__).parents[1] / "recipes"
CHOICES = {
    "batches": ("pairs", "groups"),
    "contrast": ("identity", "all"),
    "contrast_form": ("hinge", "exponential"),
    "start_with": ("encoder", "network", "shape"),
    "augment_on": ("device", "host"),
    "optimizer": ("adam", "adamw", "sgd"),
}


def _option(default, text: str):
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run; ``python -m keras_scnn.train --help`` explains each."""

    run: str = _option("runs/synthetic", "run folder; a run that is there goes on")
    data: str = _option("", "face records, folders with commas; none renders synthetic people")
    data_weights: str = _option("", "how often each folder is drawn from; by its people if empty")
    cache: str = _option("runs/data", "where rendered records are kept")
    fresh: bool = _option(True, "synthetic: new people in each batch, rendered while training")
    people: int = _option(500, "synthetic people who are kept: to start from, and to measure on")
    photos: int = _option(8, "photos of each synthetic person")
    crop_size: int = _option(120, "width and height of synthetic photos, px")
    held_out: int = _option(100, "people kept for the final measurement, the last ones")
    face_model: str = _option("open_face", "'open_face', or a file of MorphableModel.save")
    encoder: str = _option("mobilenet_0.5", "a name of models.ENCODERS")
    start: str = _option("mobile", "preset to start from; '' for none")
    start_with: str = _option(
        "encoder", "'encoder' of that preset, its 'network', or that with its 'shape' solved anew"
    )
    encoder_weights: str = _option("", "'imagenet': Keras's weights, with --start ''; else random")
    feature_size: int = _option(512, "length of the identity feature")
    feature_channels: int = _option(0, "of a feature head that weighs places; 0: pools them")
    identity_encoder: bool = _option(False, "groups: a second encoder, which tells people apart")
    steps: int = _option(1400, "batches to train on")
    minutes: float = _option(5.0, "training time at most; 0 for no limit")
    batches: str = _option("pairs", "'pairs', or 'groups': some photos each of some people")
    batch_size: int = _option(32, "pairs in a batch")
    group_people: int = _option(6, "groups: people in a batch")
    group_photos: int = _option(4, "groups: photos of each")
    single_photos: int = _option(60, "groups: photos of anybody else in a batch, for the geometry")
    single_data: int = _option(0, "groups: from so many of the first folders; 0 for all")
    profile_emphasis: float = _option(1.0, "groups: how often profiles are drawn among singles")
    optimizer: str = _option("adam", "'adam', 'adamw', or 'sgd' with Nesterov's momentum")
    learning_rate: float = _option(2e-3, "highest; it follows a cosine down to 0")
    weight_average: float = _option(0.0, "momentum of the weights' running mean; 0 for none")
    warmup: int = _option(30, "steps up to the highest learning rate")
    p_same: float = _option(0.4, "share of pairs of one person")
    parameter_weight: float = _option(0.02, "of the weighted parameter distance cost")
    shape_weight: float = _option(0.3, "of the squared error of the neutral shape, mm")
    landmark_weight: float = _option(1.0, "of the landmark distance, per 10 px")
    depth_weight: float = _option(0.0, "groups: of the landmarks' depth, as a share of the former")
    contrast_weight: float = _option(0.1, "of the contrastive loss on shapes, mm")
    contrast: str = _option("identity", "pairs: 'identity', or 'all' whitened parameters")
    contrast_form: str = _option("hinge", "pairs: 'hinge' (Hadsell), or 'exponential' (Chopra)")
    margin: float = _option(0.0, "of the push (hinge), or Q (exponential); 0: from the data")
    margin_quantile: float = _option(0.5, "of the different pairs' distances: the push's margin")
    feature_weight: float = _option(4.0, "of the identity loss on features")
    embedding_weight: float = _option(0.0, "groups: of the teacher's embedding, from features")
    likeness_weight: float = _option(0.0, "groups: of the teacher's likeness, between features")
    shape_likeness_weight: float = _option(0.0, "groups: of the same, between shapes")
    teacher_share: float = _option(0.0, "groups: of identity labels, read off the embeddings")
    augmentation: float = _option(0.0, "strength of the photos' random changes; 1 for real ones")
    augment_on: str = _option("device", "'device': inside of the network; 'host': by OpenCV")
    precision: str = _option("float32", "Keras's dtype policy; mixed_bfloat16 is for GPUs")
    seed: int = _option(0, "of people, pairs and weights")

    def __post_init__(self) -> None:
        for name in ("people", "photos", "held_out", "steps", "batch_size", "warmup"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if self.minutes < 0:
            raise ValueError(f"minutes is {self.minutes}; it must be 0 (no limit) or more")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is '{getattr(self, name)}'; known are {', '.join(known)}")
        if self.augment_on == "host" and self.batches != "groups":
            raise ValueError("augment_on 'host' is for batches of 'groups'")
        if self.identity_encoder and self.batches != "groups":
            raise ValueError("identity_encoder is for batches of 'groups'")
        if self.contrast_form == "exponential" and not self.margin > 0:
            raise ValueError("contrast_form 'exponential' needs a margin above 0, its Q")


def recipe_path(name: str) -> Path:
    """The YAML file of a recipe of the package.

    Raises:
        FileNotFoundError: there is none of that name; the message lists those there are.
    """
    path = RECIPES / f"{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in RECIPES.glob("*.yaml"))
        raise FileNotFoundError(
            f"no recipe '{name}'{did_you_mean(name, known)}; there are {', '.join(known)}; "
            "a file goes to --config"
        )
    return path


def find_records(config: TrainConfig) -> Mixture:
    """The records of --data, or synthetic ones, which are rendered once."""
    from keras_scnn.data.mixture import Mixture, open_mixture
    from keras_scnn.data.synthesis.rendered_people import SyntheticConfig, cached_records

    if config.data:
        return open_mixture(config.data, config.data_weights)
    options = SyntheticConfig(
        people=config.people,
        photos=config.photos,
        seed=config.seed,
        face_model=config.face_model,
        size=config.crop_size,
    )
    records = cached_records(options, config.cache)
    return Mixture(records, np.zeros(len(records), int))


def fresh_people(config: TrainConfig) -> SyntheticConfig | None:
    """The people of each training batch where they are rendered for it alone; else None.

    They are none of those of ``find_records``.
    """
    from keras_scnn.data.synthesis.rendered_people import SyntheticConfig

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
    )


def make_optimizer(config: TrainConfig) -> keras.optimizers.Optimizer:
    """The optimizer that the settings ask for; the rate is set step by step in training."""
    import keras

    averaged = {}
    if config.weight_average:
        averaged = {"use_ema": True, "ema_momentum": config.weight_average}
    options = {"global_clipnorm": 10.0, **averaged}
    if config.optimizer == "sgd":
        return keras.optimizers.SGD(config.learning_rate, 0.9, nesterov=True, **options)
    if config.optimizer == "adamw":
        return keras.optimizers.AdamW(config.learning_rate, weight_decay=1e-4, **options)
    return keras.optimizers.Adam(config.learning_rate, **options)
