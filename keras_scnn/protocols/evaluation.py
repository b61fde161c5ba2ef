"""The protocol for each kind of data, and the files of the results."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from keras_scnn.data.records import is_records, load_records
from keras_scnn.data.sources.aflw2000 import PROTOCOL
from keras_scnn.data.sources.bfm_full import FullBfm
from keras_scnn.data.sources.photo_lists import is_people_folder
from keras_scnn.evaluation.plots import plot_details, plot_results
from keras_scnn.evaluation.report import results_table
from keras_scnn.models import Preset
from keras_scnn.protocols.aflw2000 import PhotoResults, evaluate_aflw2000
from keras_scnn.protocols.people import PeopleResults, evaluate_pairs, evaluate_people
from keras_scnn.protocols.records import RecordResults, evaluate_records
from keras_scnn.storage import atomic_path

AFLW2000, RECORDS, PEOPLE, PAIRS_FILE = (
    "a folder of AFLW2000-3D",
    "a folder of face records",
    "a people folder",
    "a pairs file",
)
OPTION_HOMES = {"photos": PAIRS_FILE} | dict.fromkeys(
    ("annotation", "shape_basis", "bfm", "bfm_expression", "bfm_info"), AFLW2000
)
Results = PhotoResults | RecordResults | PeopleResults


def write_results(results: Results, folder: Path, stem: str, title: str) -> str:
    """Write ``stem.json``, ``stem.png`` and ``stem-curves.png``, and return the table as text."""
    folder.mkdir(parents=True, exist_ok=True)
    named = asdict(results)
    with atomic_path(folder / f"{stem}.json") as temporary:
        temporary.write_text(json.dumps(_without_nan(named), indent=2) + "\n")
    for name, plot in ((stem, plot_results), (f"{stem}-curves", plot_details)):
        with atomic_path(folder / f"{name}.png") as temporary:
            plot(named, temporary, title)
    return results_table(named)


def _without_nan(value):
    """NaN, which JSON does not have, as None, in nested dictionaries and sequences."""
    if isinstance(value, dict):
        return {name: _without_nan(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(part) for part in value]
    return None if value != value else value


def kind_of_data(data: Path, people: bool = False) -> str:
    """What a file or folder holds: one of the names above.

    Args:
        data: the file or folder.
        people: take a folder as a people folder without looking.

    Raises:
        FileNotFoundError: there is neither a file nor a folder.
        ValueError: the folder is of no known kind.
    """
    if data.is_file():
        return PAIRS_FILE
    if not data.is_dir():
        raise FileNotFoundError(f"{data}: no such folder or file")
    if people:
        return PEOPLE
    if is_records(data):
        return RECORDS
    if (data / PROTOCOL).is_file() or any(data.glob("*.mat")):
        return AFLW2000
    if is_people_folder(data):
        return PEOPLE
    raise ValueError(
        f"{data}: holds neither AFLW2000-3D (.jpg and .mat pairs), nor face records "
        "(manifest.json), nor people (a sub-folder with photos for each)"
    )


def evaluate(preset: Preset, args: argparse.Namespace) -> Results:
    """Run the protocol that fits the data of the command line.

    Raises:
        FileNotFoundError, ValueError: the data is missing, of no known kind, or damaged.
    """
    bootstrap = {"resamples": args.resamples, "seed": args.seed}
    kind = kind_of_data(args.data, args.people)
    for option, home in OPTION_HOMES.items():
        if getattr(args, option) is not None and kind != home:
            name = option.replace("_", "-")
            raise ValueError(f"--{name} is for {home}; {args.data} is {kind}")
    if kind == PAIRS_FILE:
        if args.photos is None:
            raise ValueError(f"{args.data}: a pairs file needs --photos, the folder of its photos")
        return evaluate_pairs(preset, args.data, args.photos, **bootstrap)
    if kind == PEOPLE:
        return evaluate_people(preset, args.data, **bootstrap)
    if kind == RECORDS:
        return evaluate_records(preset, load_records(args.data), **bootstrap)
    return evaluate_aflw2000(
        preset,
        args.data,
        args.convention,
        args.annotation,
        args.annotation_first_pixel,
        args.shape_basis,
        args.bfm and FullBfm.read(args.bfm, args.bfm_expression, args.bfm_info),
        **bootstrap,
    )


def check_calibrate(preset: str, kind: str) -> None:
    """Raise a ValueError where probabilities cannot be found, or have no place to be stored."""
    if not Path(preset).is_dir():
        raise ValueError(
            f"--calibrate writes into the preset, so '{preset}' must be the path of its folder; "
            "copy a preset of the package first"
        )
    if kind == AFLW2000:
        raise ValueError(
            f"--calibrate needs several photos of each person; give {RECORDS}, {PEOPLE} or "
            f"{PAIRS_FILE}"
        )
