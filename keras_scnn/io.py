"""Photos in, pictures out."""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps

from keras_scnn.storage import atomic_path
from keras_scnn.storage.guard import reading

# What photos come as (MPO, which some cameras write, is opened as JPEG). Pillow would open some 45
# formats, and start other programs for some of them, whatever a file's name ends in.
for plugin in ("WebP", "Tiff", "Avif", "Jpeg2K"):  # the others are registered by ``preinit``
    with contextlib.suppress(ImportError):  # AVIF needs Pillow 11.3
        importlib.import_module(f"PIL.{plugin}ImagePlugin")
PIL.Image.preinit()
WANTED = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000", "PPM")
FORMATS = tuple(name for name in WANTED if name in PIL.Image.OPEN)
HEIF_BRANDS = re.compile(rb"hei[cxms]|hev[cxms]|mif1|msf1")
NO_FORMAT = "of no known format, or damaged"
START, END = b"\xff\xd8", b"\xff\xd9"
# Segments before the frame that do not change PIL's pixels: JFIF, ICC, comments, tables.
IGNORED = {0xE0, 0xE2, 0xFE, 0xDB, 0xC4, 0xDD}
FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive; Huffman codes
MAX_PIXELS = 50_000_000  # of a plain JPEG that OpenCV decodes
# A JPEG of more pixels is read at 1/2, 1/4 or 1/8 of its size, in the decoder, so that it never is
# in memory whole. A file of one color has some 170 pixels a byte; one of more is no photo.
MAX_WHOLE_PIXELS, MAX_PIXELS_PER_BYTE = 89_478_485, 256
REDUCED = {n: getattr(cv2, f"IMREAD_REDUCED_COLOR_{n}") for n in (2, 4, 8)}
HEADER_BYTES, TRAILER_BYTES = 1 << 20, 1 << 16
VIDEOS = re.compile(
    rb"....ftyp(?:iso|mp4|M4V|qt  |3gp|avc1|dash)|RIFF....AVI |\x1aE\xdf\xa3", re.DOTALL
)
FREE_PIXELS, PIXELS_PER_BYTE = 25_000_000, 100


