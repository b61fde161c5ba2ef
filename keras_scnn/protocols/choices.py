"""Which protocol on real photos an option of ``evaluate`` asks for."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from keras_scnn.protocols.evaluation import OPTION_HOMES
from keras_scnn.protocols.listed_pairs import evaluate_listed_pairs
from keras_scnn.protocols.photo_predictions import PhotoPredictor
from keras_scnn.protocols.yardsticks import Yardstick


def _pairs(predictor: PhotoPredictor, args: argparse.Namespace) -> Yardstick:
    files = [part.strip() for part in args.pairs.split(",") if part.strip()]
    return evaluate_listed_pairs(predictor, files, args.data, args.resamples, args.seed)


CHOICES: dict[str, Callable[[PhotoPredictor, argparse.Namespace], Yardstick]] = {"pairs": _pairs}
"""By the option's name; each measures what its options say."""
OWN_OPTIONS = (*CHOICES,)
"""Options of these protocols alone."""


def chosen_yardstick(args: argparse.Namespace) -> str | None:
    """The option of ``CHOICES`` that was given, or None.

    Raises:
        ValueError: several were given, or one with options that it does not have.
    """
    given = [name for name in CHOICES if getattr(args, name) is not None]
    if not given:
        return None
    others = [name for name in (*OPTION_HOMES, "people", "calibrate") if getattr(args, name)]
    if len(given) > 1 or others:
        wrong = " and ".join(f"--{name.replace('_', '-')}" for name in (given + others)[:2])
        raise ValueError(f"{wrong} do not go together: each measures something else")
    return given[0]


def measure_yardstick(name: str, args: argparse.Namespace) -> Yardstick:
    """Measure by the protocol of one of ``CHOICES``; predictions are kept in ``args.out``.

    Raises:
        FileNotFoundError, ValueError: see the protocols.
    """
    return CHOICES[name](PhotoPredictor.from_preset(args.preset, Path(args.out)), args)
