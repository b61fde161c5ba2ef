"""The check of a network's input crops, the same for every runtime."""

from __future__ import annotations

import numpy as np


def check_crops(crops: np.ndarray, size: int) -> None:
    """Raise a ValueError unless ``crops`` is (M, S, S, 3) uint8, M at least 1.

    Args:
        crops: RGB; floats are rejected too, since Keras would accept them and LiteRT would not.
        size: S, px.
    """
    shape, dtype = np.shape(crops), getattr(crops, "dtype", None)
    if not isinstance(dtype, np.dtype):  # NumPy cannot compare those of TensorFlow and PyTorch
        dtype = type(crops).__name__
    if shape[1:] != (size, size, 3) or not shape[0] or dtype != np.uint8:
        raise ValueError(
            f"crops are {shape} {dtype}; expected (M, {size}, {size}, 3) uint8, M at least 1"
        )
