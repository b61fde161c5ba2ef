"""Names of the results of ``evaluate``: results of different inputs never replace each other."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from keras_scnn.models.presets import preset_name
from keras_scnn.protocols.choices import OWN_OPTIONS
from keras_scnn.protocols.evaluation import OPTION_HOMES, OPTION_NEEDS
from keras_scnn.settings import flag, folders_of
from keras_scnn.storage import short_name
from keras_scnn.storage.outputs import listed_files, real_path
from keras_scnn.storage.text import read_json

UNNAMED = {"photos", *OPTION_NEEDS}  # options that go with one whose file names the result
OF_YARDSTICK = (".json", ".txt")
ENDINGS = (*OF_YARDSTICK, ".png", "-curves.png")


def names_of(preset: str | os.PathLike, data: str | os.PathLike) -> tuple[str, str]:
    """The names of a preset and of the measured file or folder, for files and titles."""
    return preset_name(preset), _name(data)


def _name(path: str | os.PathLike) -> str:
    place = real_path(path)
    return place.name if place.is_dir() else place.stem


def replaceable_result(
    args: argparse.Namespace, measure: str = "", kind: str = ""
) -> tuple[str, dict[str, Any]]:
    """The name of a result, without ending, and its inputs; both depend on the same options.

    Args:
        args: the command line of ``evaluate``.
        measure: the option of ``protocols.choices`` that selects the protocol, '' for none.
        kind: of the data, see ``evaluation.checked_kind``, which selects it otherwise.

    Returns:
        preset, data, measure and the other inputs, joined by '-'; and the preset, the data, its
        kind and the options that the result depends on, as JSON values, paths absolute.

    Raises:
        ValueError: a file of that name exists in ``args.out``, and is not of a result of these
            inputs.
    """
    given = _given(args)
    words = [*names_of(args.preset, args.data), *([flag(measure)[2:]] if measure else [])]
    for option, value in given.items():
        if option not in UNNAMED:
            words += _words(option, value)
    preset = os.fspath(args.preset)
    inputs = {"preset": Path(preset) if os.path.isdir(preset) else preset, "data": args.data}
    inputs |= {"kind": kind} if kind else {}
    stem, plain = short_name("-".join(words)), _plain(inputs | given)
    _check_replaceable(args.out, stem, plain, OF_YARDSTICK if measure else ENDINGS)
    return stem, plain


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """The given options that a result depends on, without switches; several files as a list."""
    names = (*OWN_OPTIONS, *OPTION_HOMES)
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.pairs is not None:
        given["pairs"] = [Path(file) for file in folders_of(args.pairs)]
    return {name: value for name, value in given.items() if not isinstance(value, bool)}


def _words(option: str, value: Any) -> list[str]:
    if isinstance(value, list):
        return [_name(path) for path in value]
    if isinstance(value, Path):
        return [_name(value)]
    return [value if isinstance(value, str) else f"{flag(option)[2:]}-{value:g}"]


def _plain(value: Any) -> Any:
    """A value for JSON."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return str(real_path(value)) if isinstance(value, Path) else value


def _check_replaceable(
    folder: Path, stem: str, inputs: dict[str, Any], endings: tuple[str, ...]
) -> None:
    """See ``replaceable_result``."""
    note = folder / f"{stem}.json"
    earlier = _inputs_in(note)
    own = {note.name, *listed_files(note)} if earlier == inputs else set()
    for name in (f"{stem}{ending}" for ending in endings):
        if os.path.lexists(folder / name) and name not in own:
            keys = inputs.keys() | (earlier or {}).keys()
            other = sorted(k for k in keys if earlier and earlier.get(k) != inputs.get(k))
            whose = f"has other inputs ({', '.join(other)})" if other else "is another file"
            raise ValueError(
                f"{folder / name}: {whose}, and the results would replace it; move it away, or "
                "give another --out"
            )


def _inputs_in(note: Path) -> dict[str, Any] | None:
    """The inputs that a result's JSON lists; None for any other file."""
    try:
        inputs = read_json(note)["inputs"]
    except (OSError, ValueError, TypeError, LookupError):
        return None
    return inputs if isinstance(inputs, dict) else None
