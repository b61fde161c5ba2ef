"""Draw photos of a few real people and the untextured heads reconstructed from each.

    pip download --no-deps --no-binary :all: face-recognition==1.3.0
    tar xzf face_recognition-1.3.0.tar.gz
    python tools/draw_who_is_who.py face_recognition-1.3.0/tests/test_images [--preset PRESET]

The README's opening picture: three portraits of one man, one of another, both official White House
photos (works of the United States government, in the public domain) that come with the source
archive of face-recognition, and scikit-image's astronaut (NASA). No network was trained on them.
Every head is the neutral shape from only that photo: unchanged, with its difference from the mean
face enlarged, and as a map of where it is in front of the mean face (red) or behind it (blue).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from keras_scnn.geometry.alignment import apply_similarity, similarity_alignment
from keras_scnn.geometry.mesh import vertex_normals
from keras_scnn.io import read_image
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.photos.cropping import crop_face
from keras_scnn.reconstruction.drawing import draw_view
from keras_scnn.reconstruction.reconstructor import Reconstructor
from keras_scnn.settings import DEFAULT_PRESET, command

DOCS = Path(__file__).resolve().parents[1] / "docs"
PORTRAITS = {"A": ("obama.jpg", "obama2.jpg", "obama3.jpg"), "B": ("biden.jpg",)}
SIZE = 240  # px of a picture
# Close-ups of the face, from brows to chin: yaw in degrees, and first row and column in a view.
VIEW, FRONT, SIDE = 414, (0.0, 116, 87), (50.0, 116, 68)
ENLARGED = 2.5
TOP_MM = 1.0  # end of the color scale
TITLES = ("photo", "its face, mm for mm", "", f"× {ENLARGED:g} from the mean face", "", "map")


def portraits(folder: Path) -> list[tuple[str, np.ndarray]]:
    """(person, (H, W, 3) uint8 RGB photo) of each row.

    Raises:
        FileNotFoundError: a photo is missing.
    """
    from skimage.data import astronaut

    rows = [
        (person, read_image(folder / name)) for person in PORTRAITS for name in PORTRAITS[person]
    ]
    return [*rows, ("C", astronaut())]


def close_up(model: MorphableModel, vertices: np.ndarray, side: tuple, **colors) -> np.ndarray:
    """Part of ``draw_view``, as seen from ``FRONT`` or ``SIDE``."""
    yaw, top, left = side
    picture = draw_view(model, np.float32(vertices), yaw, VIEW, **colors)
    return picture[top : top + SIZE, left : left + SIZE]


def heads(model: MorphableModel, shape: np.ndarray) -> list[np.ndarray]:
    """The five close-ups of a neutral shape (N, 3) mm, aligned with the mean face."""
    shape = apply_similarity(*similarity_alignment(shape, model.mean), shape)
    difference = shape - model.mean
    ahead = (difference * vertex_normals(model.mean, model.triangles)).sum(axis=-1)
    colors = matplotlib.colormaps["RdBu_r"](0.5 + 0.5 * ahead / TOP_MM)[:, :3]
    shapes = [model.mean + factor * difference for factor in (1.0, ENLARGED)]
    views = [close_up(model, one, side) for one in shapes for side in (FRONT, SIDE)]
    return [*views, close_up(model, model.mean, FRONT, albedo=np.float32(255 * colors))]


def draw(reconstructor: Reconstructor, photos: list[tuple[str, np.ndarray]], out: Path) -> None:
    """A row for each photo, and one for the mean face."""
    model = reconstructor.preset.face_model
    figure = Figure(figsize=(11, 1.8 * (len(photos) + 1) + 0.4), layout="constrained")
    axes = figure.subplots(len(photos) + 1, len(TITLES))
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for row, (person, photo) in zip(axes, photos, strict=False):
        face = reconstructor.largest(photo)
        crop = crop_face(photo, face.box, SIZE).image
        for axis, picture in zip(row, [crop, *heads(model, face.neutral_vertices)], strict=True):
            axis.imshow(picture)
        row[0].set_ylabel(person, rotation=0, labelpad=12, va="center", fontsize=12)
    for axis, title in zip(axes[0], TITLES, strict=True):
        axis.set_title(title, fontsize=10, loc="left").set_in_layout(False)
    for axis, side in zip(axes[-1, 1:3], (FRONT, SIDE), strict=True):
        axis.imshow(close_up(model, model.mean, side))
    axes[-1, 1].set_xlabel("the mean face", fontsize=10)
    norm = matplotlib.colors.Normalize(-TOP_MM, TOP_MM)
    scale = matplotlib.cm.ScalarMappable(norm, "RdBu_r")
    bar = figure.colorbar(scale, ax=axes[-1, 3:], orientation="horizontal", fraction=0.3)
    bar.set_label("mm in front of / behind the mean face", fontsize=9)
    figure.savefig(out, dpi=90)


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("portraits", type=Path, help="folder tests/test_images of face-recognition")
    parser.add_argument("--preset", default=DEFAULT_PRESET)
    parser.add_argument("--out", type=Path, default=DOCS / "who_is_who.png")
    args = parser.parse_args(argv)
    draw(Reconstructor.from_preset(args.preset), portraits(args.portraits), args.out)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    sys.exit(main())
