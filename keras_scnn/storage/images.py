"""Decoding of photos: only the listed formats, upright, in sRGB, in memory limited by the file's
size."""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    TILELENGTH,
    TILEWIDTH,
    TiffImageFile,
)

from keras_scnn.storage.color_profiles import color_profile, in_srgb, is_srgb
from keras_scnn.storage.shared_state import SharedState

# Formats of photos (MPO, which some cameras write, is opened as JPEG). Whatever a file's suffix,
# Pillow would open some 45 formats, and run other programs for some of them.
for plugin in ("WebP", "Tiff", "Avif", "Jpeg2K"):  # the others are registered by ``preinit``
    with contextlib.suppress(ImportError):  # AVIF needs Pillow 11.3
        importlib.import_module(f"PIL.{plugin}ImagePlugin")
PIL.Image.preinit()
WANTED = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000", "PPM")
FORMATS = tuple(name for name in WANTED if name in PIL.Image.OPEN)
HEIF_BRANDS = re.compile(rb"hei[cxms]|hev[cxms]|mif1|msf1")
NO_FORMAT = "of no known format, or damaged"
A_VIDEO = (
    "a video; give single frames, or rename it with the suffix of a video (.mp4, .mov, ...) to "
    "reconstruct it"
)
ORIENTATION = 0x0112  # of EXIF
START, END = b"\xff\xd8", b"\xff\xd9"
# Segments before the frame that do not change Pillow's pixels: JFIF, ICC, comments, tables.
APP1, APP2 = 0xE1, 0xE2
IGNORED = {0xE0, APP2, 0xFE, 0xDB, 0xC4, 0xDD}
EXIF = b"Exif\0\0"
PROFILE, PROFILE_HEAD = b"ICC_PROFILE\0", 14  # bytes, with the part's number and their count
PROGRESSIVE = 0xC2
SCAN = re.compile(b"\xff\xda")  # ``bytes.count`` is three times as slow
# Each scan of a progressive JPEG goes over the whole photo. Photos have about 10; libtiff, too,
# allows 100. Data after the photo, such as a phone's video, contain the marker by chance, once in
# 65,536 bytes.
MAX_SCANS, BYTES_PER_CHANCE = 100, 16384
FRAMES = {0xC0, 0xC1, PROGRESSIVE}  # baseline, extended, progressive; Huffman codes
MAX_PIXELS = 50_000_000  # of a plain JPEG that OpenCV decodes
# A photo of more pixels is read at 1/2, 1/4 or 1/8 of its size: a JPEG by its decoder, so that it
# is never in memory at full size. A JPEG of one color has some 170 pixels per byte; one with more
# is not a photo.
MAX_WHOLE_PIXELS, MAX_PIXELS_PER_BYTE = 89_478_485, 256
# Other formats, and the coefficients of progressive JPEGs, are in memory at full size, 3 to 6 bytes
# per pixel. Photos of this size have 0.3 to 40 pixels per byte of the file.
MAX_UNREDUCED_PIXELS, LARGE_PIXELS_PER_BYTE = 4 * MAX_WHOLE_PIXELS, 64
STRIP_PIXELS = 1 << 22  # converted and reduced at once
REDUCED = {n: getattr(cv2, f"IMREAD_REDUCED_COLOR_{n}") for n in (2, 4, 8)}
CODESTREAM = b"\xff\x4f\xff\x51"  # start of JPEG 2000's, and its SIZ marker
TRAILER_BYTES = 1 << 16
VIDEOS = re.compile(
    rb"....ftyp(?:iso|mp4|M4V|qt  |3gp|avc1|dash)|RIFF....AVI |\x1aE\xdf\xa3", re.DOTALL
)
FREE_PIXELS, PIXELS_PER_BYTE = 25_000_000, 100


