"""Calibrate a preset's eye units (expressions) with eyelids whose landmarks are known.

    python tools/calibrate_eyes.py PRESET OUT --aflw FOLDER
    python tools/calibrate_eyes.py PRESET OUT --renderings PEOPLE [--seed 0]

A network trained for a small mean error shrinks uncertain predictions: wide-open eyes come out too
narrow and closed ones slightly open, and for units bounded at 0 by the face model negative
predictions are lost. Here blink, squint and wide of an eye become a linear map of those of both
eyes (one map for both sides, mirrored). It is fitted to the eye openings in faces with a yaw below
35 degrees, with openings of all sizes weighted equally, and folded into the weights of the last
layers, at no runtime cost; the rest of the preset does not change. The faces are photos of AFLW
with manual landmarks (FOLDER has crops/ and labels.npz), or renderings, ten of each of PEOPLE
people: for a preset that is free of research data, though shut eyes in photos differ from them.
Half of the faces are only measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from tqdm import tqdm

from keras_scnn.data.sources.aflw import read_labels
from keras_scnn.geometry.landmarks68 import MIRROR68
from keras_scnn.io import read_image
from keras_scnn.models import Preset, save_preset
from keras_scnn.models.heads import fine_layers
from keras_scnn.models.inference import keras_network
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.reconstruction.gaze import SIDES
from keras_scnn.settings import command
from keras_scnn.storage.outputs import check_out
from solve_identity import load_own, whole
from upright_portraits import PHOTOS, upright_portraits

UNITS = ("eyeBlink", "eyeSquint", "eyeWide")
RIGHT_EYE = np.arange(36, 42)  # of the landmarks
MAX_DEGREES, SEEN = 35.0, 2
BINS = np.array([0.1, 0.2, 0.25, 0.3, 0.35, 0.4])  # of the opening over the eye's width
BIAS_WEIGHT, PENALTY, LARGEST = 3.0, 1e-4, 0.2
AFLW_LABELS = {"name": (), "landmarks68": (68, 2), "visibility68": (68,), "yaw_degrees": ()}


@dataclass(frozen=True, eq=False)
class Eyes:
    """n eyes of one side, and how the units of both eyes move them in the crop.

    Attributes:
        opening: (n,) known, over the eye's width.
        base: (n, 6, 2) crop px, the eye's landmarks with these units at 0.
        moves: (n, 6, 2, 6) crop px: displacements at weight 1 of this eye's three units, then of
            the other eye's.
        units: (n, 7) predicted weights before clipping, in the same order, and a column of ones.
    """

    opening: np.ndarray
    base: np.ndarray
    moves: np.ndarray
    units: np.ndarray

    def part(self, chosen: np.ndarray) -> Eyes:
        """The chosen eyes; ``chosen`` is a mask (n,) or indices."""
        return Eyes(*(getattr(self, f.name)[chosen] for f in dataclasses.fields(self)))


def opening(points: np.ndarray) -> np.ndarray:
    """(...) mean distance between the lids over the eye's width, from landmarks (..., 6, 2)."""
    lids = np.linalg.norm(points[..., [1, 2], :] - points[..., [5, 4], :], axis=-1)
    return lids.mean(axis=-1) / np.linalg.norm(points[..., 0, :] - points[..., 3, :], axis=-1)


def eye_units(model: MorphableModel) -> np.ndarray:
    """(2, 6) indices of the units: for each side its own three, then the other side's.

    Raises:
        ValueError: the face model lacks one of them.
    """
    names = [[f"{unit}{side}" for unit in UNITS] for side in SIDES]
    if missing := {name for both in names for name in both} - set(model.expression_names):
        raise ValueError(f"face model '{model.name}' has no {', '.join(sorted(missing))}")
    own = np.array([[model.expression_names.index(name) for name in side] for side in names])
    return np.concatenate([own, own[::-1]], axis=1)


def aflw_eyes(preset: Preset, folder: Path) -> tuple[Eyes, Eyes]:
    """Right and left eyes in AFLW's crops, as predicted by a preset."""
    labels = read_labels(folder / "labels.npz", AFLW_LABELS)
    hand, eyes = np.float64(labels["landmarks68"]), np.r_[RIGHT_EYE, MIRROR68[RIGHT_EYE]]
    has_points = np.isfinite(hand[:, eyes]).all(axis=(1, 2)) & (
        labels["visibility68"][:, eyes] == SEEN
    ).all(1)
    chosen = np.flatnonzero(has_points & (np.abs(labels["yaw_degrees"]) < MAX_DEGREES))
    names = labels["name"][chosen].tolist()
    crops = np.stack([read_image(folder / "crops" / name) for name in tqdm(names, "photos")])
    return predicted_eyes(preset, crops, hand[chosen])


def rendered_eyes(preset: Preset, people: int, seed: int) -> tuple[Eyes, Eyes]:
    """Right and left eyes in renderings, as predicted by a preset."""
    crops, _, landmarks = upright_portraits(people, seed, preset.input_size)
    return predicted_eyes(preset, crops, np.float64(landmarks[..., :2]))


def predicted_eyes(preset: Preset, crops: np.ndarray, points: np.ndarray) -> tuple[Eyes, Eyes]:
    """Right and left eyes in crops with known landmarks (n, 68, 2), as predicted by a preset."""
    parameters = preset.space.parameters(keras_network(preset)(crops)["parameters"])
    return tuple(_eyes(preset.face_model, parameters, points, side) for side in range(len(SIDES)))


