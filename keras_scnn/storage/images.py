"""Files of photos decoded: named formats alone, upright, in sRGB, in memory bounded by the file's
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
    TiffImageFile,
)

from keras_scnn.storage.color_profiles import in_srgb, is_srgb
from keras_scnn.storage.shared_state import SharedState

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
A_VIDEO = (
    "a video; give single frames of it, or to reconstruct it, name it as one (.mp4, .mov, ...)"
)
ORIENTATION = 0x0112  # of EXIF
START, END = b"\xff\xd8", b"\xff\xd9"
# Segments before the frame that do not change PIL's pixels: JFIF, ICC, comments, tables.
APP2 = 0xE2
IGNORED = {0xE0, APP2, 0xFE, 0xDB, 0xC4, 0xDD}
PROFILE, PROFILE_HEAD = b"ICC_PROFILE\0", 14  # with the part's number and how many there are
PROGRESSIVE = 0xC2
FRAMES = {0xC0, 0xC1, PROGRESSIVE}  # baseline, extended, progressive; Huffman codes
MAX_PIXELS = 50_000_000  # of a plain JPEG that OpenCV decodes
# A photo of more pixels is read at 1/2, 1/4 or 1/8 of its size: a JPEG in the decoder, so that it
# never is in memory whole. A JPEG of one color has some 170 pixels a byte; one of more is no photo.
MAX_WHOLE_PIXELS, MAX_PIXELS_PER_BYTE = 89_478_485, 256
# Other formats, and the coefficients of progressive JPEGs, are in memory whole, 3 to 6 bytes a
# pixel. So large a photo has a byte for 0.3 to 40 pixels.
MAX_UNREDUCED_PIXELS, LARGE_PIXELS_PER_BYTE = 4 * MAX_WHOLE_PIXELS, 64
STRIP_PIXELS = 1 << 22  # of them that are converted and reduced at once
REDUCED = {n: getattr(cv2, f"IMREAD_REDUCED_COLOR_{n}") for n in (2, 4, 8)}
TRAILER_BYTES = 1 << 16
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
        (H, W, 3) uint8 RGB; None where the file is of another kind, incomplete or damaged, has
        EXIF or XMP data, which may rotate the photo, or a color profile other than sRGB: such files
        are for PIL.
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
            is_usual = data[at + 4] == 8 and data[at + 9] in (1, 3)
            return is_usual and fits and is_srgb(_jpeg_profile(data))
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


def _jpeg_profile(data: bytes) -> bytes:
    """The color profile of a JPEG (ICC.1, B.4), whose parts lie in APP2 segments; b"" without."""
    places = [at for marker, at in _segments(data) if marker == APP2]
    lengths = (int.from_bytes(data[at + 2 : at + 4], "big") for at in places)
    segments = [data[at + 4 : at + 2 + n] for at, n in zip(places, lengths, strict=True)]
    parts = sorted(segment for segment in segments if segment.startswith(PROFILE))  # by number
    return b"".join(part[PROFILE_HEAD:] for part in parts)


def _frame_size(data: bytes, at: int) -> tuple[int, int]:
    """Width and height in the frame header at a place."""
    height, width = (int.from_bytes(data[at + i : at + i + 2], "big") for i in (5, 7))
    return width, height


def _jpeg_frame(data: bytes) -> tuple[int, tuple[int, int]] | None:
    """The marker of a JPEG's frame, and its width and height; None for other formats."""
    if data[:2] != START:
        return None
    frames = ((marker, _frame_size(data, at)) for marker, at in _segments(data) if marker in FRAMES)
    return next(frames, None)


class ReducedImage(NamedTuple):
    """A photo as it was read.

    Attributes:
        image: (H, W, 3) uint8 RGB, upright.
        reduced_by: how many times as wide and high it is in its file: 1, or 2, 4, 8 of large ones.
    """

    image: np.ndarray
    reduced_by: int


def reduction(size: tuple[int, int]) -> int:
    """By how much width and height of a photo of so many pixels are reduced: 1, 2, 4 or 8."""
    return next((n for n in (1, *REDUCED) if math.prod(size) <= n * n * MAX_WHOLE_PIXELS), 8)


