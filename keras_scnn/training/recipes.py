"""The recipes that come with the package: settings of training runs, as YAML files."""

from __future__ import annotations

import argparse
from pathlib import Path

from keras_scnn.settings import CommandParser, add_options, did_you_mean, flag
from keras_scnn.training.config import TrainConfig

RECIPES = Path(__file__).parents[1] / "recipes"


def recipe_names() -> list[str]:
    """Names of the package's recipes; ``release.yaml`` beside them is the plan of a release."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml") if path.stem != "release")


def recipe_path(name: str) -> Path:
    """The YAML file of a recipe of the package.

    Raises:
        FileNotFoundError: there is none of that name; the message lists the known names.
    """
    if name not in recipe_names():
        known = recipe_names()
        raise FileNotFoundError(
            f"no recipe '{name}'{did_you_mean(name, known)}; there are {', '.join(known)}; "
            "pass a file with --config"
        )
    return RECIPES / f"{name}.yaml"


def parse_settings(
    parser: CommandParser, arguments: list[str] | None, *others: str
) -> argparse.Namespace:
    """Parse a command line with an option per setting of a training run, --config and --recipe.

    Args:
        parser: with the command's own options.
        arguments: as on the command line.
        others: names of the command's own options that exclude --config and --recipe.

    Returns:
        the options for ``settings.from_options``; ``config`` is the file of the recipe, if given.

    Raises:
        FileNotFoundError: no recipe of that name.
        ValueError: several of the options that exclude each other are given.
    """
    recipes = f"settings that come with the package: {', '.join(recipe_names())}"
    parser.add_argument("--recipe", metavar="NAME", help=recipes)
    add_options(parser, TrainConfig)
    options = parser.parse_args(arguments)
    names = [*others, "config", "recipe"]
    if sum(bool(getattr(options, name)) for name in names) > 1:
        *first, last = map(flag, names)
        raise ValueError(f"give one of {', '.join(first)} and {last}")
    if options.recipe:
        options.config = str(recipe_path(options.recipe))
    return options
