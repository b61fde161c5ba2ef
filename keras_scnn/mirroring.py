"""The mirror image of a face, in the coefficients of a face model."""

from __future__ import annotations

import numpy as np
from scipy.linalg import block_diag

from keras_scnn.morphable_model import MorphableModel


def mirror_matrices(model: MorphableModel) -> tuple[np.ndarray, np.ndarray]:
    """What mirroring does to identity and expression coefficients.

    Mirrored vertices are ``vertices[mirror] * [-1, 1, 1]``. In a symmetric model the mirrored bases
    span the same faces, so the coefficients follow by least squares: for the open face model each
    identity component keeps its sign or changes it, and left and right expressions swap.

    Args:
        model: with mirror partners.

    Returns:
        (K, K) and (L, L) float32 matrices, to be multiplied with coefficients from the left.

    Raises:
        ValueError: the model has no mirror partners.
    """
    if model.mirror is None:
        raise ValueError(f"face model '{model.name}' has no mirror partners")
    return tuple(_matrix(b, model.mirror) for b in (model.identity_basis, model.expression_basis))


def mirror_map(model: MorphableModel, size: int) -> tuple[np.ndarray, np.ndarray]:
    """What mirroring a crop does to the parameters of the face in it: ``matrix @ vector + offset``.

    Args:
        model: with mirror partners.
        size: width of the crop, px.

    Returns:
        (P, P) and (P,) float64, for vectors of pose, identity and expression, P = 12 + K + L.

    Raises:
        ValueError: the model has no mirror partners.
    """
    # x is mirrored in the crop and in the face model's own frame.
    pose = np.diag(np.outer([-1, 1, 1], [-1, 1, 1, 1]).ravel())
    matrix = block_diag(pose, *mirror_matrices(model))
    offset = np.zeros(len(matrix))
    offset[3] = size - 1
    return matrix, offset


def _matrix(basis: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    flat = np.float64(basis).reshape(-1, basis.shape[-1])
    mirrored = (basis[mirror] * np.array([-1, 1, 1])[:, None]).reshape(flat.shape)
    return np.linalg.lstsq(flat, mirrored, rcond=None)[0].astype(np.float32)
