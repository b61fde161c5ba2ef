"""Photo bytes and a face's box to the network's crop, in a TensorFlow graph.

The same arithmetic as ``keras_scnn.photos.cropping.crop_face``: if the box is much larger than the
crop, whole blocks are averaged first; then sampling is linear, by pixel centers, black outside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from keras_scnn.geometry.crops import MAX_PATCH_PIXELS, MAX_RELATIVE_WIDTH, SQUARE_TOLERANCE

if TYPE_CHECKING:
    import tensorflow as tf


def crop_bytes(photo: tf.Tensor, box: tf.Tensor, size: int) -> tf.Tensor:
    """Decode a photo and cut a square out of it.

    Args:
        photo: scalar string tensor: JPEG, PNG, or GIF of one picture. EXIF orientation is not
            applied and transparency is dropped: clients must send upright, opaque photos.
        box: (4,) float32: x0, y0, x1, y1, px of the photo, a half-open slice.
        size: side of the crop, px.

    Returns:
        (size, size, 3) uint8. A photo that cannot be read or is too long and narrow for the box
        (``geometry.crops.check_patch``), or a box that is empty, not finite, not square or far
        larger than the photo, raises InvalidArgumentError when the graph runs.
    """
    import tensorflow as tf

    # PIL and OpenCV use the accurate transform too.
    image = tf.io.decode_jpeg(photo, channels=3, dct_method="INTEGER_ACCURATE")
    width, height = box[2] - box[0], box[3] - box[1]
    sound = tf.reduce_all(tf.math.is_finite(box)) & (width > 0) & (height > 0)
    square = sound & (tf.abs(width / height - 1) <= SQUARE_TOLERANCE)
    widest = tf.cast(MAX_RELATIVE_WIDTH * tf.reduce_max(tf.shape(image)[:2]), tf.float32)
    fits = square & (width <= widest)
    message = (
        "box must be a finite, square x0, y0, x1, y1 with x1 > x0 and y1 > y0, at most "
        f"{MAX_RELATIVE_WIDTH} times as wide as the photo; got"
    )
    with tf.control_dependencies([tf.debugging.Assert(fits, [message, box])]):
        # TensorFlow would multiply by the inverse of a constant instead: 300 / 120 above 2.5.
        ratio = tf.math.divide_no_nan(width, size)
        block = tf.maximum(1, tf.cast(tf.round(ratio), tf.int32))
    rows = _axis(box[1], box[3], tf.shape(image)[0], block, size)
    columns = _axis(box[0], box[2], tf.shape(image)[1], block, size)
    patch = image[rows.low : rows.high, columns.low : columns.high]
    with tf.control_dependencies([_patch_fits(patch, image, block)]):
        patch = _averaged(patch, block)
    sampled = _sampled(_sampled(patch, rows.places, 0), columns.places, 1)
    return tf.cast(tf.round(tf.ensure_shape(sampled, (size, size, 3))), tf.uint8)


def _patch_fits(patch, image, block):
    """Assert that whole blocks of the patch cover no more than ``check_patch`` allows."""
    import tensorflow as tf

    side = tf.cast(block, tf.int64)
    blocks = -(-tf.shape(patch, tf.int64)[:2] // side)
    pixels = tf.reduce_prod(tf.shape(image, tf.int64)[:2])
    fits = tf.reduce_prod(blocks) * side**2 <= tf.maximum(2 * pixels, MAX_PATCH_PIXELS)
    why = "the photo is too long for a square crop; side, px, of the blocks that are averaged:"
    return tf.debugging.Assert(fits, [why, side])


class _Axis(NamedTuple):
    """One axis: the photo's slice (px), and sampling positions in its blocks, (size,) float64."""

    low: tf.Tensor
    high: tf.Tensor
    places: tf.Tensor


def _axis(first, last, limit, block, size: int) -> _Axis:
    """The slice of the photo needed along one axis, and the sampling positions in its blocks."""
    import tensorflow as tf

    far = tf.cast(limit, tf.float32) * 4 + 1e6  # casting larger values could be undefined
    low = tf.cast(tf.math.floor(tf.clip_by_value(first, -far, far)), tf.int32) - 2 * block
    high = tf.cast(tf.math.ceil(tf.clip_by_value(last, -far, far)), tf.int32) + 2 * block
    low = tf.clip_by_value(low, 0, limit - 1)
    high = tf.clip_by_value(high, low + 1, limit)
    first, last = tf.cast(first, tf.float64), tf.cast(last, tf.float64)
    centers = (tf.range(size, dtype=tf.float64) + 0.5) * (last - first) / size + first
    places = (centers - tf.cast(low, tf.float64)) / tf.cast(block, tf.float64) - 0.5
    return _Axis(low, high, places)


def _averaged(patch, block):
    """Rounded block means of (h, w, 3) uint8, as float32; last row and column repeated to fit."""
    import tensorflow as tf

    counts = -(-tf.shape(patch)[:2] // block)
    for axis in (0, 1):
        index = tf.minimum(tf.range(counts[axis] * block), tf.shape(patch)[axis] - 1)
        patch = tf.gather(patch, index, axis=axis)
    shape = tf.stack([counts[0], block, counts[1], block, 3])
    blocks = tf.cast(tf.reshape(patch, shape), tf.float32)
    means = tf.reduce_mean(blocks, axis=(1, 3))
    return tf.where(block == 2, tf.floor(means + 0.5), tf.round(means))  # rounds like OpenCV


def _sampled(array, places, axis: int):
    """Values at fractional positions along an axis, linear; 0 outside."""
    import tensorflow as tf

    bordered = tf.pad(array, [[1, 1] if i == axis else [0, 0] for i in range(3)])
    first = tf.math.floor(places)
    share = tf.cast(places - first, tf.float32)
    share = share[:, None, None] if axis == 0 else share[None, :, None]
    last = tf.cast(tf.shape(bordered)[axis] - 1, tf.float64)
    before, after = (
        tf.gather(bordered, tf.cast(tf.clip_by_value(first + i, 0, last), tf.int32), axis=axis)
        for i in (1, 2)
    )
    return before * (1 - share) + after * share
