"""Make crops.json: the crops that every cropper of this project has to cut, and what it refuses.

    python tests/golden/make_crops.py

There is a cropper for each runtime: ``photos.cropping`` (OpenCV), ``export.lite`` (NumPy),
``export.tf_cropping`` (TensorFlow) and ``export/web/src/image.ts`` (TypeScript). The expected
pixels come from none of them, but from the definition, pixel by pixel in float64.
"""

import base64
import json
import math
from pathlib import Path

import numpy as np

TABLE = Path(__file__).with_name("crops.json")
SMALL, LARGE, SIZE = (60, 44), (400, 300), 16
BOXES = {
    "copied pixel by pixel": (SMALL, (13, 7, 29, 23)),
    "moved by parts of a pixel": (SMALL, (13.3, 7.8, 29.3, 23.8)),
    "enlarged": (SMALL, (20.4, 11.1, 26.9, 17.6)),
    "reduced, no block": (SMALL, (10.2, 5.5, 32.7, 28.0)),
    "reduced to half, blocks of 2": (SMALL, (10, 6, 42, 38)),
    "reduced by 2.5, where a block's side is a tie": (SMALL, (8, 2, 48, 42)),
    "reduced by 3.5, another tie": (LARGE, (8, 2, 64, 58)),
    "not quite square": (SMALL, (10, 6, 30, 26.8)),
    "over the left and upper edge": (SMALL, (-9.5, -4.25, 14.5, 19.75)),
    "over the right and lower edge": (SMALL, (48.1, 30.9, 75.1, 57.9)),
    "around the whole photo": (SMALL, (-20, -28, 80, 72)),
    "beside the photo: black": (SMALL, (900, 900, 930, 930)),
    "far away from the photo: black": (SMALL, (-9e8, -9e8, -9e8 + 512, -9e8 + 512)),
    "a photo of one pixel": ((1, 1), (-1, -1, 2, 2)),
    "a large reduction": (LARGE, (31.5, 12.25, 301.5, 282.25)),
    "the largest reduction": (SMALL, (-450, -458, 510, 502)),
}
SQUARES = {  # center, side, degrees
    "turned by 30 degrees": (SMALL, (30.5, 21.0), 18.0, 30),
    "turned by a quarter": (SMALL, (24, 20), 16, 90),
    "turned back by 135 degrees, at the edge": (SMALL, (52.3, 8.8), 30.0, -135),
    "turned upside down and reduced": (LARGE, (180.2, 151.7), 130.0, 180),
    "turned by 75 degrees and reduced": (LARGE, (205.0, 140.0), 210.0, 75),
}
REFUSED_BOXES = {
    "an edge that is not a number": (5, 5, "NaN", 25),
    "an edge at infinity": (5, 5, "Infinity", "Infinity"),
    "empty": (5, 5, 5, 5),
    "inside out": (25, 25, 5, 5),
    "not square": (5, 5, 25, 29),
    "more than 16 times as wide as the photo": (-450, -458, 530, 522),
    "a billion times as wide as the photo": (-3e10, -3e10, 3e10, 3e10),
}
REFUSED_PHOTOS = {  # size, box: whole blocks of a narrow photo would be far larger than the photo
    "a photo of one column": ((1, 40_000), (-20_000, 0, 20_000, 40_000)),
    "a photo of one row": ((40_000, 1), (0, -20_000, 40_000, 20_000)),
    "more columns than OpenCV counts": ((33_000, 2), (-2, -2, 33_000, 33_000)),
}
REFUSED_SQUARES = {  # center, side
    "a center that is not a number": (("NaN", 9), 16),
    "a side that is not a number": ((9, 9), "NaN"),
    "a side at infinity": ((9, 9), "Infinity"),
    "no side": ((9, 9), 0),
    "more than 16 times as wide as the photo": ((30, 22), 980),
}
# A line of pixels would grow to whole blocks of the box: 20,000 x 20,000 px.
LINES = {"a line of pixels": (40_000, 1), "a column of pixels": (1, 40_000)}
LINE_SIDE = 320_000


