"""Reconstruction on a small device: ``LiteReconstructor("scnn.tflite")``.

Needs only ai-edge-litert, NumPy, lazy_loader and wrapt: no TensorFlow, Keras or OpenCV.
``LiteNetwork``, from ``keras_scnn.models.litert``, runs a preset's network without decoding; it
needs the whole package.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from keras_scnn.geometry.crops import check_crop_box, check_patch, crop_from_image
from keras_scnn.storage.guard import reading
from keras_scnn.storage.tflite import per_thread_runner

__all__ = ["LiteNetwork", "LiteReconstructor", "crop_photo"]  # noqa: F822

SIGNATURE = "reconstruct"


def __getattr__(name: str) -> Any:
    if name != "LiteNetwork":
        raise AttributeError(f"module 'keras_scnn.export.lite' has no attribute '{name}'")
    from keras_scnn.models.litert import LiteNetwork  # needs the whole package

    return LiteNetwork


class LiteReconstructor:
    """Runs an exported .tflite file; may be called from several threads at once.

    Args:
        path: a file written by ``keras_scnn.export.tflite``.
        threads: number of threads that the runtime may use in each call.

    Attributes:
        metadata: in the file, see ``keras_scnn.export.metadata``.
        input_size: width and height of the crop, px.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or not from this package, or ``threads`` is invalid.
    """

    def __init__(self, path: str | os.PathLike, threads: int = 1):
        self._runner, self.metadata = per_thread_runner(path, threads, SIGNATURE)
        with reading(path, "a .tflite file of keras_scnn that LiteRT can run"):
            self._runner()
            self.input_size = self.metadata["input"]["shape"][0]

    def __call__(self, image: np.ndarray, box: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Reconstruct one face.

        Args:
            image: without a box, the crop (S, S, 3); with one, the photo (H, W, 3); uint8 RGB.
            box: (4,) x0, y0, x1, y1, px of the photo, half-open: the square around the face;
                ``FaceBox.as_array()``.

        Returns:
            float32 arrays by name, see ``metadata['outputs']`` for shapes and units: parameters
            (P,), rotation (3, 3), euler_degrees (3,), scale (), translation (3,), landmarks
            (68, 3), and features and vertices if the file has them. Pixels are those of the crop;
            with a box, those of the photo (the rotation is the crop's in either case).

        Raises:
            ValueError: the image is not a uint8 RGB image of a suitable size, or the box is not
                square.
        """
        _check_image(image)
        if box is None:
            return self._outputs(image)
        crop, to_crop = crop_photo(image, box, self.input_size)
        return _in_photo(self._outputs(crop), to_crop)

    def _outputs(self, crop: np.ndarray) -> dict[str, np.ndarray]:
        size = self.input_size
        if crop.shape != (size, size, 3):
            raise ValueError(
                f"the crop is {crop.shape}; expected ({size}, {size}, 3), or give the face's box"
            )
        outputs = self._runner()(image=np.ascontiguousarray(crop)[None])
        return {name: array[0] for name, array in outputs.items()}


def crop_photo(photo: np.ndarray, box: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut a square out of a photo like ``keras_scnn.photos.cropping.crop_face``.

    The two differ by at most one gray level (with OpenCV 5; OpenCV 4 rounds sampling positions to
    1/32 px, which causes up to 5 levels at sharp edges).

    Args:
        photo: (H, W, 3) uint8.
        box: (4,) px, half-open, square up to 5 %.
        size: of the crop, px.

    Returns:
        crop (size, size, 3) uint8, and crop_from_image (2, 3) float64, px.

    Raises:
        ValueError: see ``geometry.crops.check_crop_box`` and ``check_patch``.
    """
    box = np.asarray(box, np.float64)
    check_crop_box(box, photo.shape)
    limit = np.array(photo.shape[1::-1])
    block = max(1, round((box[2] - box[0]) / size))
    low = np.clip(np.floor(box[:2]).astype(int) - 2 * block, 0, limit - 1)
    high = np.clip(np.ceil(box[2:]).astype(int) + 2 * block, low + 1, limit)
    check_patch(photo.shape, high - low, block)
    patch = _averaged(photo[low[1] : high[1], low[0] : high[0]], block)
    centers = (np.arange(size) + 0.5)[:, None] * (box[2:] - box[:2]) / size + box[:2]
    places = (centers - low) / block - 0.5
    rows = _sampled(patch, places[:, 1])
    columns = _sampled(rows.swapaxes(0, 1), places[:, 0])
    crop = np.rint(columns.swapaxes(0, 1)).astype(np.uint8)
    return crop, crop_from_image(box, size)


def _averaged(patch: np.ndarray, block: int) -> np.ndarray:
    """Rounded block means of (h, w, 3) uint8, as float32; last row and column repeated to fit."""
    if block == 1:
        return patch.astype(np.float32)
    rows, columns = -np.array(patch.shape[:2]) % block
    patch = np.pad(patch, ((0, rows), (0, columns), (0, 0)), mode="edge")
    height, width = np.array(patch.shape[:2]) // block
    blocks = patch.reshape(height, block, width, block, 3)
    means = blocks.mean(axis=(1, 3), dtype=np.float32)
    return np.floor(means + 0.5) if block == 2 else np.rint(means)  # rounds halves like OpenCV


def _sampled(array: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(n, ...) at fractional positions (m,) of the first axis, linear; 0 outside."""
    first = np.floor(places).astype(int)
    share = (places - first).astype(np.float32)
    bordered = np.pad(array, [(1, 1)] + [(0, 0)] * (array.ndim - 1))
    before, after = (np.clip(first + i, 0, len(bordered) - 1) for i in (1, 2))
    share = share.reshape(-1, *[1] * (array.ndim - 1))
    return bordered[before] * (1 - share) + bordered[after] * share


def _in_photo(outputs: dict[str, np.ndarray], to_crop: np.ndarray) -> dict[str, np.ndarray]:
    """Convert outputs from px of the crop to px of the photo; depth scales like x and y."""
    across, down = 1 / to_crop[0, 0], 1 / to_crop[1, 1]
    grow = np.array([across, down, np.sqrt(across * down)])
    shift = np.array([*-to_crop[:, 2], 0]) * grow
    pose = outputs["parameters"][:12].reshape(3, 4) * grow[:, None]
    pose[:, 3] += shift
    lengths = np.linalg.norm(pose[:2, :3], axis=-1)
    return outputs | {
        "parameters": np.concatenate([pose.ravel(), outputs["parameters"][12:]]).astype(np.float32),
        "scale": lengths.mean().astype(np.float32),
        "translation": pose[:, 3].astype(np.float32),
        "landmarks": (outputs["landmarks"] * grow + shift).astype(np.float32),
    }


def _check_image(image: np.ndarray) -> None:
    if getattr(image, "ndim", 0) != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        kind = f"{np.shape(image)} {getattr(image, 'dtype', type(image).__name__)}"
        raise ValueError(f"image is {kind}; expected (H, W, 3) uint8 RGB")
    if 0 in image.shape:
        raise ValueError(f"image is {image.shape}; it has no pixels")
