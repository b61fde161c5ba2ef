"""Settings of a training run, validated on creation; no heavy package is imported here."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

from keras_scnn.models.encoder_table import ENCODERS
from keras_scnn.settings import check_types, did_you_mean
from keras_scnn.training.rendezvous import parse_address

MODES = ("pairs", "groups", "matching")
STARTS = ("encoder", "network", "shape", "joined")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
GROUPS = ("groups", "matching")
# The batches for each form of the contrastive loss, and what its margin is, if one must be given.
CONTRAST_FORMS = {
    "hinge": (("pairs", *GROUPS), ""),
    "exponential": (("pairs",), "Q"),
    "neighborhood": (GROUPS, "scale, mm"),
}
LAUNCH = ("devices", "hosts", "rank", "coordinator", "join_seconds")  # where a run trains


def _option(default, text: str, **checks):
    modes = checks.get("modes", MODES)
    only = "" if modes == MODES else f"{', '.join(modes)}: "
    return field(default=default, metadata={"help": only + text, **checks})


def _choice(default: str, text: str, *known: str, **checks):
    return _option(default, text, known=known, **checks)


def _count(default: int, text: str, low: int = 1, **checks):
    return _option(default, text, low=low, **checks)


def _weight(default: float, text: str, **checks):
    return _option(default, text, low=0.0, **checks)


def _share(default: float, text: str, **checks):
    return _option(default, text, low=0.0, high=1.0, **checks)


def _synthetic(default, text: str, **checks):
    return _option(default, f"synthetic: {text}", instead_of="data", **checks)


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run; ``python -m keras_scnn.train --help`` explains each.

    A field's metadata has its ``help``, its range (``low``, ``high``, ``most``; ``above``, which it
    must exceed; or the ``known`` words), the ``modes`` of ``batches`` in which it has an effect,
    and the setting that must be on (``needs``) or off (``instead_of``) for that. A setting is off
    if it is 0, empty, or the ``off`` of its metadata.

    Raises:
        ValueError: a value has another type, is out of range or unknown, or a setting that has no
            effect beside the others differs from its default. (Exempt are those of a loss of weight
            0, so that ablations differ in weights only, and those of launching, for any launcher.)
    """

    run: str = _option("runs/synthetic", "run folder; a run that it holds is continued")
    data: str = _option("", "comma-separated folders of face records; '': render synthetic people")
    data_weights: str = _option(
        "",
        "comma-separated weights by which folders are drawn; '': by number of people",
        modes=("pairs", "groups"),
        needs="data",
    )
    photo_folders: str = _option(
        "",
        "comma-separated folders of the photos that the records were made from; '': crops are not "
        "moved beyond their edges",
        modes=("matching",),
        needs="data",
    )
    cache: str = _option("runs/data", "folder that keeps rendered, packed and fetched photos")
    cache_gigabytes: float = _weight(
        0.0,
        "limit of photos from URLs in --cache; the least recently used go first; 0: none",
        needs="data",
    )
    fresh: bool = _synthetic(True, "new people for each batch, rendered during training")
    people: int = _synthetic(500, "people rendered once, to start from and measure on", low=1)
    photos: int = _synthetic(8, "photos of each person", low=1)
    crop_size: int = _synthetic(120, "width and height of photos, px", low=32)
    yaw: float = _synthetic(60.0, "greatest yaw, degrees", low=0.0, high=90.0)
    pitch: float = _synthetic(12.0, "standard deviation of pitch, degrees", low=0.0, high=60.0)
    roll: float = _synthetic(10.0, "standard deviation of roll, degrees", low=0.0, high=60.0)
    spread: float = _synthetic(
        1.0, "spread of people's shapes, as a share of the face model's", above=0.0, high=2.0
    )
    portraits: bool = _synthetic(
        False, "people have hair, neck, clothes and glasses, in front of pictures of shapes"
    )
    held_out: int = _count(
        100,
        "people kept for the final measurement: the last ones, or, where there are mirror images "
        "(300W-LP), always the same random ones, each with the mirror image",
    )
    face_model: str = _option("open_face", "'open_face', or a file of MorphableModel.save")
    encoder: str = _choice("mobilenet_0.5", f"one of {', '.join(ENCODERS)}", *ENCODERS)
    start: str = _option("mobile", "preset to start from: name, folder or URL; '': none")
    start_with: str = _choice(
        "encoder",
        "what --start gives: its 'encoder'; its 'network'; its network with the 'shape' "
        "coefficients solved again; or its network 'joined' by the recognizer as second encoder",
        *STARTS,
        needs="start",
    )
    encoder_weights: str = _choice(
        "",
        "with --start '': 'imagenet' (Keras's), 'dlib' (for dlib_mobilenet), or '': random",
        "",
        "imagenet",
        "dlib",
        instead_of="start",
    )
    feature_size: int = _count(512, "length of the identity feature; 0 (groups only): none", low=0)
    feature_channels: int = _count(
        0,
        "channels of the feature head's global depthwise convolution (GDC); 0: pooling",
        low=0,
        needs="feature_size",
    )
    identity_encoder: bool = _option(False, "a second encoder, for identity", modes=GROUPS)
    joint_head: bool = _option(
        False, "the parameters are linear in the output of the GDC too", modes=GROUPS
    )
    expression_channels: int = _count(
        0, "channels of a head on a fine feature map, for expressions; 0: none", low=0, modes=GROUPS
    )
    gaze_channels: int = _count(
        0, "channels of another such head, for gaze; 0: none", low=0, modes=GROUPS
    )
    trained: str = _choice(
        "all",
        "'all' of the network, its 'expression' head alone, or the 'others': all but the heads for "
        "expression and gaze and the layers below them",
        "all",
        "expression",
        "others",
        modes=GROUPS,
    )
    shape_labels: str = _choice(
        "taught",
        "labels of the identity coefficients: 'taught' by the recognizers, or fits to 'single' "
        "photos, as in the paper",
        "taught",
        "single",
        modes=("matching",),
    )
    landmarks_teach_identity: bool = _option(
        True, "the landmark distance trains the identity coefficients too", modes=GROUPS
    )
    steps: int = _count(1400, "number of batches")
    minutes: float = _weight(5.0, "longest training time, minutes; 0: no limit")
    pretrain_steps: int = _count(
        0, "batches in which the encoder is first trained on landmarks directly", low=0,
        modes=("groups",),
    )  # fmt: skip
    batches: str = _choice(
        "pairs",
        "'pairs'; 'groups': some photos each of some people; 'matching': groups that are blended "
        "and embedded by a recognizer on an accelerator (KERAS_BACKEND=jax)",
        *MODES,
    )
    batch_size: int = _count(32, "pairs in a batch", modes=("pairs",))
    group_people: int = _count(6, "people in a batch", low=0, modes=GROUPS)
    group_photos: int = _count(4, "photos of each person in a batch", low=2, modes=GROUPS)
    single_photos: int = _count(
        60, "photos of any other people in a batch (none with --fresh)", low=0, modes=GROUPS
    )
    single_data: int = _count(
        0,
        "single photos are drawn from the first so many folders; 0: from all",
        low=0,
        modes=GROUPS,
        needs="single_photos",
    )
    profile_emphasis: float = _option(
        1.0,
        "how often a profile is drawn among the single photos, against 1 for a frontal photo",
        above=0.0,
        off=1.0,
        modes=GROUPS,
        needs="single_photos",
    )
    profile_degrees: float = _option(
        45.0,
        "yaw, degrees, from which --profile-emphasis holds in full; linear up to it",
        above=0.0,
        modes=GROUPS,
        needs="profile_emphasis",
    )
    blend_groups: float = _share(
        0.6, "share of the groups that are blended", modes=("matching",), needs="group_people"
    )
    blend_singles: float = _share(
        0.5, "share of the single photos that are blended", modes=("matching",)
    )
    recognizer: str = _option(
        "", "file of dlib's recognizer; '': the installed package's", modes=GROUPS
    )
    teachers: str = _choice(
        "dlib", "the recognizers that embed the photos: dlib, or dlib+sface", "dlib", "dlib+sface",
        modes=("matching",),
    )  # fmt: skip
    sface: str = _option("", "file of SFace; '': the installed package's", modes=("matching",))
    optimizer: str = _choice(
        "adam", "'adam', 'adamw', or 'sgd' with Nesterov's momentum", "adam", "adamw", "sgd"
    )
    weight_decay: float = _weight(1e-4, "adamw: decay of kernels a step, per unit of learning rate")
    learning_rate: float = _option(
        2e-3, "highest learning rate; it falls to 0 along a cosine", above=0.0, high=10.0
    )
    identity_rate: float = _weight(
        1.0,
        "adamw: learning rate of the identity encoder, as a share of --learning-rate",
        modes=GROUPS,
    )
    weight_average: float = _share(0.0, "momentum of the running mean of the weights; 0: no mean")
    warmup: int = _count(30, "steps up to the highest learning rate; a tenth of all at most")
    p_same: float = _share(0.4, "share of pairs of one person", modes=("pairs",))
    parameter_weight: float = _weight(0.02, "weight of the weighted parameter distance cost")
    shape_weight: float = _weight(0.3, "weight of the squared error of the neutral shape, mm²")
    group_share: float = _share(
        0.0,
        "share of photos in groups in these two losses; 0: by their number",
        modes=("matching",),
    )
    landmark_weight: float = _weight(1.0, "weight of the landmark distance, per 10 px")
    group_landmarks: float = _share(
        1.0, "weight of the landmarks of photos in groups", modes=("matching",)
    )
    depth_weight: float = _weight(
        0.0,
        "weight of the landmarks' depth, as a share of --landmark-weight",
        modes=GROUPS,
        needs="landmark_weight",
    )
    opening_weight: float = _weight(
        0.0,
        "weight of the openings of eyes and lips, as a share of --landmark-weight",
        needs="landmark_weight",
    )
    contrast_weight: float = _weight(0.1, "weight of the contrastive loss on shapes, mm")
    contrast: str = _choice(
        "identity", "what the contrastive loss compares: the 'identity', or 'all' parameters",
        "identity", "all", modes=("pairs",),
    )  # fmt: skip
    contrast_form: str = _choice(
        "hinge",
        "its form: 'hinge' (Hadsell), 'exponential' (Chopra) of pairs, or 'neighborhood' "
        "(Goldberger) of groups",
        *CONTRAST_FORMS,
    )
    margin: float = _weight(
        0.0,
        "margin of the contrastive loss (hinge), its Q (exponential), or its scale, mm "
        "(neighborhood); 0: from the data",
    )
    margin_quantile: float = _share(
        0.5, "the margin is this quantile of the distances of different people", instead_of="margin"
    )
    feature_weight: float = _weight(4.0, "weight of the identity loss on features")
    embedding_weight: float = _weight(
        0.0, "weight of the recognizer's embedding, regressed from the features", modes=GROUPS
    )
    likeness_weight: float = _weight(
        0.0, "weight of relational distillation: cosines of feature pairs match those of "
        "the recognizer's embeddings (Park et al., 2019)", modes=GROUPS,
    )  # fmt: skip
    shape_likeness_weight: float = _weight(
        0.0, "weight of the same for pairs of shapes instead of features", modes=GROUPS
    )
    teacher_share: float = _share(
        0.0, "share of the embeddings in the identity labels", modes=("groups",)
    )
    augmentation: float = _weight(
        0.0,
        "strength of random changes of the photos; 1 is recommended for real photos",
        modes=("pairs", "groups"),
    )
    augment_on: str = _choice(
        "device", "photos are changed in the network ('device'), or by OpenCV ('host')",
        "device", "host", modes=("groups",),
    )  # fmt: skip
    precision: str = _choice(
        "float32", "Keras's dtype policy; mixed_bfloat16 is for GPUs", *PRECISIONS
    )
    accumulate: int = _count(
        1, "micro-batches that a batch is split into, to save memory; all pairs of the whole batch "
        "are compared; batch norm uses the statistics of each micro-batch"
    )  # fmt: skip
    devices: str = _option("1", "devices of this host: 'all', or how many (on TensorFlow or JAX)")
    hosts: int = _count(1, "processes that train together, one on each host (KERAS_BACKEND=jax)")
    rank: int = _count(0, "number of this process, from 0; rank 0 saves and measures", low=0)
    coordinator: str = _option("", "HOST:PORT of rank 0, a free port that all hosts reach")
    join_seconds: float = _option(120.0, "seconds to wait for all hosts at the start", above=0.0)
    tensorboard: bool = _option(True, "write TensorBoard logs, where TensorFlow is installed")
    seed: int = _count(0, "seed of people, pairs and weights", low=0, most=2**32 - 1)

    def __post_init__(self) -> None:
        check_types(self)
        for one in dataclasses.fields(self):
            _check_range(one, getattr(self, one.name))
        for one in dataclasses.fields(self):
            modes = one.metadata.get("modes", MODES)
            if self.batches not in modes and getattr(self, one.name) != one.default:
                allowed = " or ".join(f"'{mode}'" for mode in modes)
                raise ValueError(f"{one.name} is for batches of {allowed}, not '{self.batches}'")
        self._check_together()
        for one in dataclasses.fields(self):
            if getattr(self, one.name) != one.default:
                self._check_effect(one.name, **one.metadata)

    def kept(self) -> TrainConfig:
        """The settings that a run folder stores: all but those of where the run trains."""
        values = dataclasses.asdict(self)
        return TrainConfig(**{name: values[name] for name in values if name not in LAUNCH})

    def of_all_processes(self) -> dict:
        """The settings that all processes of a run share; paths may differ between hosts."""
        own = {"rank", "coordinator", "join_seconds", "run", "data", "photo_folders"}
        own |= {"cache", "cache_gigabytes"}
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in own}

    @property
    def renders_batches(self) -> bool:
        """Whether new people are rendered for each batch; single photos never are."""
        if self.data or not self.fresh or self.batches == "matching":
            return False
        return self.batches == "pairs" or self.group_people > 0

    def batch_rows(self) -> list[tuple[int, int]]:
        """(rows, parts) of a training batch, see ``accumulate``, and of a validation batch."""
        if self.batches == "pairs":
            return [(self.batch_size, self.accumulate), (self.batch_size, 1)]
        in_groups = self.group_people * self.group_photos
        every = in_groups + (0 if self.renders_batches else self.single_photos)
        return [(every, self.accumulate), (in_groups or self.single_photos, 1)]

    def _check_effect(self, name: str, needs: str = "", instead_of: str = "", **_) -> None:
        """Raise a ValueError if another setting leaves a setting without effect."""
        off = self.__dataclass_fields__[needs].metadata.get("off", 0) if needs else 0
        if needs and getattr(self, needs) in (off, ""):
            raise ValueError(f"{name} has no effect without {needs}; give it, or leave {name} out")
        if instead_of and (other := getattr(self, instead_of)):
            raise ValueError(
                f"{name} has no effect beside {instead_of} ('{other}'); leave one of them out"
            )

    def _check_launch(self) -> None:
        if self.devices != "all" and not (self.devices.isdecimal() and int(self.devices)):
            raise ValueError(f"devices is '{self.devices}'; it must be 'all', or 1 or more")
        if self.rank >= self.hosts:
            raise ValueError(f"rank is {self.rank}; with hosts {self.hosts} it must be below that")
        if self.hosts > 1:
            parse_address(self.coordinator)
            if self.minutes:
                clocks = "clocks of several hosts differ; give --minutes 0"
                raise ValueError(f"minutes is {self.minutes:g}: {clocks}")
        if self.batches == "matching" and (self.devices != "1" or self.hosts > 1):
            raise ValueError("batches 'matching' are made and trained on by one device")
        rows = self.batch_rows()[0][0]
        if self.accumulate > 1 and (rows % self.accumulate or self.pretrain_steps):
            raise ValueError(
                f"accumulate is {self.accumulate}: a batch has {rows} rows, which it must divide, "
                "and pretrain_steps must be 0"
            )

    def _check_contrast(self) -> None:
        batches, margin = CONTRAST_FORMS[self.contrast_form]
        if self.batches not in batches:
            kinds = " or ".join(batches)
            raise ValueError(f"contrast_form '{self.contrast_form}' is for batches of {kinds}")
        if margin and not self.margin > 0:
            needed = f"needs a margin above 0, its {margin}"
            raise ValueError(f"contrast_form '{self.contrast_form}' {needed}")

    def _check_together(self) -> None:
        """Raise a ValueError for settings that are valid alone but not together."""
        self._check_contrast()
        if not self.feature_size and self.batches != "groups":
            raise ValueError("feature_size is 0; that is for batches of 'groups'")
        if self.optimizer != "adamw":
            for name in ("weight_decay", "identity_rate"):
                if getattr(self, name) != TrainConfig.__dataclass_fields__[name].default:
                    raise ValueError(f"{name} is for the optimizer 'adamw', not '{self.optimizer}'")
        if self.start_with == "joined" and not (self.identity_encoder and self.start):
            raise ValueError("start_with 'joined' needs identity_encoder, and a preset to start")
        if self.trained != "all" and not (self.expression_channels and self.start):
            raise ValueError(
                f"trained '{self.trained}' needs expression_channels, and a preset to start"
            )
        if self.trained == "others" and self.start_with not in ("network", "shape"):
            raise ValueError(
                f"trained 'others' keeps the expression head as it is, which start_with "
                f"'{self.start_with}' does not copy; give start_with 'network'"
            )
        ENCODERS[self.encoder].check_weights(self.encoder_weights, self.encoder)
        if self.weight_average == 1:
            raise ValueError("weight_average is 1; it must be below 1, or the mean never moves")
        in_pairs = self.p_same > 0 if self.batches == "pairs" else self.group_people > 0
        if not self.data and self.photos < 2 and in_pairs:
            raise ValueError(f"photos is {self.photos}; pairs of one person need 2 or more of each")
        if self.batches in GROUPS and not self.group_people + self.single_photos:
            raise ValueError("group_people and single_photos are 0; a batch needs some photos")
        if self.group_share and not (self.group_people and self.single_photos):
            raise ValueError("group_share needs group_people and single_photos above 0")
        self._check_launch()


