"""Photos to textured 3D faces: ``keras-scnn reconstruct PHOTO --out DIR``.

Given photos, it writes a mesh, its numbers and pictures for each face. Given one folder, it works
through all photos in it, with Parquet as the result: on all cores, in constant memory, and
resumable at any moment (see docs/batch.md).
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from keras_scnn.meshes.options import add_mesh_options, mesh_options
from keras_scnn.photos.files import check_single_photos, describe_passed_over
from keras_scnn.settings import DEFAULT_PRESET, CommandParser, command

PHOTO_OPTIONS, FOLDER_OPTIONS = ("draw", "largest", "min_score"), ("crops", "meshes", "no_tiles")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The options of a command line; ``folder`` is set where one folder is given."""
    parser = CommandParser("reconstruct", __doc__)
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO", help="or one folder")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--preset", default=DEFAULT_PRESET, help="preset name, or a folder")
    add_mesh_options(parser.add_argument_group("for meshes"))
    _add_photo_options(parser.add_argument_group("for photos"))
    _add_folder_options(parser.add_argument_group("for a folder"))
    args = parser.parse_args(argv)
    args.folder = args.photos[0] if len(args.photos) == 1 and args.photos[0].is_dir() else None
    place, other = ("single photos", "a folder") if args.folder else ("one folder", "single photos")
    for name in PHOTO_OPTIONS if args.folder else FOLDER_OPTIONS:
        if getattr(args, name):
            parser.error(f"--{name.replace('_', '-')} works on {place}, not on {other}")
    args.mesh_options = mesh_options(args, parser, written=args.meshes or not args.folder)
    if args.workers is not None and args.workers < 1:
        parser.error(f"--workers is {args.workers}; it must be 1 or more")
    if args.min_score is not None and not 0 < args.min_score < 1:
        parser.error(f"--min-score is {args.min_score:g}; it must lie between 0 and 1")
    return args


def _add_photo_options(parser) -> None:
    add = parser.add_argument
    add("--draw", action="store_true", help="draw the mesh from several sides too")
    add("--largest", action="store_true", help="only the largest face of each photo")
    add("--min-score", type=float, help="least score of a face, 0 to 1 (0.6, small ones 0.7)")


def _add_folder_options(parser) -> None:
    add = parser.add_argument
    crops = "the photos are face crops (square, the standard crop): no detection, one pass"
    add("--crops", action="store_true", help=crops)
    add("--meshes", action="store_true", help="write a mesh of each face too")
    add("--no-tiles", action="store_true", help="look for large faces only; much faster")
    add("--workers", type=int, default=None, help="processes (one a core)")


@command
def main(argv: list[str] | None = None) -> int:
    """Reconstruct all photos; those that fail are listed, and the exit status is then 1."""
    args = parse(argv)
    check_single_photos(() if args.folder else args.photos)
    from keras_scnn.export.first_use import ensure_network
    from keras_scnn.storage.outputs import check_out

    check_out(args.out)
    ensure_network(args.preset)
    if args.folder:
        return _folder(args, sys.argv[1:] if argv is None else argv)
    return _photos(args)


def _folder(args: argparse.Namespace, words: list[str]) -> int:
    from keras_scnn.folders.folder import FAILED, reconstruct_folder
    from keras_scnn.folders.job import BatchSettings

    meshes = args.format if args.meshes else None
    settings = BatchSettings(args.preset, args.crops, not args.no_tiles, meshes, args.mesh_options)
    command = shlex.join(["python", "-m", "keras_scnn.reconstruct", *words])
    done = reconstruct_folder(args.folder, args.out, settings, args.workers, command)
    print(f"{done.faces} faces of {done.photos - done.failed} photos written to {args.out}")
    if done.failed:
        print(f"{done.failed} photos failed; reasons: {args.out / FAILED}", file=sys.stderr)
    if done.passed_over:
        print(describe_passed_over(done.passed_over), file=sys.stderr)
    return 1 if done.failed else 0


def _photos(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from keras_scnn.meshes.parts import check_parts
    from keras_scnn.photos.detection import FaceDetector
    from keras_scnn.reconstruction.files import reconstruct_file
    from keras_scnn.reconstruction.reconstructor import Reconstructor

    detector = args.min_score and FaceDetector(args.min_score, args.min_score)
    reconstructor = Reconstructor.from_preset(args.preset, detector)
    check_parts(reconstructor.preset.face_model, args.mesh_options.parts)
    args.out.mkdir(parents=True, exist_ok=True)
    failed, faces = [], 0
    for photo in tqdm(args.photos, desc="photos", disable=len(args.photos) == 1):
        try:
            faces += reconstruct_file(reconstructor, photo, args)
        except (OSError, ValueError) as error:
            failed.append(str(error))
    print(f"{faces} faces of {len(args.photos) - len(failed)} photos written to {args.out}")
    for reason in failed:
        print(f"failed: {reason}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
