"""The protocol for each kind of data, and the files of the results."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

from keras_scnn.data.records import is_records, load_records, photos_of_each
from keras_scnn.data.sources.aflw2000 import PROTOCOL
from keras_scnn.data.sources.bfm_full import FullBfm
from keras_scnn.data.sources.photo_lists import is_people_folder
from keras_scnn.evaluation.bootstrap import RESAMPLES
from keras_scnn.evaluation.plots import plot_details, plot_results
from keras_scnn.evaluation.report import results_table
from keras_scnn.models import Preset
from keras_scnn.models.presets import SETTINGS
from keras_scnn.photos.files import either_case
from keras_scnn.protocols.aflw2000 import PhotoResults, evaluate_aflw2000
from keras_scnn.protocols.people import PeopleResults, evaluate_pairs, evaluate_people
from keras_scnn.protocols.photo_predictions import PhotoPredictor
from keras_scnn.protocols.records import RecordResults, evaluate_records
from keras_scnn.reconstruction.reconstructor import Reconstructor
from keras_scnn.settings import flag
from keras_scnn.storage.atomic import staged_files
from keras_scnn.storage.outputs import check_out, real_path
from keras_scnn.storage.text import json_text, open_utf8

AFLW2000, RECORDS, PEOPLE, PAIRS_FILE = (
    "a folder of AFLW2000-3D",
    "a folder of face records",
    "a people folder",
    "a pairs file",
)
OF_AFLW2000 = (
    *("convention", "annotation", "annotation_first_pixel", "shape_basis"),
    *("bfm", "bfm_expression", "bfm_info", "benchmark_crops"),
)
OPTION_HOMES = {"photos": PAIRS_FILE} | dict.fromkeys(OF_AFLW2000, AFLW2000)
"""The kind of data that an option is for."""
OF_FILES = {*OPTION_HOMES} - {"convention", "annotation_first_pixel"}
"""Options that name a file or a folder."""
OPTION_NEEDS = {
    "annotation_first_pixel": "annotation",
    "bfm_expression": "bfm",
    "bfm_info": "bfm",
}
"""For an option, the one without which it has no effect."""
Results = PhotoResults | RecordResults | PeopleResults


class Bootstrap(TypedDict):
    """Options that every protocol has."""

    resamples: int
    seed: int


def write_results(
    results: Results,
    folder: Path,
    stem: str,
    title: str,
    data: str | os.PathLike | None = None,
    inputs: dict[str, Any] | None = None,
) -> str:
    """Write ``stem.json``, ``.txt``, ``.png`` and ``stem-curves.png``, all or none.

    The JSON lists the other files, so that no command mistakes the pictures for photos, see
    ``photos.files.find_photos``.

    Args:
        results: of a protocol.
        folder: for the files.
        stem: of their names.
        title: of the pictures.
        data: the measured file or folder, for the JSON; None if the data was neither.
        inputs: for the JSON, see ``result_names.replaceable_result``; None: none are recorded.

    Returns:
        the table, as in the .txt file.
    """
    files = [f"{stem}{ending}" for ending in (".txt", ".png", "-curves.png")]
    named = asdict(results)
    about: dict[str, Any] = {"photos": [] if data is None else [str(real_path(data))]}
    about |= {} if inputs is None else {"inputs": inputs}
    table = results_table(named)
    with staged_files(folder) as aside:
        content = {**about, **named, "files": files}
        (aside / f"{stem}.json").write_text(json_text(content))
        plot_results(named, aside / f"{stem}.png", title)
        plot_details(named, aside / f"{stem}-curves.png", title)
        with open_utf8(aside / f"{stem}.txt") as file:
            file.write(table + "\n")
    return table


def kind_of_data(data: Path, people: bool = False) -> str:
    """What a file or folder holds: one of the names above.

    Args:
        data: the file or folder.
        people: treat a folder as a people folder without inspecting it.

    Raises:
        FileNotFoundError: there is neither a file nor a folder.
        ValueError: the folder is of no known kind, or ``people`` is set for a file.
    """
    if data.is_file():
        if people:
            raise ValueError(f"--people is for a folder; {data} is a file")
        return PAIRS_FILE
    if not data.is_dir():
        raise FileNotFoundError(f"{data}: no such folder or file")
    if people:
        return PEOPLE
    if is_records(data):
        return RECORDS
    if (data / PROTOCOL).is_file() or any(
        path.name.endswith(either_case(".mat")) for path in data.iterdir()
    ):
        return AFLW2000
    if is_people_folder(data):
        return PEOPLE
    raise ValueError(
        f"{data}: holds neither AFLW2000-3D (.jpg and .mat pairs), nor face records "
        "(manifest.json), nor people (a sub-folder with photos for each)"
    )


def evaluate_preset(
    preset: Preset | str | os.PathLike,
    data: str | os.PathLike,
    *,
    people: bool = False,
    photos: str | os.PathLike | None = None,
    convention: str | None = None,
    annotation: str | os.PathLike | None = None,
    annotation_first_pixel: float | None = None,
    shape_basis: str | os.PathLike | None = None,
    bfm: str | os.PathLike | None = None,
    bfm_expression: str | os.PathLike | None = None,
    bfm_info: str | os.PathLike | None = None,
    benchmark_crops: str | os.PathLike | None = None,
    keep: str | os.PathLike | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Results:
    """Measure a network by the protocol that fits the data, see ``kind_of_data``.

    Args:
        preset: the network, or a preset's name, folder or URL.
        data: a folder of AFLW2000-3D, of face records or of people, or a pairs file.
        people: treat ``data`` as a people folder in any case.
        photos: folder with the photos of a pairs file, NAME/NAME_0001.jpg; required for one.
        convention, annotation, annotation_first_pixel, shape_basis: for AFLW2000-3D; see
            ``aflw2000.evaluate_aflw2000``. None: 'exact', none, 1, none.
        bfm, bfm_expression, bfm_info: files of the Basel Face Model, for the dense error of a
            preset with it on AFLW2000-3D; see ``data.sources.bfm_full``.
        benchmark_crops: folder of AFLW2000-3D's own crops, see ``aflw2000.read_photos``.
        keep: folder to cache predictions for people's photos in, if the preset is given by name
            or folder.
        resamples: of the bootstrap; 0 for no intervals.
        seed: of the bootstrap.

    Raises:
        FileNotFoundError, ValueError: the data is missing, of no known kind or damaged, or an
            option is given that its protocol does not have.
    """
    data, bootstrap = Path(data), Bootstrap(resamples=resamples, seed=seed)
    options = {
        "photos": photos,
        "convention": convention,
        "annotation": annotation,
        "annotation_first_pixel": annotation_first_pixel,
        "shape_basis": shape_basis,
        "bfm": bfm,
        "bfm_expression": bfm_expression,
        "bfm_info": bfm_info,
        "benchmark_crops": benchmark_crops,
    }
    kind = checked_kind(data, people, options)
    if kind == PAIRS_FILE:
        assert photos is not None  # see ``checked_kind``
        return evaluate_pairs(_predictor(preset, keep), data, photos, **bootstrap)
    if kind == PEOPLE:
        return evaluate_people(_predictor(preset, keep), data, **bootstrap)
    if kind == RECORDS:
        return evaluate_records(preset, load_records(data), **bootstrap)
    full = None if bfm is None else FullBfm.read(bfm, bfm_expression, bfm_info)
    first_pixel = 1.0 if annotation_first_pixel is None else annotation_first_pixel
    labels = convention or "exact", annotation, first_pixel, shape_basis
    return evaluate_aflw2000(preset, data, *labels, full, benchmark_crops, **bootstrap)


def _predictor(
    preset: Preset | str | os.PathLike, keep: str | os.PathLike | None
) -> PhotoPredictor:
    if isinstance(preset, Preset):
        return PhotoPredictor(Reconstructor(preset))
    return PhotoPredictor.from_preset(preset, None if keep is None else Path(keep))


def checked_kind(data: Path, people: bool, options: dict[str, Any]) -> str:
    """The kind of the data, for which the options must be.

    Args:
        data, people: see ``kind_of_data``.
        options: by name, None if not given; those that no kind has are ignored.

    Raises:
        FileNotFoundError: the data, or a file or folder that an option names, is missing.
        ValueError: see ``kind_of_data``; an option is for another kind, or has no effect without
            another, or a pairs file has no ``photos``.
    """
    kind = kind_of_data(data, people)
    given = {name: options[name] for name in OPTION_HOMES if options[name] is not None}
    for option in given:
        if kind != OPTION_HOMES[option]:
            raise ValueError(f"{flag(option)} is for {OPTION_HOMES[option]}; {data} is {kind}")
        if (other := OPTION_NEEDS.get(option, option)) not in given:
            raise ValueError(f"{flag(option)} has no effect without {flag(other)}")
    for option, path in given.items():
        if option in OF_FILES and not Path(path).exists():
            raise FileNotFoundError(f"{flag(option)}: {path}: no such file or folder")
    if kind == PAIRS_FILE and "photos" not in given:
        raise ValueError(f"{data}: a pairs file needs --photos, the folder of its photos")
    return kind


def calibration_of(results: Results) -> dict:
    """The calibration that ``--calibrate`` stores.

    Raises:
        ValueError: the results have none, such as those of AFLW2000-3D.
    """
    calibration = None if isinstance(results, PhotoResults) else results.calibration
    if calibration is None:
        raise ValueError("these results have no calibration; it needs several photos of a person")
    return calibration


def check_calibrate(preset: str, data: Path, kind: str) -> None:
    """Raise if a calibration is impossible (ValueError), or cannot be stored (or OSError).

    Args:
        preset: name, folder or URL.
        data: the file or folder. kind: see ``kind_of_data``.
    """
    if kind == AFLW2000:
        raise ValueError(
            f"--calibrate needs several photos of each person; give {RECORDS}, {PEOPLE} or "
            f"{PAIRS_FILE}"
        )
    if not (Path(preset) / SETTINGS).is_file():
        raise ValueError(
            f"--calibrate writes into the preset, so '{preset}' must be the path of its folder; "
            "copy a preset of the package first"
        )
    check_out(preset, "--calibrate writes into the preset:")
    if kind == RECORDS and photos_of_each(load_records(data).identity).max() < 2:
        raise ValueError(f"{data}: --calibrate needs several photos of a person; nobody has two")
