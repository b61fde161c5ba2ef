"""Further annotations of AFLW2000-3D: re-annotated landmarks, and the shapes in the .mat files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from keras_scnn.data.sources.bfm_landmarks import BfmLandmarks
from keras_scnn.data.sources.mat_files import read_bfm_annotation
from keras_scnn.data.sources.pts import read_pts
from keras_scnn.photos.files import beside
from keras_scnn.storage.arrays import read_npy
from keras_scnn.storage.matlab import read_mat_arrays
from keras_scnn.storage.text import counted

MICROMETERS_PER_MM = 1000.0


def read_reannotation(
    path: str | os.PathLike, names: list[str], first_pixel: float = 1.0
) -> np.ndarray:
    """Read the landmarks of another annotation of the same photos.

    Three layouts are supported: an .npy file of all faces in the order of the protocol, (M, 68, 2
    or 3) or (M, 2 or 3, 68), such as AFLW2000-3D-Reannotated.pts68.npy of 3DDFA's benchmark; a
    folder with NAME.pts for each face, as in 300-W; or a folder with NAME.mat for each face, with
    one array of the shape (68, 2 or 3) or its transpose, as in LS3D-W (Bulat and Tzimiropoulos,
    2017).

    Args:
        path: the file or folder.
        names: of the faces, without suffix, in the order of the protocol.
        first_pixel: coordinate of the center of the photo's first pixel; 1 in the published files.

    Returns:
        (M, 68, 2) float64, px, pixel centers at integers from 0.

    Raises:
        FileNotFoundError: the path or a face's file is missing.
        ValueError: a file is damaged, or of another layout.
    """
    path = Path(path)
    if path.is_dir():
        points = np.stack([_read_face(path, name) for name in names])
    elif path.is_file():
        points = _read_npy(path, len(names))
    else:
        raise FileNotFoundError(f"{path}: no such annotation, a .npy file or a folder")
    if not np.isfinite(points).all():
        raise ValueError(f"{path}: coordinates must be finite numbers")
    return points - first_pixel


def _read_npy(path: Path, count: int) -> np.ndarray:
    points = read_npy(path)
    shape = points.shape
    if len(shape) != 3 or shape[0] != count or 68 not in shape[1:]:
        raise ValueError(
            f"{path}: its shape is {shape}; expected ({count}, 68, 2) in the order of the protocol"
        )
    return _points_last(path, points)


def _read_face(folder: Path, name: str) -> np.ndarray:
    pts, mat = (beside(folder / f"{name}{suffix}", suffix) for suffix in (".pts", ".mat"))
    if pts.is_file():
        points = read_pts(pts) + 1  # the coordinates in the file
        if len(points) != 68:
            raise ValueError(f"{pts}: {counted(len(points), 'point')}; expected 68")
        return points
    if mat.is_file():
        arrays = read_mat_arrays(mat).values()
        candidates = [a for a in arrays if sorted(a.shape) in ([2, 68], [3, 68])]
        if len(candidates) != 1:
            raise ValueError(
                f"{mat}: {len(candidates)} arrays of the shape (68, 2 or 3); expected one"
            )
        return _points_last(mat, candidates[0])
    raise FileNotFoundError(f"{pts}: no such file, and no {mat.name} either")


def _points_last(path: Path, points: np.ndarray) -> np.ndarray:
    """(..., 68, 2) from (..., 68, 2 or 3) or its transpose."""
    if points.shape[-1] == 68:
        points = np.swapaxes(points, -1, -2)
    if points.shape[-1] not in (2, 3) or points.dtype.kind not in "fiu":
        raise ValueError(f"{path}: {points.shape} {points.dtype}; expected 68 points of 2 numbers")
    return points[..., :2].astype(np.float64)


def read_neutral_landmarks(files: list[Path], basis: BfmLandmarks) -> tuple[np.ndarray, np.ndarray]:
    """The annotated people's 68 landmarks without expression, from Shape_Para in .mat files.

    Args:
        files: .mat files of AFLW2000-3D or 300W-LP.
        basis: the face model at its landmarks.

    Returns:
        (M, 68, 3) float64 of the faces and (68, 3) of the mean face, mm, x to the image's right,
        y up, z towards the viewer.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or an array is missing or has the wrong shape.
    """
    shapes = np.stack([read_bfm_annotation(path).shape for path in files])
    faces = basis.points(shapes, np.zeros(basis.expression_basis.shape[-1]))
    return faces / MICROMETERS_PER_MM, basis.mean / MICROMETERS_PER_MM
