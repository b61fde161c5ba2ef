"""Draw photos beside what a preset makes of them: the README's picture.

    python tools/draw_reconstructions.py                      # scikit-image's astronaut
    python tools/draw_reconstructions.py PHOTO... --out FILE  # photos of your own

A row for the highest-scoring face of each photo: the photo, the mesh and the landmarks over it, the
shape from three sides, and the textured face from two."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from keras_scnn.io import read_image, write_image
from keras_scnn.photos.cropping import FaceBox, crop_face
from keras_scnn.reconstruction.drawing import draw_landmarks, draw_mesh, draw_view
from keras_scnn.reconstruction.faces import Reconstruction
from keras_scnn.reconstruction.reconstructor import Reconstructor
from keras_scnn.reconstruction.texture import vertex_colors
from keras_scnn.settings import DEFAULT_PRESET

DOCS = Path(__file__).resolve().parents[1] / "docs"
SIZE, MARGIN = 256, 1.7
CLAY_YAWS, TEXTURED_YAWS = (-45, 0, 45), (-30, 30)


def row(face: Reconstruction, image: np.ndarray) -> np.ndarray:
    """(SIZE, 7 SIZE, 3) uint8 RGB."""
    low, high = face.posed_vertices[:, :2].min(axis=0), face.posed_vertices[:, :2].max(axis=0)
    side = MARGIN * (high - low).max() / 1.25
    box = FaceBox.square((low + high) / 2, side)
    scale = max(1, int(np.ceil(2 * SIZE / side)))
    large = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    grow, shift = np.array([scale, scale, scale]), (scale - 1) / 2 * np.array([1, 1, 0])
    mesh = draw_mesh(large, face.model, face.posed_vertices * grow + shift)
    lines = draw_landmarks(large, face.landmarks * grow + shift)
    edges = box.as_array() * scale
    views = [crop_face(picture, FaceBox(*edges), SIZE).image for picture in (large, mesh, lines)]
    views += [draw_view(face.model, face.vertices, yaw, SIZE) for yaw in CLAY_YAWS]
    colors = vertex_colors(face.model, face.texture(image)).astype(np.float32)
    views += [draw_view(face.model, face.vertices, yaw, SIZE, colors) for yaw in TEXTURED_YAWS]
    return np.hstack(views)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos", nargs="*", type=Path)
    parser.add_argument("--preset", default=DEFAULT_PRESET)
    parser.add_argument("--out", type=Path, default=DOCS / "reconstructions.png")
    args = parser.parse_args()
    if args.photos:
        images = [read_image(photo) for photo in args.photos]
    else:
        from skimage.data import astronaut

        images = [astronaut()]
    reconstructor = Reconstructor.from_preset(args.preset)
    result = [(reconstructor(image), image) for image in images]
    rows = [row(faces[0], image) for faces, image in result if faces]
    if not rows:
        raise SystemExit("no face found in any of the photos")
    write_image(args.out, np.vstack(rows))
    print(f"wrote {args.out}: {len(rows)} of {len(images)} photos show a face")


if __name__ == "__main__":
    main()
