"""The recipes that come with the package: settings of training runs, as YAML files."""

from __future__ import annotations

from pathlib import Path

from keras_scnn.settings import did_you_mean

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
