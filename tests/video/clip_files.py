"""Small clips for tests, written with PyAV."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_clip(
    path: Path,
    images: list[np.ndarray],
    seconds: list[float] | None = None,
    rate: int = 25,
    codec: str = "libx264",
    faststart: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """Write (H, W, 3) uint8 RGB images, at given times or at a constant rate."""
    flags = {"movflags": "faststart"} if faststart else {}
    base = Fraction(1, 12800)
    with av.open(str(path), "w", options=flags) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if seconds is not None:
            stream.codec_context.time_base = base
        for i, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            if seconds is not None:
                frame.time_base, frame.pts = base, round(seconds[i] / base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path, seconds: float = 0.5) -> Path:
    """Write a file with sound and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        samples = np.zeros((1, round(44100 * seconds)), np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 44100, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


# Matrices of a track header, 16.16 fixed point (2.30 the last column): ISO/IEC 14496-12, 8.3.2.
QUARTER_CLOCKWISE = (0, 1, 0, -1, 0, 0, 0, 0, 1)


def turn(path: Path, matrix=QUARTER_CLOCKWISE) -> Path:
    """Set the matrix of an MP4 file's only track: how a player turns the picture."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40  # version, times, numbers, length, layer, volume
    units = [1 << 16, 1 << 16, 1 << 30] * 3
    for i, (value, unit) in enumerate(zip(matrix, units, strict=True)):
        content[start + 4 * i : start + 4 * i + 4] = (value * unit & 0xFFFFFFFF).to_bytes(4, "big")
    path.write_bytes(content)
    return path


# Shares of red and blue in luma: ITU-R BT.601-7, 2.5.1, and BT.709-6, 3.2.
BT601, BT709 = (0.299, 0.114), (0.2126, 0.0722)


def luma_and_differences(color, shares: tuple[float, float]) -> list[float]:
    """Y', Cb and Cr of an 8-bit R'G'B' color, in video's range of 16 to 235 and 16 to 240."""
    (red, blue), (r, g, b) = shares, (value / 255 for value in color)
    luma = red * r + (1 - red - blue) * g + blue * b
    differences = (b - luma) / (2 - 2 * blue), (r - luma) / (2 - 2 * red)
    return [16 + 219 * luma, *(128 + 224 * value for value in differences)]
