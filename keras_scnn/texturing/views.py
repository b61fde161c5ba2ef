"""What a photo shows at each texel of a face."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from keras_scnn.geometry.colors import linear_from_srgb
from keras_scnn.geometry.mesh import smooth_normals
from keras_scnn.geometry.rasterizer import rasterize
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.photos.cropping import check_photo
from keras_scnn.texturing.atlas import Atlas

GRAZING, FACING = 0.2, 0.6  # cosines to the viewer between which a surface fades in
SPECKLE = np.ones((5, 5), np.uint8)  # smaller seen and hidden islands are noise of the depth test
DEPTH_SLACK = 0.03  # of the face's height: anything less far behind the surface counts as seen
TEETH_SLACK = 0.01  # the same for teeth, which are close behind the lips
BLACK = 12  # of 255: largest brightness of black bars beside a photo
SRGB_LIGHT = linear_from_srgb(np.arange(256) / 255)


@dataclass(frozen=True, eq=False)
class View:
    """A photo on the texture map.

    Attributes:
        color: (S, S, 3) float32, light 0 to 1, where the face is; meaningless elsewhere.
        seen: (S, S) float32, 0 to 1: how well the photo shows a texel, 0 outside of photo or face.
        normals: (S, S, 3) float32 of the posed face, y up, z to the viewer.
        blocked: (H, W) bool: pixels of the photo that certainly do not show the face: black bars
            and what is hidden.
    """

    color: np.ndarray
    seen: np.ndarray
    normals: np.ndarray
    blocked: np.ndarray


def check_posed(
    model: MorphableModel, image: np.ndarray, posed: np.ndarray, hidden: np.ndarray | None = None
) -> None:
    """Raise a ValueError if the image, vertices or hidden pixels are invalid or do not match."""
    check_photo(image)
    if np.shape(posed) != (model.n_vertices, 3) or not np.isfinite(posed).all():
        raise ValueError(
            f"posed vertices have the shape {np.shape(posed)}; they must be "
            f"({model.n_vertices}, 3), and finite"
        )
    if hidden is None:
        return
    shape, dtype = np.shape(hidden), getattr(hidden, "dtype", type(hidden).__name__)
    if not isinstance(hidden, np.ndarray) or shape != image.shape[:2] or hidden.dtype != bool:
        raise ValueError(
            f"hidden is {shape} {dtype}; it must be {image.shape[:2]} bool, a NumPy array"
        )


def view_of(
    atlas: Atlas, image: np.ndarray, posed: np.ndarray, hidden: np.ndarray | None = None
) -> View:
    """The view of a photo (H, W, 3) uint8 RGB with posed vertices (N, 3) px and depth, image frame.

    ``hidden``, (H, W) bool, is where something is in front of the face.
    """
    blocked = black_bars(image)
    if hidden is not None:
        blocked |= hidden
    place = atlas.at_texels(posed)
    normals = atlas.at_texels(smooth_normals(posed * [1, -1, 1], atlas.model.triangles))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True) + 1e-9
    x, y, inside = _pixels(place, image.shape)
    inside &= ~blocked[y, x]
    small, moved = crop_around_face(image, posed, atlas.size)
    fade = np.clip((normals[..., 2] - GRAZING) / (FACING - GRAZING), 0, 1)
    seen = np.float32(fade * inside * _in_front(atlas, small, moved))
    seen[~atlas.mask] = 1  # so that the borders of eyes and mouth are not eroded
    worn = np.minimum(cv2.GaussianBlur(cv2.erode(seen, SPECKLE), (0, 0), 1.5), seen)
    seen = np.where(atlas.teeth, seen, worn)  # erosion would remove strips of teeth
    return View(_sample(small, atlas.at_texels(moved)), seen * atlas.mask, normals, blocked)


def photo_colors(atlas: Atlas, image: np.ndarray, posed: np.ndarray) -> np.ndarray:
    """(S, S, 3) float32 light: a photo at each texel, seen or not."""
    image, posed = crop_around_face(image, posed, atlas.size)
    return _sample(image, atlas.at_texels(posed))


def _sample(image: np.ndarray, place: np.ndarray) -> np.ndarray:
    x, y = np.ascontiguousarray(place[..., 0]), np.ascontiguousarray(place[..., 1])
    border = cv2.BORDER_REPLICATE
    return cv2.remap(SRGB_LIGHT[image], x, y, cv2.INTER_LINEAR, borderMode=border)


def crop_around_face(
    image: np.ndarray, posed: np.ndarray, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """The part of the photo around the face, at most ``side`` px, and the vertices in it."""
    low = np.maximum(np.floor(posed[:, :2].min(axis=0)).astype(int) - 2, 0)
    high = np.ceil(posed[:, :2].max(axis=0)).astype(int) + 3
    part = image[low[1] : max(high[1], low[1] + 1), low[0] : max(high[0], low[0] + 1)]
    if not part.size:
        return np.zeros((1, 1, 3), np.uint8), posed
    moved = posed - np.array([*low, 0.0])
    scale = min(1.0, side / max(part.shape[:2]))
    if scale < 1:
        size = tuple(max(1, round(n * scale)) for n in part.shape[1::-1])
        least = None if min(part.shape[:2]) * scale > 1 else size  # at least one pixel of a strip
        part = cv2.resize(part, least, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        moved = (moved + [0.5, 0.5, 0]) * scale - [0.5, 0.5, 0]
    return np.ascontiguousarray(part), moved


def _in_front(atlas: Atlas, image: np.ndarray, posed: np.ndarray) -> np.ndarray:
    """(S, S) bool: not behind another part of the face."""
    nearest = rasterize(posed, atlas.model.triangles, *image.shape[:2]).depth
    nearest = np.where(np.isfinite(nearest), nearest, -1e6).astype(np.float32)
    nearest = cv2.dilate(nearest, np.ones((3, 3), np.uint8))
    place = atlas.at_texels(posed)
    x, y, _ = _pixels(place, image.shape)
    slack = np.where(atlas.teeth, TEETH_SLACK, DEPTH_SLACK) * np.ptp(posed[:, 1])
    return place[..., 2] > nearest[y, x] - slack


def _pixels(place: np.ndarray, shape) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Column and row of the nearest pixels, and which places lie in the image."""
    x, y = (np.round(place[..., i]).astype(np.int32) for i in (0, 1))
    inside = (x >= 0) & (x < shape[1]) & (y >= 0) & (y < shape[0])
    return np.clip(x, 0, shape[1] - 1), np.clip(y, 0, shape[0] - 1), inside


def black_bars(image: np.ndarray) -> np.ndarray:
    """(H, W) bool: black areas that reach the edge of an image, with a small margin."""
    dark = np.uint8(image.max(axis=-1) <= BLACK)
    _, label = cv2.connectedComponents(dark, connectivity=4)
    edge = np.concatenate([label[0], label[-1], label[:, 0], label[:, -1]])
    bars = np.isin(label, edge[edge > 0])
    return cv2.dilate(np.uint8(bars), np.ones((5, 5), np.uint8)) > 0
