"""Export a preset or a run: ``keras-scnn export PRESET_OR_RUN --to FORMATS --out DIR``.

Each file is compared with the Keras network in its own runtime before it is released, with a report
beside it. ``--to tflite`` and ``--to bundle`` take several precisions at once; a bundle is a folder
with detector, network and a JSON file with everything that an app needs. ``--attach`` writes the
network to the preset's or run's own folder as ``network.tflite`` instead; reconstruct, compare and
serve then run it without TensorFlow, as they do the package's presets.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from keras_scnn.export.formats import FORMATS, QUANTIZE, jobs_of
from keras_scnn.models.backend import start_keras
from keras_scnn.settings import CommandParser, command
from keras_scnn.storage.outputs import check_out, real_path

if TYPE_CHECKING:
    from keras_scnn.export.verify import ExportCheck


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = CommandParser("export", __doc__)
    add = parser.add_argument
    add("preset", metavar="PRESET_OR_RUN", help="preset name, folder or URL, or a run folder")
    add("--to", default="", metavar="FORMATS", help=f"comma-separated: {','.join(FORMATS)}")
    add("--out", type=Path, metavar="DIR", help="output folder for the files and reports")
    add("--attach", action="store_true", help="write network.tflite to the preset's folder")
    text = f"comma-separated precisions of TFLite files and bundles: {','.join(QUANTIZE)} (float32)"
    add("--quantize", default="float32", metavar="P", help=text)
    add("--vertices", action="store_true", help="also output all vertices, as in bundles")
    text = "folder of crops (images or face records): half to calibrate int8, half to verify with; "
    add("--crops", type=Path, metavar="DIR", help=f"{text}by default synthetic faces")
    text = "folder of other crops to verify with; all of --crops are then used to calibrate"
    add("--verify", type=Path, metavar="DIR", help=text)
    args = parser.parse_args(arguments)
    if not args.attach and not (args.to and args.out):
        parser.error("give --to and --out, or --attach")
    if args.to and args.out is None:
        parser.error("--to needs --out, the folder for its files")
    if args.attach and not args.to:
        for name in ("out", "vertices", "crops", "verify"):
            if getattr(args, name) != parser.get_default(name):
                parser.error(f"--{name} is for --to; --attach needs only the preset's folder")
    return args


def wanted_jobs(args: argparse.Namespace) -> list[tuple[str, str]]:
    """(format, precision) of each file to write.

    Raises:
        ValueError: unknown format or precision, or precisions for formats with only one; or crops
            that nothing would read.
    """
    kinds, precisions = (
        [part.strip() for part in text.split(",") if part.strip()]
        for text in (args.to, args.quantize)
    )
    only_attach = args.attach and not kinds and precisions == ["float32"]
    jobs = [] if only_attach else jobs_of(kinds, precisions, ("--to", "--quantize"))
    if args.crops and args.verify and all(precision != "int8" for _, precision in jobs):
        raise ValueError(
            "--crops has no effect: with --verify they only calibrate int8; leave them out, or add "
            "int8 to --quantize"
        )
    return jobs


def describe(path: Path, result: ExportCheck) -> str:
    """A summary of one line."""
    times = ", ".join(f"{value:.2f}" for value in result.milliseconds.values())
    loss = "" if result.nme_loss_points is None else f", NME {result.nme_loss_points:+.3f} points"
    return (
        f"{path}: {result.bytes / 1e6:.2f} MB, {times} ms ({' and '.join(result.milliseconds)} "
        f"threads), landmarks {result.landmark_px:.4f} px (p99 {result.landmark_p99_px:.3f}), "
        f"vertices {result.vertex_mm:.4f} mm (p99 {result.vertex_p99_mm:.3f}){loss}"
    )


def run(args: argparse.Namespace) -> None:
    """Export everything that the command line asks for.

    Raises:
        OSError, ValueError, ImportError: with a message of one line.
    """
    jobs = wanted_jobs(args)
    from keras_scnn.export.crops import check_folder

    for crops in (args.crops, args.verify):
        check_folder(crops)  # find_crops does so too, but only after the network has been loaded
    from keras_scnn.models.presets import preset_folder

    folder = preset_folder(args.preset)
    if jobs:
        check_out(args.out)
    if args.attach:
        if real_path(args.preset) != real_path(folder):
            raise ValueError(
                f"--attach writes into the preset, so '{args.preset}' must be the path of its "
                "folder; copy a preset of the package first"
            )
        check_out(folder, "--attach writes into the preset:")
    start_keras()
    if args.attach:
        attach(folder)
    if not jobs:
        return
    from tqdm import tqdm

    from keras_scnn.export.artifacts import check_kind, export_file, read_subject

    for kind, precision in jobs:
        check_kind(kind, precision)
    print("loading the network and the crops to calibrate and verify with ...", flush=True)
    subject = read_subject(args.preset, args.crops, args.verify, args.vertices)
    for kind, precision in tqdm(jobs, desc="exporting", unit="file"):
        tqdm.write(describe(*export_file(subject, args.out, kind, precision)))


def attach(folder: Path) -> None:
    """Write ``network.tflite`` to a preset's folder; errors as ``network.write_network``."""
    from keras_scnn.export.network import write_network
    from keras_scnn.models.litert import FILE

    drift = ", ".join(f"{name} {value:.4f}" for name, value in write_network(folder).items())
    print(f"{folder / FILE}: differs from Keras by {drift}")


@command
def main(arguments: list[str] | None = None) -> None:
    """Run the command; ``arguments`` as on the command line."""
    run(parse(arguments))


if __name__ == "__main__":
    sys.exit(main())
