"""What do the identity losses do? ``keras-scnn ablate`` trains with and without them.

Four networks per seed, with the same data, start and budget: regression only, with the contrastive
losses, with the identity losses, and with both. The contrastive losses include the one that matches
the recognizer's similarities by shape; the identity losses include the recognizer's other targets.
All options of ``keras-scnn train`` are accepted except --resume, --run (use --out) and --seed (use
--seeds). Interrupted runs are continued; finished ones are only measured again.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from keras_scnn.models.backend import start_keras
from keras_scnn.settings import (
    CommandParser,
    command,
    did_you_mean,
    from_options,
    words_of,
)
from keras_scnn.storage.outputs import check_out
from keras_scnn.storage.text import counted
from keras_scnn.training.ablation import VARIANTS, ablate, table
from keras_scnn.training.config import TrainConfig
from keras_scnn.training.recipes import parse_settings


def parse(
    arguments: list[str] | None,
) -> tuple[TrainConfig, Path, tuple[int, ...], tuple[str, ...]]:
    """The arguments of ``ablate`` from a command line.

    Raises:
        FileNotFoundError, ValueError: a configuration file is missing or wrong, the run or seed of
            a single training is given, the seeds are not different whole numbers from 0, or a
            variant is unknown or given twice.
    """
    parser = CommandParser("ablate", __doc__)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/ablation"),
        metavar="DIR",
        help="folder for runs and results, instead of --run (runs/ablation)",
    )
    parser.add_argument("--seeds", default="0,1", help="comma-separated, instead of --seed (0,1)")
    names = ",".join(VARIANTS)
    parser.add_argument("--variants", default=names, help=f"comma-separated ({names})")
    options = parse_settings(parser, arguments)
    for name, own in {"run": "out", "seed": "seeds"}.items():
        if hasattr(options, name):  # given here; a file may have those of ``train``
            raise ValueError(f"--{name} is for one run of train; use --{own}")
    words = words_of(options.seeds)
    if not all(word.isdecimal() for word in words) or len(set(map(int, words))) < len(words):
        raise ValueError(f"--seeds is '{options.seeds}'; it must be different numbers, such as 0,1")
    seeds = tuple(map(int, words))
    variants = tuple(words_of(options.variants))
    for name in set(variants) - set(VARIANTS):
        raise ValueError(
            f"--variants has '{name}'{did_you_mean(name, VARIANTS)}; choose from {names}"
        )
    if len(set(variants)) < len(variants):
        raise ValueError(f"--variants is '{options.variants}'; it names a variant twice")
    config = from_options(TrainConfig, options)
    for seed in seeds:
        dataclasses.replace(config, seed=seed)  # raises an error if it is too large
    return config, options.out, seeds, variants


@command
def main(arguments: list[str] | None = None) -> None:
    """The command; ``arguments`` as on the command line."""
    config, folder, seeds, variants = parse(arguments)
    check_out(folder)
    start_keras()
    measures, constant = ablate(config, folder, seeds, variants)
    count = counted(len(seeds), "seed")
    print(f"mean of {count} [95 % interval over people] ± half of the seeds' spread")
    print(table(measures, constant))
    print(f"written: {folder}/ablation.json, ablation.png")


if __name__ == "__main__":
    sys.exit(main())
