"""Make the preset that is free for any use and whose identity comes from dlib's recognizer.

    python tools/make_open_identity_preset.py OUT [--geometry open] [--people 2000] [--photos 6]
        [--seed 11] [--cache runs/data]

Pose and expression are those of the preset GEOMETRY, whose weights are shared. The feature is the
recognizer's embedding. The identity coefficients are linear in it, learned from renderings of
random people of the face model, without photos of real people. All outputs are averaged over the
crop and its mirror image. Needs the extra 'teacher'. On two cores it takes ten minutes; the
network's outputs for the renderings are cached in OUT-(digest).npy.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np

from keras_scnn.data.labels.identity_labels import STEADINESS, ridge_regression
from keras_scnn.data.synthesis.rendered_people import SyntheticConfig, cached_records
from keras_scnn.models import Preset, save_preset
from keras_scnn.models.flip_averaging import build_flip_averaged
from keras_scnn.models.heads import SEEN
from keras_scnn.models.identity_encoder import PREFIX
from keras_scnn.models.presets import preset_digest
from keras_scnn.models.recognizers.chips import EMBEDDING_SIZE
from keras_scnn.models.recognizers.layers import unchanged_recognizers
from keras_scnn.settings import command
from keras_scnn.shape_distance import shape_coordinates, within_person_covariance
from keras_scnn.storage.outputs import check_out
from make_identity_preset import load_geometry, with_recognizers
from map_identity import output_of
from solve_identity import cache_path, cached, whole

RECOGNIZER = "dlib"
# As in the recipe 'open', but only up to 60 degrees of yaw, beyond which the geometry is weak.
LOOK = {"yaw_degrees": 60, "pitch_degrees": 14, "roll_degrees": 12, "spread": 0.6}
# As a share of the embeddings' mean variance. Embeddings of photos vary more than those of
# renderings, and in more directions: a high penalty keeps only the directions that matter most for
# renderings. 3 and 30 give about the same.
RIDGE = 10.0
LEAST_SHARE = 1e-6  # of the largest variance within people; embeddings have about 60 dimensions
SIZE_MM = 0.35  # RMS distance from the mean shape for renderings; for photos it is 25 % larger


def steady_map(embeddings: np.ndarray, shapes: np.ndarray, person: np.ndarray) -> np.ndarray:
    """Kernel (E, K) from deviations of embeddings to deviations of shapes, mm.

    The kernel of a ridge regression, in which each principal shape is multiplied by the power
    ``STEADINESS`` of its standard deviation within people; then all are scaled to ``SIZE_MM``. As
    in ``identity_labels.learn_posterior``, but the principal shapes are those of the predictions,
    since random people vary equally in every coefficient.

    Args:
        embeddings: (n, E).
        shapes: (n, K) coordinates, mm.
        person: (n,) int.
    """
    kernel, offset = ridge_regression(embeddings, shapes, RIDGE)
    predicted = embeddings @ kernel + offset
    axes = np.linalg.eigh(np.cov(predicted.T))[1]
    within = np.diag(axes.T @ within_person_covariance(predicted, person) @ axes)
    within = np.maximum(within, LEAST_SHARE * within.max())
    kernel = kernel @ (axes * within ** (STEADINESS / 2)) @ axes.T
    deviations = (embeddings - embeddings.mean(axis=0)) @ kernel
    return kernel * SIZE_MM / np.sqrt((deviations**2).sum(axis=1).mean())


def set_heads(preset: Preset, embeddings: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Set the identity head to a map that gives the mean embedding the mean face.

    The feature becomes the embedding.

    Args:
        preset: with a recognizer; it is changed in place.
        embeddings: (n, E).
        kernel: (E, K), from deviations of embeddings to deviations of shapes, mm.

    Returns:
        (n, K) coordinates, mm, of the shapes predicted for the embeddings.
    """
    head, feature = (preset.core.get_layer(n) for n in (f"{PREFIX}shape", "features_linear"))
    identity, space = preset.layout.identity, preset.space
    whitened = kernel @ np.linalg.inv(preset.space.shape_basis)
    weights = np.zeros(head.kernel.shape)
    weights[-len(whitened) :] = whitened  # the parameters before the embedding get zero weights
    mean = embeddings.mean(axis=0)
    face = space.whitening.whiten(np.zeros(preset.layout.size))[identity]  # the mean face
    head.set_weights([weights, face - mean @ whitened])
    feature.set_weights([np.eye(len(whitened)), np.zeros(len(whitened))])
    return (embeddings - mean) @ kernel


def parsed(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder of the new preset")
    parser.add_argument("--geometry", default="open", help="a preset of the package")
    parser.add_argument("--people", type=whole, default=2000)
    parser.add_argument("--photos", type=whole, default=6, help="per person")
    parser.add_argument("--seed", type=whole, default=11)
    parser.add_argument("--cache", type=Path, default=Path("runs/data"), help="of renderings")
    args = parser.parse_args(argv)
    for name in ("people", "photos"):
        if (count := getattr(args, name)) < 2:
            parser.error(f"--{name} is {count}; it must be 2 or more")
    return args


@command
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    args = parsed(argv)
    check_out(args.out)
    config = SyntheticConfig(
        people=args.people, photos=args.photos, seed=args.seed, portraits=True, **LOOK
    )
    preset = with_recognizers(load_geometry(args.geometry), EMBEDDING_SIZE, RECOGNIZER)
    records = cached_records(config, args.cache)
    made_of = config.key, preset_digest(args.geometry), unchanged_recognizers(preset.core)
    path = cache_path(args.out, *made_of)
    seen = cached(path, lambda: output_of(preset, SEEN, np.asarray(records.images)))
    embeddings = np.float64(seen[:, preset.layout.size :])
    shapes = shape_coordinates(preset.face_model, records.parameters[:, preset.layout.identity])
    kernel = steady_map(embeddings, shapes, records.identity)
    predicted = set_heads(preset, embeddings, kernel)
    metadata = {
        "license": f"{preset.metadata['license']}; identity by dlib's whole recognizer (CC0)",
        "needs": "pip install '.[teacher]' (the recognizer's weights)",
        "made": {"renderings": dataclasses.asdict(config), "geometry": args.geometry},
    }
    made = dataclasses.replace(
        preset,
        branch=build_flip_averaged(preset.core, preset.space),
        metadata=metadata,
        within_person_covariance=np.float32(within_person_covariance(predicted, records.identity)),
    )
    save_preset(args.out, made, base=args.geometry)


if __name__ == "__main__":
    sys.exit(main())
