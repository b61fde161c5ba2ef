"""Draw several photos each of a few people, and their reconstructions in one pose.

    python tools/draw_who_is_who.py [--preset PRESET] [--out FILE]

The README's opening picture: scikit-image's astronaut, turned by ``keras_scnn.data.profiling``, and
rendered people whom no network was trained on. A column of maps shows where each neutral shape is
in front of the mean face (red) and behind it (blue): alike along a row, different down a column.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from keras_scnn.cropping import FaceBox, crop_face
from keras_scnn.data.profiling import turn_face
from keras_scnn.data.synthetic import SyntheticConfig, render_person
from keras_scnn.drawing import draw_view
from keras_scnn.geometry.alignment import apply_similarity, similarity_alignment
from keras_scnn.geometry.camera import transform_camera
from keras_scnn.geometry.mesh import vertex_normals
from keras_scnn.models import Preset, load_preset
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import FaceParameters
from keras_scnn.prediction import predict
from keras_scnn.reconstruct import DEFAULT_PRESET, Reconstructor

DOCS = Path(__file__).resolve().parents[1] / "docs"
TURNS = (0.0, -35.0, 35.0)
SIZE, VIEW_YAW = 240, 25.0
PEOPLE_SEED, PEOPLE = 2024, (3, 5, 8)  # chosen by their photos: no mask before the face
TOP_MM = 2.5  # where the colors end


def astronaut_photos(preset: str) -> np.ndarray:
    """(3, SIZE, SIZE, 3) uint8 standard crops of one person, turned."""
    from skimage.data import astronaut

    reconstructor, photo = Reconstructor.from_preset(preset), astronaut()
    face, made = reconstructor(photo)[0], []
    box = face.box
    center = np.array([box.x0 + box.x1, box.y0 + box.y1]) / 2
    wide = crop_face(photo, FaceBox.square(center, 1.6 * box.width), 2 * SIZE)
    pose = transform_camera(wide.crop_from_image, face.parameters.pose)
    told = FaceParameters(pose, face.parameters.identity, face.parameters.expression)
    for turn in TURNS:
        image, _ = turn_face(wide.image, face.model, told, turn, 0.0)
        found = reconstructor(image)[0]
        made.append(crop_face(image, found.box, SIZE).image)
    return np.stack(made)


def rendered_photos(person: int) -> np.ndarray:
    """(3, SIZE, SIZE, 3) uint8 standard crops of one person."""
    config = SyntheticConfig(people=1, photos=3, seed=PEOPLE_SEED, size=SIZE, yaw_degrees=45)
    return render_person(config, person)[0]


def neutral_shapes(preset: Preset, crops: np.ndarray) -> np.ndarray:
    """(n, N, 3) mm, each brought to the mean face by a similarity."""
    small = [
        crop_face(crop, FaceBox(0, 0, SIZE - 1, SIZE - 1), preset.input_size) for crop in crops
    ]
    told = predict(preset, np.stack([crop.image for crop in small]))
    model = preset.face_model
    shapes = model.vertices(told.parameters.identity).astype(np.float64)
    return np.stack([apply_similarity(*similarity_alignment(s, model.mean), s) for s in shapes])


def deviation_map(model: MorphableModel, shape: np.ndarray) -> np.ndarray:
    """The mean face colored by how far the shape is in front of it, along the normal."""
    normals = vertex_normals(model.mean, model.triangles)
    ahead = ((shape - model.mean) * normals).sum(axis=-1)
    colors = matplotlib.colormaps["RdBu_r"](0.5 + 0.5 * ahead / TOP_MM)[:, :3]
    return draw_view(model, model.mean, VIEW_YAW, SIZE, np.float32(255 * colors))


def draw(preset: Preset, people: list[np.ndarray], out: Path) -> None:
    """One row for each person's photos, the mean face in a row of its own."""
    model, count = preset.face_model, len(people[0])
    figure = Figure(figsize=(13.5, 1.5 * len(people) + 1.9), layout="constrained")
    axes = figure.subplots(len(people) + 1, 3 * count)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for row, photos in zip(axes, people, strict=False):
        shapes = neutral_shapes(preset, photos)
        views = [draw_view(model, shape, VIEW_YAW, SIZE) for shape in shapes]
        maps = [deviation_map(model, shape) for shape in shapes]
        for axis, picture in zip(row, [*photos, *views, *maps], strict=True):
            axis.imshow(picture)
    titles = "photos of one person", "the neutral shape from each", "in front of / behind the mean"
    for axis, title in zip(axes[0, count // 2 :: count], titles, strict=True):
        axis.set_title(title, fontsize=12)
    axes[-1, count + count // 2].imshow(draw_view(model, model.mean, VIEW_YAW, SIZE))
    axes[-1, count + count // 2].set_xlabel("mean face", fontsize=11)
    norm = matplotlib.colors.Normalize(-TOP_MM, TOP_MM)
    scale = matplotlib.cm.ScalarMappable(norm, "RdBu_r")
    bar = figure.colorbar(scale, ax=axes[-1, 2 * count :], orientation="horizontal", fraction=0.3)
    bar.set_label("mm", fontsize=10)
    figure.savefig(out, dpi=75)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default=DEFAULT_PRESET)
    parser.add_argument("--out", type=Path, default=DOCS / "who_is_who.png")
    args = parser.parse_args()
    people = [astronaut_photos(args.preset), *map(rendered_photos, PEOPLE)]
    draw(load_preset(args.preset), people, args.out)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