def decode_plain_jpeg(data: bytes) -> np.ndarray | None:
    """Decode a gray or YCbCr JPEG without metadata, to the same pixels as PIL.

    Both use libjpeg-turbo; PIL spends more time on headers and copies than on decoding a face crop.

    Args:
        data: the file.

    Returns:
        (H, W, 3) uint8 RGB; None where the file is of another kind, incomplete or damaged, or has
        EXIF or XMP data, which may rotate the photo: such files are for PIL.
    """
    if data[:2] != START or data[-2:] != END or not _is_plain(data):
        return None
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # for Pillow then, which says what is wrong
        return None
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def _is_plain(data: bytes) -> bool:
    """Whether nothing but the pixels matters, and OpenCV decodes them as Pillow does."""
    for marker, at in _segments(data):
        if marker in FRAMES:
            pixels = math.prod(_frame_size(data, at))
            fits = pixels <= min(max(FREE_PIXELS, PIXELS_PER_BYTE * len(data)), MAX_PIXELS)
            return data[at + 4] == 8 and data[at + 9] in (1, 3) and fits
        if marker not in IGNORED:
            return False
    return False


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Markers and places of a JPEG's segments, the frame header's at last (ITU-T T.81, B.2.2)."""
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        yield data[at + 1], at
        if data[at + 1] in FRAMES:
            return
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def _frame_size(data: bytes, at: int) -> tuple[int, int]:
    """Width and height in the frame header at a place."""
    height, width = (int.from_bytes(data[at + i : at + i + 2], "big") for i in (5, 7))
    return width, height


def jpeg_reduction(header: bytes) -> int:
    """By how much ``read_image`` reduces a photo: 1, or 2, 4 or 8 for a JPEG of over 89 million px.

    Args:
        header: the beginning of the file, up to the frame header at least.
    """
    if header[:2] != START:
        return 1
    sizes = [_frame_size(header, at) for marker, at in _segments(header) if marker in FRAMES]
    pixels = math.prod(sizes[0]) if sizes else 0
    return next((n for n in (1, *REDUCED) if pixels <= n * n * MAX_WHOLE_PIXELS), 8)


def _decode_reduced(data: bytes, factor: int) -> np.ndarray:
    """A JPEG at 1/2, 1/4 or 1/8 of its size, upright."""
    at = next(at for marker, at in _segments(data) if marker in FRAMES)
    width, height = _frame_size(data, at)
    whole = f"{width} x {height} px in {len(data):,} bytes"
    if width * height > min(MAX_PIXELS_PER_BYTE * len(data), factor**2 * MAX_WHOLE_PIXELS):
        raise ValueError(f"{whole}: far more pixels than a photo has")
    if data[at + 1] == 0xC2 and width * height > 2 * MAX_WHOLE_PIXELS:
        raise ValueError(f"{whole}, progressive, which takes memory for all of them; save it anew")
    if END not in data[-TRAILER_BYTES:]:
        raise ValueError("the file is truncated")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), REDUCED[factor])
    if image is None:
        raise ValueError("a JPEG file that cannot be decoded")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read a photo upright, as 8-bit RGB.

    The EXIF orientation is applied, gray becomes RGB, 16 bits become 8, and transparent pixels are
    composited over white. A JPEG of more than 89 million pixels is read at 1/2, 1/4 or 1/8 of its
    width and height (``jpeg_reduction``): coordinates are those of the array that is returned.

    Args:
        path: a JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF, JPEG 2000 or PPM file, or HEIC with the extra
            'heif', whatever its name ends in; the first picture where it holds several.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        FileNotFoundError: there is no such file.
        IsADirectoryError: it is a folder.
        ValueError: the file is not a readable image.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: a folder; expected a photo")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such photo")
    with reading(path, "a readable image"):
        return decode_image(path.read_bytes())


def decode_image(data: bytes) -> np.ndarray:
    """Decode the bytes of a photo's file, as ``read_image`` does.

    Args:
        data: the file.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: they are not those of a readable image, or it has too many pixels.
    """
    plain = decode_plain_jpeg(data)
    if plain is not None:
        return plain
    if (factor := jpeg_reduction(data)) > 1:
        return _decode_reduced(data, factor)
    with _opened(data) as file:
        PIL.ImageOps.exif_transpose(file, in_place=True)
        return _to_rgb(file)


def image_size(data: bytes) -> tuple[int, int]:
    """Width and height that the bytes of a photo's file declare; no pixel is decoded.

    Raises:
        ValueError: they are not those of a readable image, or it has too many pixels.
    """
    if jpeg_reduction(data) > 1:
        return next(_frame_size(data, at) for marker, at in _segments(data) if marker in FRAMES)
    with _opened(data) as file:
        return file.size


@contextlib.contextmanager
def _opened(data: bytes) -> Iterator[PIL.Image.Image]:
    """The photo in Pillow; whatever goes wrong in it or in the block is a ValueError.

    Each format's decoder raises errors of its own, and Pillow hands them on.
    """
    formats = (*FORMATS, "HEIF") if is_heif(data) and _start_heif() else FORMATS
    try:
        with PIL.Image.open(io.BytesIO(data), formats=formats) as file:
            _check_pixels(file.size, len(data))
            yield file
    except PIL.UnidentifiedImageError as error:
        reason = "a video; give single frames of it" if VIDEOS.match(data) else NO_FORMAT
        raise ValueError(reason) from error
    except PIL.Image.DecompressionBombError as error:
        raise ValueError("too many pixels; of such photos only JPEG files are read") from error
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from error


def is_heif(data: bytes) -> bool:
    """Whether a file is HEIF of HEVC, as phones write (ISO/IEC 23008-12); AVIF is not."""
    brands = data[8 : min(int.from_bytes(data[:4], "big"), 64)]
    return data[4:8] == b"ftyp" and b"avif" not in brands and HEIF_BRANDS.search(brands) is not None


def _start_heif() -> bool:
    try:
        import pillow_heif
    except ImportError as error:
        raise ValueError(
            "a HEIC photo; reading it takes pillow-heif: pip install '.[heif]', or pillow-heif"
        ) from error
    if "HEIF" not in PIL.Image.OPEN:
        pillow_heif.register_heif_opener()
    return True


def _check_pixels(size: tuple[int, int], file_bytes: int) -> None:
    """Refuse a photo whose file is far too small for its pixels, before memory is taken for them.

    Photos of faces have some pixels a byte; those of one color have hundreds, and a damaged or
    hostile header declares millions.
    """
    if size[0] * size[1] > max(FREE_PIXELS, PIXELS_PER_BYTE * file_bytes):
        raise ValueError(
            f"{size[0]} x {size[1]} px in {file_bytes:,} bytes: far more pixels than a photo has"
        )


def _to_rgb(image: PIL.Image.Image) -> np.ndarray:
    if image.mode == "F":
        raise ValueError("floating-point pixels; save it with 8 or 16 bits a channel")
    if image.mode.startswith("I"):
        return np.repeat(_to_8_bit(np.asarray(image))[..., None], 3, axis=-1)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = PIL.Image.new("RGBA", image.size, "white")
        image = PIL.Image.alpha_composite(white, image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _to_8_bit(image: np.ndarray) -> np.ndarray:
    """16-bit gray values, which PIL would clip, scaled to 0 to 255."""
    return np.clip(image.astype(np.float64) / 257, 0, 255).round().astype(np.uint8)


def write_image(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write an image, whole or not at all.

    Args:
        path: the suffix chooses the format, e.g. .png or .jpg.
        image: (H, W, 3) uint8 RGB.

    Raises:
        ValueError: unknown suffix, or an image that the format cannot hold.
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
        ValueError: unknown suffix, or an image that the format cannot hold.
    """
    # OpenCV gets no file names: it ends the process at one that is not UTF-8.
    if not suffix.isascii() or not cv2.haveImageWriter(f"name{suffix}"):
        raise ValueError(f"unknown kind of image '{suffix}'; use .png or .jpg")
    try:
        encoded = cv2.imencode(suffix, np.ascontiguousarray(image[..., ::-1]))[1]
    except cv2.error as error:  # too large for the format
        raise ValueError(f"could not be written ({error.err})") from error
    return encoded.tobytes()
