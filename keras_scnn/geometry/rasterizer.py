"""A z-buffer rasterizer on the CPU: what is seen at every pixel center.

Vertices are in the image frame of ``geometry.camera``: pixels, with depth larger nearer to the
viewer. A pixel belongs to a triangle if its center lies inside, and a center exactly on a shared
edge belongs to one of the two by the top-left rule, so a closed surface has neither holes nor
doubly covered pixels (Pineda, "A Parallel Algorithm for Polygon Rasterization", 1988).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from keras_scnn.geometry.mesh import whole_indices


@dataclass(frozen=True, eq=False)
class RasterBuffers:
    """What is seen at each pixel of an H by W image.

    Attributes:
        depth: (H, W) float32 px, -inf without a triangle.
        triangle: (H, W) int32 index, -1 without a triangle.
        barycentric: (H, W, 3) float32, weights of the triangle's corners; 0 without a triangle.
    """

    depth: np.ndarray
    triangle: np.ndarray
    barycentric: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool: where a triangle is seen."""
        return self.triangle >= 0


def rasterize(
    vertices: np.ndarray,
    triangles: np.ndarray,
    height: int,
    width: int,
    cull_back_faces: bool = True,
) -> RasterBuffers:
    """Find the nearest triangle at every pixel center.

    Args:
        vertices: (N, 3) x, y, depth in px, image frame.
        triangles: (T, 3) indices, counter-clockwise seen from outside in the y-up model frame.
        height, width: size of the image.
        cull_back_faces: leave out triangles that show their inside.

    Raises:
        ValueError: wrong shapes, a vertex that is not finite, or an index that is not a whole
            number or out of range.
    """
    vertices, triangles = np.asarray(vertices, np.float32), whole_indices("triangles", triangles)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or triangles.shape[1:] != (3,):
        raise ValueError(
            f"vertices {vertices.shape} and triangles {triangles.shape} must be (N, 3) and (T, 3)"
        )
    if not np.isfinite(vertices).all():
        raise ValueError("vertices must be finite")
    if triangles.size and not 0 <= triangles.min() <= triangles.max() < len(vertices):
        raise ValueError(f"triangles must name vertices from 0 to {len(vertices) - 1}")
    triangles = triangles.astype(np.int32, copy=False)
    buffers = RasterBuffers(
        np.full((height, width), -np.inf, np.float32),
        np.full((height, width), -1, np.int32),
        np.zeros((height, width, 3), np.float32),
    )
    fill(vertices, triangles, cull_back_faces, buffers.depth, buffers.triangle, buffers.barycentric)
    return buffers


@njit(cache=True, nogil=True, error_model="numpy")
def fill(vertices, triangles, cull, depth, nearest, barycentric):
    """The loop behind ``rasterize``, for other compiled loops to call."""
    height, width = depth.shape
    for t in range(triangles.shape[0]):
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        x0, y0 = vertices[i, 0], vertices[i, 1]
        x1, y1 = vertices[j, 0], vertices[j, 1]
        x2, y2 = vertices[k, 0], vertices[k, 1]
        area = (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0)
        if area == 0 or (cull and area > 0):  # y points down: front faces turn the other way
            continue
        left = max(int(np.ceil(min(x0, x1, x2))), 0)
        right = min(int(np.floor(max(x0, x1, x2))), width - 1)
        top = max(int(np.ceil(min(y0, y1, y2))), 0)
        bottom = min(int(np.floor(max(y0, y1, y2))), height - 1)
        if left > right or top > bottom:  # no pixel center inside
            continue
        # The signs make all three edge functions positive inside, front or back.
        sign = 1.0 if area > 0 else -1.0
        ax, ay, adx, ady, asign = _edge(x1, y1, x2, y2, sign)
        bx, by, bdx, bdy, bsign = _edge(x2, y2, x0, y0, sign)
        cx, cy, cdx, cdy, csign = _edge(x0, y0, x1, y1, sign)
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                a = asign * (adx * (y - ay) - ady * (x - ax))
                b = bsign * (bdx * (y - by) - bdy * (x - bx))
                c = csign * (cdx * (y - cy) - cdy * (x - cx))
                total = a + b + c
                if a < 0 or b < 0 or c < 0 or total == 0:
                    continue
                # A center on an edge belongs to the neighbor if ``_edge`` reversed the edge.
                if (a == 0 and asign < 0) or (b == 0 and bsign < 0) or (c == 0 and csign < 0):
                    continue
                a, b, c = a / total, b / total, c / total
                z = np.float32(a * vertices[i, 2] + b * vertices[j, 2] + c * vertices[k, 2])
                if z > depth[y, x]:
                    depth[y, x], nearest[y, x] = z, t
                    barycentric[y, x, 0] = a
                    barycentric[y, x, 1] = b
                    barycentric[y, x, 2] = c


@njit(inline="always")
def _edge(xa, ya, xb, yb, sign):
    """Start, direction and sign of an edge function: twice the signed area of (a, b, pixel).

    ``sign * (dx * (y - start_y) - dy * (x - start_x))`` is positive inside. Both triangles of an
    edge compute it from the same end, so they agree to the last bit on which side a pixel is.
    """
    if xa > xb or (xa == xb and ya > yb):
        xa, ya, xb, yb, sign = xb, yb, xa, ya, -sign
    return xa, ya, np.float64(xb - xa), np.float64(yb - ya), sign


def interpolate(
    buffers: RasterBuffers, triangles: np.ndarray, attributes: np.ndarray
) -> np.ndarray:
    """Vertex attributes (N, C) at every pixel: (H, W, C) float32, 0 where nothing is seen.

    Args:
        buffers: from ``rasterize``. triangles: (T, 3), as passed to it.
        attributes: (N, C), a row for each vertex.

    Raises:
        ValueError: the buffers refer to triangles, or the triangles to vertices, that do not exist;
            an index is not a whole number; or the attributes are not (N, C).
    """
    triangles = whole_indices("triangles", triangles)
    attributes = np.asarray(attributes, np.float32)
    if attributes.ndim != 2:
        raise ValueError(f"attributes have the shape {attributes.shape}; they must be (N, C)")
    for name, index, rows in (
        ("buffers", buffers.triangle, triangles),
        ("triangles", triangles, attributes),
    ):
        if index.max(initial=-1) >= len(rows):
            raise ValueError(f"{name}: the largest index is {index.max()}, of {len(rows)} rows")
    if triangles.min(initial=0) < 0:
        raise ValueError(f"triangles: the smallest index is {triangles.min()}, below 0")
    result = np.zeros((*buffers.triangle.shape, attributes.shape[1]), np.float32)
    corners = triangles.astype(np.int32, copy=False)
    _weigh(buffers.triangle, buffers.barycentric, corners, attributes, result)
    return result


@njit(cache=True, nogil=True)
def _weigh(nearest, barycentric, triangles, attributes, result):
    height, width, channels = result.shape
    for y in range(height):
        for x in range(width):
            t = nearest[y, x]
            if t < 0:
                continue
            for corner in range(3):
                vertex, weight = triangles[t, corner], barycentric[y, x, corner]
                for c in range(channels):
                    result[y, x, c] += weight * attributes[vertex, c]
