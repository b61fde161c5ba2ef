"""The command line of ``reconstruct``: photos, one folder, or one video."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from keras_scnn.meshes.options import add_mesh_options, mesh_options
from keras_scnn.photos.files import check_single_photos, is_video
from keras_scnn.settings import DEFAULT_PRESET, CommandParser, check_score, flag
from keras_scnn.storage.outputs import real_path
from keras_scnn.storage.remote import Place, RemotePath, is_url, place

PLACES = {"photos": "single photos", "folder": "one folder", "video": "one video"}
OPTIONS = {
    "draw": ("photos",),
    "largest": ("photos",),
    "neutral": ("photos", "folder"),
    "unit": ("photos", "folder"),
    "min_score": ("photos", "video"),
    "crops": ("folder",),
    "engine": ("folder",),
    "meshes": ("folder",),
    "no_tiles": ("folder", "video"),
    "workers": ("folder", "video"),
}
"""For each option, the kinds of input that it applies to."""


def parse_options(argv: list[str] | None, description: str) -> argparse.Namespace:
    """The options of a command line; ``kind`` is one of PLACES."""
    parser = CommandParser("reconstruct", description)
    words = "photos, or one folder or its URL, or one video"
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help=words)
    parser.add_argument("--out", required=True, help="folder for the results, or its URL")
    parser.add_argument("--preset", default=DEFAULT_PRESET, help="preset name, folder or URL")
    add_mesh_options(parser.add_argument_group("for meshes"))
    _add_photo_options(parser.add_argument_group("for photos"))
    _add_folder_options(parser.add_argument_group("for a folder"))
    args = parser.parse_args(argv)
    args.photos, args.out = _distinct(map(place, args.photos)), place(args.out)
    args.kind = _kind(args.photos)
    for name, kinds in OPTIONS.items():
        if getattr(args, name) not in (None, False) and args.kind not in kinds:
            places = " and ".join(PLACES[kind] for kind in kinds)
            here = PLACES[args.kind].replace("one", "a")
            path = args.photos[0]
            missing = "" if is_url(path) or path.exists() else f"; {path}: no such file or folder"
            parser.error(f"{flag(name)} works on {places}, not on {here}{missing}")
    _check(args, parser)
    return args


def _distinct(paths: Iterable[Place]) -> list[Place]:
    """Each photo once, however its path is written; a link to a photo is a photo of its own."""
    found: dict[Place, Place] = {}
    for path in paths:
        home = path if isinstance(path, RemotePath) else real_path(path.parent) / path.name
        found.setdefault(home, path)
    return list(found.values())


def _kind(paths: list[Place]) -> str:
    first, *others = paths
    if others:
        return "photos"
    if isinstance(first, RemotePath) or first.is_dir():
        return "folder"
    return "video" if is_video(first) else "photos"


def _check(args: argparse.Namespace, parser: CommandParser) -> None:
    """Exit with a usage error on values that do not fit, and fill in defaults."""
    if args.format and args.kind == "folder" and not args.meshes:
        parser.error("--format is for meshes; for a folder, --meshes writes them")
    if args.kind == "video" and args.format not in (None, "glb"):
        parser.error(f"--format {args.format} has no animation; a video gives GLB")
    args.format = args.format or ("glb" if args.kind == "video" else "obj")
    written = args.meshes or args.kind != "folder"
    args.mesh_options = mesh_options(args, parser, written)
    if args.workers is not None and args.workers < 1:
        parser.error(f"--workers is {args.workers}; it must be 1 or more")
    if args.crops and args.no_tiles:
        parser.error("--no-tiles has no effect with --crops, for which no face is searched")
    parser.check(args, check_score, "min_score")
    if args.kind != "folder" and (urls := [p for p in (*args.photos, args.out) if is_url(p)]):
        parser.error(
            f"{urls[0]}: a URL must be that of a single folder of photos, or of its results"
        )
    if args.kind == "photos":
        check_single_photos(args.photos)


def _add_photo_options(parser) -> None:
    add = parser.add_argument
    add("--draw", action="store_true", help="draw the mesh from several sides too")
    add("--largest", action="store_true", help="only the largest face of each photo")
    words = "minimum score of a face, between 0 and 1 (0.6, small ones 0.7); for a video too"
    add("--min-score", type=float, help=words)


def _add_folder_options(parser) -> None:
    add = parser.add_argument
    crops = "the photos are face crops (square, the standard crop): no detection, one pass"
    add("--crops", action="store_true", help=crops)
    add("--meshes", action="store_true", help="write a mesh of each face too")
    words = "look for large faces only; much faster (for a video too)"
    add("--no-tiles", action="store_true", help=words)
    words = "local: processes of this machine; ray: actors of a Ray cluster"
    add("--engine", choices=("local", "ray"), help=words)
    add("--workers", type=int, help="number of processes (one per core); for a video too")
