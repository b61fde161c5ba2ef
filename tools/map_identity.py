"""Map a preset's own parameters to identity coefficients that tell people apart.

    python tools/map_identity.py PACK.npz PRESET OUT [--embeddings FILE.npy] [--held-out 10]
        [--labels taught|single] [--contrast-weight 1] [--fit-share 0.3] [--seed 0]

All parameters predicted from a photo, including pose and expression, predict the person's shape
better than the identity coefficients alone. The map is linear, trained with the contrastive loss
(``keras_scnn.training.identity_map``) and folded into the network's last layer, at no runtime cost;
pose, expression and the mean shape do not change. A feature of the embeddings' length is solved for
them again, with a higher weight for turned faces. For PACK and the embeddings see
``solve_identity.py``. Takes three minutes on two cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import keras
import numpy as np

from keras_scnn.data.labels.identity_labels import TaughtIdentity, ridge_regression
from keras_scnn.data.mixture import Mixture
from keras_scnn.data.records import FaceRecords, split_people
from keras_scnn.models import Preset, save_preset
from keras_scnn.models.presets import SETTINGS, preset_folder, read_settings
from keras_scnn.models.shared_weights import BASE
from keras_scnn.morphable_model import mirror_matrices
from keras_scnn.settings import command
from keras_scnn.shape_distance import shape_coordinates
from keras_scnn.storage.outputs import check_out
from keras_scnn.training.digests import content_digest
from keras_scnn.training.identity_map import MapOptions, learn_identity_map
from keras_scnn.training.matching.pack import Pack
from keras_scnn.training.release_weights import with_covariance
from solve_identity import add_arguments, load_own, not_negative, open_labels, share, whole

BATCH = 64
# Share in the labels of the fit to all of the person's photos; the rest is from the recognizers.
# The former agrees with fits to other photos, the latter varies less.
FIT_SHARE = 0.3
TURNED_DEGREES, TURNED_WEIGHT = 45.0, 4
# Chosen by cross-validation over people: a penalty on the inputs' variance within people pulls a
# person's features together like the contrastive loss, but in closed form.
RIDGE, WITHIN = 1e-3, 0.3


def taught_photos(pack: Pack, taught: TaughtIdentity, held_out: int) -> np.ndarray:
    """Indices of the photos to learn from: of people not held out, with finite embeddings."""
    records = pack.mixture.records
    seen, _ = split_people(records.identity, held_out, records.mirror)
    return seen[np.isfinite(taught.embedding[seen]).all(axis=1)]


def photo_weights(records: FaceRecords, chosen: np.ndarray) -> np.ndarray:
    """(M,) int weights of the chosen photos: turned faces count ``TURNED_WEIGHT`` times."""
    turned = np.abs(records.euler_degrees()[chosen, 1]) > TURNED_DEGREES
    return np.where(turned, TURNED_WEIGHT, 1)


def output_of(preset: Preset, layer: str, images: np.ndarray) -> np.ndarray:
    """(n, D) float32, the output of a layer for crops (n, S, S, 3)."""
    network = keras.Model(preset.core.input, preset.core.get_layer(layer).output)
    return np.asarray(network.predict(images, batch_size=BATCH), np.float32)


def both_views(preset: Preset, layer: str, images: np.ndarray) -> np.ndarray:
    """(2, n, D) ``output_of`` for crops and for their mirror images."""
    return np.stack([output_of(preset, layer, view) for view in (images, images[:, :, ::-1])])


def add_map_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the map."""
    add_arguments(parser)
    parser.add_argument(
        "--labels",
        choices=("taught", "single"),
        default="taught",
        help="single: fits of single photos, for comparison",
    )
    parser.add_argument("--contrast-weight", type=not_negative, default=MapOptions.contrast_weight)
    parser.add_argument("--fit-share", type=share, default=FIT_SHARE, help="0 to 1")
    parser.add_argument("--seed", type=whole, default=0)


def learn_map(
    preset: Preset,
    pack: Pack,
    taught: TaughtIdentity,
    chosen: np.ndarray,
    inputs: np.ndarray,
    args: argparse.Namespace,
) -> tuple[np.ndarray, np.ndarray]:
    """Kernel (D, K) to whitened identity coefficients, and the mean of the inputs (D,).

    Args:
        preset: with the face model and the whitening.
        pack, taught, chosen: the photos.
        inputs: (2, M, D) for the chosen photos, as they are and mirrored.
        args: options of ``add_map_arguments``.
    """
    records, model, identity = pack.mixture.records, preset.face_model, preset.layout.identity
    if args.labels == "single":
        coefficients = np.float64(pack.single_identity[chosen])
    else:
        fits = np.float64(records.parameters[chosen, identity])
        coefficients = args.fit_share * fits
        coefficients += (1 - args.fit_share) * taught.shapes[chosen] / model.identity_weights_mm
    options = MapOptions(contrast_weight=args.contrast_weight, seed=args.seed)
    return map_to(preset, coefficients, pack.mixture, chosen, inputs, options)


