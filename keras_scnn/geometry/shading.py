"""Textures, spherical-harmonics light, and a renderer that applies both to a rasterized face."""

from __future__ import annotations

import numpy as np
from numba import njit

from keras_scnn.geometry.mesh import vertex_normals, whole_indices
from keras_scnn.geometry.rasterizer import fill

# Lambertian reflectance keeps 9 coefficients (Ramamoorthi and Hanrahan, "An Efficient
# Representation for Irradiance Environment Maps", 2001); these are the basis functions' constants.
SH_CONSTANTS = (0.282095, 0.488603, 1.092548, 0.315392, 0.546274)


def spherical_harmonics(normals: np.ndarray) -> np.ndarray:
    """The 9 real spherical harmonics of degree 0 to 2.

    Args:
        normals: (..., 3) unit vectors, y up, z towards the viewer.

    Returns:
        (..., 9) in the order 1; y, z, x; xy, yz, 3z^2 - 1, xz, x^2 - y^2.
    """
    normals = np.asarray(normals)
    normals = normals.astype(np.result_type(normals, np.float32), copy=False)  # no whole numbers
    x, y, z = np.moveaxis(normals, -1, 0)
    c0, c1, c2, c3, c4 = SH_CONSTANTS
    terms = [np.full_like(x, c0), c1 * y, c1 * z, c1 * x, c2 * x * y, c2 * y * z]
    terms += [c3 * (3 * z**2 - 1), c2 * x * z, c4 * (x**2 - y**2)]
    return np.stack(terms, axis=-1)


def shade(normals: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Irradiance (..., 3) of RGB light (9, 3) on surfaces with unit normals (..., 3)."""
    return spherical_harmonics(normals) @ np.asarray(light)


def sample_texture(texture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Bilinear samples of a texture.

    Args:
        texture: (T, T, C) with its first row at v = 1.
        uv: (..., 2) in [0, 1], u right, v up; 0 and 1 are the centers of the outer texels. In mesh
            files and in the textures of ``keras_scnn.texturing`` they are the map's outer edges, up
            to half a texel away.

    Returns:
        (..., C) float32.
    """
    size = np.array([texture.shape[1] - 1, texture.shape[0] - 1])
    x, y = np.moveaxis(np.clip([0, 1] + np.asarray(uv) * [1, -1], 0, 1) * size, -1, 0)
    x0, y0 = np.minimum(x.astype(int), size[0] - 1), np.minimum(y.astype(int), size[1] - 1)
    fx, fy = (x - x0)[..., None], (y - y0)[..., None]
    top = texture[y0, x0] * (1 - fx) + texture[y0, x0 + 1] * fx
    bottom = texture[y0 + 1, x0] * (1 - fx) + texture[y0 + 1, x0 + 1] * fx
    return (top * (1 - fy) + bottom * fy).astype(np.float32)


def render(
    vertices: np.ndarray,
    triangles: np.ndarray,
    uv: np.ndarray,
    texture: np.ndarray,
    light: np.ndarray,
    background: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """A textured, lit face over a background.

    Args:
        vertices: (N, 3) px and depth, image frame.
        triangles: (T, 3). uv: (N, 2) in [0, 1], v up; as for ``sample_texture``, 0 and 1 are the
            centers of the outer texels, not the map's outer edges as in mesh files.
        texture: (T, T, 3) float32 albedo, any range, first row at v = 1.
        light: (9, 3) spherical-harmonics coefficients; albedo times irradiance is the color.
        background: (H, W, 3), 0 to 255.

    Returns:
        image (H, W, 3) uint8, and the face's mask (H, W) bool.

    Raises:
        ValueError: there are not as many texture coordinates as vertices, or the mesh is invalid.
    """
    if np.shape(uv) != (len(vertices), 2):  # compiled loops read beyond the end of an array
        raise ValueError(f"uv has the shape {np.shape(uv)}; it must be ({len(vertices)}, 2)")
    vertices = np.ascontiguousarray(vertices, np.float32)
    triangles = np.ascontiguousarray(whole_indices("triangles", triangles), np.int32)
    normals = vertex_normals(vertices * np.array([1, -1, 1], np.float32), triangles)
    irradiance = np.ascontiguousarray(shade(normals, np.float32(light)))
    image = np.array(background, np.float32)
    height, width = image.shape[:2]
    depth = np.full((height, width), -np.inf, np.float32)
    nearest = np.full((height, width), -1, np.int32)
    barycentric = np.zeros((height, width, 3), np.float32)
    fill(vertices, triangles, True, depth, nearest, barycentric)
    texture = np.ascontiguousarray(texture, np.float32)
    _paint(image, nearest, barycentric, triangles, np.float32(uv), texture, irradiance)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), nearest >= 0


@njit(cache=True, nogil=True, error_model="numpy")
def _paint(image, nearest, barycentric, triangles, uv, texture, irradiance):
    height, width = nearest.shape
    rows, columns = texture.shape[0] - 1, texture.shape[1] - 1
    for y in range(height):
        for x in range(width):
            if nearest[y, x] < 0:
                continue
            t = nearest[y, x]
            i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            a, b, c = barycentric[y, x, 0], barycentric[y, x, 1], barycentric[y, x, 2]
            u = (a * uv[i, 0] + b * uv[j, 0] + c * uv[k, 0]) * columns
            v = (1 - (a * uv[i, 1] + b * uv[j, 1] + c * uv[k, 1])) * rows
            m = min(max(int(u), 0), columns - 1)
            n = min(max(int(v), 0), rows - 1)
            fu, fv = u - m, v - n
            for ch in range(3):
                top = texture[n, m, ch] * (1 - fu) + texture[n, m + 1, ch] * fu
                bottom = texture[n + 1, m, ch] * (1 - fu) + texture[n + 1, m + 1, ch] * fu
                albedo = top * (1 - fv) + bottom * fv
                light = a * irradiance[i, ch] + b * irradiance[j, ch] + c * irradiance[k, ch]
                image[y, x, ch] = albedo * light
