"""Solve a preset's identity and feature heads for labels from two face recognizers.

    python tools/solve_identity.py PACK.npz PRESET OUT [--embeddings FILE.npy] [--held-out 10]

The heads are linear, so a ridge regression of the labels on their inputs takes minutes on a CPU,
whereas training would need an accelerator (``keras-scnn train --recipe matching``). Pose and
expression do not change. PACK is a file of ``keras_scnn.training.matching.pack.write_pack``; the
embeddings of its photos are computed once and cached beside it, in PACK.embeddings-(digest).npy;
``--embeddings`` is such a file that exists.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from keras_scnn.data.labels.identity_labels import (
    Photos,
    TaughtIdentity,
    teach_identity,
    well_known,
)
from keras_scnn.data.mixture import Mixture
from keras_scnn.data.records import split_people
from keras_scnn.data.sources.blends import can_blend
from keras_scnn.face_models import load_face_model
from keras_scnn.geometry.alignment import similarity_alignment
from keras_scnn.models import Preset, load_preset, save_preset
from keras_scnn.models.preset_network import with_settings
from keras_scnn.models.recognizers.chips import Chip, weights_path
from keras_scnn.models.recognizers.dlib import DlibNetwork, Recognizer, read_recognizer
from keras_scnn.models.recognizers.sface import (
    SFACE_FILE,
    SFACE_INSTALL,
    SFACE_PACKAGE,
    SFaceNetwork,
    read_sface,
)
from keras_scnn.morphable_model import mirror_matrices
from keras_scnn.parameters import ParameterLayout
from keras_scnn.settings import command
from keras_scnn.storage import atomic_path, packaged_file
from keras_scnn.storage.arrays import read_npy
from keras_scnn.storage.outputs import check_out
from keras_scnn.storage.shards import digest
from keras_scnn.training.digests import content_digest
from keras_scnn.training.matching.pack import Pack, read_pack
from keras_scnn.training.release_weights import with_covariance
from keras_scnn.training.warm_start import solve_dense

BATCH = 32
IDENTITY_RIDGE, FEATURE_RIDGE = 1e-2, 1e-2


def cache_path(path: Path, *made_of: Any) -> Path:
    """``path`` with a digest of ``made_of``, which must be serializable as JSON, in its name."""
    return path.with_name(f"{path.name}-{digest(made_of)[:12]}.npy")


def cached(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array in a .npy file, which is computed and written if it is missing."""
    if not path.is_file():
        array = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, array)
    return read_npy(path)


def chip_of(frame: np.ndarray, landmarks: np.ndarray, chip: Chip) -> np.ndarray:
    """(S, S, 3) uint8: the aligned square that a recognizer expects.

    Args:
        frame: (F, F, 3) uint8 RGB.
        landmarks: (68, 2) px of the frame.
        chip: defines the square.
    """
    scale, rotation, shift = similarity_alignment(chip.landmarks @ landmarks, chip.points)
    matrix = np.column_stack([scale * rotation, shift])
    return cv2.warpAffine(frame, matrix, (chip.size, chip.size), flags=cv2.INTER_LINEAR)


def embed(pack: Pack, recognizers: list[Recognizer]) -> np.ndarray:
    """(n, E) float32 embeddings of the photos, concatenated over the recognizers."""
    points = pack.mixture.records.landmarks[..., :2] + pack.margin
    rows = []
    for start in tqdm(range(0, len(points), BATCH), desc="recognize"):
        chosen = np.minimum(np.arange(start, start + BATCH), len(points) - 1)
        parts = []
        for one in recognizers:
            chips = [chip_of(pack.frames[i], points[i], one.chip) for i in chosen]
            parts.append(np.asarray(one(np.float32(np.stack(chips)))))
        rows.append(np.concatenate(parts, axis=1))
    return np.concatenate(rows)[: len(points)]


def teach(pack: Pack, raw: np.ndarray, sizes: list[int], held_out: int) -> TaughtIdentity:
    """The labels of a pack's photos, learned without the last ``held_out`` people."""
    records = pack.mixture.records
    model = pack.mixture.annotated(load_face_model(records.face_model))
    identity = ParameterLayout(model.n_identity, model.n_expression).identity
    seen, _ = split_people(records.identity, held_out, records.mirror)
    known = np.isfinite(raw).all(axis=1)
    photos = Photos(
        records.identity,
        pack.mixture.source,
        can_blend(records.euler_degrees()) & known,
        np.isin(np.arange(len(records)), seen),
    )
    weights = model.identity_weights_mm
    fits = records.parameters[:, identity] * weights, pack.single_identity * weights
    return teach_identity(*map(np.float64, fits), raw, sizes, photos)


def solve(preset: Preset, pack: Pack, taught: TaughtIdentity, held_out: int) -> Preset:
    """The preset with identity and feature heads solved for the labels.

    Photos without a finite embedding are left out. The feature becomes the embedding if both have
    the same length; otherwise it does not change. The within-person covariance is measured again.
    """
    records = pack.mixture.records
    seen, _ = split_people(records.identity, held_out, records.mirror)
    known = np.isfinite(taught.embedding).all(axis=1)
    chosen = seen[known[seen]]
    images = np.concatenate([records.images[chosen], records.images[chosen][:, :, ::-1]])
    layer, identity = preset.core.get_layer("parameters"), preset.space.layout.identity
    shapes = taught.shapes[chosen] / preset.face_model.identity_weights_mm
    mirrored = shapes @ mirror_matrices(preset.face_model)[0].T
    whitening = preset.space.whitening
    labels = np.concatenate([shapes, mirrored]) - whitening.mean[identity]
    labels = labels / whitening.scale[identity]
    solve_dense(preset.core, layer, images, labels, IDENTITY_RIDGE, identity)
    feature = preset.core.get_layer("features_linear")
    if feature.units == taught.embedding.shape[1]:
        twice = np.concatenate([taught.embedding[chosen]] * 2)
        solve_dense(preset.core, feature, images, twice, FEATURE_RIDGE)
    return with_covariance(preset, pack.mixture, chosen)


