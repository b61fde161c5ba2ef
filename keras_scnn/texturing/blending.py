"""Seamless blending of pictures."""

from __future__ import annotations

import cv2
import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

GRID = 128  # texels per side of the grid on which differences are spread
REACH = 0.08  # of the picture's side: distance at which a difference has faded to a third
TRUST = 20.0  # how closely the spread difference follows the known one
GAMMA = 2.2  # colors are blended in about perceptually uniform steps


def gamma_encode(light: np.ndarray) -> np.ndarray:
    """Gamma-encoded light, 0 or more without upper limit; about as uniform to the eye as sRGB."""
    return np.maximum(light, 0) ** np.float32(1 / GAMMA)


def gamma_decode(code: np.ndarray) -> np.ndarray:
    """The light of ``gamma_encode``."""
    return np.maximum(code, 0) ** np.float32(GAMMA)


def blend_seamlessly(
    bottom: np.ndarray, top: np.ndarray, share: np.ndarray, mask: np.ndarray
) -> np.ndarray:
    """Blend ``top`` over ``bottom``, whose colors are adapted to those of ``top`` at the border.

    The difference between both is spread from where ``top`` is known by the screened Poisson
    equation (after Perez et al., "Poisson Image Editing", 2003; screened, so that it fades with the
    distance and one wrong border texel does not color a whole cheek).

    Args:
        bottom, top: (S, S, 3) float32.
        share: (S, S) float32, 0 to 1: opacity of ``top``.
        mask: (S, S) bool: the area within which differences spread.
    """
    size = bottom.shape[0]
    grid = (min(GRID, size),) * 2
    known, inside, difference = (
        cv2.resize(picture, grid, interpolation=cv2.INTER_AREA)
        for picture in (share, np.float32(mask), (top - bottom) * share[..., None])
    )
    wanted = difference / np.maximum(known, 1e-3)[..., None]
    spread = _spread(wanted, known, np.asarray(inside > 0.3))
    spread = cv2.resize(spread, (size, size), interpolation=cv2.INTER_LINEAR)
    share = share[..., None]
    return share * top + (1 - share) * (bottom + spread)


def _spread(wanted: np.ndarray, known: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """(G, G, 3): near ``wanted`` where it is known, smooth elsewhere, and 0 far away."""
    number = np.full(inside.shape, -1)
    number[inside] = np.arange(inside.sum())
    pairs = [(number[:, 1:], number[:, :-1]), (number[1:], number[:-1])]
    first, second = (np.concatenate([pair[i].ravel() for pair in pairs]) for i in (0, 1))
    both = (first >= 0) & (second >= 0)
    first, second = first[both], second[both]
    count = int(inside.sum())
    ones = np.ones(len(first))
    edges = sparse.coo_array((ones, (first, second)), (count, count))
    edges = (edges + edges.T).tocsc()
    degree = np.asarray(edges.sum(axis=1)).ravel()
    weight = TRUST * known[inside].astype(np.float64) ** 2
    screen = 1 / (REACH * inside.shape[0]) ** 2
    system = sparse.diags_array(degree + weight + screen) - edges
    solution = splu(system.tocsc()).solve(weight[:, None] * wanted[inside])
    result = np.zeros_like(wanted)
    result[inside] = solution
    return result
