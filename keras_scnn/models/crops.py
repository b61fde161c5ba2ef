"""What every network of a preset takes, whichever runtime it runs in."""

from __future__ import annotations

import numpy as np


def check_crops(crops: np.ndarray, size: int) -> None:
    """Raise a ValueError where ``crops`` is not (M, S, S, 3) uint8, M at least 1.

    Args:
        crops: RGB; floats, which Keras would take and LiteRT not, are refused as well.
        size: S, px.
    """
    shape, dtype = np.shape(crops), getattr(crops, "dtype", None)
    if not isinstance(dtype, np.dtype):  # TensorFlow's and PyTorch's cannot be compared with it
        dtype = type(crops).__name__
    if shape[1:] != (size, size, 3) or not shape[0] or dtype != np.uint8:
        raise ValueError(
            f"crops are {shape} {dtype}; expected (M, {size}, {size}, 3) uint8, M at least 1"
        )
