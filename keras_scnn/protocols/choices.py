"""The protocols on real photos, by the options of ``evaluate`` that select them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from keras_scnn.protocols.evaluation import OPTION_HOMES
from keras_scnn.protocols.gaze import evaluate_gaze
from keras_scnn.protocols.given_points import evaluate_given_points
from keras_scnn.protocols.listed_pairs import evaluate_listed_pairs
from keras_scnn.protocols.openings import evaluate_openings
from keras_scnn.protocols.photo_predictions import PhotoPredictor
from keras_scnn.protocols.shape_agreement import evaluate_shapes
from keras_scnn.protocols.shape_truth import existing_truth, fit_truth, load_truth, save_truth
from keras_scnn.protocols.yardsticks import Yardstick
from keras_scnn.settings import flag, folders_of
from keras_scnn.storage.outputs import check_out


def _pairs(predictor: PhotoPredictor, args: argparse.Namespace) -> Yardstick:
    files = folders_of(args.pairs)
    return evaluate_listed_pairs(
        predictor, files, args.data, args.resamples, args.seed, args.groups
    )


def _shapes(predictor: PhotoPredictor, args: argparse.Namespace) -> Yardstick:
    if args.fit_truth and not args.shape_truth.exists():
        check_out(args.shape_truth.parent, "--shape-truth")
        model = predictor.preset.face_model
        save_truth(args.shape_truth, fit_truth(args.data, args.last, model))
    truth = load_truth(args.shape_truth)
    return evaluate_shapes(predictor, args.data, truth, args.resamples, args.seed)


def _openings(predictor: PhotoPredictor, args: argparse.Namespace) -> Yardstick:
    return evaluate_openings(predictor, args.data, args.openings, args.resamples, args.seed)


def _points(predictor: PhotoPredictor, args: argparse.Namespace) -> Yardstick:
    given = args.points, args.last
    return evaluate_given_points(predictor, args.data, *given, args.resamples, args.seed)


def _gaze(predictor: PhotoPredictor, args: argparse.Namespace) -> Yardstick:
    return evaluate_gaze(predictor, args.data, args.last, args.resamples, args.seed)


CHOICES: dict[str, Callable[[PhotoPredictor, argparse.Namespace], Yardstick]] = {
    "pairs": _pairs,
    "shape_truth": _shapes,
    "openings": _openings,
    "points": _points,
    "gaze": _gaze,
}
"""The protocol of each option."""
OPTION_OWNERS = {
    "groups": ("pairs",),
    "fit_truth": ("shape_truth",),
    "last": ("shape_truth", "points", "gaze"),
}
"""The options that select each of these: without one of them it has no effect."""
OWN_OPTIONS = (*CHOICES, *OPTION_OWNERS)
"""Options that only these protocols have."""


def chosen_yardstick(args: argparse.Namespace) -> str | None:
    """The option of ``CHOICES`` that was given, or None.

    Raises:
        FileNotFoundError, IsADirectoryError: there is no file ``shape_truth``, and none is made.
        ValueError: several were given, or one with an option that it does not have.
    """
    given = [name for name in CHOICES if _is_given(args, name)]
    others = [name for name in (*OPTION_HOMES, "people", "calibrate") if _is_given(args, name)]
    if len(given) > 1 or (given and others):
        wrong = " and ".join(flag(name) for name in (given + others)[:2])
        raise ValueError(f"{wrong} do not go together: each measures something else")
    _check_owners(args)
    return given[0] if given else None


def _check_owners(args: argparse.Namespace) -> None:
    for option, owners in OPTION_OWNERS.items():
        if _is_given(args, option) and not any(_is_given(args, owner) for owner in owners):
            raise ValueError(f"{flag(option)} is for {' or '.join(map(flag, owners))}")
    if args.shape_truth is None or (args.fit_truth and not args.shape_truth.exists()):
        return
    existing_truth(args.shape_truth)
    if _is_given(args, "last"):
        raise ValueError(
            "--last has no effect on an existing file of --shape-truth; it is for --fit-truth, "
            "which makes the file"
        )


def _is_given(args: argparse.Namespace, name: str) -> bool:
    """Whether an option is on the command line; a value of 0 counts as given."""
    value = getattr(args, name)
    return value is not None and value is not False


def measure_yardstick(name: str, args: argparse.Namespace) -> Yardstick:
    """Measure by the protocol of one of ``CHOICES``; predictions are cached in ``args.out``.

    Raises:
        FileNotFoundError, ValueError: see the protocols.
    """
    return CHOICES[name](PhotoPredictor.from_preset(args.preset, Path(args.out)), args)
