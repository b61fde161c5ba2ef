"""Refine a preset's identity coefficients, so that the shapes of similar people differ more.

    python tools/refine_shapes.py PRESET OUT --data CFP,CELEBA
        [--neighbor-weight 0.4] [--scale 0.5] [--penalty 0.02] [--held-out 0] [--seed 0]

The shapes are multiplied by a (K, K) matrix that is trained to predict the mean of the shapes
predicted from a person's photos and, with the neighborhood loss
(``keras_scnn.training.shape_metric``), to bring each photo closer to the same person's others than
to those of the most similar people. Who is in a photo is the only label. The matrix is folded into
the network's last layer (for `identity`, into its identity layer), at no runtime cost; pose,
expression, the mean shape and the total size of the shapes do not change.

``--data`` are face records of people (``keras-scnn prepare``); the last ``--held-out`` people are
not used. Takes a minute on two cores, an hour for a preset with whole recognizers.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np

from keras_scnn.data.mixture import open_mixture
from keras_scnn.data.records import split_people
from keras_scnn.models import Preset, load_preset
from keras_scnn.models.presets import preset_digest
from keras_scnn.settings import command
from keras_scnn.storage.outputs import check_out
from keras_scnn.training.identity_map import centered
from keras_scnn.training.release_weights import with_covariance
from keras_scnn.training.shape_metric import ShapeMetricOptions, learn_shape_metric
from map_identity import both_views, photo_weights, save_refined
from refine_identity import fold_into, whole_parameters
from solve_identity import not_negative, whole


def whole_kernel(preset: Preset, metric: np.ndarray) -> np.ndarray:
    """(P, K) from all whitened parameters to whitened identity coefficients, from (K, K) in mm."""
    kernel, to_mm = np.zeros((preset.layout.size, len(metric))), preset.space.shape_basis
    kernel[preset.layout.identity] = to_mm @ metric @ np.linalg.inv(to_mm)
    return kernel


def arguments() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = argparse.ArgumentParser(description=__doc__)
    options = ShapeMetricOptions
    parser.add_argument("preset")
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", required=True, help="folders of face records of people")
    parser.add_argument("--neighbor-weight", type=not_negative, default=options.neighbor_weight)
    parser.add_argument("--scale", type=float, default=options.scale, help="of the loss, above 0")
    parser.add_argument(
        "--penalty", type=not_negative, default=options.penalty, help="on the matrix's change"
    )
    parser.add_argument("--held-out", type=whole, default=0, help="people who are not used")
    parser.add_argument("--seed", type=whole, default=0, help="of the batches of people")
    return parser


@command
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = arguments()
    args = parser.parse_args(argv)
    check_out(args.out)
    chosen_options = ("neighbor_weight", "scale", "penalty", "seed")
    options = ShapeMetricOptions(**{name: getattr(args, name) for name in chosen_options})
    mixture = open_mixture(args.data)
    records = mixture.records
    chosen, _ = split_people(records.identity, args.held_out, records.mirror)
    person, source = records.identity[chosen], mixture.source[chosen]
    _, photos = np.unique(person, return_counts=True)
    if (several := int(np.sum(photos > 1))) < options.people:
        parser.error(f"--data: {several} people with two photos; {options.people} are needed")
    preset = load_preset(args.preset)
    identity = preset.layout.identity
    inputs = both_views(preset, whole_parameters(preset), np.asarray(records.images[chosen]))
    predicted = np.float64(inputs[..., identity]) @ preset.space.shape_basis
    shapes = np.stack([centered(view, source) for view in predicted])
    metric = learn_shape_metric(shapes, person, photo_weights(records, chosen), options)
    fold_into(preset, whole_kernel(preset, metric), np.float64(inputs).mean(axis=(0, 1)))
    preset = with_covariance(preset, mixture, chosen)
    note = {"preset": preset_digest(args.preset), "photos": len(chosen), "people": len(photos)}
    note |= {"options": dataclasses.asdict(options), "held_out": args.held_out}
    save_refined(args.out, preset, args.preset, "shapes_refined", note)


if __name__ == "__main__":
    sys.exit(main())