def photo(width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8: patterns that become finer to the right, with sharp edges."""
    x, y, channel = np.arange(width)[:, None], np.arange(height)[:, None, None], np.arange(3)
    return (((x * x + 3 * x * y + 5 * y * (channel + 1)) >> 3) & 255).astype(np.uint8)


def cut(image: np.ndarray, center, extent, angle: float, size: int) -> np.ndarray:
    """(size, size, 3) uint8: the definition, for a rectangle turned by ``angle`` radians.

    Whole blocks of the photo are averaged to integers, as many pixels as a pixel of the crop is
    wide, counted from two blocks before what the rectangle needs; a block that the photo's edge
    cuts repeats the last pixel. Between the blocks' centers sampling is linear, and black outside.
    """
    block = max(1, round(extent[0] / size))
    cos, sin = math.cos(angle), math.sin(angle)
    reach = np.array(extent) / 2 * (abs(cos) + abs(sin))
    limit = np.array(image.shape[1::-1])
    low = np.clip(np.floor(center - reach).astype(int) - 2 * block, 0, limit - 1)
    high = np.clip(np.ceil(center + reach).astype(int) + 2 * block, low + 1, limit)
    count = -(-(high - low) // block)

    def mean(column: int, row: int) -> np.ndarray:
        if not (0 <= column < count[0] and 0 <= row < count[1]):
            return np.zeros(3)
        x = np.minimum(low[0] + column * block + np.arange(block), high[0] - 1)
        y = np.minimum(low[1] + row * block + np.arange(block), high[1] - 1)
        average = image[np.ix_(y, x)].reshape(-1, 3).mean(axis=0)
        return np.floor(average + 0.5) if block == 2 else np.rint(average)

    crop = np.zeros((size, size, 3))
    for v, u in np.ndindex(size, size):
        right, down = (np.array([u, v]) + 0.5) / size - 0.5
        right, down = right * extent[0], down * extent[1]
        place = center + [cos * right - sin * down, sin * right + cos * down]
        x, y = (place - low) / block - 0.5
        column, row = math.floor(x), math.floor(y)
        for i, j in np.ndindex(2, 2):
            share = (1 - abs(x - column - i)) * (1 - abs(y - row - j))
            crop[v, u] += share * mean(column + i, row + j)
    return np.rint(crop).astype(np.uint8)


def table() -> dict:
    """All cases; pixels as base64, angles in degrees, ``center`` and boxes in box coordinates."""
    cases = []
    for name, (size, box) in BOXES.items():
        box = np.array(box, float)
        center, extent = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        crop = _text(cut(photo(*size), center, extent, 0.0, SIZE))
        cases.append({"name": name, "photo": size, "box": box.tolist(), "crop": crop})
    for name, (size, center, side, degrees) in SQUARES.items():
        crop = cut(photo(*size), np.array(center), (side, side), math.radians(degrees), SIZE)
        square = {"center": center, "side": side, "degrees": degrees}
        cases.append({"name": name, "photo": size, **square, "crop": _text(crop)})
    refused = [{"name": n, "photo": SMALL, "box": box} for n, box in REFUSED_BOXES.items()]
    refused += [{"name": n, "photo": z, "box": box} for n, (z, box) in REFUSED_PHOTOS.items()]
    refused += [
        {"name": name, "photo": SMALL, "center": center, "side": side, "degrees": 30}
        for name, (center, side) in REFUSED_SQUARES.items()
    ]
    for name, size in LINES.items():
        center = np.array(size) / 2
        box = [*(center - LINE_SIDE / 2), *(center + LINE_SIDE / 2)]
        square = {"center": center.tolist(), "side": LINE_SIDE, "degrees": 30}
        refused += [{"name": name, "photo": size, "box": box}]
        refused += [{"name": f"{name}, turned", "photo": size, **square}]
    return {"size": SIZE, "cases": cases, "refused": refused}


def _text(crop: np.ndarray) -> str:
    return base64.b64encode(crop.tobytes()).decode()


def dump(content: dict) -> str:
    """JSON with a line for each case."""
    parts = []
    for key, value in content.items():
        lines = [json.dumps(case) for case in value] if isinstance(value, list) else None
        text = "[\n" + ",\n".join(lines) + "\n]" if lines else json.dumps(value)
        parts.append(f"{json.dumps(key)}: {text}")
    return "{" + ",\n".join(parts) + "}\n"


if __name__ == "__main__":
    TABLE.write_text(dump(table()))
