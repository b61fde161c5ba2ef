"""Export a preset or a run: ``python -m keras_scnn.export PRESET_OR_RUN --to FORMATS --out DIR``.

Each file is compared with the Keras network in its own runtime before it gets its name, and a
report lies beside it. ``--to tflite`` takes several precisions at once.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from tqdm import tqdm

from keras_scnn.export.artefacts import FORMATS, Subject, check_kind, export_file
from keras_scnn.export.crops import calibration_and_held_out
from keras_scnn.export.metadata import read_card
from keras_scnn.export.tflite import QUANTIZE
from keras_scnn.export.verify import ExportCheck
from keras_scnn.models import load_preset


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of a command line."""
    parser = argparse.ArgumentParser(
        "python -m keras_scnn.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("preset", metavar="PRESET_OR_RUN", help="a preset's name, or a preset or run folder")
    add("--to", required=True, metavar="FORMATS", help=f"with commas: {','.join(FORMATS)}")
    add("--out", type=Path, required=True, metavar="DIR", help="for the files and reports")
    text = f"precisions of TFLite files, with commas: {','.join(QUANTIZE)} (float32)"
    add("--quantize", default="float32", metavar="P", help=text)
    add("--vertices", action="store_true", help="all vertices are an output too")
    text = "folder of crops (images or face records): half of them calibrate int8, half verify; "
    add("--crops", type=Path, metavar="DIR", help=f"{text}else synthetic faces")
    text = "folder of other crops to verify with; --crops then all calibrate"
    add("--verify", type=Path, metavar="DIR", help=text)
    return parser.parse_args(arguments)


def jobs_of(args: argparse.Namespace) -> list[tuple[str, str]]:
    """(format, precision) of each file that is asked for.

    Raises:
        ValueError: unknown format or precision, or precisions without TFLite.
    """
    kinds, precisions = (
        [part.strip() for part in text.split(",") if part.strip()]
        for text in (args.to, args.quantize)
    )
    if "tflite" not in kinds and precisions != ["float32"]:
        raise ValueError("--quantize is for tflite; add it to --to")
    jobs = []
    for kind in kinds:
        jobs += [(kind, p) for p in (precisions if kind == "tflite" else ["float32"])]
    for kind, precision in jobs:
        check_kind(kind, precision)
    if not jobs:
        raise ValueError(f"--to and --quantize name nothing; formats are {', '.join(FORMATS)}")
    return list(dict.fromkeys(jobs))


def check_writable(folder: Path) -> None:
    """Make a folder; OSError where it cannot be made or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"{folder}: cannot be written ({error.strerror})") from error


def describe(path: Path, found: ExportCheck) -> str:
    """One line for people."""
    times = ", ".join(f"{value:.2f}" for value in found.milliseconds.values())
    loss = "" if found.nme_loss_points is None else f", NME {found.nme_loss_points:+.3f} points"
    return (
        f"{path}: {found.bytes / 1e6:.2f} MB, {times} ms ({' and '.join(found.milliseconds)} "
        f"threads), landmarks {found.landmark_px:.4f} px (p99 {found.landmark_p99_px:.3f}), "
        f"vertices {found.vertex_mm:.4f} mm (p99 {found.vertex_p99_mm:.3f}){loss}"
    )


def run(args: argparse.Namespace) -> None:
    """Export everything that the command line asks for.

    Raises:
        OSError, ValueError, ImportError: with one clear reason.
    """
    jobs = jobs_of(args)
    preset = load_preset(args.preset)
    check_writable(args.out)
    print("crops to calibrate and verify with ...", flush=True)
    crops = calibration_and_held_out(args.crops, args.verify, preset.input_size)
    name, card = Path(args.preset).resolve().name, read_card(args.preset)
    subject = Subject(preset, name, *crops, card, args.vertices)
    for kind, precision in tqdm(jobs, desc="exporting", unit="file"):
        tqdm.write(describe(*export_file(subject, args.out, kind, precision)))


def main(arguments: list[str] | None = None) -> int:
    """The command; ``arguments`` as on the command line."""
    try:
        run(parse(arguments))
    except (OSError, ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
