"""Draw several photos each of a few people, and their reconstructions in one pose.

    python tools/draw_who_is_who.py [--preset PRESET] [--out FILE]

The README's opening picture: scikit-image's astronaut, turned by
``keras_scnn.data.synthesis.profiling``, and rendered people whom no network was trained on. The
maps on the right show where each neutral shape is in front of the mean face (red) and behind it
(blue): alike along a row, different down a column.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from keras_scnn.data.synthesis.profiling import turn_face
from keras_scnn.data.synthesis.rendered_people import SyntheticConfig, render_person
from keras_scnn.geometry.alignment import apply_similarity, similarity_alignment
from keras_scnn.geometry.camera import transform_camera
from keras_scnn.geometry.mesh import vertex_normals
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import FaceParameters
from keras_scnn.photos.cropping import FaceBox, crop_face
from keras_scnn.reconstruction.drawing import draw_view
from keras_scnn.reconstruction.faces import Reconstruction
from keras_scnn.reconstruction.reconstructor import Reconstructor
from keras_scnn.reconstruction.texture import vertex_colors
from keras_scnn.settings import DEFAULT_PRESET

DOCS = Path(__file__).resolve().parents[1] / "docs"
TURNS = (0.0, -20.0, 20.0)
SIZE, VIEW_YAW = 240, 25.0
PEOPLE_SEED, PEOPLE = 2024, (2, 9, 14)  # chosen by their photos: nothing before the face
MARGIN = 17  # px of a view that are white in all of them
TOP_MM = 1.5  # where the colors end


def astronaut_photos(reconstructor: Reconstructor) -> np.ndarray:
    """(3, SIZE, SIZE, 3) uint8 standard crops of one person, turned."""
    from skimage.data import astronaut

    photo, made = astronaut(), []
    face = reconstructor(photo)[0]
    box = face.box
    center = np.array([box.x0 + box.x1, box.y0 + box.y1]) / 2
    wide = crop_face(photo, FaceBox.square(center, 1.6 * box.width), 2 * SIZE)
    pose = transform_camera(wide.crop_from_image, face.parameters.pose)
    outputs = FaceParameters(pose, face.parameters.identity, face.parameters.expression)
    for turn in TURNS:
        image, _ = turn_face(wide.image, face.model, outputs, turn, 0.0)
        face = reconstructor(image)[0]
        made.append(crop_face(image, face.box, SIZE).image)
    return np.stack(made)


def rendered_photos(person: int) -> np.ndarray:
    """(3, SIZE, SIZE, 3) uint8 standard crops of one person."""
    config = SyntheticConfig(people=1, photos=3, seed=PEOPLE_SEED, size=SIZE, yaw_degrees=45)
    return render_person(config, person)[0]


def reconstructions(reconstructor: Reconstructor, crops: np.ndarray) -> list[Reconstruction]:
    """One for each standard crop."""
    whole = [FaceBox(0, 0, SIZE, SIZE)]
    return [reconstructor.reconstruct_boxes(crop, whole, passes=1)[0] for crop in crops]


def view(model: MorphableModel, vertices: np.ndarray, **colors) -> np.ndarray:
    """``draw_view`` in the one pose, without its white margin."""
    picture = draw_view(model, vertices, VIEW_YAW, SIZE, **colors)
    return picture[MARGIN:-MARGIN, MARGIN:-MARGIN]


def textured_view(face: Reconstruction, crop: np.ndarray) -> np.ndarray:
    """The neutral shape with the photo's colors, in the one pose."""
    colors = vertex_colors(face.model, face.texture(crop)).astype(np.float32)
    return view(face.model, face.neutral_vertices, albedo=colors)


def deviation_map(face: Reconstruction) -> np.ndarray:
    """The mean face colored by how far the neutral shape is in front of it, along the normal."""
    model, shape = face.model, face.neutral_vertices.astype(np.float64)
    normals = vertex_normals(model.mean, model.triangles)
    aligned = apply_similarity(*similarity_alignment(shape, model.mean), shape)
    ahead = ((aligned - model.mean) * normals).sum(axis=-1)
    colors = matplotlib.colormaps["RdBu_r"](0.5 + 0.5 * ahead / TOP_MM)[:, :3]
    return view(model, model.mean, albedo=np.float32(255 * colors))


def draw(reconstructor: Reconstructor, people: list[np.ndarray], out: Path) -> None:
    """One row for each person's photos, the mean face in a row of its own."""
    model, count = reconstructor.preset.face_model, len(people[0])
    figure = Figure(figsize=(13.5, 1.55 * len(people) + 1.6), layout="constrained")
    axes = figure.subplots(len(people) + 1, 3 * count)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for row, photos in zip(axes, people, strict=False):
        faces = reconstructions(reconstructor, photos)
        views = [textured_view(*pair) for pair in zip(faces, photos, strict=True)]
        maps = [deviation_map(face) for face in faces]
        for axis, picture in zip(row, [*photos, *views, *maps], strict=True):
            axis.imshow(picture)
    titles = "photos", "neutral reconstruction of each", "in front of / behind the mean face"
    for axis, title in zip(axes[0, count // 2 :: count], titles, strict=True):
        axis.set_title(title, fontsize=12)
    axes[-1, count + count // 2].imshow(view(model, model.mean))
    axes[-1, count + count // 2].set_xlabel("mean face", fontsize=11)
    norm = matplotlib.colors.Normalize(-TOP_MM, TOP_MM)
    scale = matplotlib.cm.ScalarMappable(norm, "RdBu_r")
    bar = figure.colorbar(scale, ax=axes[-1, 2 * count :], orientation="horizontal", fraction=0.3)
    bar.set_label("mm", fontsize=10)
    figure.savefig(out, dpi=85)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default=DEFAULT_PRESET)
    parser.add_argument("--out", type=Path, default=DOCS / "who_is_who.png")
    args = parser.parse_args()
    reconstructor = Reconstructor.from_preset(args.preset)
    people = [astronaut_photos(reconstructor), *map(rendered_photos, PEOPLE)]
    draw(reconstructor, people, args.out)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
