"""Reader of the Basel Face Model 2009 (.mat), with or without 3DDFA's expressions.

The files are in micrometers, with x to the image's right, y up and z towards the viewer, as in the
model frame. They may not be redistributed: users get them from the University of Basel.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from keras_scnn.face_models.checks import (
    BFM_LICENSE,
    build_model,
    check_file,
    check_keys,
    check_landmarks,
    expression_components,
    mean_vertices,
    scaled_basis,
)
from keras_scnn.geometry.mesh import whole_indices
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.storage.guard import FileError, reading
from keras_scnn.storage.matlab import read_mat_arrays

MICROMETER = 1e-3  # in millimeters
BFM2009_VERTICES = 53490
# Bas et al., github.com/anilbas/BFMLandmarks, Landmarks68_BFM.anl, minus 1: MATLAB counts from 1.
BFM2009_LANDMARKS = np.array([
    22143, 22813, 22840, 23250, 44124, 45884, 47085, 47668, 48188, 48708, 49299, 50498, 52457,
    32022, 32386, 32359, 32979, 38886, 39636, 40030, 40238, 40433, 41172, 41368, 41578, 42011,
    42646, 8291, 8305, 8314, 8320, 6783, 7687, 8331, 8977, 9879, 1832, 3760, 5050, 6087, 4546,
    3516, 10731, 11758, 12919, 14859, 13191, 12157, 5523, 6155, 7442, 8345, 9506, 10799, 11199,
    10179, 9277, 8374, 7471, 6566, 5909, 7322, 8354, 9386, 10941, 9141, 8367, 7194,
]) - 1  # fmt: skip


def read_bfm2009(
    path: str | os.PathLike,
    expression: str | os.PathLike | None = None,
    model_info: str | os.PathLike | None = None,
    landmark_indices: np.ndarray | None = None,
) -> MorphableModel:
    """Read BFM 2009 (Paysan et al., "A 3D Face Model for Pose and Illumination Invariant Face
    Recognition", 2009), optionally with 3DDFA's expressions.

    Args:
        path: 01_MorphableModel.mat: shapeMU (3N, 1) and shapePC (3N, K) in micrometers, shapeEV
            (K, 1) standard deviations, tl (T, 3) 1-based triangles.
        expression: Model_Expression.mat of 3DDFA (Zhu et al., "Face Alignment in Full Pose Range",
            2019): mu_exp, w_exp, sigma_exp, on 3DDFA's trimmed mesh; needs ``model_info``.
        model_info: model_info.mat of 3DDFA: trimIndex, tri, keypoints. The result is then the
            trimmed mesh, with 3DDFA's 68 landmarks.
        landmark_indices: (68,) 0-based vertices of the returned mesh. By default those of 3DDFA,
            or for the whole mesh those of Bas et al.

    Returns:
        a MorphableModel in mm; expression weights are in standard deviations, unbounded.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file is damaged, of another format, or does not fit the others.
    """
    path = Path(path)
    what = "01_MorphableModel.mat of the Basel Face Model 2009"
    if expression is not None and model_info is None:
        raise ValueError(f"{expression}: 3DDFA's expressions need its model_info.mat as well")
    file = _load_mat(path, ("shapeMU", "shapePC", "shapeEV", "tl"), what)
    with reading(path, what):
        triangles, landmarks = _from_zero("tl", file["tl"]), None
        trim: slice | np.ndarray = slice(None)
        basis = scaled_basis(file["shapePC"], file["shapeEV"], MICROMETER)
        mean = mean_vertices(file["shapeMU"]) * MICROMETER
        if model_info is not None:
            trim, triangles, landmarks = _read_model_info(Path(model_info), len(mean))
        elif len(mean) == BFM2009_VERTICES:
            landmarks = BFM2009_LANDMARKS
        mean, basis = mean[trim], basis[trim]
        mean_expression, expressions = _read_expression(expression, len(mean))
        return build_model(
            path,
            name="bfm2009",
            mean=mean + mean_expression,
            identity_basis=basis,
            triangles=triangles,
            landmark_indices=check_landmarks(
                path,
                landmarks if landmark_indices is None else landmark_indices,
                "give landmark_indices, or model_info of 3DDFA",
            ),
            **expression_components(expressions),
            license=BFM_LICENSE,
        )


def _load_mat(path: Path, keys: tuple[str, ...], what: str) -> dict[str, np.ndarray]:
    check_file(path, (".mat",), what)
    file = read_mat_arrays(path, keys, f"a readable MATLAB file; expected {what}")
    check_keys(path, file, keys, what)
    return file


def _from_zero(name: str, indices: np.ndarray) -> np.ndarray:
    """0-based int64 indices from MATLAB's 1-based ones."""
    return whole_indices(name, indices).astype(np.int64) - 1


def _read_model_info(path: Path, n_vertices: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """3DDFA's kept vertices (n,), and triangles (T, 3) and landmarks (68,) among them, 0-based."""
    what = "model_info.mat of 3DDFA"
    info = _load_mat(path, ("trimIndex", "tri", "keypoints"), what)
    with reading(path, what):
        trim, keypoints = (
            _from_zero(key, info[key]).reshape(-1) for key in ("trimIndex", "keypoints")
        )
        triangles = _from_zero("tri", info["tri"]).T
        if trim.size and not 0 <= trim.min() <= trim.max() < n_vertices:
            raise FileError(f"{path}: trimIndex lies outside of the model's {n_vertices} vertices")
        for name, indices in (("keypoints", keypoints), ("tri", triangles)):
            if indices.size and not 0 <= indices.min() <= indices.max() < trim.size:
                raise FileError(f"{path}: {name} lies outside of the {trim.size} kept vertices")
        if triangles.shape[1] != 3 or keypoints.shape != (68,):
            raise FileError(f"{path}: tri must be (3, T) and keypoints 68 numbers, as in 3DDFA")
        return trim, triangles, keypoints


def _read_expression(path: str | os.PathLike | None, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean offset (n, 3) and basis (n, 3, L) of 3DDFA's expressions, mm; L is 0 without a file."""
    if path is None:
        return np.zeros((n, 3)), np.zeros((n, 3, 0))
    path = Path(path)
    what = "Model_Expression.mat of 3DDFA"
    keys = ("mu_exp", "w_exp", "sigma_exp")
    file = _load_mat(path, keys, what)
    if file["mu_exp"].size != 3 * n:
        raise FileError(
            f"{path}: mu_exp has {file['mu_exp'].size} numbers, the trimmed mesh needs {3 * n}"
        )
    with reading(path, what):
        basis = scaled_basis(file["w_exp"], file["sigma_exp"], MICROMETER)
        if len(basis) != n or not all(np.isfinite(file[key]).all() for key in keys):
            raise ValueError(f"w_exp is {file['w_exp'].shape}, or a number is not finite")
        return mean_vertices(file["mu_exp"]) * MICROMETER, basis
