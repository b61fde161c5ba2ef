"""The files written for each face of a photo."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from keras_scnn.io import read_reduced, write_image
from keras_scnn.meshes.options import MeshOptions
from keras_scnn.photos.detection import LargestFaceDetector, no_face
from keras_scnn.reconstruction.drawing import CLAY, draw_landmarks, draw_mesh, draw_view
from keras_scnn.reconstruction.faces import Reconstruction
from keras_scnn.reconstruction.reconstructor import Reconstructor
from keras_scnn.storage import short_name
from keras_scnn.storage.outputs import Results, real_path


def write_face(
    face: Reconstruction,
    image: np.ndarray,
    stem: Path,
    mesh_format: str,
    draw: bool,
    options: MeshOptions = MeshOptions(),
) -> None:
    """Write ``stem`` + .obj/.ply/.glb and _overlay.png, and with ``draw`` _views.png."""
    colors = face.write_mesh(stem.with_name(f"{stem.name}.{mesh_format}"), image, options)
    overlay = draw_landmarks(
        draw_mesh(image, face.model, face.posed_vertices, opacity=0.6), face.landmarks
    )
    write_image(stem.with_name(f"{stem.name}_overlay.png"), overlay)
    if draw:
        albedo = CLAY if colors is None else colors.astype(np.float32)
        views = [draw_view(face.model, face.vertices, yaw) for yaw in (-60, -30, 0, 30, 60)]
        views += [draw_view(face.model, face.vertices, 30, albedo=albedo)]
        write_image(stem.with_name(f"{stem.name}_views.png"), np.hstack(views))


def reconstruct_file(
    reconstructor: Reconstructor,
    photo: Path,
    args: argparse.Namespace,
    largest: LargestFaceDetector | None = None,
) -> int:
    """Write the faces of one photo, replacing its results from an earlier run.

    Args:
        reconstructor: of the preset.
        photo: the file.
        args: 'out', 'format', 'mesh_options', 'draw' choose what is written; 'photos' are all
            inputs, none of which is overwritten.
        largest: finds the only face to write; None for all that the reconstructor finds.

    Returns:
        the number of faces.

    Raises:
        FileNotFoundError, ValueError: the photo cannot be read, or its results would overwrite
            those of another photo, or another file: results of an earlier run stay. Or it shows no
            face, or not all of several faces can be written: it then has no result.
    """
    inputs = frozenset(map(real_path, args.photos))
    results, stem = Results(args.out, (photo,), inputs), short_name(photo.stem)
    image, factor = read_reduced(photo)
    earlier, written = results.earlier_names(stem), False
    try:
        faces = _faces_of(reconstructor, image, largest)
    except ValueError as error:
        results.remove_earlier(earlier)
        raise ValueError(f"{photo}: {error}") from error
    seen = {"photo_size": [image.shape[1], image.shape[0]], "photo_reduced_by": factor}
    names = [f"{stem}_{i}" for i in range(len(faces))] if len(faces) > 1 else [stem]
    try:
        for name, face in zip(names, faces, strict=True):

            def write(stem: Path, face: Reconstruction = face) -> None:
                write_face(face, image, stem, args.format, args.draw, args.mesh_options)

            results.publish(name, {**seen, **face.to_json()}, write)
            written = True
    except BaseException:
        if written:  # else all results of the earlier run are still there
            results.remove_earlier({*earlier, *names})
        raise
    results.remove_earlier(set(earlier).difference(names))
    return len(faces)


def _faces_of(
    reconstructor: Reconstructor, image: np.ndarray, largest: LargestFaceDetector | None
) -> list[Reconstruction]:
    """All faces of a photo, or only that of ``largest``; ValueError if there is none."""
    if largest is not None:
        return reconstructor.reconstruct_boxes(image, [largest(image)])
    if faces := reconstructor(image):
        return faces
    raise ValueError(no_face(image.shape))