def decode_plain_jpeg(data: bytes) -> np.ndarray | None:
    """Decode a gray or YCbCr JPEG without metadata, to the same pixels as Pillow.

    Both use libjpeg-turbo; Pillow spends more time on headers and copies than on decoding a face
    crop.

    Args:
        data: the content of the file.

    Returns:
        (H, W, 3) uint8 RGB; None for files left to Pillow: those of another kind, incomplete or
        damaged ones, and those with EXIF or XMP data, which may rotate the photo, or with a color
        profile other than sRGB.
    """
    if data[:2] != START or data[-2:] != END or not _is_plain(data):
        return None
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # left to Pillow, which reports what is wrong
        return None
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def _is_plain(data: bytes) -> bool:
    """Whether OpenCV decodes a JPEG as Pillow does, and no metadata changes its pixels."""
    for marker, at in _segments(data):
        if marker in FRAMES:
            pixels = math.prod(_frame_size(data, at))
            fits = pixels <= min(max(FREE_PIXELS, PIXELS_PER_BYTE * len(data)), MAX_PIXELS)
            is_usual = data[at + 4] == 8 and data[at + 9] in (1, 3)
            return is_usual and fits and is_srgb(_jpeg_profile(data))
        if marker not in IGNORED:
            return False
    return False


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Marker and offset of a JPEG's segments, up to the frame header (ITU-T T.81, B.2.2)."""
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        yield data[at + 1], at
        if data[at + 1] in FRAMES:
            return
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def _contents(data: bytes, wanted: int) -> list[bytes]:
    """The contents of a JPEG's segments with a marker."""
    offsets = [at for marker, at in _segments(data) if marker == wanted]
    lengths = (int.from_bytes(data[at + 2 : at + 4], "big") for at in offsets)
    return [data[at + 4 : at + 2 + n] for at, n in zip(offsets, lengths, strict=True)]


def _jpeg_profile(data: bytes) -> bytes:
    """The color profile of a JPEG (ICC.1, B.4), from parts in APP2 segments; b"" if none."""
    parts = sorted(part for part in _contents(data, APP2) if part.startswith(PROFILE))  # by number
    return b"".join(part[PROFILE_HEAD:] for part in parts)


def _jpeg_exif(data: bytes) -> PIL.Image.Exif:
    """The EXIF data of a JPEG (Exif 2.32, 4.7.2), from its APP1 segment; empty if none."""
    exif = PIL.Image.Exif()
    exif.load(next((part for part in _contents(data, APP1) if part.startswith(EXIF)), b""))
    return exif


def _frame_size(data: bytes, at: int) -> tuple[int, int]:
    """Width and height from the frame header at offset ``at``."""
    height, width = (int.from_bytes(data[at + i : at + i + 2], "big") for i in (5, 7))
    return width, height


def _jpeg_frame(data: bytes) -> tuple[int, tuple[int, int]] | None:
    """The marker of a JPEG's frame, and its (width, height); None for other formats."""
    if data[:2] != START:
        return None
    frames = ((marker, _frame_size(data, at)) for marker, at in _segments(data) if marker in FRAMES)
    return next(frames, None)


class ReducedImage(NamedTuple):
    """A decoded photo.

    Attributes:
        image: (H, W, 3) uint8 RGB, upright.
        reduced_by: factor that width and height were reduced by: 1; 2, 4 or 8 for large photos.
    """

    image: np.ndarray
    reduced_by: int


def reduction(size: tuple[int, int]) -> int:
    """The factor that a photo's width and height are reduced by when read: 1, 2, 4 or 8."""
    return next((n for n in (1, *REDUCED) if math.prod(size) <= n * n * MAX_WHOLE_PIXELS), 8)


def _jpeg_reduced(data: bytes, marker: int, size: tuple[int, int]) -> np.ndarray:
    """A JPEG at 1/2, 1/4 or 1/8 of its size, upright."""
    factor, pixels = reduction(size), math.prod(size)
    if pixels > min(MAX_PIXELS_PER_BYTE * len(data), factor**2 * MAX_WHOLE_PIXELS):
        raise ValueError(f"{_described(size, data)}: far more pixels than a photo has")
    if marker == PROGRESSIVE and pixels > 2 * MAX_WHOLE_PIXELS:
        _check_large(size, data)
    if END not in data[-TRAILER_BYTES:]:
        raise ValueError("the file is truncated")
    profile = color_profile(_jpeg_profile(data), lambda: _jpeg_exif(data))
    image = PIL.Image.fromarray(_imdecode(data, REDUCED[factor]))
    return np.asarray(in_srgb(image, profile))


