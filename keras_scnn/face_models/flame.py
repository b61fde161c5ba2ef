"""Reader of FLAME (Li et al., "Learning a model of facial shape and expression from 4D scans",
2017): the published pickles of 2017, 2019, 2020 and 2023, or the same arrays in an .npz file.

FLAME is in meters, with the subject's left at x > 0, y up and z towards the viewer. Its jaw, neck
and eye joints and the pose-dependent corrections are left out, since face models here are linear.
The model's files may not be redistributed: users get them from flame.is.tue.mpg.de.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from keras_scnn.face_models.checks import (
    build_model,
    check_file,
    check_keys,
    check_landmarks,
    checked_triangles,
    embedded_vertices,
    expression_components,
)
from keras_scnn.face_models.restricted_pickle import load_pickle
from keras_scnn.geometry.mesh import whole_indices
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.settings import whole
from keras_scnn.storage.arrays import read_arrays
from keras_scnn.storage.guard import FileError, reading

METER = 1000.0  # in millimeters
WHAT, KEYS = "a FLAME model (.pkl or .npz)", ("v_template", "shapedirs", "f")
LICENSE = "FLAME, Max Planck Society: see flame.is.tue.mpg.de; not to be passed on"
CONTOUR = 17  # iBUG landmarks 0 to 16, the jaw


def read_flame(
    path: str | os.PathLike,
    landmark_embedding: str | os.PathLike | None = None,
    contour_embedding: str | os.PathLike | None = None,
    landmark_indices: np.ndarray | None = None,
    n_identity: int = 300,
) -> MorphableModel:
    """Read FLAME. No code in a pickle is run.

    Args:
        path: generic_model.pkl or another published pickle, or an .npz file: v_template (N, 3) and
            shapedirs (N, 3, K + L) in meters, f (T, 3) 0-based triangles.
        landmark_embedding: the landmarks' positions on the mesh: DECA's landmark_embedding.npy (68
            points), or flame_static_embedding.pkl (the 51 without the jaw).
        contour_embedding: flame_dynamic_embedding.npy, for the jaw; its frontal row is used.
        landmark_indices: (68,) 0-based vertices, instead of the embeddings.
        n_identity: how many leading components of shapedirs are identity (10 in files with only
            10 + 10 components); the others are expression.

    Returns:
        a MorphableModel in mm. Weights are in standard deviations, expressions unbounded.
        Embedded points become the nearest corner of their triangle, with ``landmark_offsets`` to
        the points, so ``landmarks()`` of the mean face are exact.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file is damaged, of another layout, contains code, or lacks the landmarks; or
            ``n_identity`` is not a number of components.
    """
    n_identity = whole("n_identity", n_identity, low=0)
    path = check_file(path, (".pkl", ".npz"), WHAT)
    with reading(path, WHAT):
        file = _load(path, KEYS)
        check_keys(path, file, KEYS, WHAT)
        template, shapes, triangles = _read_shapes(path, file, n_identity)
        mean, offsets = template * METER, None
        if landmark_indices is None and landmark_embedding is not None:
            landmark_indices, offsets = _embedded_landmarks(
                landmark_embedding, contour_embedding, mean, triangles
            )
        return build_model(
            path,
            name="flame",
            mean=mean,
            identity_basis=shapes[..., :n_identity] * METER,
            **expression_components(shapes[..., n_identity:] * METER),
            triangles=triangles,
            landmark_indices=check_landmarks(
                path, landmark_indices, "give landmark_embedding or landmark_indices"
            ),
            landmark_offsets=offsets,
            license=LICENSE,
        )


def _read_shapes(path: Path, file: dict[str, Any], n_identity: int) -> tuple[np.ndarray, ...]:
    """v_template (N, 3), shapedirs (N, 3, K + L) and f (T, 3), checked."""
    template, shapes, triangles = (_plain(path, file, k) for k in ("v_template", "shapedirs", "f"))
    if template.ndim != 2 or template.shape[1] != 3 or shapes.shape[:2] != template.shape:
        raise FileError(
            f"{path}: v_template {template.shape} and shapedirs {shapes.shape} must be (N, 3) "
            "and (N, 3, K + L)"
        )
    if shapes.ndim != 3 or shapes.shape[2] < n_identity:
        raise FileError(
            f"{path}: shapedirs of shape {shapes.shape} has fewer than n_identity={n_identity} "
            "components; give n_identity"
        )
    return template, shapes, checked_triangles(path, triangles, len(template))


def _load(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    if path.suffix.lower() == ".npz":
        return dict(read_arrays(path, keys))
    content = load_pickle(path)
    if isinstance(content, np.ndarray) and content.shape == ():
        content = content[()]
    if not isinstance(content, dict):
        raise FileError(f"{path}: holds a {type(content).__name__}, not the table of {WHAT}")
    return content


def _plain(path: Path, file: dict[str, Any], key: str) -> np.ndarray:
    with reading(path, f"a file whose {key} is a plain array"):
        array = np.asarray(file[key])
    if array.dtype.kind not in "fiu":
        raise FileError(f"{path}: {key} has the dtype {array.dtype}; it must be numbers")
    return array


def _embedded_landmarks(
    path: str | os.PathLike,
    contour_path: str | os.PathLike | None,
    mean: np.ndarray,
    triangles: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (68,) nearest to the embedded points, and offsets (68, 3) mm to the points."""
    parts = [_read_embedding(path, mean, triangles)]
    if len(parts[0][0]) == 68 - CONTOUR and contour_path is not None:
        parts.insert(0, _read_embedding(contour_path, mean, triangles))
    vertices, offsets = map(np.concatenate, zip(*parts, strict=True))
    if len(vertices) != 68:
        raise FileError(
            f"{path}: {len(vertices)} points; the 68 iBUG landmarks are needed"
            + ("; give contour_embedding for the jaw" if len(vertices) == 68 - CONTOUR else "")
        )
    return vertices, offsets


def _read_embedding(
    path: str | os.PathLike, mean: np.ndarray, triangles: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """As above, for the n points of a file; of a table by angle, its frontal first row."""
    what = "a landmark embedding of FLAME (.npy, .npz or .pkl)"
    path = check_file(path, (".npy", ".npz", ".pkl"), what)
    with reading(path, what):
        full, part = (
            ("full_lmk_faces_idx", "full_lmk_bary_coords"),
            ("lmk_face_idx", "lmk_b_coords"),
        )
        file = _load(path, full + part)
        keys = full if full[0] in file else part
        check_keys(path, file, keys, what)
        faces, weights = (_plain(path, file, key) for key in keys)
        if faces.ndim == 2:
            faces, weights = faces[0], weights[0]
        if faces.ndim != 1 or weights.shape != (*faces.shape, 3):
            raise ValueError(f"{keys[1]} {weights.shape} does not fit {faces.shape} triangles")
        faces = whole_indices(keys[0], faces)
        if faces.size and not 0 <= faces.min() <= faces.max() < len(triangles):
            raise FileError(
                f"{path}: a point lies on none of the model's {len(triangles)} triangles"
            )
        return embedded_vertices(mean, triangles[faces], np.float64(weights))
