"""Pictures of landmarks and meshes."""

from __future__ import annotations

import cv2
import numpy as np

from keras_scnn.geometry.camera import compose, project
from keras_scnn.geometry.mesh import vertex_normals
from keras_scnn.geometry.rasterizer import interpolate, rasterize
from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.morphable_model import MorphableModel

# The lines of the iBUG 68 landmarks: first, last, closed.
CURVES = (
    (0, 16, False), (17, 21, False), (22, 26, False), (27, 30, False), (31, 35, False),
    (36, 41, True), (42, 47, True), (48, 59, True), (60, 67, True),
)  # fmt: skip
CLAY = np.array([214.0, 190.0, 176.0])
KEY_LIGHT, FILL_LIGHT = np.array([-0.3, 0.25, 0.92]), np.array([0.75, 0.1, 0.65])
VIEW_MM = 265.0  # what a view of a whole face shows, from edge to edge
SUBPIXEL_BITS = 4


def draw_landmarks(image: np.ndarray, landmarks: np.ndarray, color=(40, 230, 80)) -> np.ndarray:
    """A copy of an (H, W, 3) uint8 RGB image with (68, 2 or 3) px landmarks as lines."""
    image = np.ascontiguousarray(image).copy()
    size = max(1, round(np.ptp(landmarks[:, 0]) / 120))
    points = np.round(landmarks[:, :2] * 2**SUBPIXEL_BITS).astype(np.int32)
    for first, last, closed in CURVES:
        line = points[first : last + 1].reshape(-1, 1, 2)
        cv2.polylines(image, [line], closed, color, size, cv2.LINE_AA, SUBPIXEL_BITS)
    return image


def clay(normals: np.ndarray, albedo: np.ndarray = CLAY) -> np.ndarray:
    """Colors (..., 3), 0 to 255, of a matt surface with unit normals (..., 3) under two lights."""
    key = np.clip(normals @ (KEY_LIGHT / np.linalg.norm(KEY_LIGHT)), 0, None)
    fill = np.clip(normals @ (FILL_LIGHT / np.linalg.norm(FILL_LIGHT)), 0, None)
    return np.clip((0.22 + 0.68 * key + 0.2 * fill)[..., None] * albedo, 0, 255)


def draw_mesh(
    image: np.ndarray,
    model: MorphableModel,
    posed: np.ndarray,
    albedo: np.ndarray = CLAY,
    opacity: float = 1.0,
) -> np.ndarray:
    """A copy of the image with the shaded mesh over it.

    Args:
        image: (H, W, 3) uint8 RGB.
        model: its triangles are drawn.
        posed: (N, 3) vertices: px and depth, image frame.
        albedo: (3,) or (N, 3), 0 to 255.
        opacity: 0 to 1.
    """
    buffers = rasterize(posed, model.triangles, *image.shape[:2])
    normals = vertex_normals(posed * [1, -1, 1], model.triangles)
    colors = interpolate(buffers, model.triangles, clay(normals, albedo))
    alpha = opacity * buffers.mask[..., None]
    return np.clip(image * (1 - alpha) + colors * alpha, 0, 255).astype(np.uint8)


def draw_view(
    model: MorphableModel,
    vertices: np.ndarray,
    yaw_degrees: float = 0.0,
    size: int = 256,
    albedo: np.ndarray = CLAY,
) -> np.ndarray:
    """A face (N, 3), mm, seen from one side on white: (size, size, 3) uint8 RGB."""
    large = 2 * size  # drawn at twice the size, for smooth edges
    rotation = rotation_from_euler(np.array([0.0, -np.deg2rad(yaw_degrees), 0.0]))
    scale, depth_center = large / VIEW_MM, np.array([0.0, 18.0, -60.0])
    camera = compose(rotation, scale, np.array([large / 2, large / 2, 0.0]))
    posed = project(camera, vertices - depth_center)
    picture = draw_mesh(np.full((large, large, 3), 255, np.uint8), model, posed, albedo)
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)


def grid(pictures: list[np.ndarray], columns: int) -> np.ndarray:
    """Pictures of one size in rows; the last row is filled up with white."""
    blank = np.full_like(pictures[0], 255)
    pictures = pictures + [blank] * (-len(pictures) % columns)
    rows = [np.hstack(pictures[i : i + columns]) for i in range(0, len(pictures), columns)]
    return np.vstack(rows)
