"""Measure a trained network: ``python -m keras_scnn.evaluate RUN_OR_PRESET --data DIR_OR_FILE``.

What the data is decides what is measured:

- a folder of AFLW2000-3D (.jpg and .mat pairs, with the benchmark's boxes in protocol.csv where
  there are any): landmark errors by yaw, pose, and neutral shape with --shape-basis;
- a folder of face records, such as the synthetic ones of a training run: all that and identity;
- a people folder, one sub-folder a person: verification and retrieval;
- a pairs file in LFW's format, with its photos in --photos: verification.

Every number comes with a 95 % bootstrap interval. --calibrate stores what a distance says of the
probability of one person in the preset, for ``python -m keras_scnn.compare``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from keras_scnn.aflw_protocol import PhotoResults, evaluate_aflw2000
from keras_scnn.data.aflw2000 import PROTOCOL
from keras_scnn.data.bfm_full import FullBfm
from keras_scnn.data.photo_lists import is_people_folder
from keras_scnn.data.records import is_records, load_records
from keras_scnn.evaluation import CONVENTIONS
from keras_scnn.evaluation.bootstrap import RESAMPLES
from keras_scnn.evaluation.plots import plot_details, plot_results
from keras_scnn.evaluation.report import results_table
from keras_scnn.models import Preset, load_preset, write_metadata
from keras_scnn.people_protocol import PeopleResults, evaluate_pairs, evaluate_people
from keras_scnn.records_protocol import RecordResults, evaluate_records
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


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of a command line."""
    parser = argparse.ArgumentParser(
        "python -m keras_scnn.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("preset", metavar="RUN_OR_PRESET", help="a folder, or a preset's name")
    add("--data", required=True, type=Path, metavar="DIR_OR_FILE", help="see above")
    add("--out", type=Path, default=Path("evaluation"), metavar="DIR", help="for results")
    add("--people", action="store_true", help="take --data as a people folder in any case")
    add("--photos", type=Path, metavar="DIR", help="photos of a pairs file: NAME/NAME_0001.jpg")
    convention = "how crop pixels are brought into photos: exactly, or as the field's script does"
    add("--convention", choices=CONVENTIONS, default="exact", help=convention)
    annotation = (
        "AFLW2000-3D annotated anew: a .npy file (M, 68, 2) in the order of protocol.csv, else of "
        "the names, or a folder with NAME.pts or NAME.mat of each photo"
    )
    add("--annotation", type=Path, metavar="FILE_OR_DIR", help=annotation)
    first = "where --annotation has the first pixel's center: 1 (as published) or 0"
    add("--annotation-first-pixel", type=float, default=1.0, metavar="X", help=first)
    basis = (
        ".npz with the Basel Face Model at its 68 landmarks, micrometers: mean (68, 3) and "
        "identity_basis (68, 3, 199); measures the neutral shape on AFLW2000-3D"
    )
    add("--shape-basis", type=Path, metavar="NPZ", help=basis)
    bfm = "dense error of a preset of the Basel Face Model: its 01_MorphableModel.mat, and 3DDFA's"
    add("--bfm", type=Path, metavar="MAT", help=bfm)
    add("--bfm-expression", type=Path, metavar="MAT", help="Model_Expression.mat, for --bfm")
    add("--bfm-info", type=Path, metavar="MAT", help="model_info.mat, for --bfm")
    store = (
        "fit probabilities of one person, and store them in RUN_OR_PRESET, which must be a folder"
    )
    add("--calibrate", action="store_true", help=store)
    add("--resamples", type=int, default=RESAMPLES, help=f"of the bootstrap ({RESAMPLES}); 0: none")
    add("--seed", type=int, default=0, help="of the bootstrap (0)")
    return parser.parse_args(arguments)


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


def main(arguments: list[str] | None = None) -> int:
    """The command; ``arguments`` as on the command line."""
    args = parse(arguments)
    try:
        if args.calibrate:
            check_calibrate(args.preset, kind_of_data(args.data, args.people))
        results = evaluate(load_preset(args.preset), args)
        name, data = Path(args.preset).resolve().name, args.data.resolve()
        data = data.stem if data.is_file() else data.name
        print(write_results(results, args.out, f"{name}-{data}", f"{name} on {data}"))
        if args.calibrate:
            write_metadata(args.preset, "verification", results.calibration | {"data": data})
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for reason in getattr(results, "left_out", ()):
        print(f"left out: {reason}", file=sys.stderr)
    print(f"written: {args.out / name}-{data}.json, .png and -curves.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
