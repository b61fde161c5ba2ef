"""Teach a preset where the eyes look, from the irises that MediaPipe's network finds in photos.

    python tools/learn_gaze.py PRESET OUT --data FOLDERS [--held-out NUMBERS] [--leave-out CSV]
        [--labels FILE.npz] [--channels 32] [--steps 3000] [--seed 0]
    python tools/learn_gaze.py PRESET OUT --renderings PEOPLE [--labels FILE.npz] ...

The gaze of a photo is the mean of both eyes' directions in the head (``reconstruction.gaze``). The
preset gets a head of its own for it (``build_branch``'s ``gaze_channels``), in place of one that it
has. Its output and the pooled features predict the gaze, which becomes the eight ``eyeLook...``
weights, so that both eyes turn alike. All other parameters stay the same, except for rounding.
FOLDERS are folders of photos, joined by commas; of each, the last NUMBERS people (sub-folders;
photos, if it has none) are used only to measure, and the photos listed in CSV (column 'photo', see
``keras_scnn.protocols.openings``) not at all. FILE contains the crops and their gaze; it is made by
the first call, which takes five minutes for 14,000 photos, and used by later ones with the same
options. The training takes ten minutes on two cores.

With ``--renderings``, the labels are those of rendered people, ten portraits of each, whose gaze is
known; the last tenth of the people are used only to measure.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

from keras_scnn.data.augment import UPRIGHT, augment
from keras_scnn.geometry.camera import angle_in_image, euler_from_camera
from keras_scnn.io import read_image
from keras_scnn.models import Preset, load_preset
from keras_scnn.models.heads import FINE, GAZE
from keras_scnn.models.preset_network import with_settings
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.photos.cropping import crop_upright
from keras_scnn.photos.files import find_photos
from keras_scnn.photos.iris import IrisFinder
from keras_scnn.protocols.openings import read_shut_photos
from keras_scnn.reconstruction.gaze import (
    LEAST_OPENING,
    MAX_YAW,
    PITCH,
    SIDES,
    YAW,
    gaze_degrees,
    look_weights,
    measured_gaze,
)
from keras_scnn.reconstruction.reconstructor import Reconstructor
from keras_scnn.settings import command, folders_of
from keras_scnn.storage import read_npz, write_npz
from keras_scnn.storage.guard import reading
from keras_scnn.storage.outputs import check_out
from keras_scnn.storage.text import counted, json_text
from map_identity import save_refined
from solve_identity import whole
from upright_portraits import PHOTOS, upright_portraits

FORMAT, VERSION = "keras_scnn.gaze_labels", 2
MADE_OF = ("data", "held_out", "leave_out", "renderings")  # options that determine the labels
UNIT = 10.0  # degrees; the network predicts multiples of it
MOST = 35.0  # degrees, to which labels are clipped
MOST_BLINK = 0.5  # of renderings: lids that leave the irises visible
BATCH, LEARNING_RATE, POOLED_DECAY = 64, 2e-3, 3e-4
MIRRORED = np.where(np.arange(2) == YAW, -1, 1)  # the gaze of a mirror image


@dataclass(frozen=True, eq=False)
class Labels:
    """Crops of n photos, and where the eyes look in them.

    Attributes:
        crops: (n, S, S, 3) uint8 RGB, upright, as in the second pass of reconstruction.
        gaze: (n, 2) float32 degrees, mean of both eyes.
        head: (n, 3) float32 degrees, pose of the head.
        is_held_out: (n,) bool.
    """

    crops: np.ndarray
    gaze: np.ndarray
    head: np.ndarray
    is_held_out: np.ndarray


def rendered_labels(people: int, seed: int, size: int) -> Labels:
    """Portraits of ``size`` px in which the eyes are not closed, and their gaze."""
    crops, faces, _ = upright_portraits(people, seed, size)
    model = MorphableModel.open_face()
    lids = [model.arkit_names.index(f"eyeBlink{side}") for side in SIDES]
    shows = faces.expression[:, lids].max(axis=1) < MOST_BLINK
    gaze = gaze_degrees(model, faces.expression).mean(axis=1)
    head = np.degrees(euler_from_camera(faces.pose))
    person = np.repeat(np.arange(people), PHOTOS)
    columns = crops, np.float32(gaze), np.float32(head), person >= people - people // 10
    return Labels(*(column[shows] for column in columns))


def list_photos(args: argparse.Namespace) -> list[tuple[Path, bool]]:
    """The photos of all folders, and whether each is held out.

    Raises:
        FileNotFoundError: a folder, or a photo that ``args.leave_out`` lists, is missing.
        ValueError: as many people are held out as a folder has.
    """
    listed = read_shut_photos(args.leave_out) if args.leave_out else set()
    photos, found = [], set()
    for folder, last in zip(folders_of(args.data), args.held_out, strict=True):
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"{folder}: no such folder; --data are folders of photos")
        names = find_photos(folder).photos
        groups = [Path(n).parent.as_posix() if "/" in n else n for n in names]
        people = sorted(set(groups))
        if last >= len(people):
            raise ValueError(f"--held-out is {last}; {folder} has {counted(len(people), 'person')}")
        held_out = set(people[len(people) - last :])
        for name, group in zip(names, groups, strict=True):
            if (stem := Path(name).with_suffix("").as_posix()) in listed:
                found.add(stem)
            else:
                photos.append((Path(folder) / name, group in held_out))
    if missing := sorted(listed - found):
        raise FileNotFoundError(f"{args.leave_out}: no folder of --data has a photo '{missing[0]}'")
    return photos


def make_labels(args: argparse.Namespace) -> Labels:
    """Reconstruct the photos and measure the gaze in those that show both eyes."""
    rows: list[tuple] = []
    photos = list_photos(args)
    reconstructor, find_irises = Reconstructor.from_preset(args.preset), IrisFinder()
    for path, is_held_out in tqdm(photos, "measuring gaze"):
        row = _measure(path, reconstructor, find_irises)
        rows += [(*row, is_held_out)] if row else []
    if not rows:
        raise ValueError(f"{args.data}: gaze can be measured in none of {len(photos)} photos")
    crops, gaze, head, is_held_out = (np.stack(column) for column in zip(*rows, strict=True))
    return Labels(crops, np.float32(gaze), np.float32(head), is_held_out)


def _measure(path: Path, reconstructor: Reconstructor, find_irises: IrisFinder) -> tuple | None:
    """Crop, gaze and pose of the largest face; None if it does not show both eyes."""
    try:
        image = read_image(path)
        face = reconstructor.largest(image)
        eyes = find_irises(image, face.landmarks)
    except (OSError, ValueError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        tqdm.write(f"left out: {path}: {reason}", file=sys.stderr)
        return None
    if abs(face.euler_degrees[1]) >= MAX_YAW or eyes.opening.min() < LEAST_OPENING:
        return None
    gaze = measured_gaze(face.model, face.parameters[None], eyes.iris[None], eyes.corners[None])[
        0
    ].mean(axis=0)
    if not np.isfinite(gaze).all():
        return None
    angle = float(angle_in_image(face.parameters.pose))
    size = reconstructor.preset.input_size
    crop = crop_upright(image, face.landmarks, angle, size).image
    return crop, np.clip(gaze, -MOST, MOST), face.euler_degrees


def read_or_make(args: argparse.Namespace, size: int) -> Labels:
    """The labels in the file ``args.labels``, which is written if it does not exist.

    Renderings are made with crops of ``size`` px.

    Raises:
        ValueError: the file is damaged, or its labels were made with other options.
    """
    made_of = {name: str(getattr(args, name)) for name in MADE_OF}
    made_of["seed"] = str(args.seed if args.renderings else 0)
    if args.labels and args.labels.is_file():
        labels, made_before = read_labels(args.labels)
        for name, value in made_of.items():
            if made_before.get(name) != value:
                raise ValueError(
                    f"{args.labels}: made with --{name.replace('_', '-')} {made_before.get(name)}, "
                    f"not {value}; give the same, or another file"
                )
        return labels
    if args.labels:
        check_out(args.labels.parent, "--labels:")
    if args.renderings:
        made = rendered_labels(args.renderings, args.seed, size)
    else:
        made = make_labels(args)
    if args.labels:
        args.labels.parent.mkdir(parents=True, exist_ok=True)
        write_npz(args.labels, FORMAT, VERSION, made_of=json_text(made_of), **vars(made))
    return made


def read_labels(path: Path) -> tuple[Labels, dict[str, str]]:
    """The labels in a file, and the options that they were made with.

    Raises:
        ValueError: the file is damaged, or another one.
    """
    arrays = read_npz(path, FORMAT, VERSION)
    with reading(path, f"a '{FORMAT}' file"):
        labels = Labels(*(arrays[field.name] for field in fields(Labels)))
        return labels, json.loads(str(arrays["made_of"]))


class Batches(keras.utils.PyDataset):
    """Random variants of crops, with their gaze in units of ``UNIT``."""

    def __init__(self, labels: Labels, steps: int, seed: int):
        super().__init__()
        self.labels, self.steps, self.seed = labels, steps, seed
        self.chosen = np.flatnonzero(~labels.is_held_out)

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([self.seed, step])
        chosen = rng.choice(self.chosen, BATCH, replace=False)
        images, none = [], np.zeros((0, 2))
        gaze = self.labels.gaze[chosen] / UNIT
        for k, i in enumerate(chosen):
            image, matrix = augment(rng, self.labels.crops[i], none, UPRIGHT)
            images.append(image)
            if np.linalg.det(matrix[:, :2]) < 0:
                gaze[k] *= MIRRORED
        return np.float32(images), gaze


def with_gaze_head(preset: Preset, channels: int) -> Preset:
    """The preset with a new gaze head, which has no effect yet, in place of one that it has."""
    return with_settings(preset, new=(GAZE,), gaze_channels=channels)[0]


def gaze_network(preset: Preset) -> keras.Model:
    """A network from crops to gaze (n, 2), pitch and yaw in multiples of ``UNIT`` degrees.

    It has the preset's layers, of which only the gaze head is trained, and is linear in the output
    of that head and in the pooled features.
    """
    core = preset.core
    fine, pooled = (core.get_layer(name).input for name in (f"{GAZE}linear", "parameters"))
    if preset.has_identity_encoder:  # its features do not show gaze
        pooled = core.get_layer("both_encoders").input[0]
    for layer in core.layers:
        layer.trainable = layer.name.startswith(GAZE)
    decay = keras.regularizers.L2(POOLED_DECAY)
    normalized = keras.layers.BatchNormalization(center=False, scale=False, name="pooled_norm")
    parts = [
        keras.layers.Dense(2, name="fine")(fine),
        keras.layers.Dense(2, kernel_regularizer=decay, name="pooled")(normalized(pooled)),
    ]
    return keras.Model(core.input, keras.layers.Add(name="gaze")(parts))


def train(network: keras.Model, labels: Labels, steps: int, seed: int) -> None:
    """Minimize the Huber loss with a cosine schedule."""
    decay = keras.optimizers.schedules.CosineDecay(
        0.0, steps, warmup_target=LEARNING_RATE, warmup_steps=min(100, steps // 10)
    )
    network.compile(keras.optimizers.AdamW(decay, weight_decay=1e-4), keras.losses.Huber())
    network.fit(Batches(labels, steps, seed), epochs=1, shuffle=False)


def fold(preset: Preset, network: keras.Model) -> None:
    """Set the preset's eyeLook weights, which its whitening scales, to the network's gaze."""
    preset.core.trainable = True
    looks, own = look_weights(preset.face_model), preset.layout.expression
    units = np.flatnonzero(looks.any(axis=0))
    columns = own.start + units
    whitening = preset.space.whitening
    mean, scale = whitening.mean[columns], whitening.scale[columns]
    to_units = UNIT * looks[:, units] / scale
    fine, fine_bias = network.get_layer("fine").get_weights()
    pooled, bias = network.get_layer("pooled").get_weights()
    norm = network.get_layer("pooled_norm")
    center, variance = (np.asarray(w) for w in (norm.moving_mean, norm.moving_variance))
    pooled = pooled / np.sqrt(variance + norm.epsilon)[:, None]
    inputs = preset.core.get_layer("parameters").kernel.shape[0]
    kernel = np.zeros((inputs, 2))
    kernel[: len(pooled)] = pooled
    _set_columns(preset, "parameters", columns, kernel @ to_units,
                 (bias - center @ pooled) @ to_units - mean / scale)  # fmt: skip
    _set_columns(preset, f"{GAZE}linear", units, fine @ to_units, fine_bias @ to_units)
    if preset.expression_channels:
        _set_columns(preset, f"{FINE}linear", units, 0, 0)


def _set_columns(preset: Preset, layer: str, columns: np.ndarray, kernel, bias) -> None:
    weights = preset.core.get_layer(layer).get_weights()
    weights[0][:, columns], weights[1][columns] = kernel, bias
    preset.core.get_layer(layer).set_weights(weights)


def check_labels(labels: Labels, preset: Preset) -> None:
    """Raise a ValueError if there are too few photos, or crops of another size."""
    if labels.crops.shape[1] != preset.input_size:
        raise ValueError(
            f"the labels have crops of {labels.crops.shape[1]} px; the preset needs "
            f"{preset.input_size}"
        )
    if (usable := int((~labels.is_held_out).sum())) < BATCH:
        raise ValueError(
            f"gaze is known in {counted(usable, 'photo')} for training; {BATCH} are needed"
        )


def agreement(labels: Labels, predicted: np.ndarray) -> dict[str, float]:
    """Correlations of predicted gaze (m, 2), in any unit, with that of the held-out photos, and of
    the best linear function of the head's pose, for comparison."""
    out = labels.is_held_out
    pose = np.c_[labels.head, np.ones(len(out))]
    best = np.linalg.lstsq(pose[~out], labels.gaze[~out], rcond=None)[0]
    by_pose = pose[out] @ best
    return {
        f"{name} {what}": round(float(np.corrcoef(each[:, axis], labels.gaze[out, axis])[0, 1]), 3)
        for name, axis in (("pitch", PITCH), ("yaw", YAW))
        for what, each in (("predicted", predicted), ("by pose", by_pose))
    }


