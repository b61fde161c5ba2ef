"""Draw the faces of photos as turned by ``keras_scnn.data.synthesis.profiling``.

python tools/draw_profiling.py PHOTO... --out sheet.png
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from keras_scnn import Reconstructor
from keras_scnn.data.synthesis.profiling import turn_face
from keras_scnn.geometry.camera import project, transform_camera
from keras_scnn.io import read_image, write_image
from keras_scnn.parameters import FaceParameters
from keras_scnn.photos.cropping import FaceBox, crop_face
from keras_scnn.reconstruction.drawing import draw_landmarks, grid
from keras_scnn.settings import command

TURNS = ((-45, 0), (-30, 0), (-15, 0), (0, 0), (15, 0), (30, 0), (45, 0), (20, 15), (-20, -15))


def pictures(reconstructor: Reconstructor, path: Path, size: int, marks: bool) -> list[np.ndarray]:
    """The face of a photo at each of TURNS; [] if there is no face, after a message."""
    photo = read_image(path)
    faces = reconstructor(photo)
    if not faces:
        tqdm.write(f"left out: {path}: no face found", file=sys.stderr)
        return []
    box = faces[0].box
    crop = crop_face(photo, FaceBox.square(box.center, 1.6 * box.width), size)
    outputs = faces[0].parameters
    pose = transform_camera(crop.crop_from_image, outputs.pose)
    face, made = FaceParameters(pose, outputs.identity, outputs.expression), []
    for yaw, pitch in TURNS:
        image, turned = turn_face(crop.image, faces[0].model, face, yaw, pitch)
        if marks:
            shape = faces[0].model.landmarks(turned.identity, turned.expression)
            image = draw_landmarks(image, project(turned.pose, shape))
        made.append(image)
    return made


@command
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=200)
    parser.add_argument("--marks", action="store_true", help="draw the landmarks too")
    args = parser.parse_args(argv)
    if args.size < 1:
        parser.error(f"--size is {args.size}; it must be 1 or more")
    cv2.setNumThreads(1)
    reconstructor = Reconstructor.from_preset()
    rows = [pictures(reconstructor, p, args.size, args.marks) for p in tqdm(args.photos)]
    if not any(rows):
        raise ValueError(f"{args.out} is not drawn: no photo shows a face")
    write_image(args.out, grid([image for row in rows for image in row], len(TURNS)))


if __name__ == "__main__":
    sys.exit(main())