def _imdecode(data: bytes, flags: int) -> np.ndarray:
    """Decode to (H, W, 3) uint8 RGB with OpenCV."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        raise ValueError("it cannot be decoded")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def decode_image(data: bytes) -> np.ndarray:
    """Decode the content of a photo's file, as ``io.read_image`` does.

    Args:
        data: the content of the file.

    Returns:
        (H, W, 3) uint8 RGB, writable and contiguous.

    Raises:
        ValueError: it is not a readable image, or has too many pixels.
    """
    return np.require(_decoded(data), requirements=("C_CONTIGUOUS", "WRITEABLE"))


def _decoded(data: bytes) -> np.ndarray:
    """The pixels; read-only if they belong to an image of Pillow."""
    scans = len(SCAN.findall(data)) if data[:2] == START else 0
    if scans > MAX_SCANS + len(data) // BYTES_PER_CHANCE:
        raise ValueError(f"{scans:,} scans: far more than a photo has")
    plain = decode_plain_jpeg(data)
    if plain is not None:
        return plain
    frame = _jpeg_frame(data)
    if frame is not None and reduction(frame[1]) > 1:
        return _jpeg_reduced(data, *frame)
    with _opened(data) as file:
        if reduction(file.size) > 1:
            return _reduced(file, data)
        profile = color_profile(file.info.get("icc_profile"), file.getexif)
        PIL.ImageOps.exif_transpose(file, in_place=True)
        return np.asarray(_in_rgb(file, profile))


def image_size(data: bytes) -> tuple[int, int]:
    """Width and height that the content of a photo's file declares; no pixel is decoded.

    Raises:
        ValueError: it is not a readable image, or has too many pixels.
    """
    frame = _jpeg_frame(data)
    if frame is not None and reduction(frame[1]) > 1:
        return frame[1]
    with _opened(data) as file:
        return file.size


def decode_reduced(data: bytes) -> ReducedImage:
    """``decode_image`` with the factor that it reduces the photo by."""
    return ReducedImage(decode_image(data), reduction(image_size(data)))


@contextlib.contextmanager
def _opened(data: bytes) -> Iterator[PIL.Image.Image]:
    """The photo opened by Pillow; any error while opening or in the block becomes a ValueError.

    Each format's decoder raises errors of other types, which Pillow passes on.
    """
    formats = (*FORMATS, "HEIF") if is_heif(data) and _start_heif() else FORMATS
    try:
        with PILLOWS_LIMIT_LIFTED.held():
            file = PIL.Image.open(io.BytesIO(data), formats=formats)
        with file:
            _check_pixels(_decoded_size(file), data)
            _check_values(file, data)
            yield file
    except PIL.UnidentifiedImageError as error:
        reason = A_VIDEO if VIDEOS.match(data) else NO_FORMAT
        raise ValueError(reason) from error
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _decoded_size(file: PIL.Image.Image) -> tuple[int, int]:
    """Width and height of what is decoded at once: a TIFF's tile may be larger than the image."""
    width, height = file.size
    if isinstance(file, TiffImageFile):
        tags = file.tag_v2
        return max(width, tags.get(TILEWIDTH, 0)), max(height, tags.get(TILELENGTH, 0))
    return width, height


def _check_values(file: PIL.Image.Image, data: bytes) -> None:
    """Raise a ValueError for types of pixels whose white value is unknown or that Pillow reads
    wrong."""
    kind = {"F": "floating-point", "I": "32-bit or signed"}.get(file.mode)
    if kind and (file.mode, file.format) != ("I", "PPM"):  # whose values Pillow scales to 16 bits
        raise ValueError(f"{kind} pixels; save it with 8 or 16 bits per channel")
    if isinstance(file, TiffImageFile):
        _check_tiff(file)
    if file.format == "JPEG2000":
        _check_jpeg_2000(data)


def _check_tiff(file: TiffImageFile) -> None:
    """Raise a ValueError for layouts of more than 8 bits whose values Pillow returns unscaled,
    inverted or mixed up."""
    bits, tags = file.tag_v2.get(BITSPERSAMPLE, (8,)), file.tag_v2
    is_white_zero = tags.get(PHOTOMETRIC_INTERPRETATION) == 0
    has_planes = tags.get(PLANAR_CONFIGURATION) == 2 and len(bits) > 1
    if max(bits) > 8 and (set(bits) != {16} or is_white_zero or has_planes):
        raise ValueError(
            f"an unsupported kind of TIFF of {max(bits)} bits; save it as PNG, or with 8 bits"
        )


def _check_jpeg_2000(data: bytes) -> None:
    """Raise a ValueError for more than 8 bits per color: white overflows to black in Pillow 13.

    The SIZ marker lists the bits of each component (ITU-T T.800, A.5.1).
    """
    head = data.partition(CODESTREAM)[2]
    count = int.from_bytes(head[36:38], "big")
    bits = [(value & 0x7F) + 1 for value in head[38 : 38 + 3 * count : 3]]
    if count > 1 and max(bits, default=8) > 8:
        raise ValueError(f"a JPEG 2000 of {max(bits)} bits per color; save it as PNG, or with 8")


def _lift_limit() -> Callable[[], None]:
    pixels, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None
    return lambda: setattr(PIL.Image, "MAX_IMAGE_PIXELS", pixels)


# Pillow limits the number of pixels only; it is checked against the file's size instead.
PILLOWS_LIMIT_LIFTED = SharedState(_lift_limit)


