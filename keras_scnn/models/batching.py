"""A network that takes any number of crops, compiled for a few batch sizes."""

from __future__ import annotations

import keras
import numpy as np

BATCH = 32


class BatchedNetwork:
    """Runs a branch compiled, in batches padded to a power of two.

    So it is traced once for each power of two up to ``batch``, and a crop's result does not
    depend on how many others come with it, beyond rounding.

    Args:
        branch: from ``build_branch``.
        batch: the most crops at once; a power of two.
    """

    def __init__(self, branch: keras.Model, batch: int = BATCH):
        self._branch, self._batch = branch, batch

    def __call__(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        """The branch's outputs, float32, for (M, S, S, 3) uint8 RGB crops, M above 0."""
        starts = range(0, len(crops), self._batch)
        parts = [self._run(crops[start : start + self._batch]) for start in starts]
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def _run(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        size = 1 << (len(crops) - 1).bit_length()
        missing = np.zeros((size - len(crops), *crops.shape[1:]), crops.dtype)
        padded = np.concatenate([crops, missing]) if len(missing) else crops
        outputs = self._branch.predict_on_batch(padded)
        return {key: np.asarray(value)[: len(crops)] for key, value in outputs.items()}
