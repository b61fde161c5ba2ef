"""Face profiling: show the person of a photo in another pose.

After Zhu et al., "Face Alignment Across Large Poses: A 3D Solution", 2016, section 4, the method
behind 300W-LP. The photo becomes an elastic sheet over the fitted face: where it shows the face, it
has the face's depth and turns with it; around the face its displacement fades out towards the
photo's edges, so that nothing tears. Parts of the face that were hidden in the photo are filled in
from the face's other side, through the texture map.
"""

from __future__ import annotations

import cv2
import numpy as np

from keras_scnn.data.synthesis.elastic_sheet import bend_image
from keras_scnn.geometry.camera import FLIP, compose, decompose, project
from keras_scnn.geometry.mesh import vertex_normals
from keras_scnn.geometry.rasterizer import interpolate, rasterize
from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import FaceParameters
from keras_scnn.photos.cropping import check_photo
from keras_scnn.texturing.texture import seen_texture

MAX_DEGREES = 60.0
EARS = (0, 16)  # landmarks at the ends of the jaw line; the head turns about their midpoint
GRAZING, FACING = 0.2, 0.55  # cosines to the viewer between which the photo's weight rises to 1
FRONT_MM = 10.0  # distance in front of the ears from which on the texture may replace hidden parts
FEATHER = 0.02  # of the face's height: width of the transition between photo and texture


def turn_face(
    image: np.ndarray,
    model: MorphableModel,
    parameters: FaceParameters,
    yaw_degrees: float,
    pitch_degrees: float = 0.0,
) -> tuple[np.ndarray, FaceParameters]:
    """Turn a photo's face about the head's own axes; realistic up to about 45 degrees.

    Args:
        image: (H, W, 3) uint8 RGB.
        model: with uv.
        parameters: of the face: pose image_from_model (3, 4), identity (K,), expression (L,).
        yaw_degrees: change of yaw, with the sign convention of ``geometry.rotations``.
        pitch_degrees: change of pitch.

    Returns:
        the new photo (H, W, 3) uint8 RGB, and the parameters of the face in it: the same identity
        and expression with another camera, so that labels remain exact.

    Raises:
        ValueError: the image is not a uint8 color image, the turn is above 60 degrees, the model
            has no uv, most of the face lies outside of the photo, or the face is smaller than
            about an 80th of it.
    """
    check_photo(image)
    if max(abs(yaw_degrees), abs(pitch_degrees)) > MAX_DEGREES:
        raise ValueError(
            f"a turn of yaw {yaw_degrees:g}, pitch {pitch_degrees:g} degrees; photos can be "
            f"turned by up to {MAX_DEGREES:g}"
        )
    shape = model.vertices(parameters.identity, parameters.expression)
    posed = project(parameters.pose, shape)
    height, width = image.shape[:2]
    inside = ((posed[:, :2] >= 0) & (posed[:, :2] < [width, height])).all(axis=1)
    if inside.mean() < 0.5:
        raise ValueError("most of the face lies outside of the photo; it cannot be turned")
    turn = rotation_from_euler(np.deg2rad([pitch_degrees, yaw_degrees, 0.0]))
    landmarks = model.landmarks(parameters.identity, parameters.expression)
    pose, motion, pivot = _turned(parameters.pose, turn, landmarks[list(EARS)].mean(axis=0))
    turned = bend_image(image, posed, model.triangles, motion, pivot)
    turned = _complete(turned, image, model, shape, posed, project(pose, shape))
    return turned, FaceParameters(pose, parameters.identity, parameters.expression)


def _turned(pose, turn, center) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The new camera; the equivalent rotation (3, 3) of px and depth; and its fixed point (3,), px.

    The head turns about its own axes through ``center``, (3,) mm, which does not move.
    """
    rotation, scale, _ = decompose(pose)
    pivot = project(pose, center[None])[0]
    again = rotation @ turn
    translation = pivot - scale * FLIP @ again @ center
    motion = FLIP @ again @ rotation.T @ FLIP
    return compose(again, scale, translation), motion, pivot


def _complete(turned, image, model, shape, before, after) -> np.ndarray:
    """Blend the texture over those parts of the turned face that the photo did not show."""
    height, width = image.shape[:2]
    buffers = rasterize(after, model.triangles, height, width)
    if not buffers.mask.any():
        return turned
    ears = model.landmark_indices[list(EARS)]
    depth = shape[:, 2] - shape[ears, 2].mean()
    front = np.clip(depth / FRONT_MM - 1, 0, 1)
    missing = front * (1 - _seen(model, before, (height, width)))
    share = interpolate(buffers, model.triangles, missing[:, None])[..., 0]
    width_px = max(FEATHER * np.ptp(after[:, 1]), 0.5)
    # The transition extends only inwards: outside of the face, the sheet shows the background.
    soft = cv2.GaussianBlur(share, (0, 0), width_px) * np.minimum(share / 0.05, 1)
    texture = seen_texture(model, image, before)
    size = texture.shape[0]
    uv = interpolate(buffers, model.triangles, model.uv)
    x, y = (np.float32(uv[..., 0] * size - 0.5), np.float32((1 - uv[..., 1]) * size - 0.5))
    color = cv2.remap(texture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    blended = turned * (1 - soft[..., None]) + color * soft[..., None]
    return np.clip(blended + 0.5, 0, 255).astype(np.uint8)


def _seen(model: MorphableModel, posed: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(N,) visibility of each vertex in the photo, 0 to 1."""
    height, width = size
    facing = vertex_normals(posed * [1, -1, 1], model.triangles)[:, 2]
    nearest = rasterize(posed, model.triangles, height, width).depth
    column, row = np.round(posed[:, :2]).astype(int).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    front = nearest[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
    is_front = posed[:, 2] > front - 0.03 * np.ptp(posed[:, 1])
    return np.clip((facing - GRAZING) / (FACING - GRAZING), 0, 1) * inside * is_front
