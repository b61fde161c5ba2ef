"""Shared by the readers of foreign face models: checks, conversions, and triangle orientation."""

from __future__ import annotations

import os
from collections.abc import Container
from pathlib import Path

import numpy as np

from keras_scnn.geometry.mesh import whole_indices
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.storage.guard import FileError, existing_file

BFM_LICENSE = (
    "Basel Face Model, University of Basel: non-commercial research only, not to be passed on"
)
LFS_POINTER = b"version https://git-lfs"
# Limits of the diagonal of a mean face's box: a mask has 280 mm, a head with shoulders 800.
LEAST_MM, MOST_MM = 80.0, 2000.0
# Landmarks show the frame if they fit the embedded model's with this correlation: those of 200
# faces of AFLW2000-3D have 0.977 to 0.995, random points of a face less than 0.4.
MIN_FIT = 0.9
MIN_AXIS_COSINE = 0.5  # of an axis of the file and the same axis of the model frame


def check_file(path: str | os.PathLike, suffixes: tuple[str, ...], what: str) -> Path:
    """The path of a file that exists, has one of the suffixes, and is not a Git LFS pointer.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the suffix is another one, or the file is empty or a Git LFS pointer.
    """
    path = existing_file(path, what)
    if path.suffix.lower() not in suffixes:
        raise FileError(f"{path}: expected {what}, whose name ends in {' or '.join(suffixes)}")
    with path.open("rb") as file:
        head = file.read(len(LFS_POINTER))
    if head == LFS_POINTER:
        raise FileError(f"{path}: a Git LFS pointer, not the file; fetch it with 'git lfs pull'")
    if not head:
        raise FileError(f"{path}: the file is empty; expected {what}")
    return path


def check_keys(path: Path, there: Container[str], keys: tuple[str, ...], what: str) -> None:
    """Raise a ValueError that names the missing keys of a file."""
    if missing := [key for key in keys if key not in there]:
        raise FileError(f"{path}: {', '.join(missing)} missing; {what} has {', '.join(keys)}")


def check_landmarks(path: Path, indices: np.ndarray | None, hint: str) -> np.ndarray:
    """Check (68,) vertex indices of the iBUG landmarks; None raises a ValueError with the hint."""
    if indices is None:
        raise FileError(
            f"{path}: the file does not name the vertices of the 68 iBUG landmarks; {hint} to "
            "load_face_model; model.save(FILE) then stores them for all commands"
        )
    indices = np.asarray(indices)
    if indices.shape != (68,) or not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(
            f"{path}: landmark_indices has the shape {indices.shape} and dtype {indices.dtype}; "
            "it must be 68 whole numbers, 0-based vertex indices in iBUG order"
        )
    return indices


def scaled_basis(components: np.ndarray, deviations: np.ndarray, unit_mm: float) -> np.ndarray:
    """(N, 3, K) mm per standard deviation, from columns (3N, K) of interleaved x, y, z.

    Args:
        components: (3N, K) directions, in the file's unit.
        deviations: K standard deviations, of any shape.
        unit_mm: millimeters in the file's unit.

    Raises:
        ValueError: the shapes do not fit.
    """
    components, deviations = np.asarray(components), np.asarray(deviations).reshape(-1)
    if components.ndim != 2 or len(components) % 3 or components.shape[1] != len(deviations):
        raise ValueError(
            f"a basis of shape {components.shape} does not fit {len(deviations)} standard "
            "deviations; it must be (3N, K)"
        )
    scaled = components * (deviations * unit_mm).astype(np.float32)
    return scaled.reshape(-1, 3, components.shape[1])


def mean_vertices(mean: np.ndarray) -> np.ndarray:
    """(N, 3) vertices from 3N numbers along one axis, interleaved x, y, z; or from (N, 3).

    Raises:
        ValueError: another shape; the order of the numbers in (3, N) would be unknown.
    """
    mean = np.asarray(mean)
    if mean.size not in mean.shape and mean.shape[1:] != (3,):
        raise ValueError(f"a mean face of the shape {mean.shape}; it must be (3N, 1) or (N, 3)")
    return mean.reshape(-1, 3)