def map_to(
    preset: Preset,
    coefficients: np.ndarray,
    mixture: Mixture,
    chosen: np.ndarray,
    inputs: np.ndarray,
    options: MapOptions,
    start: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Like ``learn_map``, for given identity coefficients (M, K) of the chosen photos' people.

    ``start`` is the initial kernel (D, K) to whitened coefficients, from which the penalty allows
    only small changes; None for zeros.
    """
    model, records = preset.face_model, mixture.records
    views = np.stack([coefficients, coefficients @ mirror_matrices(model)[0].T])
    kernel = learn_identity_map(
        inputs,
        np.stack([shape_coordinates(model, view) for view in views]),
        records.identity[chosen],
        mixture.source[chosen],
        photo_weights(records, chosen),
        options,
        None if start is None else start @ preset.space.shape_basis,
    )
    return kernel @ np.linalg.inv(preset.space.shape_basis), np.float64(inputs).mean(axis=(0, 1))


def fold(preset: Preset, kernel: np.ndarray, mean: np.ndarray) -> None:
    """Fold a map of the layer ``parameters`` into that layer; the mean shape does not change."""
    layer, identity = preset.core.get_layer("parameters"), preset.layout.identity
    weights, bias = (np.array(w, np.float64) for w in layer.get_weights())
    new_bias = (bias - mean) @ kernel + mean[identity]
    weights[:, identity], bias[identity] = weights @ kernel, new_bias
    layer.set_weights([weights, bias])


def save_refined(out: Path, preset: Preset, before: str, name: str, note: dict) -> None:
    """Write a preset with another note in its metadata, and print the note.

    Weights that it shares with the base, a preset in the package, of ``before`` are not written;
    ``before`` is the name or folder of the preset from which it was made.
    """
    settings = read_settings(preset_folder(before) / SETTINGS)
    base = settings[BASE]["preset"] if BASE in settings else ""
    metadata = preset.metadata | {name: note}
    save_preset(out, dataclasses.replace(preset, metadata=metadata), base=base)
    print(json.dumps(note))


def solve_steady(
    inputs: np.ndarray, targets: np.ndarray, weight: np.ndarray, person: np.ndarray
) -> list[np.ndarray]:
    """Kernel (E, C) and bias (C,) of a ridge regression that penalizes variance within people.

    Args:
        inputs: (n, E).
        targets: (n, C).
        weight: (n,).
        person: (n,) int.
    """
    x, weight = inputs.astype(np.float64), weight / weight.mean()
    own, number = np.unique(person, return_inverse=True)
    sums = np.zeros((len(own), x.shape[1]))
    np.add.at(sums, number, x * weight[:, None])
    apart = x - (sums / np.bincount(number, weight)[:, None])[number]
    steady = WITHIN * (apart * weight[:, None]).T @ apart / len(x)
    return list(ridge_regression(x, targets, RIDGE, weight, steady))


def solve_feature(preset: Preset, pack: Pack, taught: TaughtIdentity, chosen: np.ndarray) -> None:
    """Replace the feature by a regression of the embedding on it, folded into its layer."""
    layer, records = preset.core.get_layer("features_linear"), pack.mixture.records
    feature = output_of(preset, layer.name, np.asarray(records.images[chosen]))
    weight = photo_weights(records, chosen)
    targets = taught.embedding[chosen]
    kernel, bias = solve_steady(feature, targets, weight, records.identity[chosen])
    first, offset = (np.float64(w) for w in layer.get_weights())
    layer.set_weights([first @ kernel, offset @ kernel + bias])


@command
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_map_arguments(parser)
    args = parser.parse_args(argv)
    check_out(args.out)
    preset = load_own(args.preset)
    pack, taught = open_labels(args, preset)
    chosen = taught_photos(pack, taught, args.held_out)
    inputs = both_views(preset, "parameters", np.asarray(pack.mixture.records.images[chosen]))
    fold(preset, *learn_map(preset, pack, taught, chosen, inputs, args))
    if preset.feature_size == taught.embedding.shape[1]:
        solve_feature(preset, pack, taught, chosen)
    preset = with_covariance(preset, pack.mixture, chosen)
    note = {"pack": content_digest(args.pack), "preset": args.preset, "held_out": args.held_out}
    save_refined(args.out, preset, args.preset, "identity_map", note | {"photos": len(chosen)})


if __name__ == "__main__":
    sys.exit(main())