def _check_range(one: dataclasses.Field, value) -> None:
    """Raise a ValueError if a value does not satisfy the field's metadata."""
    rules, name = one.metadata, one.name
    if "known" in rules and value not in (known := rules["known"]):
        similar, shown = did_you_mean(value, known), ", ".join(map(_shown, known))
        raise ValueError(f"{name} is '{value}'{similar}; choose from {shown}")
    if "low" in rules and "high" in rules and not rules["low"] <= value <= rules["high"]:
        raise ValueError(f"{name} is {value}; it must lie in {rules['low']:g} to {rules['high']:g}")
    if "low" in rules and not value >= rules["low"]:
        limit = " (no limit)" if name == "minutes" else ""
        raise ValueError(f"{name} is {value}; it must be {rules['low']:g}{limit} or more")
    if value > (most := rules.get("most", value)):
        raise ValueError(f"{name} is {value}; it must be {most} at most")
    if "above" in rules and not rules["above"] < value <= rules.get("high", float("inf")):
        top = f" and at most {rules['high']:g}" if "high" in rules else ""
        raise ValueError(f"{name} is {value}; it must be above {rules['above']:g}{top}")
    if value == math.inf:
        raise ValueError(f"{name} is {value}; it must be finite")


def _shown(word: str) -> str:
    """A choice as messages show it; the empty one in quotes."""
    return word or "''"


CHOICES = {
    one.name: one.metadata["known"]
    for one in dataclasses.fields(TrainConfig)
    if "known" in one.metadata
}
"""The known words of each setting that is a choice."""
