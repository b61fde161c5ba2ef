"""JPEG files without anything special, decoded three times faster than by PIL."""

from __future__ import annotations

import cv2
import numpy as np

START, END = b"\xff\xd8", b"\xff\xd9"
# Segments up to the frame that PIL has nothing to do with: JFIF, ICC, comments, tables.
HARMLESS = {0xE0, 0xE2, 0xFE, 0xDB, 0xC4, 0xDD}
FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive; Huffman codes
MOST_PIXELS = 50_000_000


def decode_plain_jpeg(data: bytes) -> np.ndarray | None:
    """Decode a gray or YCbCr JPEG without metadata; the pixels are those that PIL gives.

    Both use libjpeg-turbo. The time is saved around it: what PIL takes for the headers and for
    copies is more than the decoding of a face crop.

    Args:
        data: the file.

    Returns:
        (H, W, 3) uint8 RGB; None where the file is of another kind, incomplete or damaged, or has
        EXIF or XMP data, which may turn the photo: PIL's then.
    """
    if data[:2] != START or data[-2:] != END or not _is_plain(data):
        return None
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def _is_plain(data: bytes) -> bool:
    """Walk over the segments to the frame header (ITU-T T.81, B.2.2)."""
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in FRAMES:
            height = int.from_bytes(data[at + 5 : at + 7], "big")
            width = int.from_bytes(data[at + 7 : at + 9], "big")
            return data[at + 4] == 8 and data[at + 9] in (1, 3) and height * width <= MOST_PIXELS
        if marker not in HARMLESS:
            return False
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False
