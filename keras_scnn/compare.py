"""Do two photos show the same person? ``keras-scnn compare A.jpg B.jpg``.

Prints the distance between the two neutral faces in mm; if the network has a feature head, the
similarity of the two features; and if the preset is calibrated, the probability that the photos
show the same person. Also draws a picture.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from keras_scnn.settings import DEFAULT_PRESET, CommandParser, command


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = CommandParser("compare", __doc__)
    parser.add_argument("photos", nargs=2, type=Path, metavar="PHOTO")
    parser.add_argument("--preset", default=DEFAULT_PRESET, help="preset name, folder or URL")
    out = "output folder, for the numbers and the picture (comparison)"
    parser.add_argument("--out", type=Path, default=Path("comparison"), metavar="DIR", help=out)
    return parser.parse_args(argv)


@command
def main(argv: list[str] | None = None) -> None:
    """Compare two photos."""
    args = parse(argv)
    from keras_scnn.evaluation.calibration import checked_calibration
    from keras_scnn.export.first_use import ensure_network
    from keras_scnn.io import read_reduced
    from keras_scnn.reconstruction.comparison import (
        compare_photos,
        pair_name,
        report,
        write_comparison,
    )
    from keras_scnn.reconstruction.reconstructor import Reconstructor
    from keras_scnn.storage.outputs import Results, check_out, real_path

    first, second = args.photos
    check_out(args.out)
    results = Results(args.out, (first, second), frozenset(map(real_path, args.photos)))
    name = pair_name(first, second)
    for suffix in (".json", ".png"):
        results.check_free(name + suffix)
    names, photos = (str(first), str(second)), (read_reduced(first), read_reduced(second))
    ensure_network(args.preset)
    reconstructor = Reconstructor.from_preset(args.preset)
    calibration = checked_calibration(reconstructor.preset.metadata.get("verification"))
    results.remove_earlier([name])  # only now that the photos and the preset can be read
    comparison = compare_photos(reconstructor, (photos[0].image, photos[1].image), names=names)
    print("\n".join(report(comparison, names, calibration)))
    stem = write_comparison(comparison, photos, results)
    print(f"written: {stem}.json and .png")


if __name__ == "__main__":
    sys.exit(main())
