"""Pictures of landmarks and meshes."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import cv2
import numpy as np

from keras_scnn.geometry.camera import compose, project
from keras_scnn.geometry.mesh import vertex_normals
from keras_scnn.geometry.rasterizer import interpolate, rasterize
from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.photos.cropping import FaceBox, crop_face
from keras_scnn.storage.text import printable

# The lines of the iBUG 68 landmarks: first, last, closed.
CURVES = (
    (0, 16, False), (17, 21, False), (22, 26, False), (27, 30, False), (31, 35, False),
    (36, 41, True), (42, 47, True), (48, 59, True), (60, 67, True),
)  # fmt: skip
CLAY = np.array([214.0, 190.0, 176.0])
KEY_LIGHT, FILL_LIGHT = np.array([-0.3, 0.25, 0.92]), np.array([0.75, 0.1, 0.65])
VIEW_MM = 265.0  # side of a view of a whole face
VIEW_CENTER_MM = np.array([0.0, 18.0, -60.0])  # model frame, shown at the center of a view
SUBPIXEL_BITS = 4
LINE_COLOR = (40, 230, 80)  # of landmarks


def draw_landmarks(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """A copy of an (H, W, 3) uint8 RGB image with (68, 2 or 3) px landmarks as lines."""
    image = np.ascontiguousarray(image).copy()
    size = max(1, round(np.ptp(landmarks[:, 0]) / 120))
    points = np.round(landmarks[:, :2] * 2**SUBPIXEL_BITS).astype(np.int32)
    for first, last, closed in CURVES:
        line = points[first : last + 1].reshape(-1, 1, 2)
        cv2.polylines(image, [line], closed, LINE_COLOR, size, cv2.LINE_AA, SUBPIXEL_BITS)
    return image


def clay(normals: np.ndarray, albedo: np.ndarray = CLAY) -> np.ndarray:
    """Colors (..., 3), 0 to 255, of a matte surface with unit normals (..., 3) under two lights."""
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
    return np.clip(np.rint(image * (1 - alpha) + colors * alpha), 0, 255).astype(np.uint8)


def posed_for_view(vertices: np.ndarray, yaw_degrees: float, size: int) -> np.ndarray:
    """(N, 3) px and depth, image frame of ``size`` px: vertices (N, 3), mm, seen from one side."""
    rotation = rotation_from_euler(np.array([0.0, -np.deg2rad(yaw_degrees), 0.0]))
    middle = (size - 1) / 2
    camera = compose(rotation, size / VIEW_MM, np.array([middle, middle, 0.0]))
    return project(camera, vertices - VIEW_CENTER_MM)


def draw_view(
    model: MorphableModel,
    vertices: np.ndarray,
    yaw_degrees: float = 0.0,
    size: int = 256,
    albedo: np.ndarray = CLAY,
) -> np.ndarray:
    """A face (N, 3), mm, seen from one side on white: (size, size, 3) uint8 RGB."""
    large = 2 * size  # drawn at twice the size, for smooth edges
    posed = posed_for_view(vertices, yaw_degrees, large)
    picture = draw_mesh(np.full((large, large, 3), 255, np.uint8), model, posed, albedo)
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)


def grid(pictures: list[np.ndarray], columns: int) -> np.ndarray:
    """Pictures of one size in rows; the last row is filled up with white."""
    blank = np.full_like(pictures[0], 255)
    pictures = pictures + [blank] * (-len(pictures) % columns)
    rows = [np.hstack(pictures[i : i + columns]) for i in range(0, len(pictures), columns)]
    return np.vstack(rows)


VIEWS_DEGREES = (0.0, 45.0)  # front and three-quarter
TITLES = "photo", "neutral shape", "three-quarter view", "difference, on the mean face"
PHOTO_MARGIN = 1.7  # side of the displayed part of a photo / side of the face's box
SIZE = 480  # px of each picture
VIEW_MARGIN = 0.04  # of a view's side: white margin around every face
COLORS = "YlOrRd"  # light where nothing differs, so that the shading shows the face
MIN_TOP_MM = 1.0  # so that the scale of two equal faces does not amplify rounding errors


def draw_comparison(
    path: str | os.PathLike,
    model: MorphableModel,
    photos: tuple[np.ndarray, np.ndarray],
    boxes: tuple[FaceBox, FaceBox],
    shapes: np.ndarray,
    labels: tuple[str, str],
    title: str,
) -> None:
    """Draw two people side by side into a picture file.

    Args:
        path: the picture.
        model: of both faces.
        photos: (H, W, 3) uint8 RGB each.
        boxes: of the face in each photo.
        shapes: (2, N, 3) neutral vertices, mm, model frame, compared without further alignment.
        labels: of the rows.
        title: of the picture.
    """
    from matplotlib.figure import Figure  # slow to import; no display is needed

    figure = Figure(figsize=(11.5, 6.2), layout="constrained")
    figure.suptitle(title, fontsize=13, parse_math=False)
    axes = figure.subplots(2, 2 + len(VIEWS_DEGREES))
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for row, photo, box, shape, label in zip(axes, photos, boxes, shapes, labels, strict=True):
        row[0].imshow(_face_of(photo, box))
        row[0].set_ylabel(printable(label), fontsize=10, parse_math=False)
        for axis, yaw in zip(row[1:-1], VIEWS_DEGREES, strict=True):
            axis.imshow(_view(model, shape, yaw))
    for axis, text in zip(axes[0], TITLES, strict=True):
        axis.set_title(text, fontsize=10)
    top = _draw_difference(axes[:, -1], model, np.linalg.norm(shapes[0] - shapes[1], axis=-1))
    bar = figure.colorbar(_scale(top), ax=axes[:, -1], shrink=0.7, aspect=25)
    bar.set_label("distance of corresponding points, mm", fontsize=9)
    with warnings.catch_warnings():  # names in scripts that the font lacks are shown as boxes
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(Path(path), dpi=120)


def _face_of(photo: np.ndarray, box: FaceBox) -> np.ndarray:
    """A square crop around the face, shifted to lie inside the photo as far as possible."""
    extent = np.array(photo.shape[1::-1])
    side = max(min(PHOTO_MARGIN * box.width, *extent), box.width)
    inside = np.clip(
        box.center, np.minimum(side / 2, extent / 2), np.maximum(extent - side / 2, extent / 2)
    )
    return crop_face(photo, FaceBox.square(inside, side), SIZE).image


def _view(
    model: MorphableModel, shape: np.ndarray, yaw: float, albedo: np.ndarray = CLAY
) -> np.ndarray:
    """``draw_view`` without its white margin."""
    margin = round(VIEW_MARGIN * SIZE)
    return draw_view(model, shape, yaw, SIZE, albedo)[margin:-margin, margin:-margin]


def _scale(top: float):
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(0, top), COLORS)


def _draw_difference(axes, model: MorphableModel, distance: np.ndarray) -> float:
    """Draw (N,) mm onto the mean face, and return the upper end of the color scale."""
    top = max(float(np.ceil(2 * np.percentile(distance, 99.5)) / 2), MIN_TOP_MM)
    albedo = _scale(top).to_rgba(distance)[:, :3] * 255
    for axis, yaw in zip(axes, VIEWS_DEGREES, strict=True):
        axis.imshow(_view(model, model.mean, yaw, albedo=albedo))
    return top
