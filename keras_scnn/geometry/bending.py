"""Bending one face to the landmarks of another, written once for NumPy and JAX.

The deformation is smooth and cheap: the least-squares affine map, plus at each point a local mean
of the landmarks' remaining displacements (kernel regression: Nadaraya, "On Estimating Regression",
1964). ``xp`` is ``numpy`` or ``jax.numpy``.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

from keras_scnn.geometry.similarities import Array, invert

REACH = 1 / 24  # of the crop's side: standard deviation of the Gaussian kernel


def bend(places: Array, before: Array, after: Array, reach: float, xp: ModuleType = np) -> Array:
    """Where points move when landmarks move from ``before`` to ``after``.

    Args:
        places: (B, M, 2) px.
        before, after: (B, n, 2) px, not all on one line.
        reach: standard deviation of the kernel, px; a point far from all landmarks follows the
            nearest one.
        xp: see above.

    Returns:
        (B, M, 2) px. If an affine map moves all landmarks, it moves all points exactly.
    """
    center, middle = before.mean(1, keepdims=True), after.mean(1, keepdims=True)
    a, b = before - center, after - middle
    gram = xp.einsum("bni,bnj->bij", a, a)
    gram = xp.concatenate([gram, xp.zeros_like(gram[..., :1])], axis=-1)
    linear = xp.einsum("bij,bnj,bnk->bik", invert(gram, xp)[..., :2], a, b)
    rest = b - xp.matmul(a, linear)
    square = ((places[:, :, None] - before[:, None]) ** 2).sum(-1)
    nearest = square.min(-1, keepdims=True)
    weight = xp.exp((nearest - square) / (2 * reach**2))
    weight = weight / weight.sum(-1, keepdims=True)
    return xp.matmul(places - center, linear) + middle + xp.matmul(weight, rest)


def interpolate_grid(coarse: Array, size: int, xp: ModuleType = np) -> Array:
    """Positions (B, n * n, 2) of a row-major grid over an image to all pixels, (B, size, size, 2).

    The grid's first and last points are the image's first and last pixels; in between, positions
    are interpolated bilinearly.
    """
    count = round(coarse.shape[1] ** 0.5)
    place = np.linspace(0, count - 1, size)
    weight = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(count))).astype(np.float32)
    grid = coarse.reshape(-1, count, count, 2)
    rows = xp.einsum("yr,brcd->bycd", weight, grid, **_exact(xp))
    return xp.einsum("xc,bycd->byxd", weight, rows, **_exact(xp))


def grid_points(size: int, count: int) -> np.ndarray:
    """(count * count, 2) float32 x, y: a row-major grid over an image of ``size`` px."""
    steps = np.linspace(0, size - 1, count, dtype=np.float32)
    return np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)


def _exact(xp) -> dict:
    """Options of ``einsum`` for full precision, which accelerators do not use by default."""
    return {} if xp is np else {"precision": "highest"}
