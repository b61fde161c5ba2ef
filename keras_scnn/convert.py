"""Convert faces to another model: ``keras-scnn convert PHOTO.json --to MODEL --out DIR``.

Reads results of ``keras-scnn reconstruct``, and writes for each face a JSON file with its identity,
expression and pose as parameters of FLAME, BFM, ICT, GNM or any other face model that
``load_face_model`` reads, and with the residual distance in mm; with --format, its mesh too.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from keras_scnn.meshes.options import MESH_FORMATS
from keras_scnn.settings import CommandParser, command, list_failures
from keras_scnn.storage.text import counted, failure


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = CommandParser("convert", __doc__)
    parser.add_argument(
        "results", nargs="+", type=Path, metavar="JSON",
        help="results of reconstruct, or folders of them",
    )  # fmt: skip
    parser.add_argument(
        "--to", required=True, metavar="MODEL", help="file or folder of the target face model"
    )
    parser.add_argument(
        "--landmarks", type=Path, metavar="FILE",
        help="landmarks of the target: FLAME's landmark_embedding.npy, GNM's head_sparse_68.txt, "
        "or a text file of 68 vertex indices, from 0, in iBUG's order",
    )  # fmt: skip
    parser.add_argument(
        "--from", dest="source", metavar="MODEL", default="open_face",
        help="face model of the results (open_face)",
    )  # fmt: skip
    parser.add_argument(
        "--correspondence", type=Path, metavar="NPZ",
        help="file written by Correspondence.save; by default it is computed from 68 landmarks",
    )  # fmt: skip
    parser.add_argument(
        "--keep-size", action="store_true",
        help="keep the size in mm; by default, differences in size go into the pose",
    )  # fmt: skip
    parser.add_argument("--format", choices=MESH_FORMATS, help="write the target's mesh too")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="output folder")
    return parser.parse_args(argv)


@command
def main(argv: list[str] | None = None) -> int:
    """Convert all faces; list those that fail, in which case the exit status is 1."""
    args = parse(argv)
    from keras_scnn.face_models import load_face_model
    from keras_scnn.reconstruction.converted import Converter, load_target, result_files
    from keras_scnn.storage.outputs import check_out

    check_out(args.out)
    files = result_files(args.results)
    models = load_face_model(args.source), load_target(args.to, args.landmarks)
    target = None if args.to == "open_face" else Path(args.to)
    converter = Converter.of(*models, target, args.correspondence, not args.keep_size)
    failed = []
    for file in files:
        try:
            residual = converter.convert_file(file, args.out, args.format)
        except (OSError, ValueError) as error:
            failed.append(failure(file, error))
        else:
            print(f"{file}: residual {residual:.2f} mm")
    print(f"{counted(len(files) - len(failed), 'face')} written to {args.out}")
    return list_failures(failed)


if __name__ == "__main__":
    sys.exit(main())