def numbers(text: str) -> list[int]:
    """Parse whole numbers, 0 or more, joined by commas."""
    return [whole(part) for part in text.split(",")]


def arguments() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("preset")
    parser.add_argument("out", type=Path)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", default="", help="folders of photos")
    source.add_argument("--renderings", type=whole, default=0, help="number of rendered people")
    parser.add_argument("--held-out", type=numbers, help="last people of each, only to measure")
    parser.add_argument("--leave-out", type=Path, help="CSV file of photos that are not used")
    parser.add_argument("--labels", type=Path, help="file of the crops and their gaze")
    parser.add_argument("--channels", type=whole, default=32)
    parser.add_argument("--steps", type=whole, default=3000)
    parser.add_argument("--seed", type=whole, default=0)
    return parser


@command
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = arguments()
    args = parser.parse_args(argv)
    check_out(args.out)
    count = len(folders_of(args.data)) if args.data else 0
    args.held_out = args.held_out or [0] * count
    if len(args.held_out) != count:
        parser.error(f"--held-out has {len(args.held_out)} numbers; --data has {count} folders")
    if not args.channels or not args.steps or (args.data and not count):
        parser.error("--channels and --steps must be 1 or more, and --data must name a folder")
    preset = load_preset(args.preset)
    if preset.recognizers or preset.is_flip_averaged:
        parser.error(f"preset '{args.preset}' takes gaze over from its base (follow_base.py)")
    keras.utils.set_random_seed(args.seed)
    look_weights(preset.face_model)  # raises if there are no eyes to turn
    labels = read_or_make(args, preset.input_size)
    check_labels(labels, preset)
    preset = with_gaze_head(preset, args.channels)
    network = gaze_network(preset)
    train(network, labels, args.steps, args.seed)
    note = {"photos": int((~labels.is_held_out).sum()), "steps": args.steps, "seed": args.seed}
    if labels.is_held_out.any():
        crops = labels.crops[labels.is_held_out]
        predicted = network.predict(np.float32(crops), batch_size=BATCH, verbose=0)
        note["held_out"] = {"photos": len(crops), **agreement(labels, predicted)}
    fold(preset, network)
    save_refined(args.out, preset, args.preset, "gaze", note)


if __name__ == "__main__":
    sys.exit(main())
