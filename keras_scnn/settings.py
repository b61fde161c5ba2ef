"""Configuration: one frozen dataclass, from the command line or from a YAML file."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from keras_scnn.storage import atomic_path

T = TypeVar("T")
SETTINGS = "config.yaml"
BOOLEANS = {"true": True, "yes": True, "false": False, "no": False}


def configuration(cls: type[T], values: Mapping[str, Any], source: str = "configuration") -> T:
    """A frozen dataclass from named values.

    Args:
        cls: a dataclass whose fields are str, int, float or bool and have defaults.
        values: some of its fields; the others keep their defaults. An int may stand for a float.
        source: named in errors, e.g. the file that the values come from.

    Raises:
        ValueError: a name is unknown (the message lists the known ones), or a value has the wrong
            type or is refused by the dataclass.
    """
    types = typing.get_type_hints(cls)
    known = [field.name for field in dataclasses.fields(cls)]
    for name in values:
        if name not in known:
            raise ValueError(f"{source}: unknown key '{name}'; known are {', '.join(known)}")
    typed = {name: _typed(value, types[name], name, source) for name, value in values.items()}
    try:
        return cls(**typed)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def _typed(value: Any, kind: type, name: str, source: str) -> Any:
    if kind is float and (type(value) is int or _is_exponential(value)):
        return float(value)
    if type(value) is not kind:  # bool is an int to isinstance, but never meant as one here
        raise ValueError(
            f"{source}: {name} is {value!r} ({type(value).__name__}); it must be {kind.__name__}"
        )
    return value


def _is_exponential(value: Any) -> bool:
    """Whether it is a number such as '1e-3', which YAML 1.1 takes for text."""
    return isinstance(value, str) and re.fullmatch(r"[-+]?[\d.]+e[-+]?\d+", value) is not None


def read_yaml(path: str | os.PathLike) -> dict[str, Any]:
    """The names and values of a YAML file.

    A value of ``base`` names another YAML file beside it, without its suffix, whose values hold
    where the file has none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no YAML, or not one level of names and values.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; --config takes a YAML file")
    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a YAML file ({error})") from error
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ValueError(f"{path}: must hold lines of 'name: value', not {type(values).__name__}")
    if "base" in values:
        return read_yaml(path.with_name(f"{values.pop('base')}.yaml")) | values
    return values


def add_options(parser: argparse.ArgumentParser, cls: type) -> None:
    """An option ``--name VALUE`` for each field of a dataclass, and ``--config FILE.yaml``.

    A field's help is ``metadata["help"]``.
    """
    types = typing.get_type_hints(cls)
    parser.add_argument("--config", metavar="FILE.yaml", help="values; other options override it")
    for field in dataclasses.fields(cls):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            dest=field.name,
            type=_boolean if types[field.name] is bool else types[field.name],
            default=argparse.SUPPRESS,
            metavar=types[field.name].__name__.upper(),
            help=f"{field.metadata.get('help', '')} ({field.default})".replace("%", "%%"),
        )


def from_options(cls: type[T], options: argparse.Namespace) -> T:
    """The dataclass that parsed ``add_options`` ask for: defaults < --config < command line.

    Raises:
        FileNotFoundError, ValueError: see ``read_yaml`` and ``configuration``.
    """
    known = {field.name for field in dataclasses.fields(cls)}
    given = {name: value for name, value in vars(options).items() if name in known}
    if options.config is None:
        return configuration(cls, given, "command line")
    in_file = configuration(cls, read_yaml(options.config), options.config)
    return configuration(cls, {**dataclasses.asdict(in_file), **given}, "command line")


def _boolean(text: str) -> bool:
    if text.lower() not in BOOLEANS:
        raise argparse.ArgumentTypeError(f"'{text}' is not one of {', '.join(BOOLEANS)}")
    return BOOLEANS[text.lower()]


def claim_folder(folder: Path, config: Any, may_change: tuple[str, ...]) -> None:
    """Make a run folder, or see that the run in it has the same settings; write them.

    Args:
        folder: the run's.
        config: a configuration dataclass.
        may_change: settings that a resumed run may have changed.

    Raises:
        ValueError: the folder holds a run with other settings.
    """
    path = folder / SETTINGS
    if path.is_file():
        there = dataclasses.asdict(configuration(type(config), read_yaml(path), str(path)))
        asked = dataclasses.asdict(config)
        differ = [n for n in asked if asked[n] != there[n] and n not in may_change]
        if differ:
            raise ValueError(
                f"{folder} holds a run with another {', '.join(differ)}; choose another --run, or "
                f"go on with that one's settings by --resume {folder}"
            )
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(yaml.safe_dump(dataclasses.asdict(config), sort_keys=False))
