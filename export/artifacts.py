"""Export in one call: write a file to a temporary folder, verify it, and only then move it."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from keras_scnn.export.bundle import write_bundle
from keras_scnn.export.crops import Crops, calibration_and_held_out
from keras_scnn.export.drift import Outputs, reference_outputs
from keras_scnn.export.exported_model import check_backend
from keras_scnn.export.formats import check_names, file_name, jobs_of
from keras_scnn.export.metadata import build_metadata, read_card
from keras_scnn.export.onnx import check_converter, write_onnx
from keras_scnn.export.saved_model import write_saved_model
from keras_scnn.export.tflite import check_quantizer, convert_preset, write_tflite
from keras_scnn.export.verify import ExportCheck, VerificationError, verify, write_report
from keras_scnn.models import Preset, load_preset
from keras_scnn.models.presets import preset_digest, preset_name
from keras_scnn.storage.atomic import staged_folder
from keras_scnn.storage.outputs import check_out


@dataclass(frozen=True, eq=False)
class Subject:
    """A preset to export, with its crops.

    Attributes:
        preset: the trained network.
        name: beginning of the files' names.
        calibration: crops for 'int8'.
        held_out: other crops, to verify with.
        card: the preset's own card.
        vertices: also output all vertices.
        digest: of the preset, see ``preset_digest``; '' for one that has no folder.
        conversions: cached results of ``converted``, by its argument.
    """

    preset: Preset
    name: str
    calibration: Crops
    held_out: Crops
    card: str = ""
    vertices: bool = False
    digest: str = ""
    conversions: dict[bool, bytes] = field(default_factory=dict, repr=False)

    def converted(self, vertices: bool) -> bytes:
        """``convert_preset``, run only once: files of all precisions are made from it."""
        if vertices not in self.conversions:
            self.conversions[vertices] = convert_preset(self.preset, vertices)
        return self.conversions[vertices]

    @functools.cached_property
    def expected(self) -> Outputs:
        """The predictions of Keras for the held-out crops, with which all files are compared."""
        return reference_outputs(self.preset, self.held_out.images)


def read_subject(
    name_or_path: str | os.PathLike | Preset,
    crops: Path | None = None,
    held_out: Path | None = None,
    vertices: bool = False,
) -> Subject:
    """A preset to export, with crops.

    Errors as ``load_preset`` and ``calibration_and_held_out``; a ValueError for a ``Preset`` whose
    encoder has no name.

    Args:
        name_or_path: see ``load_preset``; or a ``Preset``, whose files are named after its encoder.
        crops, held_out: folders, see ``calibration_and_held_out``.
        vertices: also output all vertices.
    """
    if isinstance(name_or_path, Preset):
        preset, card, digest = name_or_path, "", ""
        if not (name := Path(preset.encoder).name):
            raise ValueError("the preset's encoder is ''; its files are named after it")
    else:
        preset, name = load_preset(name_or_path), preset_name(name_or_path)
        card, digest = read_card(name_or_path), preset_digest(name_or_path)
    pair = calibration_and_held_out(crops, held_out, preset.input_size)
    return Subject(preset, name, pair[0], pair[1], card, vertices, digest)


def export_file(
    subject: Subject,
    out: str | os.PathLike,
    kind: str,
    precision: str = "float32",
) -> tuple[Path, ExportCheck]:
    """Write one verified file with its report beside it.

    Args:
        subject: the preset to export.
        out: folder; it is created if it does not exist.
        kind: one of ``FORMATS``.
        precision: one of ``QUANTIZE``, for the formats in ``QUANTIZED``.

    Returns:
        the file (or the folder of a SavedModel or bundle), and the measurements.

    Raises:
        ValueError: unknown format or precision, or unsuitable crops.
        VerificationError: the file disagrees with Keras; nothing is left in ``out``.
        OSError: the folder cannot be written.
        ImportError: a package that the format needs is not installed.
    """
    check_kind(kind, precision)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    place, vertices = file_name(subject.name, kind, precision), subject.vertices or kind == "bundle"
    with staged_folder(out) as aside:
        made = aside / place
        _WRITERS[kind](made, subject, precision)
        result = verify(
            made,
            subject.preset,
            subject.held_out,
            precision,
            vertices=vertices,
            expected=subject.expected,
        )
        if result.broken:
            earlier = f"; {out / place} is from an earlier run" if (out / place).exists() else ""
            words = "; ".join(result.broken)
            if precision == "int8" and subject.calibration.are_rendered:
                words += "; give crops of photos to calibrate with (--crops), not rendered faces"
            raise VerificationError(f"{place}: disagrees with Keras: {words}{earlier}")
        metadata = build_metadata(subject.preset, subject.name, precision, vertices, subject.card)
        reports = write_report(aside, place, result, metadata)
        for path in (made, *reports):
            _replace(path, out / path.name)
    return out / place, result


def export_preset(
    name_or_path: str | os.PathLike | Preset,
    out: str | os.PathLike,
    kinds: Sequence[str] = ("tflite",),
    precisions: Sequence[str] = ("float32",),
    crops: str | os.PathLike | None = None,
    vertices: bool = False,
) -> dict[Path, ExportCheck]:
    """Write verified files of a preset, each with its report beside it.

    Args:
        name_or_path: a preset's name, a preset or run folder, or a URL; see ``load_preset``. Or a
            ``Preset``, such as one with an encoder of your own, which cannot be saved as a folder;
            its files are named after ``Preset.encoder``.
        out: folder; it is created if it does not exist.
        kinds: some of ``FORMATS``; 'bundle' is a folder with detector, network, and
            ``bundle.json`` with everything that an app needs, see ``export.bundle``.
        precisions: some of ``QUANTIZE``, for 'tflite' and 'bundle'; other formats are float32.
        crops: folder of crops, images or face records, to calibrate 'int8' and to verify with;
            None renders synthetic faces.
        vertices: also output all vertices, as a bundle always does.

    Returns:
        the measurements by file (or folder of a SavedModel or bundle).

    Raises:
        FileNotFoundError: there is no such preset, or no such folder of crops.
        TypeError: ``kinds`` or ``precisions`` is a str.
        ValueError: unknown format or precision, precisions for formats that are float32 only, no
            format, a damaged preset, or unsuitable crops.
        VerificationError: a file disagrees with Keras; files written before it are kept.
        OSError: the folder cannot be written.
        ImportError: a package that a format needs is not installed.
    """
    jobs = jobs_of(kinds, precisions)
    for kind, precision in jobs:
        check_kind(kind, precision)
    check_out(Path(out))
    folder = None if crops is None else Path(crops)
    subject = read_subject(name_or_path, folder, None, vertices)
    return dict(export_file(subject, out, kind, precision) for kind, precision in jobs)


def check_kind(kind: str, precision: str) -> None:
    """Raise a ValueError for an unknown format or precision, or an unsupported combination.

    If a required package is missing, raise an ImportError that names it.
    """
    check_names(kind, precision)
    check_backend()
    if kind == "onnx":
        check_converter()
    if precision != "float32":
        check_quantizer()


def _tflite(path: Path, subject: Subject, precision: str) -> None:
    write_tflite(
        path,
        subject.preset,
        precision,
        subject.vertices,
        subject.calibration.images,
        subject.name,
        subject.card,
        subject.converted(subject.vertices),
    )


def _onnx(path: Path, subject: Subject, precision: str) -> None:
    write_onnx(path, subject.preset, subject.vertices, subject.name, subject.card)


def _saved_model(path: Path, subject: Subject, precision: str) -> None:
    write_saved_model(path, subject.preset, subject.vertices, subject.name, subject.card)


_WRITERS: dict[str, Callable[[Path, Subject, str], None]] = {
    "tflite": _tflite,
    "onnx": _onnx,
    "savedmodel": _saved_model,
    "bundle": write_bundle,
}


def _replace(source: Path, target: Path) -> None:
    """Rename a file or folder, replacing an existing one; an existing folder is moved first."""
    if target.is_dir():
        shutil.move(target, source.parent / f"old-{target.name}")
    os.replace(source, target)
