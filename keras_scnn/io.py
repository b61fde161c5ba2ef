"""Read photos and write images."""

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

    The EXIF orientation is applied, colors of another ICC profile (such as Display P3, gray or
    CMYK), or of Adobe RGB by EXIF alone, are converted to sRGB, gray becomes RGB, 16 bits become 8,
    and transparent pixels are composited over white. A photo of more than 89 million pixels is read
    at 1/2, and a JPEG of more than 357 million at 1/4 or 1/8, of its width and height
    (``read_reduced``): coordinates then refer to the returned array.

    Args:
        path: a JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF, JPEG 2000 or PPM file, or HEIC with the extra
            'heif', whatever its suffix; of several pictures in a file, the first. Or an fsspec URL
            (extra 'remote').

    Returns:
        (H, W, 3) uint8 RGB in sRGB, writable and contiguous.

    Raises:
        FileNotFoundError: there is no such file.
        IsADirectoryError: it is a folder.
        ValueError: the file is not a readable image.
        ImportError, OSError: for a URL, see ``storage.remote.RemotePath``.
    """
    content = _content(path)
    with reading(str(path), "a readable image"):
        return decode_image(content)


def read_reduced(path: str | os.PathLike | RemotePath) -> ReducedImage:
    """``read_image`` with the factor by which the photo was reduced; same arguments and errors."""
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
        if path.exists():  # reading a pipe or a device might never end
            raise ValueError(f"{path}: not a regular file; expected a photo")
        raise FileNotFoundError(f"{path}: no such photo")
    with reading(path, "a readable image"):
        return path.read_bytes()


def write_image(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write an image atomically.

    Args:
        path: the suffix determines the format, e.g. .png or .jpg.
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
    """Encode an image as the bytes of a file.

    Args:
        suffix: determines the format, e.g. .png or .jpg.
        image: (H, W, 3) uint8 RGB.

    Raises:
        ValueError: as ``write_image``.
    """
    check_photo(image)
    # OpenCV never gets the user's file name: one that is not UTF-8 makes it abort the process.
    if not is_photo(f"name{suffix}") or not cv2.haveImageWriter(f"name{suffix}"):
        raise ValueError(f"unknown image format '{suffix}'; use .png or .jpg")
    try:
        is_done, encoded = cv2.imencode(suffix, np.ascontiguousarray(image[..., ::-1]))
    except cv2.error as error:  # too large for the format
        raise ValueError(f"could not be written ({error.err})") from error
    if not is_done:  # OpenCV 5 does not raise an error
        raise ValueError(f"could not be written as '{suffix}': too large, or no color format")
    return encoded.tobytes()
