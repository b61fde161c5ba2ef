"""From a photo to 3D faces: ``Reconstructor``, and ``python -m keras_scnn.reconstruct``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from keras_scnn.cropping import FaceBox, box_from_landmarks, crop_face
from keras_scnn.detection import FaceDetector, LargestFace
from keras_scnn.drawing import draw_landmarks, draw_mesh, draw_view
from keras_scnn.geometry.camera import transform_camera
from keras_scnn.geometry.crops import invert_affine
from keras_scnn.io import MESH_SUFFIXES, read_image, write_image, write_mesh
from keras_scnn.models.presets import Preset, load_preset
from keras_scnn.parameters import FaceParameters
from keras_scnn.person import Person, Photo, fit_person
from keras_scnn.reconstruction import Reconstruction
from keras_scnn.storage import atomic_path
from keras_scnn.texture import vertex_colors

DEFAULT_PRESET = "aflw-mobilenet-0.5"
PASSES = 2  # the second crop is cut by the first pass's landmarks
MOST_RESIZE = 3.0  # a second crop that differs more from the first one comes from a failure


class Reconstructor:
    """Finds every face of a photo and reconstructs it.

    Args:
        preset: the trained network.
        detector: finds the faces; None makes a ``FaceDetector`` when the first photo comes.
    """

    def __init__(self, preset: Preset, detector: FaceDetector | None = None):
        self.preset, self._detector = preset, detector
        self._largest = None if detector is None else LargestFace(detector, detector)

    @classmethod
    def from_preset(cls, name_or_path: str | os.PathLike = DEFAULT_PRESET) -> Reconstructor:
        """Load a preset that comes with the package, or a preset or run folder."""
        return cls(load_preset(name_or_path))

    def __call__(self, image: np.ndarray) -> list[Reconstruction]:
        """The faces of an (H, W, 3) uint8 RGB photo, the surest first; [] where there is none."""
        if self._detector is None:
            self._detector = FaceDetector()
        boxes = self._detector.detect(image)
        return self.reconstruct_boxes(image, boxes) if boxes else []

    def largest(self, image: np.ndarray) -> Reconstruction:
        """The largest face of an (H, W, 3) uint8 RGB photo; ValueError where there is none."""
        if self._largest is None:
            self._largest = LargestFace()
        return self.reconstruct_boxes(image, [self._largest(image)])[0]

    def fit_person(self, photos: Sequence[Photo]) -> Person:
        """One face of all photos of one person, the largest face of each; see ``person``."""
        return fit_person(photos, self.largest)

    def reconstruct_boxes(
        self, image: np.ndarray, boxes: list[FaceBox], passes: int = PASSES
    ) -> list[Reconstruction]:
        """Faces in given boxes, one for each; ``passes=1`` keeps the boxes as they are."""
        for turn in range(passes):
            found = self._predict(image, boxes)
            if turn + 1 < passes:
                boxes = [_second_box(face) for face in found]
        return found

    def _predict(self, image: np.ndarray, boxes: list[FaceBox]) -> list[Reconstruction]:
        crops = [crop_face(image, box, self.preset.input_size) for box in boxes]
        batch = np.stack([crop.image for crop in crops]).astype(np.float32)
        outputs = {k: np.asarray(v) for k, v in self.preset.branch(batch, training=False).items()}
        vectors = self.preset.whitening.unwhiten(outputs["parameters"])
        features = outputs.get("features", [None] * len(boxes))
        return [self._place(*face) for face in zip(vectors, crops, boxes, features, strict=True)]

    def _place(self, vector, crop, box, features) -> Reconstruction:
        model = self.preset.face_model
        told = FaceParameters.from_vector(vector, self.preset.layout)
        pose = transform_camera(invert_affine(crop.crop_from_image), told.pose)
        expression = model.clip_expression(told.expression)
        return Reconstruction(model, FaceParameters(pose, told.identity, expression), box, features)


def _second_box(face: Reconstruction) -> FaceBox:
    """The box of the landmarks; the face's own where the landmarks make no sense."""
    try:
        box = box_from_landmarks(face.landmarks, face.box.score)
    except ValueError:
        return face.box
    return box if 1 / MOST_RESIZE < box.width / face.box.width < MOST_RESIZE else face.box


def save_reconstruction(
    face: Reconstruction, image: np.ndarray, stem: Path, mesh_format: str, draw: bool
) -> None:
    """Write ``stem`` + .obj/.ply/.glb, .json, _overlay.png and, to look at, _views.png."""
    texture = face.texture(image) if face.model.uv is not None else None
    colors = None if texture is None else vertex_colors(face.model, texture)
    mesh = stem.with_name(f"{stem.name}.{mesh_format}")
    write_mesh(mesh, face.vertices, face.model.triangles, face.model.uv, texture, colors)
    overlay = draw_landmarks(
        draw_mesh(image, face.model, face.posed_vertices, opacity=0.6), face.landmarks
    )
    write_image(stem.with_name(f"{stem.name}_overlay.png"), overlay)
    if draw:
        albedo = {} if colors is None else {"albedo": colors.astype(np.float32)}
        views = [draw_view(face.model, face.vertices, yaw) for yaw in (-60, -30, 0, 30, 60)]
        views += [draw_view(face.model, face.vertices, 30, **albedo)]
        write_image(stem.with_name(f"{stem.name}_views.png"), np.hstack(views))
    with atomic_path(stem.with_name(f"{stem.name}.json")) as temporary:
        temporary.write_text(json.dumps(face.to_json(), indent=2) + "\n")


def reconstruct_file(
    reconstructor: Reconstructor, photo: Path, args: argparse.Namespace, taken: dict[str, Path]
) -> int:
    """Write every face of one photo and return their number; ``taken`` grows by their names.

    Raises:
        FileNotFoundError, ValueError: the photo cannot be read, shows no face, or its results
            would overwrite those of another photo.
    """
    image = read_image(photo)
    faces = reconstructor(image)
    if not faces:
        raise ValueError(f"{photo}: no face found; it should show one at least 40 px wide")
    names = [f"{photo.stem}_{i}" for i in range(len(faces))] if len(faces) > 1 else [photo.stem]
    for name in names:
        if name in taken:
            raise ValueError(
                f"{photo}: its results would overwrite those of {taken[name]}; rename the photo, "
                "or give it another --out"
            )
    taken |= dict.fromkeys(names, photo)
    for name, face in zip(names, faces, strict=True):
        save_reconstruction(face, image, args.out / name, args.format, args.draw)
    return len(faces)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m keras_scnn.reconstruct", description="Photos to textured 3D faces."
    )
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--preset", default=DEFAULT_PRESET, help="preset name, or a folder")
    formats = [suffix[1:] for suffix in MESH_SUFFIXES]
    parser.add_argument("--format", choices=formats, default="obj", help="of the mesh (obj)")
    parser.add_argument("--draw", action="store_true", help="draw the mesh from several sides too")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Reconstruct all photos; those that fail are listed, and the exit status is then 1."""
    args = parse(argv)
    try:
        reconstructor = Reconstructor.from_preset(args.preset)
        args.out.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    failed, faces, taken = [], 0, {}
    for photo in tqdm(args.photos, desc="photos", disable=len(args.photos) == 1):
        try:
            faces += reconstruct_file(reconstructor, photo, args, taken)
        except (OSError, ValueError) as error:
            failed.append(str(error))
    print(f"{faces} faces of {len(args.photos) - len(failed)} photos written to {args.out}")
    for reason in failed:
        print(f"failed: {reason}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
