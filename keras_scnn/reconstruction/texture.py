"""The photo's colors on the face model's texture map."""

from __future__ import annotations

import cv2
import numpy as np

from keras_scnn.geometry.mesh import vertex_normals
from keras_scnn.geometry.rasterizer import interpolate, rasterize
from keras_scnn.morphable_model import MorphableModel

TEXTURE_SIZE = 512
WORK_SIZE = 512  # the face is looked at no larger than this, px
GRAZING, FACING = 0.15, 0.5  # cosines to the viewer between which a surface fades in
SPECKLE = np.ones((5, 5), np.uint8)  # smaller seen and hidden islands are noise of the depth test
DEPTH_SLACK = 0.03  # of the face's size: what is so little behind counts as seen
MIRROR_SHARE = 0.8  # a mirrored texel counts a little less than a seen one


def photo_texture(model: MorphableModel, image: np.ndarray, posed: np.ndarray) -> np.ndarray:
    """Texture of a face in a photo: seen texels from the photo, hidden ones from the other side.

    What neither side shows is filled in smoothly from its surroundings.

    Args:
        model: with uv, which must be symmetric about u = 0.5 where the model has mirror partners.
        image: (H, W, 3) uint8 RGB.
        posed: (N, 3) vertices in the photo: px and depth, image frame.

    Returns:
        (512, 512, 3) uint8 RGB, first row at v = 1.

    Raises:
        ValueError: the model has no uv.
    """
    flat = np.column_stack([_texel(model), np.zeros(len(posed))])
    image, posed = _working_copy(image, posed)
    texels = rasterize(flat, model.triangles, TEXTURE_SIZE, TEXTURE_SIZE, cull_back_faces=False)
    place = interpolate(texels, model.triangles, posed)
    color = _sample(image, place)
    seen = _visibility(model, image.shape, posed, place, texels) * texels.mask
    seen = cv2.GaussianBlur(cv2.erode(seen.astype(np.float32), SPECKLE), (0, 0), 1.5)
    if model.mirror is not None:
        color, seen = _with_mirror(color, seen)
    return _fill(color, seen, texels.mask)


def vertex_colors(model: MorphableModel, texture: np.ndarray) -> np.ndarray:
    """(N, 3) uint8 RGB: the texture at each vertex; ValueError where the model has no uv."""
    return _sample(texture, _texel(model)[None])[0].astype(np.uint8)


def _texel(model: MorphableModel) -> np.ndarray:
    """(N, 2) px of the texture. As in OBJ and glTF, u = 0 is the first texel's outer edge."""
    if model.uv is None:
        raise ValueError(f"face model '{model.name}' has no uv, so it cannot carry a texture")
    return (model.uv * [1, -1] + [0, 1]) * TEXTURE_SIZE - 0.5


def _working_copy(image, posed) -> tuple[np.ndarray, np.ndarray]:
    """The photo about the face, shrunk to the working size, and the vertices there."""
    low = np.maximum(np.floor(posed[:, :2].min(axis=0)).astype(int) - 2, 0)
    high = np.ceil(posed[:, :2].max(axis=0)).astype(int) + 3
    part = image[low[1] : max(high[1], low[1] + 1), low[0] : max(high[0], low[0] + 1)]
    if not part.size:
        return np.zeros((1, 1, 3), np.uint8), posed
    moved = posed - np.array([*low, 0.0])
    scale = min(1.0, WORK_SIZE / max(part.shape[:2]))
    if scale < 1:
        part = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        moved = (moved + [0.5, 0.5, 0]) * scale - [0.5, 0.5, 0]
    return np.ascontiguousarray(part), moved


def _sample(image, place) -> np.ndarray:
    x, y = np.float32(place[..., 0]), np.float32(place[..., 1])
    border = cv2.BORDER_REPLICATE
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=border).astype(np.float32)


def _visibility(model, shape, posed, place, texels) -> np.ndarray:
    """(T, T) 0 to 1: turned to the viewer, not behind another part, inside of the photo."""
    height, width = shape[:2]
    normals = vertex_normals(posed * [1, -1, 1], model.triangles)
    facing = interpolate(texels, model.triangles, normals[:, 2:])[..., 0]
    nearest = rasterize(posed, model.triangles, height, width).depth
    nearest = np.where(np.isfinite(nearest), nearest, -1e6).astype(np.float32)
    nearest = cv2.dilate(nearest, np.ones((3, 3), np.uint8))
    x, y = (np.round(place[..., i]).astype(int) for i in (0, 1))
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    front = nearest[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
    slack = DEPTH_SLACK * np.ptp(posed[:, 1])
    fade = np.clip((facing - GRAZING) / (FACING - GRAZING), 0, 1)
    return fade * inside * (place[..., 2] > front - slack)


def _with_mirror(color, seen) -> tuple[np.ndarray, np.ndarray]:
    """Blend in the other side of the face, brought to this side's mean color."""
    other, other_seen = color[:, ::-1], seen[:, ::-1] * MIRROR_SHARE * (1 - seen)
    both = (seen > 0.5) & (seen[:, ::-1] > 0.5)
    if both.sum() > 100:
        other = other * (color[both].mean(axis=0) + 1) / (other[both].mean(axis=0) + 1)
    total = np.maximum(seen + other_seen, 1e-6)[..., None]
    blended = (color * seen[..., None] + other * other_seen[..., None]) / total
    return np.clip(blended, 0, 255), np.maximum(seen, other_seen)


def _fill(color, seen, mask) -> np.ndarray:
    """Inpaint texels that the photo does not show; weakly seen ones are filled in part."""
    known = seen > 0.2
    texture = np.where(known[..., None], color, 0).astype(np.uint8)
    small = cv2.resize(texture, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_NEAREST)
    hole = cv2.resize((~known).astype(np.uint8), None, fx=0.25, fy=0.25, interpolation=0)
    filled = cv2.inpaint(small, hole, 3, cv2.INPAINT_TELEA)
    filled = cv2.resize(filled, texture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    share = cv2.GaussianBlur(known.astype(np.float32), (0, 0), 2)[..., None] * known[..., None]
    return (texture * share + filled * (1 - share)).astype(np.uint8)
