"""Turn a data set into face records: ``python -m keras_scnn.prepare SOURCE DIR --out CACHE``.

Photos are cropped to the field's standard square, and the face model is fitted to their landmarks.
The records feed ``keras_scnn.train --data CACHE`` and ``keras_scnn.evaluate``. The command may be
stopped at any time; given again, it goes on where it was. A photo that cannot be read is left out
and listed.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
import shlex
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from keras_scnn.data.aflw_crops import PARTS
from keras_scnn.data.labeling import FIT, Labeling
from keras_scnn.data.preparation import prepare
from keras_scnn.prepare_sources import SOURCES, chosen_face_model
from keras_scnn.storage import atomic_path

LEFT_OUT, FACE_MODEL, BASIS = "left_out.csv", "face_model.npz", "bfm_landmarks68.npz"
SHOWN = 5
DECIDING = ("source", "crop_size", "face_model", "offsets", "separate", "authors_identity") + (
    "teacher_embeddings",
    "turned",
    "components",
    "part",
)
OF_BLENDS = ("count", "held_out")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    listed = "\n".join(f"  {name:<14}{text}" for name, (text, _) in SOURCES.items())
    parser = argparse.ArgumentParser(
        "python -m keras_scnn.prepare",
        description=f"{__doc__}\nsources:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", choices=SOURCES, metavar="SOURCE", help="kind of data set")
    parser.add_argument("folder", type=Path, metavar="DIR", help="where it lies")
    parser.add_argument("--out", type=Path, required=True, metavar="CACHE", help="for the records")
    _add_options(parser)
    _add_blend_options(parser)
    _add_bfm_options(parser)
    return parser.parse_args(arguments)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--crop-size", type=int, default=120, help="px (120)")
    parser.add_argument("--face-model", default="open_face", help="'open_face', or a file")
    parser.add_argument(
        "--offsets",
        default="aflw-mobilenet-0.5",
        help="preset whose landmark offsets the open face model takes, which bring its landmarks "
        "to where annotators put them; or bfm_landmarks68.npz, to whose mean face any face model's "
        "landmarks are brought; '' for none",
    )
    parser.add_argument(
        "--separate", action="store_true", help="fit each photo for itself, not person by person"
    )
    parser.add_argument(
        "--turned",
        type=int,
        default=0,
        metavar="N",
        help="add N copies of each photo, with the "
        "face turned by up to 45 degrees: makes pairs where a person has one photo (0)",
    )
    parser.add_argument(
        "--part", choices=PARTS, default="all", help="aflw: 'held_out' is one photo in 20 (all)"
    )
    parser.add_argument(
        "--authors-identity",
        action="store_true",
        help="300w-lp: a mirror image is a stranger, as in the authors' released code",
    )
    parser.add_argument(
        "--teacher-embeddings",
        action="store_true",
        help="store what dlib's face recognizer says of each photo; of people, find strangers' "
        "photos by it (extra 'teacher')",
    )
    parser.add_argument("--workers", type=int, default=None, help="processes (one a core)")


def _add_blend_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=20000, help="blends: of the faces (20000)")
    parser.add_argument(
        "--held-out",
        type=int,
        default=0,
        metavar="N",
        help="blends: the last N people take no part, as in training (0)",
    )


def _add_bfm_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--basis",
        type=Path,
        metavar="FILE_OR_DIR",
        help="300w-lp: .npz of the 68 landmarks' bases, or a folder of 400 or more .mat files with "
        "pt3d_68, such as AFLW2000-3D's, from which they are recovered",
    )
    parser.add_argument(
        "--bfm-expression", type=Path, metavar="MAT", help="300w-lp: Model_Expression.mat of 3DDFA"
    )
    parser.add_argument(
        "--bfm-info",
        type=Path,
        metavar="MAT",
        help="300w-lp: model_info.mat of 3DDFA; with these two and --face-model "
        "01_MorphableModel.mat the annotation's own parameters are taken, and nothing is fitted",
    )
    parser.add_argument(
        "--components",
        type=int,
        nargs=2,
        default=(40, 10),
        metavar=("K", "L"),
        help="of the Basel Face Model: identity and expression components that are kept (40 10)",
    )


def main(arguments: list[str] | None = None) -> int:
    """The command; ``arguments`` as on the command line. Status 1: some photos were left out."""
    args = parse(arguments)
    try:
        if args.crop_size < 16:
            raise ValueError(f"--crop-size is {args.crop_size}; it must be 16 or more")
        if args.turned < 0:
            raise ValueError(f"--turned is {args.turned}; it must be 0 or more")
        manifest = _prepare(args, arguments)
    except (ImportError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    left_out = manifest["left_out"]
    print(f"{manifest['count']} photos in {args.out}")
    if left_out:
        _list(args.out / LEFT_OUT, left_out)
    return 1 if left_out else 0


def _prepare(args: argparse.Namespace, arguments: list[str] | None) -> dict:
    model = chosen_face_model(args)
    source = SOURCES[args.source][1](args)
    labeling = Labeling(
        model,
        args.crop_size,
        not args.separate,
        args.turned,
        args.teacher_embeddings,
        FIT if args.face_model == "open_face" else dataclasses.replace(FIT, identity_sd=1.0),
    )
    words = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "-m", "keras_scnn.prepare", *words])
    config = {name: getattr(args, name) for name in DECIDING}
    if args.source == "blends":  # their names say nothing of the records that they are made of
        config |= {name: getattr(args, name) for name in OF_BLENDS} | {"of": str(args.folder)}
    manifest = prepare(source, args.out, labeling, config, args.workers, command)
    if args.face_model != "open_face":
        model.save(args.out / FACE_MODEL)
    if args.basis is not None and args.basis.is_dir():
        source.basis.save(args.out / BASIS)
    return manifest


def _list(path: Path, left_out: dict[str, str]) -> None:
    """Write who was left out and why, and show the first of them."""
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file).writerows([("name", "reason"), *left_out.items()])
    for name, reason in list(left_out.items())[:SHOWN]:
        print(f"left out: {name}: {reason}", file=sys.stderr)
    print(f"{len(left_out)} photos were left out; all reasons are in {path}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
