"""Turn a data set into face records: ``keras-scnn prepare SOURCE DIR --out CACHE``.

Photos are cropped to the field's standard square, and the face model is fitted to their landmarks.
The records are the input of ``keras-scnn train --data CACHE`` and ``keras-scnn evaluate``. The
command may be stopped at any time; run it again to continue. Photos that cannot be read are left
out and listed.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import sys
from pathlib import Path

from keras_scnn.data.sources.choices import (
    SOURCES,
    add_source_options,
    check_source_options,
    chosen_face_model,
    deciding_settings,
)
from keras_scnn.settings import CommandParser, check_at_least, command
from keras_scnn.storage import atomic_path
from keras_scnn.storage.outputs import check_out
from keras_scnn.storage.text import counted, open_utf8

LEFT_OUT, BASIS = "left_out.csv", "bfm_landmarks68.npz"
SHOWN = 5


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    listed = "\n".join(f"  {name:<14}{text}" for name, (text, _) in SOURCES.items())
    parser = CommandParser("prepare", f"{__doc__}\nsources:\n{listed}")
    parser.add_argument("source", choices=SOURCES, metavar="SOURCE", help="kind of data set")
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the data set")
    out = "output folder for the records"
    parser.add_argument("--out", type=Path, required=True, metavar="CACHE", help=out)
    add_source_options(parser)
    parser.add_argument("--workers", type=int, default=None, help="processes (one per core)")
    args = parser.parse_args(arguments)
    parser.check(args, check_at_least, "crop_size", low=16)
    parser.check(args, check_at_least, "turned")
    parser.check(args, check_at_least, "workers", low=1)
    check_source_options(args, parser)
    return args


@command
def main(arguments: list[str] | None = None) -> int:
    """Run the command; ``arguments`` as on the command line. Returns 1 if photos were left out."""
    args = parse(arguments)
    check_out(args.out)
    manifest, passed_over = _prepare(args, arguments)
    left_out = manifest["left_out"]
    print(f"{counted(manifest['count'], 'photo')} in {args.out}")
    (args.out / LEFT_OUT).unlink(missing_ok=True)  # from an earlier run
    if left_out:
        _list(args.out / LEFT_OUT, left_out)
    if passed_over:
        print(passed_over, file=sys.stderr)
    return 1 if left_out else 0


def _prepare(args: argparse.Namespace, arguments: list[str] | None) -> tuple[dict, str]:
    from keras_scnn.data.labels.fit import Labeling
    from keras_scnn.data.preparation import prepare
    from keras_scnn.data.records import NoRecordsError
    from keras_scnn.face_models import FACE_MODEL
    from keras_scnn.photos.files import describe_passed_over

    model = chosen_face_model(args)
    source = SOURCES[args.source][1](args)
    labeling = Labeling(
        model,
        args.crop_size,
        not args.separate,
        args.turned,
        args.teacher_embeddings,
    )
    words = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "-m", "keras_scnn.prepare", *words])
    config = deciding_settings(args)
    basis = getattr(source, "basis", None)  # only for 300W-LP
    if basis is not None:
        config["basis_digest"] = basis.digest
    try:
        manifest = prepare(source, args.out, labeling, config, args.workers, command)
    except NoRecordsError as error:
        _list(args.out / LEFT_OUT, error.left_out)
        raise
    if args.face_model != "open_face":
        model.save(args.out / FACE_MODEL)
    if basis is not None and args.basis is not None and args.basis.is_dir():
        basis.save(args.out / BASIS)
    return manifest, describe_passed_over(source.passed_over(args.out, *_files(args)))


def _files(args: argparse.Namespace) -> list[Path | None]:
    """Files named by options, which must not be reported as passed over if they are in DIR."""
    named = [Path(one) for one in (args.face_model, args.offsets)]  # or names in the package
    paths = args.basis, args.bfm_expression, args.bfm_info
    return [*paths, *(path for path in named if path.is_file())]


def _list(path: Path, left_out: dict[str, str]) -> None:
    """Write the photos left out with the reasons, and print the first few."""
    with atomic_path(path) as temporary, open_utf8(temporary) as file:
        csv.writer(file).writerows([("name", "reason"), *left_out.items()])
    for name, reason in list(left_out.items())[:SHOWN]:
        why = reason.partition(f"{name}: ")[2] or reason  # the reason may begin with the file
        print(f"left out: {name}: {why}", file=sys.stderr)
    print(f"{counted(len(left_out), 'photo')} left out; all reasons: {path}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
