"""Refine a preset's identity with annotated points of profiles, and with a better preset.

    python tools/refine_identity.py PRESET OUT --data CFP,CELEBA,PINS --points CFP_FOLDER
        [--teacher identity] [--fit-share 0.3] [--prior-mm 0.15] [--penalty 0.02]
        [--refined-share 1] [--held-out 10] [--seed 0]

A person's label is a weighted mean of the teacher's prediction, averaged over the person's photos,
and of the joint fit to their landmarks; for people with annotated points it is the fit to these
points with that shape as the prior's mean (``keras_scnn.data.labels.point_labels``). The identity
coefficients become a linear map of the preset's own parameters, trained on these labels with the
contrastive loss as in ``map_identity.py``, but starting from the preset's predictions and with a
penalty on changes, since about 500 people do not determine that many weights. The map is folded
into the network's last layer (for `identity`, into its identity layer), at no runtime cost; pose,
expression and the mean shape do not change. ``--refined-share`` below 1 averages the refined
coefficients with those of the preset.

``--data`` are face records of people (``keras-scnn prepare``), ``--points`` is the folder of CFP,
whose records are among them; ``--prior-mm 0`` disables the points. The teacher's recognizers need
the extra 'teacher'; its predictions are cached in OUT-(digest).npy. Takes a quarter of an hour on
two cores, an hour for a preset with whole recognizers.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import zlib
from pathlib import Path

import numpy as np
from tqdm import tqdm

from keras_scnn.data.labels.point_labels import OPTIONS, fit_to_points
from keras_scnn.data.mixture import Mixture, open_mixture
from keras_scnn.data.records import split_people
from keras_scnn.data.sources.cfp import is_profile, points_by_name
from keras_scnn.models import Preset, load_preset
from keras_scnn.models.identity_encoder import PREFIX
from keras_scnn.models.presets import preset_digest
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.settings import command
from keras_scnn.shape_distance import person_means
from keras_scnn.storage.outputs import check_out
from keras_scnn.training.identity_map import MapOptions, centered
from keras_scnn.training.release_weights import with_covariance
from map_identity import BATCH, FIT_SHARE, both_views, fold, map_to, save_refined
from solve_identity import cache_path, cached, check_fits, not_negative, share, whole

MIN_POINTS = 20  # per photo; CFP has 30
PENALTY = 0.02  # by cross-validation over people: held-out labels are predicted best at 0.01-0.03


def known_shapes(mixture: Mixture, chosen: np.ndarray, args: argparse.Namespace) -> np.ndarray:
    """(M, K) coefficients of the chosen photos' people, from the teacher and the joint fits."""
    records, source = mixture.records, mixture.source[chosen]
    teacher = load_preset(args.teacher)
    identity = teacher.layout.identity
    images = np.ascontiguousarray(records.images[chosen])

    def predict() -> np.ndarray:
        return teacher.branch.predict(images, batch_size=BATCH)["parameters"][:, identity]

    predicted = cached(
        cache_path(args.out, preset_digest(args.teacher), zlib.crc32(images)), predict
    )
    taught = predicted * teacher.space.whitening.scale[identity]
    means = person_means(centered(taught, source), records.identity[chosen])
    fits = centered(records.parameters[chosen, identity], source)
    return (1 - args.fit_share) * means + args.fit_share * fits


def _has_points(points: dict[str, np.ndarray], name: str) -> bool:
    return name in points and np.isfinite(points[name]).all(axis=1).sum() >= MIN_POINTS


def with_points(
    model: MorphableModel,
    shapes: np.ndarray,
    names: np.ndarray,
    person: np.ndarray,
    points: dict[str, np.ndarray],
    prior_mm: float,
) -> np.ndarray:
    """(M, K) shapes; those of people with annotated points are fitted to them.

    Args:
        model: the face model.
        shapes: (M, K) identity coefficients of the photos' people: the prior's means.
        names, person: (M,) of the photos.
        points: annotated points (68, 2) px by the photo's name.
        prior_mm: the prior's standard deviation.
    """
    options, labels = dataclasses.replace(OPTIONS, identity_sd=prior_mm), np.array(shapes)
    has_points = np.array([_has_points(points, name) for name in names.tolist()])
    for one in tqdm(np.unique(person[has_points]), desc="fits to points"):
        own = person == one
        photos = names[own & has_points].tolist()
        given = np.stack([points[name] for name in photos])
        profiles = np.array([is_profile(name) for name in photos])
        labels[own] = fit_to_points(model, shapes[own].mean(axis=0), given, profiles, options)
    return labels


