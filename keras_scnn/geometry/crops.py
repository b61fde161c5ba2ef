"""Crop transforms with exact pixel centers.

A box is a half-open slice of pixels, ``x0, y0, x1, y1``: the box 0, 0, 4, 4 covers the pixels 0
to 3, whose areas reach from -0.5 to 3.5 in the image frame of ``geometry.camera``.
"""

from __future__ import annotations

import numpy as np

from keras_scnn.geometry.shapes import shaped

SQUARE_TOLERANCE = 0.05  # largest deviation of width / height of a crop's box from 1
MAX_RELATIVE_WIDTH = 16  # of a crop's box to the photo's longer side: above, a face is a dot

# Largest part of a photo that is averaged in whole blocks: OpenCV's largest side, and pixels. A
# photo of few rows or columns is padded to whole blocks.
MAX_PATCH_SIDE, MAX_PATCH_PIXELS = 32_766, 16_000_000


def crop_from_image(box: np.ndarray, size: int) -> np.ndarray:
    """The transform from a photo to a square crop.

    ``u = (x - x0 + 0.5) * size / (x1 - x0) - 0.5``, and likewise for y: the outer edges of the
    box become the outer edges of the crop, so a box of ``size`` pixels is copied unchanged.

    Args:
        box: (..., 4) half-open pixel boxes x0, y0, x1, y1; fractions and parts outside of the
            photo are allowed.
        size: side of the crop in pixels.

    Returns:
        (..., 2, 3) float64 affine matrices, for ``cv2.warpAffine`` or ``transform_camera`` (a
        similarity if the box is square).

    Raises:
        ValueError: the boxes are not (..., 4), one is empty, or the size is not positive.

    >>> crop_from_image(np.array([10.0, 20.0, 14.0, 24.0]), 8).tolist()
    [[2.0, 0.0, -19.5], [0.0, 2.0, -39.5]]
    """
    box = np.float64(shaped("box", box, 4, names="x0, y0, x1, y1"))
    first, extent = box[..., :2], box[..., 2:] - box[..., :2]
    if size <= 0 or not (extent > 0).all():
        raise ValueError(f"size ({size}) and the boxes' widths and heights must be above 0")
    scale = size / extent
    matrix = np.zeros((*box.shape[:-1], 2, 3))
    matrix[..., [0, 1], [0, 1]] = scale
    matrix[..., 2] = (0.5 - first) * scale - 0.5
    return matrix


def check_crop_box(box: np.ndarray, photo_shape: tuple[int, ...]) -> None:
    """Reject a box that no crop can be cut from; every runtime's cropper rejects the same.

    A box outside the photo is valid: its crop is black.

    Args:
        box: (4,) half-open px: x0, y0, x1, y1.
        photo_shape: height, width and more.

    Raises:
        ValueError: the box is not finite, empty, not square (up to 5 %), or more than 16 times as
            wide as the photo's longer side.
    """
    box = np.asarray(box, np.float64)
    if box.shape != (4,) or not np.isfinite(box).all() or not (box[2:] > box[:2]).all():
        raise ValueError(f"box is {box}; expected finite x0, y0, x1, y1 with x1 > x0 and y1 > y0")
    width, height = box[2:] - box[:2]
    if abs(width / height - 1) > SQUARE_TOLERANCE:
        raise ValueError(f"box is {width:g} x {height:g} px; a crop needs a square")
    longer = max(photo_shape[:2])
    if width > MAX_RELATIVE_WIDTH * longer:
        raise ValueError(
            f"box is {width:g} px wide, the photo only {longer}; at most {MAX_RELATIVE_WIDTH} "
            "times as wide can be cropped"
        )


def check_patch(photo_shape: tuple[int, ...], size: np.ndarray, block: int) -> None:
    """Reject a part that takes far more memory than the photo, or has a side too long for OpenCV.

    Args:
        photo_shape: height, width and more.
        size: (2,) columns and rows of the part of the photo that a crop needs.
        block: side of the squares that are averaged, px; the part grows to whole ones.

    Raises:
        ValueError: the photo is too long and narrow, or too large, for a square crop.
    """
    columns, rows = (-(-int(n) // block) for n in size)
    allowed = max(MAX_PATCH_PIXELS, 2 * photo_shape[0] * photo_shape[1])
    if max(columns, rows) > MAX_PATCH_SIDE or columns * rows * block**2 > allowed:
        raise ValueError(
            f"the photo of {photo_shape[1]} x {photo_shape[0]} px is too long for a square crop: "
            f"{columns * block:,} x {rows * block:,} px would be averaged"
        )


def invert_affine(to_from: np.ndarray) -> np.ndarray:
    """Invert 2D affine transforms, e.g. ``crop_from_image`` to ``image_from_crop``.

    Args:
        to_from: (..., 2, 3) affine matrices.

    Returns:
        (..., 2, 3) inverse matrices.

    Raises:
        ValueError: the matrices are not (..., 2, 3), or one has no inverse.
    """
    to_from = np.float64(shaped("to_from", to_from, 2, 3))
    try:
        linear = np.linalg.inv(to_from[..., :2])
    except np.linalg.LinAlgError as error:
        raise ValueError("to_from has a singular linear part; it has no inverse") from error
    return np.concatenate([linear, -linear @ to_from[..., 2:]], axis=-1)
