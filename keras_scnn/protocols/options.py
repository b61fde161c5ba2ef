"""The options of ``evaluate`` for measures on real photos; imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path

CONVENTIONS = ("exact", "field")


def add_yardstick_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``protocols.choices``."""
    add = parser.add_argument
    pairs = (
        "verification on the pairs of these CSV files (first,second,same,fold) of photos in --data"
    )
    add("--pairs", metavar="FILES", help=pairs)
    groups = "with --pairs: accuracy by group too; a CSV file of each person's attributes"
    add("--groups", type=Path, metavar="CSV", help=groups)
    truth = "neutral shape against the fits to the people's other photos in this file"
    add("--shape-truth", type=Path, metavar="NPZ", help=truth)
    add("--fit-truth", action="store_true", help="fit and store --shape-truth if missing; slow")
    openings = "opening of eyes and mouth on 300-W; a CSV file of the photos with shut eyes"
    add("--openings", type=Path, metavar="CSV", help=openings)
    points = "hand-made points of half a face: .npz with name (n,), landmarks68 (n, 68, 2)"
    add("--points", type=Path, metavar="NPZ", help=points)
    gaze = "where the eyes look, against the irises in the photos of a people folder"
    add("--gaze", action="store_true", help=gaze)
    add("--last", type=int, metavar="N", help="only the last N people, in sorted order")


def add_aflw2000_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``protocols.aflw2000``."""
    add = parser.add_argument
    convention = (
        "how crop pixels are mapped to the photo: exactly, or as the field's script does (exact)"
    )
    add("--convention", choices=CONVENTIONS, help=convention)
    annotation = (
        "another annotation of AFLW2000-3D: a .npy file (M, 68, 2) in the order of protocol.csv, "
        "else of the names, or a folder with NAME.pts or NAME.mat of each photo"
    )
    add("--annotation", type=Path, metavar="FILE_OR_DIR", help=annotation)
    first = "coordinate of the first pixel's center in --annotation: 1 (as published) or 0 (1)"
    add("--annotation-first-pixel", type=float, metavar="X", help=first)
    basis = (
        ".npz with the Basel Face Model at its 68 landmarks, micrometers: mean (68, 3), "
        "identity_basis (68, 3, 199), expression_basis (68, 3, 29); measures the neutral shape on "
        "AFLW2000-3D"
    )
    add("--shape-basis", type=Path, metavar="NPZ", help=basis)
    bfm = (
        "01_MorphableModel.mat of the Basel Face Model, for the dense error of a preset with it; "
        "needs --bfm-expression and --bfm-info"
    )
    add("--bfm", type=Path, metavar="MAT", help=bfm)
    add("--bfm-expression", type=Path, metavar="MAT", help="Model_Expression.mat, for --bfm")
    add("--bfm-info", type=Path, metavar="MAT", help="model_info.mat, for --bfm")
    crops = "folder of AFLW2000-3D's own 120 px JPEGs, NAME.jpg, to measure on instead of new crops"
    add("--benchmark-crops", type=Path, metavar="DIR", help=crops)