def _jpeg_reduced(data: bytes, marker: int, size: tuple[int, int]) -> np.ndarray:
    """A JPEG at 1/2, 1/4 or 1/8 of its size, upright."""
    factor, pixels = reduction(size), math.prod(size)
    if pixels > min(MAX_PIXELS_PER_BYTE * len(data), factor**2 * MAX_WHOLE_PIXELS):
        raise ValueError(f"{_whole(size, data)}: far more pixels than a photo has")
    if marker == PROGRESSIVE and pixels > 2 * MAX_WHOLE_PIXELS:
        _check_large(size, data)
    if END not in data[-TRAILER_BYTES:]:
        raise ValueError("the file is truncated")
    image = PIL.Image.fromarray(_imdecode(data, REDUCED[factor]))
    return np.asarray(in_srgb(image, _jpeg_profile(data)))


def _imdecode(data: bytes, flags: int) -> np.ndarray:
    """(H, W, 3) uint8 RGB by OpenCV."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        raise ValueError("it cannot be decoded")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def decode_image(data: bytes) -> np.ndarray:
    """Decode the bytes of a photo's file, as ``io.read_image`` does.

    Args:
        data: the file.

    Returns:
        (H, W, 3) uint8 RGB, writable and contiguous.

    Raises:
        ValueError: they are not those of a readable image, or it has too many pixels.
    """
    return np.require(_decoded(data), requirements=("C_CONTIGUOUS", "WRITEABLE"))


def _decoded(data: bytes) -> np.ndarray:
    """The pixels; read-only where they are those of a picture of Pillow's."""
    plain = decode_plain_jpeg(data)
    if plain is not None:
        return plain
    frame = _jpeg_frame(data)
    if frame is not None and reduction(frame[1]) > 1:
        return _jpeg_reduced(data, *frame)
    with _opened(data) as file:
        if reduction(file.size) > 1:
            return _reduced(file, data)
        PIL.ImageOps.exif_transpose(file, in_place=True)
        return np.asarray(_in_rgb(file))


def image_size(data: bytes) -> tuple[int, int]:
    """Width and height that the bytes of a photo's file declare; no pixel is decoded.

    Raises:
        ValueError: they are not those of a readable image, or it has too many pixels.
    """
    frame = _jpeg_frame(data)
    if frame is not None and reduction(frame[1]) > 1:
        return frame[1]
    with _opened(data) as file:
        return file.size


def decode_reduced(data: bytes) -> ReducedImage:
    """``decode_image``, and by how much it reduces the photo."""
    return ReducedImage(decode_image(data), reduction(image_size(data)))


@contextlib.contextmanager
def _opened(data: bytes) -> Iterator[PIL.Image.Image]:
    """The photo in Pillow; whatever goes wrong in it or in the block is a ValueError.

    Each format's decoder raises errors of its own, and Pillow hands them on.
    """
    formats = (*FORMATS, "HEIF") if is_heif(data) and _start_heif() else FORMATS
    try:
        with PILLOWS_LIMIT_LIFTED.held():
            file = PIL.Image.open(io.BytesIO(data), formats=formats)
        with file:
            _check_pixels(file.size, data)
            _check_values(file)
            yield file
    except PIL.UnidentifiedImageError as error:
        reason = A_VIDEO if VIDEOS.match(data) else NO_FORMAT
        raise ValueError(reason) from error
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _check_values(file: PIL.Image.Image) -> None:
    """Raise a ValueError for pixels of which it is not known what value is white."""
    kind = {"F": "floating-point", "I": "32-bit or signed"}.get(file.mode)
    if kind and (file.mode, file.format) != ("I", "PPM"):  # whose values Pillow scales to 16 bits
        raise ValueError(f"{kind} pixels; save it with 8 or 16 bits a channel")
    if isinstance(file, TiffImageFile):
        _check_tiff(file)