def is_heif(data: bytes) -> bool:
    """Whether a file is HEIF with HEVC, as phones write (ISO/IEC 23008-12); AVIF is not."""
    brands = data[8 : min(int.from_bytes(data[:4], "big"), 64)]
    return data[4:8] == b"ftyp" and b"avif" not in brands and HEIF_BRANDS.search(brands) is not None


def _start_heif() -> bool:
    try:
        import pillow_heif
    except ImportError as error:
        raise ValueError(
            "a HEIC photo; reading it needs pillow-heif: pip install '.[heif]', or pillow-heif"
        ) from error
    if "HEIF" not in PIL.Image.OPEN:
        pillow_heif.register_heif_opener()
    return True


def _described(size: tuple[int, int], data: bytes) -> str:
    return f"{size[0]} x {size[1]} px in {len(data):,} bytes"


def _check_pixels(size: tuple[int, int], data: bytes) -> None:
    """Refuse a photo whose file is far too small for its pixels, before memory is allocated.

    Photos of faces have a few pixels per byte, images of one color hundreds; a damaged or hostile
    header declares millions.
    """
    if math.prod(size) > max(FREE_PIXELS, PIXELS_PER_BYTE * len(data)):
        raise ValueError(f"{_described(size, data)}: far more pixels than a photo has")
    if reduction(size) > 1:
        _check_large(size, data)


def _check_large(size: tuple[int, int], data: bytes) -> None:
    """Limit photos that are decoded at full size before they are reduced."""
    if math.prod(size) > LARGE_PIXELS_PER_BYTE * len(data):
        raise ValueError(f"{_described(size, data)}: far more pixels than a large photo has")
    if math.prod(size) > MAX_UNREDUCED_PIXELS:
        raise ValueError(
            f"{_described(size, data)}: more than {MAX_UNREDUCED_PIXELS:,} pixels, which only JPEG "
            "files that are not progressive may have"
        )


def _reduced(image: PIL.Image.Image, data: bytes) -> np.ndarray:
    """A large photo at 1/2, 1/4 or 1/8 of its size, upright."""
    profile = color_profile(image.info.get("icc_profile"), image.getexif)
    if image.format == "WEBP":  # for which Pillow takes 15 bytes per pixel, OpenCV 4
        if image.mode != "RGB":
            raise ValueError("a WebP photo of this size must be opaque; save it as PNG")
        whole = _imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        small = _reduced_in_strips(
            image.size, lambda top, stop: in_srgb(PIL.Image.fromarray(whole[top:stop]), profile)
        )
    else:
        with PILLOWS_LIMIT_LIFTED.held():
            image.load()
        width = image.size[0]
        small = _reduced_in_strips(
            image.size, lambda top, stop: _in_rgb(image.crop((0, top, width, stop)), profile)
        )
    return _upright(small, image.getexif().get(ORIENTATION, 1))


def _reduced_in_strips(
    size: tuple[int, int], strip: Callable[[int, int], PIL.Image.Image]
) -> np.ndarray:
    """Means of blocks; ``strip(top, stop)`` gives rows as RGB: all at once would double memory."""
    (width, height), factor = size, reduction(size)
    rows = factor * max(1, STRIP_PIXELS // (factor * width))
    small = np.empty((-(-height // factor), -(-width // factor), 3), np.uint8)
    for top in range(0, height, rows):
        part = strip(top, min(top + rows, height)).reduce(factor)
        small[top // factor : (top + rows) // factor] = np.asarray(part)
    return small


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """An (H, W, 3) uint8 image turned upright by EXIF's orientation, 1 to 8."""
    if orientation not in range(2, 9):
        return image
    turned = PIL.Image.fromarray(image)
    turned.getexif()[ORIENTATION] = orientation
    return np.asarray(PIL.ImageOps.exif_transpose(turned))


def _in_rgb(image: PIL.Image.Image, profile: bytes | None) -> PIL.Image.Image:
    """An image of any mode, in a profile's colors, as RGB in sRGB, on white if transparent."""
    if image.mode.startswith("I"):
        image = PIL.Image.fromarray(_to_8_bit(np.asarray(image)))
    elif image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        mode = "L" if image.mode in ("L", "LA") else "RGB"
        image = image.convert("RGBA")
        white = PIL.Image.new("RGBA", image.size, "white")
        image = PIL.Image.alpha_composite(white, image).convert(mode)
    if image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("RGB")
    image = in_srgb(image, profile)
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_8_bit(image: np.ndarray) -> np.ndarray:
    """16-bit gray values, which Pillow would clip, scaled to 0 to 255."""
    return np.clip(image.astype(np.float64) / 257, 0, 255).round().astype(np.uint8)