def whole_parameters(preset: Preset) -> str:
    """Name of the layer whose output (B, P), all whitened parameters, is the input of the map."""
    return "parameters_with_identity" if preset.recognizers else "parameters"


def fold_into(preset: Preset, kernel: np.ndarray, mean: np.ndarray) -> None:
    """Fold a map of the layer ``whole_parameters`` into the network; see ``fold``.

    With recognizers the identity has its own layer, whose inputs are the parameters followed by
    the embeddings.
    """
    if not preset.recognizers:
        fold(preset, kernel, mean)
        return
    layer, layout = preset.core.get_layer(f"{PREFIX}shape"), preset.layout
    weights, bias = (np.array(w, np.float64) for w in layer.get_weights())
    own = kernel[layout.identity]
    weights, bias = weights @ own, bias @ own - mean @ kernel + mean[layout.identity]
    for rest in (layout.pose, layout.expression):
        weights[rest] += kernel[rest]
    layer.set_weights([weights, bias])


def arguments() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("preset")
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", required=True, help="folders of face records of people")
    parser.add_argument("--points", type=Path, help="folder of CFP, with labels.npz")
    parser.add_argument("--teacher", default="identity", help="a preset")
    parser.add_argument("--fit-share", type=share, default=FIT_SHARE, help="0 to 1")
    parser.add_argument("--prior-mm", type=not_negative, default=OPTIONS.identity_sd)
    parser.add_argument("--penalty", type=not_negative, default=PENALTY, help="on the map's change")
    parser.add_argument("--refined-share", type=share, default=1.0, help="0 to 1")
    parser.add_argument("--held-out", type=whole, default=10, help="people who are not used")
    parser.add_argument("--seed", type=whole, default=0)
    return parser


@command
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = arguments()
    args = parser.parse_args(argv)
    check_out(args.out)
    points = points_by_name(args.points) if args.points and args.prior_mm else {}
    mixture = open_mixture(args.data)
    records = mixture.records
    if records.name is None:
        raise ValueError(f"--data: {args.data}: the records do not name their photos")
    chosen, _ = split_people(records.identity, args.held_out, records.mirror)
    person = records.identity[chosen]
    if points and not any(_has_points(points, name) for name in records.name[chosen].tolist()):
        parser.error(f"--points: {args.points} has no points of photos of --data")
    preset = load_preset(args.preset)
    check_fits(preset, mixture, f"--data: {args.data}")
    names, known = records.name[chosen], known_shapes(mixture, chosen, args)
    shapes = with_points(preset.face_model, known, names, person, points, args.prior_mm)
    images = np.asarray(records.images[chosen])
    inputs = both_views(preset, whole_parameters(preset), images)
    options = MapOptions(seed=args.seed, penalty=args.penalty)
    own = np.eye(preset.layout.size)[:, preset.layout.identity]  # the unchanged identity
    refined, mean = map_to(preset, shapes, mixture, chosen, inputs, options, own)
    fold_into(preset, args.refined_share * refined + (1 - args.refined_share) * own, mean)
    preset = with_covariance(preset, mixture, chosen)
    note = {
        "preset": preset_digest(args.preset),
        "teacher": preset_digest(args.teacher),
        "photos": len(chosen),
        "people": len(np.unique(person)),
        "prior_mm": args.prior_mm if points else 0,
        "fit_share": args.fit_share,
        "penalty": args.penalty,
        "refined_share": args.refined_share,
        "held_out": args.held_out,
        "seed": args.seed,
    }
    save_refined(args.out, preset, args.preset, "identity_refined", note)


if __name__ == "__main__":
    sys.exit(main())
