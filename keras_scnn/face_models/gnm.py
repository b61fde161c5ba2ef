"""Reader of GNM Head, Google's face model (Apache-2.0; github.com/google/GNM, 2026): gnm_head.npz.

The layout is that of version 3.0 as its public code reads it (gnm/shape/gnm_data_loader.py,
gnm_xnp.py): meters, with the subject's left at x > 0, y up and z towards the viewer. Neck and eye
joints, skinning and the pose-dependent corrections are left out, since face models here are linear.
The 68 landmarks are in a separate file, data/landmarks/head_sparse_68.txt.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from keras_scnn.face_models.checks import (
    build_model,
    check_file,
    check_keys,
    check_landmarks,
    embedded_vertices,
    expression_components,
)
from keras_scnn.geometry.mesh import whole_indices
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.storage.arrays import read_arrays
from keras_scnn.storage.guard import FileError, reading
from keras_scnn.storage.text import utf8_text

METER = 1000.0  # in millimeters
WHAT = "the GNM head model (.npz)"
KEYS = ("template_vertex_positions", "vertex_identity_basis", "expression_basis", "triangles")
OPTIONAL = ("expression_names", "mirror_indices", "vertex_groups", "vertex_group_names")
LICENSE = "GNM, Google LLC: Apache-2.0"
LANDMARKS = Path("landmarks", "head_sparse_68.txt")  # beside versions/v3_0/gnm_head.npz
# MorphableModel's regions by the names of vertex_groups, which the public code relies on.
GROUPS = {"tongue": 1, "upper_teeth_and_gums": 2, "lower_teeth_and_gums": 2, "eyes": 3}
RIGHT_JAW, LEFT_JAW = slice(0, 8), slice(9, 17)  # of the iBUG landmarks; 8 is the chin


def read_gnm(
    path: str | os.PathLike,
    landmark_file: str | os.PathLike | None = None,
    landmark_indices: np.ndarray | None = None,
) -> MorphableModel:
    """Read GNM Head.

    Args:
        path: gnm_head.npz: template_vertex_positions (N, 3), vertex_identity_basis (K, N, 3) and
            expression_basis (L, N, 3) in meters, triangles (T, 3); in version 3.0, K is 253 and L
            is 383.
        landmark_file: head_sparse_68.txt; None: at its place in GNM's repository.
        landmark_indices: (68,) 0-based vertices, instead of the file's.

    Returns:
        a MorphableModel in mm. Identity and expression are in standard deviations, unbounded.
        Embedded points become the nearest corner of their triangle, with ``landmark_offsets`` to
        the points. Part of the published jaw is in the wrong order, so its points are sorted by
        height, from the ears to the chin.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file is damaged or of another layout, or there are no landmarks.
    """
    path = check_file(path, (".npz",), WHAT)
    with reading(path, WHAT):
        file = read_arrays(path, KEYS + OPTIONAL)
        check_keys(path, file, KEYS, WHAT)
        _check_shapes(path, file)
        mean = file["template_vertex_positions"] * METER
        offsets = None
        if landmark_indices is None:
            landmark_indices, offsets = _landmarks(path, landmark_file, mean)
        identity, expression = (np.moveaxis(file[key], 0, -1) * METER for key in KEYS[1:3])
        expressions = expression_components(expression)
        if "expression_names" in file:
            expressions["expression_names"] = file["expression_names"].astype(str).tolist()
        return build_model(
            path,
            name="gnm_head",
            mean=mean,
            identity_basis=identity,
            **expressions,
            triangles=file["triangles"],
            landmark_indices=check_landmarks(path, landmark_indices, "give landmark_indices"),
            landmark_offsets=offsets,
            regions=_regions(file, mean),
            mirror=file.get("mirror_indices"),
            license=LICENSE,
        )


def _check_shapes(path: Path, file: dict[str, np.ndarray]) -> None:
    template, *bases = (file[key] for key in KEYS[:3])
    if template.ndim != 2 or any(b.ndim != 3 or b.shape[1:] != template.shape for b in bases):
        shapes = ", ".join(f"{key} {file[key].shape}" for key in KEYS[:3])
        raise FileError(f"{path}: {shapes}; they must be (N, 3), (K, N, 3) and (L, N, 3)")


def _landmarks(
    path: Path, landmark_file: str | os.PathLike | None, mean: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (68,) nearest to the points of a landmark file, and offsets (68, 3) mm to them."""
    if landmark_file is None:
        landmark_file = path.absolute().parent / ".." / ".." / LANDMARKS
        if not landmark_file.is_file():
            check_landmarks(path, None, f"give landmark_file, GNM's {LANDMARKS.name}")
    what = f"the landmarks of GNM ({LANDMARKS.name})"
    landmark_file = check_file(landmark_file, (".txt",), what)
    with reading(landmark_file, what):
        rows = np.array([line.split() for line in utf8_text(landmark_file).splitlines()], float)
        if rows.shape != (68, 6):
            raise ValueError(f"numbers of shape {rows.shape}; they must be 68 rows of 6")
        corners, weights = whole_indices("vertices", rows[:, ::2]), rows[:, 1::2]
        if not 0 <= corners.min() <= corners.max() < len(mean):
            raise ValueError(f"a vertex index lies outside of the model's {len(mean)} vertices")
        weights = weights / weights.sum(axis=1, keepdims=True)  # the file has three digits
        order = _ibug_order(np.einsum("lc,lcd->ld", weights, mean[corners]))
        return embedded_vertices(mean, corners[order], weights[order])


def _ibug_order(points: np.ndarray) -> np.ndarray:
    """(68,) the landmarks' rows: the jaw from the subject's right ear down, and up to the left.

    In the published file, rows 2 to 6 are the mirror images of 10 to 14 rather than of 14 to 10.
    """
    order = np.arange(68)
    for half, direction in ((RIGHT_JAW, -1), (LEFT_JAW, 1)):
        order[half] = order[half][np.argsort(direction * points[half, 1], kind="stable")]
    return order


def _regions(file: dict[str, np.ndarray], mean: np.ndarray) -> np.ndarray | None:
    if "vertex_groups" not in file or "vertex_group_names" not in file:
        return None
    regions = np.zeros(len(mean), np.uint8)
    names = file["vertex_group_names"].astype(str).tolist()  # bytes would be other names
    for name, weights in zip(names, file["vertex_groups"], strict=True):
        if name in GROUPS:
            regions[weights > 0.5] = GROUPS[name]
    regions[(regions == GROUPS["eyes"]) & (mean[:, 0] < 0)] = 4  # the subject's right eye
    return regions