def _eyes(model: MorphableModel, parameters, hand: np.ndarray, side: int) -> Eyes:
    places = RIGHT_EYE if side == 0 else MIRROR68[RIGHT_EYE]
    units, vertices = eye_units(model)[side], model.landmark_indices[places]
    bounded = model.clip_expression(parameters.expression)
    basis = model.expression_basis[vertices][..., units].astype(np.float64)
    camera, shift = parameters.pose[:, :2, :3], parameters.pose[:, None, :2, 3]
    points = model.landmarks(parameters.identity, bounded)[:, places]
    moves = np.einsum("nij,pjk->npik", camera, basis)
    base = np.einsum("nij,npj->npi", camera, points) + shift
    base -= np.einsum("npik,nk->npi", moves, bounded[:, units])
    raw = np.c_[parameters.expression[:, units], np.ones(len(hand))]
    return Eyes(opening(hand[:, places]), base, moves, raw)


def calibrated_openings(weights: np.ndarray, eyes: tuple[Eyes, Eyes]) -> tuple[np.ndarray, ...]:
    """Openings of both sides' eyes for a map (7, 3) from ``Eyes.units`` to an eye's own units."""
    units = [np.clip(side.units @ weights, 0, 1) for side in eyes]
    return tuple(
        opening(side.base + np.einsum("npik,nk->npi", side.moves, np.c_[own, other]))
        for side, own, other in zip(eyes, units, units[::-1], strict=True)
    )


def fit(eyes: tuple[Eyes, Eyes]) -> np.ndarray:
    """The least-squares map (7, 3), with penalties for bias in each bin of openings and change."""
    wanted = np.concatenate([side.opening for side in eyes])
    bins = np.digitize(wanted, BINS)
    count = np.bincount(bins, minlength=len(BINS) + 1)
    weight = (1 / np.sqrt(np.maximum(count, 1)))[bins]
    start = np.eye(2 * len(UNITS) + 1, len(UNITS))

    def loss(flat: np.ndarray) -> float:
        weights = flat.reshape(start.shape)
        error = np.concatenate(calibrated_openings(weights, eyes)) - wanted
        bias = np.bincount(bins, error, len(count))[count > 0] / count[count > 0]
        square = np.average(np.minimum(error**2, LARGEST**2), weights=weight)
        return square + BIAS_WEIGHT * np.mean(bias**2) + PENALTY * ((weights - start) ** 2).sum()

    return minimize(loss, start.ravel(), method="L-BFGS-B", options={"maxiter": 60}).x.reshape(
        start.shape
    )


def fold(preset: Preset, weights: np.ndarray) -> None:
    """Apply the map to the eye units by changing the weights of the preset's last layers."""
    layout, whitening = preset.layout, preset.space.whitening
    size = layout.size
    matrix, shift = np.eye(size), np.zeros(size)
    for units in layout.expression.start + eye_units(preset.face_model):
        matrix[:, units[:3]] = 0
        matrix[np.ix_(units, units[:3])] = weights[:6]
        shift[units[:3]] = weights[6]
    scale, mean = (np.float64(part) for part in (whitening.scale, whitening.mean))
    whitened = matrix * scale[:, None] / scale
    offset = (mean @ matrix + shift - mean) / scale
    kernel, bias = preset.core.get_layer("parameters").get_weights()
    preset.core.get_layer("parameters").set_weights([kernel @ whitened, bias @ whitened + offset])
    own = layout.expression
    for fine in fine_layers(preset.core):
        fine.set_weights([part @ whitened[own, own] for part in fine.get_weights()])


def report(name: str, wanted: np.ndarray, predicted: np.ndarray) -> None:
    """Print how well the predicted openings agree with the known ones."""
    slope = np.polyfit(wanted, predicted, 1)[0]
    error, shut = np.abs(predicted - wanted).mean(), wanted < BINS[0]
    line = f"{name}: error {error:.4f}, slope {slope:.2f}"
    for what, chosen in (("mean", np.ones_like(shut)), ("nearly shut", shut)):
        if chosen.any():
            line += f", {what} {predicted[chosen].mean():.3f} (known {wanted[chosen].mean():.3f})"
    print(line)


@command
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("preset")
    parser.add_argument("out", type=Path)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--aflw", type=Path, help="folder of AFLW")
    source.add_argument("--renderings", type=whole, default=0, help="number of rendered people")
    parser.add_argument("--seed", type=whole, default=0, help="of the renderings")
    args = parser.parse_args(argv)
    check_out(args.out)
    if args.aflw and args.seed:
        parser.error("--seed is for --renderings")
    if not args.aflw and args.renderings < 2:
        parser.error(f"--renderings is {args.renderings}; it must be 2 or more")
    preset = load_own(args.preset)
    if args.aflw:
        eyes, made_of, each_person = aflw_eyes(preset, args.aflw), "aflw", 1
    else:
        eyes = rendered_eyes(preset, args.renderings, args.seed)
        made_of = f"{args.renderings} rendered people, seed {args.seed}"
        each_person = PHOTOS
    people = len(eyes[0].opening) // each_person
    is_fitted = np.repeat(np.random.default_rng(0).random(people) < 0.5, each_person)
    weights = fit(tuple(side.part(is_fitted) for side in eyes))
    others = tuple(side.part(~is_fitted) for side in eyes)
    wanted = np.concatenate([side.opening for side in others])
    for name, each in (("before", np.eye(7, 3)), ("after", weights)):
        report(f"{name}, other half", wanted, np.concatenate(calibrated_openings(each, others)))
    fold(preset, weights)
    metadata = {
        **preset.metadata,
        "eyes": {"calibrated_on": made_of, "photos": int(is_fitted.sum())},
    }
    save_preset(args.out, dataclasses.replace(preset, metadata=metadata))
    print(f"written: {args.out}")


if __name__ == "__main__":
    sys.exit(main())
