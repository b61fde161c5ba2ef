"""What do the identity losses do? ``python -m keras_scnn.ablate`` trains with and without them.

Four networks a seed, with the same data, start and budget: regression only, with the contrastive
loss, with the identity losses, and with both. What a face recognizer says, of features and of
shapes, belongs to the identity losses. Every option of ``keras_scnn.train`` is taken. Runs
that are there go on or are only measured again, so an interrupted ablation goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from keras_scnn.settings import add_options, from_options
from keras_scnn.training.ablation import VARIANTS, ablate, table
from keras_scnn.training.config import TrainConfig, recipe_path


def parse(
    arguments: list[str] | None,
) -> tuple[TrainConfig, Path, tuple[int, ...], tuple[str, ...]]:
    """What ``ablate`` takes, of a command line.

    Raises:
        FileNotFoundError, ValueError: a configuration file is missing or wrong, or no seed given,
            or a variant is not known.
    """
    parser = argparse.ArgumentParser("python -m keras_scnn.ablate", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"), metavar="DIR")
    parser.add_argument("--seeds", default="0,1", help="with commas between them (0,1)")
    names = ",".join(VARIANTS)
    parser.add_argument("--variants", default=names, help=f"with commas between them ({names})")
    parser.add_argument("--recipe", metavar="NAME", help="settings of the package: paper, robust")
    add_options(parser, TrainConfig)
    options = parser.parse_args(arguments)
    if options.recipe:
        if options.config:
            raise ValueError("give one of --config and --recipe")
        options.config = str(recipe_path(options.recipe))
    try:
        seeds = tuple(int(word) for word in options.seeds.split(","))
    except ValueError as error:
        raise ValueError(f"--seeds is '{options.seeds}'; it must be numbers, as 0,1") from error
    variants = tuple(options.variants.split(","))
    if unknown := set(variants) - set(VARIANTS):
        raise ValueError(f"--variants has '{min(unknown)}'; known are {names}")
    return from_options(TrainConfig, options), options.out, seeds, variants


def main(arguments: list[str] | None = None) -> int:
    """The command; ``arguments`` as on the command line."""
    try:
        config, folder, seeds, variants = parse(arguments)
        found = ablate(config, folder, seeds, variants)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"mean of {len(seeds)} seeds [95 % interval over people] ± half of the seeds' spread")
    print(table(found))
    print(f"written: {folder}/ablation.json, ablation.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