def _check_tiff(file: TiffImageFile) -> None:
    """Raise a ValueError for layouts of more than 8 bits whose values Pillow hands on unscaled,
    inverted or mixed up."""
    bits, tags = file.tag_v2.get(BITSPERSAMPLE, (8,)), file.tag_v2
    is_white_zero = tags.get(PHOTOMETRIC_INTERPRETATION) == 0
    has_planes = tags.get(PLANAR_CONFIGURATION) == 2 and len(bits) > 1
    if max(bits) > 8 and (set(bits) != {16} or is_white_zero or has_planes):
        raise ValueError(
            f"a TIFF of {max(bits)} bits of a kind that is not read; save it as PNG, or with 8 bits"
        )


def _lift_limit() -> Callable[[], None]:
    pixels, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None
    return lambda: setattr(PIL.Image, "MAX_IMAGE_PIXELS", pixels)


# Pillow's own limit is on pixels alone; without it the pixels are compared with the file's size.
PILLOWS_LIMIT_LIFTED = SharedState(_lift_limit)


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


def _whole(size: tuple[int, int], data: bytes) -> str:
    return f"{size[0]} x {size[1]} px in {len(data):,} bytes"


def _check_pixels(size: tuple[int, int], data: bytes) -> None:
    """Refuse a photo whose file is far too small for its pixels, before memory is taken for them.

    Photos of faces have some pixels a byte; those of one color have hundreds, and a damaged or
    hostile header declares millions.
    """
    if math.prod(size) > max(FREE_PIXELS, PIXELS_PER_BYTE * len(data)):
        raise ValueError(f"{_whole(size, data)}: far more pixels than a photo has")
    if reduction(size) > 1:
        _check_large(size, data)


def _check_large(size: tuple[int, int], data: bytes) -> None:
    """Refuse what is decoded whole and then reduced, unless it is a photo by its file's size."""
    if math.prod(size) > LARGE_PIXELS_PER_BYTE * len(data):
        raise ValueError(f"{_whole(size, data)}: far more pixels than a large photo has")
    if math.prod(size) > MAX_UNREDUCED_PIXELS:
        raise ValueError(
            f"{_whole(size, data)}: more than {MAX_UNREDUCED_PIXELS:,} pixels, of which only JPEG "
            "files that are not progressive are read"
        )


def _reduced(image: PIL.Image.Image, data: bytes) -> np.ndarray:
    """A large photo at a part of its size, upright."""
    if image.format == "WEBP":  # for which Pillow takes 15 bytes a pixel, and OpenCV 4
        if image.mode != "RGB":
            raise ValueError("so large a WebP photo has to be opaque; save it as PNG")
        whole = _imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        profile = image.info.get("icc_profile")
        small = _reduced_in_strips(
            image.size, lambda top, stop: in_srgb(PIL.Image.fromarray(whole[top:stop]), profile)
        )
    else:
        with PILLOWS_LIMIT_LIFTED.held():
            image.load()
        width = image.size[0]
        small = _reduced_in_strips(
            image.size, lambda top, stop: _in_rgb(image.crop((0, top, width, stop)))
        )
    return _upright(small, image.getexif().get(ORIENTATION, 1))


def _reduced_in_strips(
    size: tuple[int, int], strip: Callable[[int, int], PIL.Image.Image]
) -> np.ndarray:
    """Means of blocks; ``strip`` gives some rows as RGB, since all would take as much again."""
    (width, height), factor = size, reduction(size)
    rows = factor * max(1, STRIP_PIXELS // (factor * width))
    small = np.empty((-(-height // factor), -(-width // factor), 3), np.uint8)
    for top in range(0, height, rows):
        part = strip(top, min(top + rows, height)).reduce(factor)
        small[top // factor : (top + rows) // factor] = np.asarray(part)
    return small


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """An (H, W, 3) uint8 image by EXIF's number."""
    if orientation not in range(2, 9):
        return image
    turned = PIL.Image.fromarray(image)
    turned.getexif()[ORIENTATION] = orientation
    return np.asarray(PIL.ImageOps.exif_transpose(turned))


def _in_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """A picture of any mode as RGB in sRGB."""
    profile = image.info.get("icc_profile")
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
    """16-bit gray values, which PIL would clip, scaled to 0 to 255."""
    return np.clip(image.astype(np.float64) / 257, 0, 255).round().astype(np.uint8)
