"""Draw a sheet for blind matching: photos of people by number, their untextured heads by letter.

    python tools/draw_blind_sheet.py PEOPLE_FOLDER OUT.png [--people 10] [--last 49] [--photos 8]

Each head is fused from the person's other photos, aligned with the mean face (size removed), and
drawn from close by, from the front and from 50 degrees; the mean face is drawn as well. OUT-key.csv
has the solution, which those who do the matching must not have seen. Random guessing gets one right
on average, for any number of people. The sheet contains photos of the folder, whose terms apply.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from draw_who_is_who import FRONT, SIDE, SIZE, close_up
from keras_scnn.data.sources.photo_lists import people_photos
from keras_scnn.geometry.alignment import apply_similarity, similarity_alignment
from keras_scnn.io import read_image
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.photos.cropping import crop_face
from keras_scnn.reconstruction.reconstructor import Reconstructor
from keras_scnn.settings import DEFAULT_PRESET, command
from keras_scnn.storage import atomic_path
from keras_scnn.storage.outputs import check_out

PHOTOS, HEADS = 6, 3  # in a row


def choose(
    folder: Path, people: int, last: int, photos: int, rng: np.random.Generator
) -> list[list[Path]]:
    """The photos of each person: first the one to show, then those from which the head is made.

    Args:
        folder: see ``people_photos``.
        people: number of people to draw, from those with two photos or more.
        last: draw only from the last ``last`` people; 0 for all.
        photos: maximum number of photos for a head.
        rng: random generator of the choice.

    Raises:
        ValueError: fewer than ``people`` people have two photos.
    """
    found = people_photos(folder)
    of_person = [np.flatnonzero(found.person == one) for one in np.unique(found.person)][-last:]
    enough = [rows for rows in of_person if len(rows) > 1]
    if len(enough) < people:
        raise ValueError(f"{folder}: {len(enough)} people have two photos; {people} are needed")
    chosen = [enough[i] for i in rng.choice(len(enough), people, replace=False)]
    return [[found.paths[i] for i in rng.permutation(rows)[: photos + 1]] for rows in chosen]


def pictures(reconstructor: Reconstructor, paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """(S, S, 3) uint8 RGB, the crop of the first photo, and (N, 3) mm, the head from the others."""
    photo = read_image(paths[0])
    crop = crop_face(photo, reconstructor.largest(photo).box, SIZE).image
    person = reconstructor.fit_person(paths[1:])
    mean = person.model.mean
    shape = person.neutral_vertices
    return crop, apply_similarity(*similarity_alignment(shape, mean), shape)


def draw(
    crops: list[np.ndarray], heads: list[np.ndarray], order: np.ndarray, model: MorphableModel
) -> Figure:
    """Photos by number above, heads by letter below: letter i is the head of photo ``order[i]``."""
    shapes = [*(heads[i] for i in order), model.mean]
    rows = -(-len(crops) // PHOTOS), -(-len(shapes) // HEADS)
    figure = Figure(figsize=(12, 2.3 * sum(rows)), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=rows)
    axes = _axes(above, rows[0], PHOTOS, len(crops))
    for number, (axis, crop) in enumerate(zip(axes, crops, strict=True), 1):
        axis.imshow(crop)
        axis.set_title(str(number))
    axes = _axes(below, rows[1], HEADS, len(shapes))
    for i, (axis, shape) in enumerate(zip(axes, shapes, strict=True)):
        axis.imshow(
            np.concatenate([close_up(model, shape, side) for side in (FRONT, SIDE)], axis=1)
        )
        axis.set_title(chr(ord("A") + i) if i < len(order) else "the mean face")
    return figure


def _axes(figure, rows: int, columns: int, used: int) -> list:
    """The first ``used`` axes of a grid; the others are hidden."""
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return list(axes[:used])


@command
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="one sub-folder per person")
    parser.add_argument("out", type=Path, help="image file; the key is written beside it")
    parser.add_argument("--preset", default=DEFAULT_PRESET)
    parser.add_argument("--people", type=int, default=10, help="at most 26 (10)")
    parser.add_argument("--last", type=int, default=0, help="draw from the last N people (all)")
    parser.add_argument("--photos", type=int, default=8, help="maximum number for a head (8)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if not 2 <= args.people <= 26 or args.photos < 1 or min(args.last, args.seed) < 0:
        parser.error("--people must be 2 to 26, --photos 1 or more, --last and --seed 0 or more")
    if args.out.suffix[1:].lower() not in Figure().canvas.get_supported_filetypes():
        parser.error(f"{args.out}: unknown kind of picture; give a name that ends in .png or .pdf")
    check_out(args.out.parent, "out:")
    rng = np.random.default_rng(args.seed)
    people = choose(args.folder, args.people, args.last, args.photos, rng)
    reconstructor = Reconstructor.from_preset(args.preset)
    parts = [pictures(reconstructor, paths) for paths in tqdm(people, desc="people")]
    crops, heads = zip(*parts, strict=True)
    order = rng.permutation(len(heads))
    figure = draw(crops, heads, order, reconstructor.preset.face_model)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(args.out) as temporary:
        figure.savefig(temporary, dpi=90)
    key = args.out.with_name(f"{args.out.stem}-key.csv")
    with key.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("letter", "number", "photo"))
        for i, of in enumerate(order):
            rows.writerow((chr(ord("A") + i), of + 1, people[of][0]))
    print(f"wrote {args.out} and {key}")


if __name__ == "__main__":
    sys.exit(main())
