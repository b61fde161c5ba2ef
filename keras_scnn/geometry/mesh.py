"""Triangle meshes: vertex normals, and the center of a round part."""

from __future__ import annotations

import numba
import numpy as np


def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Unit normals at the vertices: area-weighted means of the triangles' normals.

    Args:
        vertices: (..., N, 3) in a right-handed frame, such as the model frame.
        triangles: (T, 3) integer vertex indices, counter-clockwise seen from outside.

    Returns:
        (..., N, 3) of the vertices' dtype (float32 or float64), unit length, outward; zero where
        no triangle of positive area touches a vertex.

    Raises:
        ValueError: the shapes do not match, or an index is not a whole number or out of range.
    """
    vertices = np.asarray(vertices)
    if vertices.dtype not in (np.float32, np.float64):
        vertices = vertices.astype(np.float64)
    triangles = whole_indices("triangles", triangles)
    if vertices.ndim < 2 or vertices.shape[-1] != 3 or triangles.shape[1:] != (3,):
        raise ValueError(
            f"vertices and triangles have the shapes {vertices.shape} and {triangles.shape}; "
            "they must be (..., N, 3) and (T, 3)"
        )
    if triangles.size and not 0 <= triangles.min() <= triangles.max() < vertices.shape[-2]:
        raise ValueError(f"triangles must index the {vertices.shape[-2]} vertices")
    triangles = np.ascontiguousarray(triangles, np.int32)  # of either byte order
    flat = np.ascontiguousarray(vertices).reshape(-1, *vertices.shape[-2:])
    normals = np.zeros(flat.shape, flat.dtype)
    _accumulate_normals(flat, triangles, normals)
    return normals.reshape(vertices.shape)


def whole_indices(name: str, values: np.ndarray) -> np.ndarray:
    """Indices of any integer type, unchanged, or whole numbers in floating point, as int64.

    Raises:
        ValueError: they are not whole numbers; a cast would drop fractions.
    """
    array = np.asarray(values)
    if array.dtype.kind == "f" and np.isfinite(array).all() and (np.rint(array) == array).all():
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} are of {array.dtype}; they must be whole numbers")
    return array


def smooth_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """``vertex_normals`` of one mesh for files: coincident vertices share a normal.

    At a texture seam a mesh has two coincident vertices. If each had the mean of its own triangles
    only, the seam would be visible as an edge.

    Args:
        vertices: (N, 3).
        triangles: (T, 3).

    Returns:
        (N, 3) float64 of unit length; (0, 0, 1) where no triangle touches the vertex.
    """
    places, place = np.unique(np.float64(vertices), axis=0, return_inverse=True)
    place = place.reshape(-1)  # NumPy 2.0 returns another shape
    normals = vertex_normals(places, place[whole_indices("triangles", triangles)])[place]
    normals[~normals.any(axis=1)] = [0, 0, 1]
    return normals


def sphere_center(points: np.ndarray) -> np.ndarray:
    """(3,) the center of the sphere nearest to (N, 3) points, by linear least squares.

    >>> sphere_center(np.array([[4.0, 1, 1], [2, 1, 1], [3, 2, 1], [3, 1, 2]])).round(9).tolist()
    [3.0, 1.0, 1.0]
    """
    points = np.float64(points)
    middle = points.mean(axis=0)
    offsets = points - middle
    rows = np.column_stack([2 * offsets, np.ones(len(offsets))])
    return middle + np.linalg.lstsq(rows, (offsets**2).sum(axis=1), rcond=None)[0][:3]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _accumulate_normals(vertices, triangles, normals):
    for batch in range(vertices.shape[0]):
        v, n = vertices[batch], normals[batch]
        for t in range(triangles.shape[0]):
            a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            ux, uy, uz = v[b, 0] - v[a, 0], v[b, 1] - v[a, 1], v[b, 2] - v[a, 2]
            wx, wy, wz = v[c, 0] - v[a, 0], v[c, 1] - v[a, 1], v[c, 2] - v[a, 2]
            x, y, z = uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx
            for k in (a, b, c):
                n[k, 0] += x
                n[k, 1] += y
                n[k, 2] += z
        for i in range(n.shape[0]):
            length = np.sqrt(n[i, 0] ** 2 + n[i, 1] ** 2 + n[i, 2] ** 2)
            if length > 0:
                n[i, 0] /= length
                n[i, 1] /= length
                n[i, 2] /= length
