"""Files in dlib's format: a random face recognizer of any widths."""

import struct
from pathlib import Path

import numpy as np

WIDTHS = (32,) * 7 + (64,) * 8 + (128,) * 6 + (256,) * 8
"""Widths of dlib's own recognizer: 29 convolutions (dlib, dnn_face_recognition_ex.cpp)."""


def written(values: np.ndarray, sizes: tuple[int, ...]) -> bytes:
    """A tensor as dlib writes it: integers as a length and that many bytes."""
    numbers = [n.to_bytes((n.bit_length() + 7) // 8, "little") for n in (2, *sizes)]
    head = b"".join(bytes([len(number)]) + number for number in numbers)
    return head + struct.pack(f"<{values.size}f", *values.ravel())


def write_recognizer(path: Path, widths=(16,) * 29, embedding: int = 8) -> None:
    """A recognizer with random weights; its embeddings are about 1 long and differ by photo."""
    rng, channels, parts = np.random.default_rng(0), 3, []
    for i, width in enumerate(widths):
        side = 7 if i == 0 else 3
        scale = (2 / (channels * side**2)) ** 0.5
        kernel = rng.normal(0, scale, width * channels * side**2)
        tensor = np.concatenate([kernel, np.zeros(width)])
        parts.append(written(tensor, (tensor.size, 1, 1, 1)))
        residual = 1.0 if i % 2 else 0.3  # the second convolution of a block is added to its input
        scaling = np.concatenate([np.full(width, residual), np.full(width, 0.01)])
        parts.append(written(scaling, (2 * width, 1, 1, 1)))
        channels = width
    linear = rng.normal(0, channels**-0.5, channels * embedding)
    path.write_bytes(b"".join([*parts, written(linear, (linear.size, 1, 1, 1))]))
