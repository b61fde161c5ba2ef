"""Warp a photo like an elastic sheet, by the motion of a surface that it shows."""

from __future__ import annotations

import cv2
import numpy as np
import scipy.sparse
import scipy.sparse.linalg

from keras_scnn.geometry.rasterizer import interpolate, rasterize

CELLS = 80  # along the photo's longer side
MIN_CELL = 2.0  # px


def bend_image(
    image: np.ndarray,
    posed: np.ndarray,
    triangles: np.ndarray,
    motion: np.ndarray,
    pivot: np.ndarray,
) -> np.ndarray:
    """Warp a photo to show a rigid motion of a surface in it.

    The sheet is a grid of cells. Where it shows the surface, it moves with it; elsewhere its
    displacement is harmonic, that is, as smooth as possible, and 0 at the photo's edges.

    Args:
        image: (H, W, 3) uint8.
        posed: (N, 3) the surface's vertices, px and depth.
        triangles: (T, 3).
        motion: (3, 3) rotation of px and depth.
        pivot: (3,) its fixed point, px and depth.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: no point of the grid shows the surface.
    """
    height, width = image.shape[:2]
    columns, rows = _lines(width, height)
    source = np.stack(np.meshgrid(columns, rows), axis=-1)
    depth = rasterize(posed, triangles, height, width).depth
    row = np.clip(np.round(rows), 0, height - 1).astype(int)
    column = np.clip(np.round(columns), 0, width - 1).astype(int)
    depth = depth[np.ix_(row, column)]
    shown = np.isfinite(depth)
    if not shown.any():
        raise ValueError(
            f"the face is no more than about {columns[1] - columns[0]:.0f} px wide in a photo of "
            f"{width} x {height} px; crop the photo around the face"
        )
    # Points behind the pivot, such as ears under hair, would be stretched to streaks; therefore the
    # surface is assumed to be flat there.
    points = np.dstack([source, np.where(shown, np.maximum(depth, pivot[2]), 0)])
    moved = (points - pivot) @ motion.T + pivot
    known = shown.copy()
    known[[0, -1]] = known[:, [0, -1]] = True
    edge = known & ~shown
    moved[edge] = np.dstack([source, np.full(depth.shape, moved[shown][:, 2].min())])[edge]
    offset = moved - np.dstack([source, np.zeros_like(depth)])
    sheet = _harmonic(offset, known) + np.dstack([source, np.zeros_like(depth)])
    # Where the sheet folds over itself, its front part is visible.
    cells = _cells(*depth.shape)
    buffers = rasterize(sheet.reshape(-1, 3), cells, height, width, cull_back_faces=False)
    place = interpolate(buffers, cells, source.reshape(-1, 2))
    border = cv2.BORDER_REPLICATE
    return cv2.remap(image, place[..., 0], place[..., 1], cv2.INTER_CUBIC, borderMode=border)


def _lines(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows of the grid, px, from edge to edge of the photo, ``CELLS`` along it."""
    cell = max(MIN_CELL, max(width, height) / CELLS)
    columns, rows = (
        np.linspace(-0.5, side - 0.5, max(2, round(side / cell)) + 1) for side in (width, height)
    )
    return columns, rows


def _cells(rows: int, columns: int) -> np.ndarray:
    """Two triangles for each cell of a grid of ``rows`` times ``columns`` points."""
    corner = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:]
    both = np.concatenate([np.stack([a, c, b], axis=-1), np.stack([b, c, d], axis=-1)], axis=0)
    return both.reshape(-1, 3)


def _harmonic(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fill in (R, C, D) values that are not ``known`` (R, C): each is the mean of its neighbors.

    The points at the grid's edges must be known.
    """
    number = np.full(known.shape, -1)
    number[~known] = np.arange((~known).sum())
    row, column = np.nonzero(~known)
    if not len(row):
        return values
    here = np.arange(len(row))
    right = np.zeros((len(row), values.shape[-1]))
    entries = [(here, here, np.full(len(row), 4.0))]
    for down, across in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        there = row + down, column + across
        is_known = known[there]
        right[is_known] += values[there][is_known]
        entries.append(
            (here[~is_known], number[there][~is_known], np.full((~is_known).sum(), -1.0))
        )
    i, j, v = (np.concatenate(part) for part in zip(*entries, strict=True))
    matrix = scipy.sparse.csc_array((v, (i, j)))
    filled = values.copy()
    filled[~known] = scipy.sparse.linalg.splu(matrix).solve(right)
    return filled
