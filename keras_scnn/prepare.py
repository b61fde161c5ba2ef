"""Turn a data set into face records: ``python -m keras_scnn.prepare SOURCE DIR --out CACHE``.

Photos are cropped to the field's standard square, and the face model is fitted to their landmarks.
The records feed ``keras_scnn.train --data CACHE`` and ``keras_scnn.evaluate``. The command may be
stopped at any time; given again, it goes on where it was. A photo that cannot be read is left out
and listed.
"""

from __future__ import annotations

import argparse
import csv
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from keras_scnn.data.aflw2000 import Aflw2000
from keras_scnn.data.aflw_crops import AflwCrops
from keras_scnn.data.bfm_landmarks import BfmLandmarks
from keras_scnn.data.labeling import Labeling
from keras_scnn.data.preparation import prepare
from keras_scnn.data.pts import PtsFolder
from keras_scnn.data.sources import PhotoSource
from keras_scnn.data.tfds_sources import Tfds300WLP, TfdsAflw2000
from keras_scnn.data.w300lp import W300LP
from keras_scnn.face_models import load_face_model
from keras_scnn.storage import atomic_path

LEFT_OUT = "left_out.csv"
SHOWN = 5
DECIDING = ("source", "crop_size", "face_model", "offsets", "separate", "authors_identity") + (
    "teacher_embeddings",
    "turned",
)


def _w300lp(args: argparse.Namespace) -> PhotoSource:
    basis = BfmLandmarks.load(args.basis) if args.basis else None
    return W300LP(args.folder, basis, args.authors_identity)


def _tfds300wlp(args: argparse.Namespace) -> PhotoSource:
    basis = BfmLandmarks.load(args.basis) if args.basis else None
    return Tfds300WLP(args.folder, basis=basis)


def _people(args: argparse.Namespace) -> PhotoSource:
    from keras_scnn.data.people import PeopleFolder  # starts Keras

    return PeopleFolder(args.folder, teacher=args.teacher_embeddings)


SOURCES: dict[str, tuple[str, Callable[[argparse.Namespace], PhotoSource]]] = {
    "300w-lp": ("300W-LP: AFW, HELEN, ... and their _Flip; jpg + mat; needs --basis", _w300lp),
    "aflw2000": ("AFLW2000-3D: jpg + mat", lambda args: Aflw2000(args.folder)),
    "people": ("one folder a person, any photos in it", _people),
    "pts": ("photos with 300-W's .pts files beside them", lambda args: PtsFolder(args.folder)),
    "tfds-300w-lp": ("the300w_lp of TensorFlow Datasets; DIR is its data_dir", _tfds300wlp),
    "tfds-aflw2000": ("aflw2k3d of TensorFlow Datasets", lambda args: TfdsAflw2000(args.folder)),
    "aflw": ("crops of AFLW: crops/ and labels.npz", lambda args: AflwCrops(args.folder)),
}


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
    return parser.parse_args(arguments)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--crop-size", type=int, default=120, help="px (120)")
    parser.add_argument("--face-model", default="open_face", help="'open_face', or a file")
    parser.add_argument(
        "--offsets",
        default="aflw-mobilenet-0.5",
        help="preset whose landmark offsets the open face model takes, which bring its landmarks "
        "to where annotators put them; '' for none",
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
    parser.add_argument("--basis", type=Path, help="300w-lp: .npz of the 68 landmarks' bases")
    parser.add_argument(
        "--authors-identity",
        action="store_true",
        help="300w-lp: a mirror image is a stranger, as in the authors' released code",
    )
    parser.add_argument(
        "--teacher-embeddings",
        action="store_true",
        help="people: store what dlib's face recognizer says of each photo, and find strangers' "
        "photos by it (extra 'teacher')",
    )
    parser.add_argument("--workers", type=int, default=None, help="processes (one a core)")


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
    model = load_face_model(args.face_model)
    if args.offsets and args.face_model == "open_face":
        # Here, so that worker processes, which import this module, do not start Keras.
        from keras_scnn.models import preset_face_model

        model = preset_face_model(args.offsets)
    source = SOURCES[args.source][1](args)
    labeling = Labeling(model, args.crop_size, not args.separate, args.turned)
    words = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "-m", "keras_scnn.prepare", *words])
    config = {name: getattr(args, name) for name in DECIDING}
    return prepare(source, args.out, labeling, config, args.workers, command)


def _list(path: Path, left_out: dict[str, str]) -> None:
    """Write who was left out and why, and show the first of them."""
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file).writerows([("name", "reason"), *left_out.items()])
    for name, reason in list(left_out.items())[:SHOWN]:
        print(f"left out: {name}: {reason}", file=sys.stderr)
    print(f"{len(left_out)} photos were left out; all reasons are in {path}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
