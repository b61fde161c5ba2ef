"""Refine a preset's feature, so that it depends on the person and not on the data set.

    python tools/refine_feature.py PRESET OUT --data CFP,CELEBA,PINS
        [--teacher identity] [--ridge 0.1] [--people 160] [--penalty 3] [--no-contrast]
        [--held-out 10] [--seed 0]

A network's features also depend on what a data set's photos have in common (size, sharpness,
compression): the data sets' means differ, and are far from zero, so that two strangers have a high
cosine similarity. The feature before its normalization to unit length is made to predict the
embeddings of the teacher's recognizers by ridge regression, after each data set's mean has been
subtracted from both. The metric of that regression is then trained with the supervised contrastive
loss, with a penalty on its change (``keras_scnn.training.feature_metric``), and folded into the
feature layer: the feature keeps its length, at no runtime cost. Shapes, pose and expression stay
the same to the bit.

``--data`` are face records of people (``keras-scnn prepare``); the last ``--held-out`` people are
not used. The teacher's recognizers need the extra 'teacher'; their embeddings are cached in
OUT-(digest).npy. Takes seven minutes on two cores.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from pathlib import Path

import keras
import numpy as np

from keras_scnn.data.labels.identity_labels import ridge_regression
from keras_scnn.data.mixture import open_mixture
from keras_scnn.data.records import split_people
from keras_scnn.models import Preset, load_preset
from keras_scnn.models.presets import preset_digest
from keras_scnn.models.recognizers.layers import recognizer_layers
from keras_scnn.settings import command
from keras_scnn.storage.outputs import check_out
from keras_scnn.training.feature_metric import MetricOptions, learn_feature_metric
from keras_scnn.training.identity_map import centered
from map_identity import BATCH, both_views, photo_weights, save_refined
from solve_identity import cache_path, cached, not_negative, whole

LAYER = "features_linear"
RIDGE = 0.1


def embeddings(args: argparse.Namespace, teacher: Preset, images: np.ndarray) -> list[np.ndarray]:
    """Embeddings (n, E) from each of the teacher's recognizers; cached beside ``args.out``."""
    layers = recognizer_layers(teacher.core)

    def predict() -> np.ndarray:
        network = keras.Model(teacher.core.input, {n: one.output for n, one in layers.items()})
        parts = network.predict(images, batch_size=BATCH)
        return np.concatenate([parts[name] for name in layers], axis=1)

    made_of = list(layers), preset_digest(args.teacher), zlib.crc32(images)
    ends = np.cumsum([one.output.shape[-1] for one in layers.values()])[:-1]
    return np.split(cached(cache_path(args.out, *made_of), predict), ends, axis=1)


def solve_metric(
    features: np.ndarray,
    targets: np.ndarray,
    source: np.ndarray,
    weight: np.ndarray,
    ridge: float = RIDGE,
) -> tuple[np.ndarray, np.ndarray]:
    """The matrix by which features are multiplied after their mean is subtracted.

    Args:
        features: (n, F).
        targets: (n, E).
        source: (n,) int, the data set.
        weight: (n,) above 0.
        ridge: penalty on all directions, as a share of the features' mean variance.

    Returns:
        (F, F), the symmetric root of K K^T, where K is the kernel of the regression: the resulting
        cosines are those of the predicted targets; and the mean (F,), with equally weighted data
        sets.
    """
    x, y = np.array(features, np.float64), np.array(targets, np.float64)
    weight = weight / weight.mean()
    sets = [source == one for one in np.unique(source)]
    means = np.stack([np.average(x[own], axis=0, weights=weight[own]) for own in sets])
    for own, mean in zip(sets, means, strict=True):
        x[own] -= mean
        y[own] -= np.average(y[own], axis=0, weights=weight[own])
    kernel, _ = ridge_regression(x, y, ridge, weight)
    left, size, _ = np.linalg.svd(kernel, full_matrices=False)
    return (left * size) @ left.T, means.mean(axis=0)


def fold_into_feature(preset: Preset, metric: np.ndarray, mean: np.ndarray) -> None:
    """Fold the metric (F, F) and the mean (F,) into the feature layer."""
    layer = preset.core.get_layer(LAYER)
    kernel, bias = (np.float64(part) for part in layer.get_weights())
    layer.set_weights([kernel @ metric, (bias - mean) @ metric])


def arguments() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("preset")
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", required=True, help="folders of face records of people")
    parser.add_argument("--teacher", default="identity", help="a preset with recognizers")
    parser.add_argument("--ridge", type=not_negative, default=RIDGE)
    parser.add_argument("--people", type=whole, default=MetricOptions.people, help="per batch")
    parser.add_argument(
        "--penalty", type=not_negative, default=MetricOptions.penalty, help="on the metric's change"
    )
    parser.add_argument("--no-contrast", action="store_true", help="only the regression's metric")
    parser.add_argument("--held-out", type=whole, default=10, help="people who are not used")
    parser.add_argument("--seed", type=whole, default=0, help="of the batches of people")
    return parser


def learned_metric(
    views: np.ndarray,
    targets: np.ndarray,
    source: np.ndarray,
    weight: np.ndarray,
    person: np.ndarray,
    args: argparse.Namespace,
) -> tuple[np.ndarray, np.ndarray]:
    """Like ``solve_metric``, then trained with the contrastive loss unless ``--no-contrast``.

    Args:
        views: (V, n, F) features of n photos, in V views of each.
        targets, source, weight: (n, ...) of the photos, see ``solve_metric``.
        person: (n,) int.
        args: of the command.
    """
    of_all_views = (np.concatenate([rows] * len(views)) for rows in (targets, source, weight))
    metric, mean = solve_metric(np.concatenate(views), *of_all_views, args.ridge)
    if args.no_contrast:
        return metric, mean
    apart = np.stack([centered(view, source) for view in views])
    options = MetricOptions(people=args.people, penalty=args.penalty, seed=args.seed)
    return learn_feature_metric(apart, person, metric, options), mean


@command
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = arguments()
    args = parser.parse_args(argv)
    check_out(args.out)
    preset, teacher = load_preset(args.preset), load_preset(args.teacher)
    if not preset.feature_size:
        parser.error(f"{args.preset} has no feature")
    if not teacher.recognizers:
        parser.error(f"--teacher: {args.teacher} has no recognizers; 'identity' has")
    mixture = open_mixture(args.data)
    records = mixture.records
    chosen, _ = split_people(records.identity, args.held_out, records.mirror)
    person = records.identity[chosen]
    _, photos = np.unique(person, return_counts=True)
    several = int(np.sum(photos > 1))
    if not args.no_contrast and not 1 < args.people <= several:
        parser.error(
            f"--people is {args.people}; it must be 2 to {several}, the people with two photos"
        )
    images, source = np.ascontiguousarray(records.images[chosen]), mixture.source[chosen]
    unit = keras.utils.normalize
    parts = embeddings(args, teacher, images)
    targets = np.concatenate([unit(centered(unit(part), source)) for part in parts], axis=1)
    views = both_views(preset, LAYER, images)
    weight = photo_weights(records, chosen)
    fold_into_feature(preset, *learned_metric(views, targets, source, weight, person, args))
    note = {"preset": preset_digest(args.preset), "teacher": preset_digest(args.teacher)}
    penalty = None if args.no_contrast else args.penalty
    note |= {"ridge": args.ridge, "penalty": penalty, "held_out": args.held_out}
    note |= {"photos": len(chosen), "people": len(photos), "seed": args.seed}
    save_refined(args.out, preset, args.preset, "feature_refined", note)


if __name__ == "__main__":
    sys.exit(main())
