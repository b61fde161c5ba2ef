"""Do two photos show one person? ``python -m keras_scnn.compare A.jpg B.jpg``.

Says how far the two neutral faces are apart in mm, how alike the network finds them where it has a
feature head, and, where the preset is calibrated, the probability of one person; draws a picture.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from keras_scnn.io import read_image
from keras_scnn.reconstruction.comparison import compare_photos, report, write_comparison
from keras_scnn.reconstruction.reconstructor import DEFAULT_PRESET, Reconstructor


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m keras_scnn.compare", description="Do two photos show one person?"
    )
    parser.add_argument("photos", nargs=2, type=Path, metavar="PHOTO")
    parser.add_argument("--preset", default=DEFAULT_PRESET, help="preset name, or a folder")
    out = "folder for numbers and picture (comparison)"
    parser.add_argument("--out", type=Path, default=Path("comparison"), metavar="DIR", help=out)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Compare two photos; the exit status is 2 where that cannot be done."""
    args = parse(argv)
    names = tuple(str(path) for path in args.photos)
    try:
        photos = tuple(read_image(path) for path in args.photos)
        preset = Reconstructor.from_preset(args.preset).preset
        found = compare_photos(preset, photos, names=names)
        print("\n".join(report(found, names, preset.metadata.get("verification"))))
        stem = write_comparison(found, photos, tuple(args.photos), args.out)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"written: {stem}.json and .png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
