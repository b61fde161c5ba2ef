"""Reader of ICT-FaceKit's face model (MIT license): a folder of OBJ files.

The OBJ files are in centimeters, with the subject's left at x > 0, y up and z towards the viewer,
as in the model frame.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from keras_scnn.face_models.checks import build_model, check_file, check_keys, check_landmarks
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.settings import whole
from keras_scnn.storage.guard import reading
from keras_scnn.storage.text import read_json

CENTIMETER = 10.0  # in millimeters
N_VERTICES = 26719
OPAQUE_VERTICES = 24591
# Vertex ranges of the README's table: mouth socket, gums and tongue; teeth; eyeballs.
REGIONS = ((1, 11248, 13294), (1, 14062, 17039), (2, 17039, 21451), (3, 21451, 23021),
           (4, 23021, 24591))  # fmt: skip

IDENTITY = re.compile(r"identity\d{3,}\.obj")


def read_ict(
    folder: str | os.PathLike,
    n_vertices: int | None = OPAQUE_VERTICES,
    landmark_indices: np.ndarray | None = None,
) -> MorphableModel:
    """Read the model of ICT-FaceKit (Li et al., "Learning Formation of Physically-Based Face
    Attributes", 2020).

    Args:
        folder: FaceXModel of ICT-FaceKit, or the checkout that holds it: generic_neutral_mesh.obj,
            identity000.obj and so on, one OBJ file for each name under "expressions" in
            vertex_indices.json, whose "idx_to_landmark_verts" are the 68 landmarks.
        n_vertices: how many leading vertices to keep; None keeps all. By default the opaque parts:
            face, head, mouth, teeth and eyeballs, without the transparent shells over the eyes and
            the lashes. 9409 keeps only the face.
        landmark_indices: (68,) 0-based vertices, instead of the file's.

    Returns:
        a MorphableModel in mm; identity in standard deviations, expression weights in [0, 1].

    Raises:
        FileNotFoundError: the folder or one of its files is missing.
        ValueError: a file is damaged or does not fit the neutral mesh, or ``n_vertices`` is not a
            number of vertices.
    """
    if n_vertices is not None:
        n_vertices = whole("n_vertices", n_vertices)
    folder = _model_folder(Path(folder))
    config = _read_config(folder / "vertex_indices.json")
    neutral_path = folder / "generic_neutral_mesh.obj"
    neutral, triangles = _read_obj(neutral_path, with_faces=True)
    keep = len(neutral) if n_vertices is None else min(n_vertices, len(neutral))
    identity_paths = _identity_paths(folder)
    paths = identity_paths + [folder / f"{name}.obj" for name in config["expressions"]]
    bases = _read_bases(paths, neutral, keep)
    landmarks = config["idx_to_landmark_verts"] if landmark_indices is None else landmark_indices
    n_identity = len(identity_paths)
    n_expression = len(paths) - n_identity
    return build_model(
        neutral_path,
        name="ict_facekit",
        mean=neutral[:keep] * CENTIMETER,
        identity_basis=bases[..., :n_identity],
        expression_basis=bases[..., n_identity:],
        triangles=triangles[(triangles < keep).all(axis=1)],
        landmark_indices=check_landmarks(
            folder / "vertex_indices.json", np.asarray(landmarks), "give landmark_indices"
        ),
        expression_names=config["expressions"],
        expression_bounds=np.tile([0.0, 1.0], (n_expression, 1)),
        regions=_regions(keep) if len(neutral) == N_VERTICES else None,
        license="MIT, USC Institute for Creative Technologies",
    )


def _read_bases(paths: list[Path], neutral: np.ndarray, keep: int) -> np.ndarray:
    """(keep, 3, len(paths)) float32 mm: the difference of each mesh from the neutral one."""
    for path in paths:
        check_file(path, (".obj",), "an OBJ file of ICT-FaceKit")  # before memory is allocated
    bases = np.empty((keep, 3, len(paths)), np.float32)
    for k, path in enumerate(paths):
        vertices, _ = _read_obj(path)
        if vertices.shape != neutral.shape:
            raise ValueError(
                f"{path}: {len(vertices)} vertices; the neutral mesh has {len(neutral)}"
            )
        bases[..., k] = (vertices - neutral)[:keep] * CENTIMETER
    return bases


def _model_folder(folder: Path) -> Path:
    for candidate in (folder, folder / "FaceXModel"):
        if (candidate / "vertex_indices.json").is_file():
            return candidate
    raise FileNotFoundError(
        f"{folder}: no vertex_indices.json here; expected the folder FaceXModel of ICT-FaceKit"
    )


def _read_config(path: Path) -> dict:
    check_file(path, (".json",), "vertex_indices.json of ICT-FaceKit")
    config = read_json(path, "readable as JSON")
    keys = ("expressions", "idx_to_landmark_verts")
    if not isinstance(config, dict):
        raise ValueError(f"{path}: holds a {type(config).__name__}, not a table of names")
    check_keys(path, config, keys, "vertex_indices.json of ICT-FaceKit")
    names = config["expressions"]
    if not isinstance(names, list) or not all(_is_file_name(name) for name in names):
        raise ValueError(f"{path}: expressions must be a list of file names without folders")
    if len(set(names)) != len(names):
        raise ValueError(f"{path}: expressions names a file twice")
    with reading(path, "a file whose idx_to_landmark_verts are 68 whole numbers"):
        config["idx_to_landmark_verts"] = np.array(config["idx_to_landmark_verts"])
    return config


def _is_file_name(name: object) -> bool:
    """Whether a name is that of a file, without a path to another folder."""
    return isinstance(name, str) and name != "" and not set(name) & set("/\\:\0")


def _identity_paths(folder: Path) -> list[Path]:
    """identity000.obj, identity001.obj and so on, as many as files exist; one may be missing."""
    count = sum(IDENTITY.fullmatch(path.name) is not None for path in folder.iterdir())
    if not count:
        raise FileNotFoundError(f"{folder}: no identity000.obj; has the whole model been fetched?")
    return [folder / f"identity{k:03d}.obj" for k in range(count)]


def _read_obj(path: Path, with_faces: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (N, 3) in file order, and 0-based triangles (T, 3): fans of the file's polygons.

    T is 0 without ``with_faces``. Not read with trimesh, which duplicates vertices along texture
    seams, so that indices would change.
    """
    check_file(path, (".obj",), "an OBJ file of ICT-FaceKit")
    with reading(path, "a readable OBJ file"):
        lines = path.read_text("latin1").split("\n")
        vertices = np.array([line.split()[1:4] for line in lines if line[:2] == "v "], np.float64)
        polygons = [line.split()[1:] for line in lines if with_faces and line[:2] == "f "]
        triangles = [_fan([int(corner.split("/")[0]) for corner in p]) for p in polygons]
        if vertices.ndim != 2 or vertices.shape[1] != 3 or (with_faces and not triangles):
            raise ValueError("vertices or faces are missing or incomplete")
        if not np.isfinite(vertices).all():
            raise ValueError("a vertex is not finite")
        return vertices, np.concatenate([np.zeros((0, 3), int), *triangles]) - 1


def _fan(polygon: list[int]) -> np.ndarray:
    if len(polygon) < 3:
        raise ValueError(f"a face of {len(polygon)} corners")
    return np.array([(polygon[0], b, c) for b, c in zip(polygon[1:-1], polygon[2:], strict=True)])


def _regions(keep: int) -> np.ndarray:
    regions = np.zeros(N_VERTICES, np.uint8)
    for region, start, stop in REGIONS:
        regions[start:stop] = region
    return regions[:keep]