def outward(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """The triangles, wound counter-clockwise as seen from outside.

    Published files have either winding (BFM 2009 clockwise, the others counter-clockwise). It is
    known from the sign of the volume between the surface and its center, for whole heads and masks.
    """
    corners = np.float64(vertices)[triangles] - np.float64(vertices).mean(axis=0)
    volume = np.einsum("ti,ti->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2]))
    return triangles if volume >= 0 else triangles[:, ::-1]


def expression_components(basis: np.ndarray) -> dict:
    """MorphableModel's expression fields for principal components (N, 3, L), without bounds."""
    count = basis.shape[-1]
    return dict(
        expression_basis=basis,
        expression_names=[f"expression{i:03d}" for i in range(count)],
        expression_bounds=np.tile(np.array([-np.inf, np.inf], np.float32), (count, 1)),
    )


def embedded_vertices(
    mean: np.ndarray, corners: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Points on triangles as vertices: the corner with the largest barycentric weight.

    Args:
        mean: (N, 3) mm, the mean face.
        corners: (n, 3) vertices of the triangles.
        weights: (n, 3) barycentric.

    Returns:
        vertices (n,), and offsets (n, 3) mm from these to the points.

    Raises:
        ValueError: a weight is not finite, or those of a point do not sum to 1.
    """
    if not np.allclose(weights.sum(axis=1), 1, atol=1e-3):  # NaN is not close
        raise ValueError("barycentric weights that are not finite, or do not sum to 1")
    indices = corners[np.arange(len(corners)), weights.argmax(axis=1)]
    return indices, np.einsum("lc,lcd->ld", weights, mean[corners]) - mean[indices]


def checked_triangles(path: Path, triangles: np.ndarray, n_vertices: int) -> np.ndarray:
    """(T, 3) int64 triangles of a file.

    Raises:
        ValueError: they have another shape, or are not indices of the ``n_vertices`` vertices.
    """
    try:
        triangles = whole_indices("triangles", triangles).astype(np.int64)
    except ValueError as error:
        raise FileError(f"{path}: {error}") from error
    if triangles.ndim != 2 or triangles.shape[1] != 3:
        raise FileError(f"{path}: triangles of shape {triangles.shape}; they must be (T, 3)")
    if triangles.size and not 0 <= triangles.min() <= triangles.max() < n_vertices:
        raise FileError(f"{path}: a triangle's index lies outside of the {n_vertices} vertices")
    return triangles


def build_model(path: Path, triangles: np.ndarray, **fields) -> MorphableModel:
    """Build a MorphableModel from the arrays of a file.

    Args:
        path: the file that was read, for messages.
        triangles: (T, 3) 0-based indices, with either winding.
        fields: the other attributes of MorphableModel.

    Raises:
        ValueError: the arrays do not fit; the mean face does not have the size of a head in
            millimeters, so that the file is not in the published files' unit; or its landmarks are
            those of a turned or mirrored face, so that the file is not in their frame.
    """
    mean = fields["mean"]
    triangles = checked_triangles(path, triangles, len(mean))
    try:
        model = MorphableModel(triangles=outward(mean, triangles), **fields)
    except ValueError as error:
        raise FileError(f"{path}: {error}") from error
    check_head(path, model)
    return model


def check_head(path: Path, model: MorphableModel) -> None:
    """Raise a ValueError unless the mean face has the size and the frame of a head.

    It must be ``LEAST_MM`` to ``MOST_MM`` across, and neither turned nor mirrored
    (``check_frame``).
    """
    across = float(np.linalg.norm(np.ptp(model.mean, axis=0)))
    if not LEAST_MM <= across <= MOST_MM:
        raise FileError(
            f"{path}: read in its format's unit, the mean face is {across:,.1f} mm across; "
            f"it must be {LEAST_MM:,.0f} to {MOST_MM:,.0f} mm: convert its numbers to that unit"
        )
    check_frame(path, model.landmarks())


def check_frame(path: Path, landmarks: np.ndarray) -> None:
    """Refuse a mean face that is turned or mirrored: upside down, facing backward, z up.

    Args:
        path: the file that was read, for the message.
        landmarks: (68, 3) of the mean face, iBUG order, which should be in the model frame.

    Raises:
        ValueError: they fit those of a face after a rotation or reflection that moves an axis by
            60 degrees or more. Points that fit no face are accepted.
    """
    from scipy.linalg import orthogonal_procrustes  # slow to import

    own, face = (
        points - points.mean(axis=0)
        for points in (np.float64(landmarks), np.float64(MorphableModel.open_face().landmarks()))
    )
    turned, fit = orthogonal_procrustes(own, face)  # own @ turned is closest to face
    is_face = fit > MIN_FIT * np.linalg.norm(own) * np.linalg.norm(face)
    if is_face and turned.diagonal().min() <= MIN_AXIS_COSINE:
        largest = np.abs(turned).argmax(axis=0)
        axes = (f"{'-' if turned[i, j] < 0 else ''}{'xyz'[i]}" for j, i in enumerate(largest))
        raise FileError(
            f"{path}: by its landmarks, the mean face is turned or mirrored: its right, up and "
            f"forward are {', '.join(axes)} instead of x, y, z; convert its numbers to the "
            "format's frame, or give the landmarks in iBUG order"
        )
