"""The files that are written for each face of a photo."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from keras_scnn.io import read_image, write_image
from keras_scnn.reconstruction.drawing import CLAY, draw_landmarks, draw_mesh, draw_view
from keras_scnn.reconstruction.faces import Reconstruction
from keras_scnn.reconstruction.reconstructor import (
    Reconstructor,
    write_textured_mesh,
)
from keras_scnn.storage import atomic_path


def save_reconstruction(
    face: Reconstruction, image: np.ndarray, stem: Path, mesh_format: str, draw: bool
) -> None:
    """Write ``stem`` + .obj/.ply/.glb, .json, _overlay.png and, to look at, _views.png."""
    colors = write_textured_mesh(face, image, stem.with_name(f"{stem.name}.{mesh_format}"))
    overlay = draw_landmarks(
        draw_mesh(image, face.model, face.posed_vertices, opacity=0.6), face.landmarks
    )
    write_image(stem.with_name(f"{stem.name}_overlay.png"), overlay)
    if draw:
        albedo = CLAY if colors is None else colors.astype(np.float32)
        views = [draw_view(face.model, face.vertices, yaw) for yaw in (-60, -30, 0, 30, 60)]
        views += [draw_view(face.model, face.vertices, 30, albedo=albedo)]
        write_image(stem.with_name(f"{stem.name}_views.png"), np.hstack(views))
    with atomic_path(stem.with_name(f"{stem.name}.json")) as temporary:
        temporary.write_text(json.dumps(face.to_json(), indent=2) + "\n")


def reconstruct_file(
    reconstructor: Reconstructor, photo: Path, args: argparse.Namespace, taken: dict[str, Path]
) -> int:
    """Write the faces of one photo and return their number; ``taken`` grows by their names.

    Args:
        reconstructor: of the preset.
        photo: the file.
        args: 'largest' takes the largest face alone; 'out', 'format', 'draw' say what is written.
        taken: the names of what is written, and the photos that they belong to.

    Raises:
        FileNotFoundError, ValueError: the photo cannot be read, shows no face, or its results
            would overwrite those of another photo.
    """
    image = read_image(photo)
    try:
        faces = [reconstructor.largest(image)] if args.largest else reconstructor(image)
    except ValueError as error:
        raise ValueError(f"{photo}: {error}") from error
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