def wider(preset: Preset, feature_size: int) -> Preset:
    """The preset with a joint head, and a longer feature (0: as long); new weights are 0."""
    joint = bool(preset.feature_channels) and not preset.has_identity_encoder
    size = feature_size or preset.feature_size
    changed, larger = with_settings(preset, feature_size=size, joint_head=joint)
    old = {weight.path: np.asarray(weight) for weight in preset.core.weights}
    for weight in larger:
        value, shape = old[weight.path], weight.shape
        weight.assign(np.pad(value, [(0, n - m) for n, m in zip(shape, value.shape, strict=True)]))
    return changed


def check_fits(preset: Preset, mixture: Mixture, source: str | Path) -> None:
    """Raise a ValueError unless photos have the crop size and the face model of a preset.

    Args:
        preset: any.
        mixture: the photos, with their labels.
        source: where they come from, for the message.
    """
    if (side := mixture.records.images.shape[1]) != preset.input_size:
        raise ValueError(f"{source}: crops of {side} px; the preset needs {preset.input_size} px")
    try:
        mixture.annotated(preset.face_model)
    except ValueError as error:
        raise ValueError(f"{source}: not for the preset's face model: {error}") from error


def load_own(name: str) -> Preset:
    """A preset whose identity is a part of the layer ``parameters``, as these tools need it.

    Raises:
        ValueError: it has recognizers, whose identity has a layer of its own.
    """
    preset = load_preset(name)
    if preset.recognizers:
        raise ValueError(
            f"preset '{name}' has recognizers, so its identity has a layer of its own: change its "
            "base, and let it follow (follow_base.py)"
        )
    return preset


def not_negative(text: str) -> float:
    """Parse a number of 0 or more."""
    if not 0 <= (value := float(text)) < np.inf:
        raise argparse.ArgumentTypeError(f"{text} must be 0 or more, and finite")
    return value


def share(text: str) -> float:
    """Parse a number from 0 to 1."""
    if not 0 <= (value := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{text} must lie in 0 to 1")
    return value


def whole(text: str) -> int:
    """Parse a whole number of 0 or more."""
    return int(not_negative(str(int(text))))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for the sources of the labels."""
    parser.add_argument("pack", type=Path)
    parser.add_argument("preset")
    parser.add_argument("out", type=Path)
    text = "(n, E) .npy, computed before; NaN rows are ignored"
    parser.add_argument("--embeddings", type=Path, help=text)
    parser.add_argument("--recognizer", default="", help="file of dlib's recognizer")
    parser.add_argument("--sface", default="", help="file of SFace")
    parser.add_argument("--held-out", type=whole, default=10, help="people who are not used")


def open_labels(args: argparse.Namespace, preset: Preset) -> tuple[Pack, TaughtIdentity]:
    """The photos, and their labels from the recognizers' embeddings, which are cached.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, the photos do not fit the preset (``check_fits``), or
            the given embeddings are not those of the photos.
    """
    recognizer = str(args.recognizer or weights_path())
    sface = str(args.sface or packaged_file(SFACE_PACKAGE, SFACE_FILE, SFACE_INSTALL))
    recognizers: list[Recognizer] = [
        DlibNetwork(*read_recognizer(recognizer)),
        SFaceNetwork(read_sface(sface)),
    ]
    pack = read_pack(args.pack)
    check_fits(preset, pack.mixture, args.pack)
    well_known(pack.mixture.records.identity)  # before all photos are embedded
    sizes = [one.size for one in recognizers]
    if args.embeddings:
        raw, expected = read_npy(args.embeddings), (len(pack.frames), sum(sizes))
        if raw.shape != expected:
            raise ValueError(f"{args.embeddings}: the shape is {raw.shape}, not {expected}")
    else:
        made_of = [content_digest(Path(file)) for file in (args.pack, recognizer, sface)]
        path = cache_path(args.pack.with_suffix(".embeddings"), *made_of)
        raw = cached(path, lambda: embed(pack, recognizers))
    return pack, teach(pack, raw, sizes, args.held_out)


@command
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--feature-size", type=whole, default=0, help="0: unchanged")
    args = parser.parse_args(argv)
    check_out(args.out)
    preset = load_own(args.preset)
    if not preset.feature_size:
        parser.error(f"preset '{args.preset}' has no feature")
    if 0 < args.feature_size < preset.feature_size:
        parser.error(
            f"--feature-size is {args.feature_size}; the preset's feature has {preset.feature_size}"
            " already; give more, or 0"
        )
    pack, taught = open_labels(args, preset)
    preset = solve(wider(preset, args.feature_size), pack, taught, args.held_out)
    note = {"pack": content_digest(args.pack), "preset": args.preset, "held_out": args.held_out}
    save_preset(args.out, dataclasses.replace(preset, metadata=preset.metadata | {"solved": note}))
    print(json.dumps(note))


if __name__ == "__main__":
    sys.exit(main())
