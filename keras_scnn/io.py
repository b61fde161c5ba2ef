"""Photos in, pictures out."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from keras_scnn.photos.cropping import check_photo
from keras_scnn.photos.files import is_photo
from keras_scnn.storage import atomic_path
from keras_scnn.storage.guard import reading
from keras_scnn.storage.images import ReducedImage, decode_image, decode_reduced
from keras_scnn.storage.remote import RemotePath, place


def read_image(path: str | os.PathLike | RemotePath) -> np.ndarray:
    """Read a photo upright, as 8-bit RGB.

    The EXIF orientation is applied, gray becomes RGB, 16 bits become 8, and transparent pixels are
    composited over white. A photo of more than 89 million pixels is read at 1/2, and a JPEG of more
    than 357 million at 1/4 or 1/8, of its width and height (``read_reduced``): coordinates are
    those of the array that is returned.

    Args:
        path: a JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF, JPEG 2000 or PPM file, or HEIC with the extra
            'heif', whatever its name ends in; the first picture where it holds several. Or a URL
            of fsspec (extra 'remote').

    Returns:
        (H, W, 3) uint8 RGB, writable and contiguous.

    Raises:
        FileNotFoundError: there is no such file.
        IsADirectoryError: it is a folder.
        ValueError: the file is not a readable image.
        ImportError, OSError: of a URL, as ``storage.remote.RemotePath``.
    """
    content = _content(path)
    with reading(str(path), "a readable image"):
        return decode_image(content)


def read_reduced(path: str | os.PathLike | RemotePath) -> ReducedImage:
    """``read_image``, and by how much it reduces the photo; arguments and errors are the same."""
    content = _content(path)
    with reading(str(path), "a readable image"):
        return decode_reduced(content)


def _content(path: str | os.PathLike | RemotePath) -> bytes:
    """The bytes of a photo's file."""
    path = place(path)
    if isinstance(path, RemotePath):
        return path.read_bytes()
    if path.is_dir():
        raise IsADirectoryError(f"{path}: a folder; expected a photo")
    if not path.is_file():
        if path.exists():  # a pipe or a device would be read without an end
            raise ValueError(f"{path}: no ordinary file; expected a photo")
        raise FileNotFoundError(f"{path}: no such photo")
    with reading(path, "a readable image"):
        return path.read_bytes()


def write_image(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write an image, whole or not at all.

    Args:
        path: the suffix chooses the format, e.g. .png or .jpg.
        image: (H, W, 3) uint8 RGB.

    Raises:
        ValueError: unknown suffix, an array of another shape or dtype, or an image that the format
            cannot hold.
        OSError: the file could not be written.
    """
    try:
        encoded = encode_image(Path(path).suffix, image)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded)


def encode_image(suffix: str, image: np.ndarray) -> bytes:
    """The bytes of an image's file.

    Args:
        suffix: chooses the format, e.g. .png or .jpg.
        image: (H, W, 3) uint8 RGB.

    Raises:
        ValueError: as ``write_image``.
    """
    check_photo(image)
    # OpenCV gets no file names: it ends the process at one that is not UTF-8.
    if not is_photo(f"name{suffix}") or not cv2.haveImageWriter(f"name{suffix}"):
        raise ValueError(f"unknown kind of image '{suffix}'; use .png or .jpg")
    try:
        is_done, encoded = cv2.imencode(suffix, np.ascontiguousarray(image[..., ::-1]))
    except cv2.error as error:  # too large for the format
        raise ValueError(f"could not be written ({error.err})") from error
    if not is_done:  # OpenCV 5 raises nothing
        raise ValueError(f"could not be written as '{suffix}': too large, or it takes no colors")
    return encoded.tobytes()
