"""The check of arrays whose last axes are prescribed, such as cameras (..., 3, 4)."""

from __future__ import annotations

import numpy as np


def shaped(name: str, values: np.ndarray, *last: int, names: str = "") -> np.ndarray:
    """An array whose shape ends with the sizes ``last``.

    Args:
        name: of the argument, for the message.
        values: the array, or what NumPy takes for one.
        last: sizes of the last axes.
        names: of the last axis's values, for the message.

    Raises:
        ValueError: its shape ends otherwise.

    >>> shaped("euler", [0.0, 0.5], 3)
    Traceback (most recent call last):
    ValueError: euler has the shape (2,); it must be (..., 3)
    """
    array = np.asarray(values)
    if array.shape[-len(last) :] != last:
        expected = f"(..., {', '.join(map(str, last))})" + (f": {names}" if names else "")
        raise ValueError(f"{name} has the shape {array.shape}; it must be {expected}")
    return array
