"""The options of ``evaluate`` for measures on real photos; nothing heavy is imported here."""

from __future__ import annotations

import argparse
from pathlib import Path

CONVENTIONS = ("exact", "field")


def add_yardstick_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``protocols.choices``."""
    add = parser.add_argument
    pairs = "same person or not on these CSV files, first,second,same,fold; --data has the photos"
    add("--pairs", metavar="FILES", help=pairs)
    groups = "with --pairs, accuracy by group too: this CSV file has person and its attributes"
    add("--groups", type=Path, metavar="CSV", help=groups)
    truth = "neutral shape against this file of fits to the people's other photos"
    add("--shape-truth", type=Path, metavar="NPZ", help=truth)
    add("--fit-truth", action="store_true", help="fit --shape-truth once and store it; slow")
    openings = "opening of eyes and mouth on 300-W: this CSV file names photos with shut eyes"
    add("--openings", type=Path, metavar="CSV", help=openings)
    points = "landmarks that are given in part: .npz with name (n,), landmarks68 (n, 68, 2)"
    add("--points", type=Path, metavar="NPZ", help=points)
    add("--last", type=int, metavar="N", help="only the last N people, in sorted order")


def add_aflw2000_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``protocols.aflw2000``."""
    add = parser.add_argument
    convention = (
        "how crop pixels are brought into photos: exactly, or as the field's script does (exact)"
    )
    add("--convention", choices=CONVENTIONS, help=convention)
    annotation = (
        "AFLW2000-3D annotated anew: a .npy file (M, 68, 2) in the order of protocol.csv, else of "
        "the names, or a folder with NAME.pts or NAME.mat of each photo"
    )
    add("--annotation", type=Path, metavar="FILE_OR_DIR", help=annotation)
    first = "where --annotation has the first pixel's center: 1 (as published) or 0 (1)"
    add("--annotation-first-pixel", type=float, metavar="X", help=first)
    basis = (
        ".npz with the Basel Face Model at its 68 landmarks, micrometers: mean (68, 3), "
        "identity_basis (68, 3, 199), expression_basis (68, 3, 29); measures the neutral shape on "
        "AFLW2000-3D"
    )
    add("--shape-basis", type=Path, metavar="NPZ", help=basis)
    bfm = "dense error of a preset of the Basel Face Model: its 01_MorphableModel.mat, and 3DDFA's"
    add("--bfm", type=Path, metavar="MAT", help=bfm)
    add("--bfm-expression", type=Path, metavar="MAT", help="Model_Expression.mat, for --bfm")
    add("--bfm-info", type=Path, metavar="MAT", help="model_info.mat, for --bfm")
    crops = "AFLW2000-3D's own 120 px JPEGs in this folder, NAME.jpg, instead of crops cut anew"
    add("--benchmark-crops", type=Path, metavar="DIR", help=crops)
