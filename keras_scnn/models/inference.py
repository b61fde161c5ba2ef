"""A network that takes any number of crops, compiled for a few batch sizes."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np

from keras_scnn.geometry.camera import decompose
from keras_scnn.geometry.rotations import euler_from_rotation
from keras_scnn.models import FaceDecoder, Preset
from keras_scnn.parameters import FaceParameters

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


BATCH = 64


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a network says of M crops.

    Attributes:
        landmarks: (M, 68, 3) float32, crop px, depth towards the viewer.
        parameters: pose (M, 3, 4) crop_from_model, identity (M, K), expression (M, L).
        features: (M, F) float32 of unit length, or None where there is no feature head.
    """

    landmarks: np.ndarray
    parameters: FaceParameters
    features: np.ndarray | None

    @property
    def euler(self) -> np.ndarray:
        """(M, 3) pitch, yaw, roll in radians."""
        return euler_from_rotation(decompose(self.parameters.pose)[0])


def predict(preset: Preset, crops: np.ndarray) -> Predictions:
    """Run a preset's network on (M, S, S, 3) uint8 RGB crops."""
    branch = preset.branch
    decode = FaceDecoder.landmarks(preset.face_model, preset.whitening, name="landmarks")
    outputs = {**branch.output, "landmarks": decode(branch.output["parameters"])}
    told = keras.Model(branch.input, outputs).predict(crops, batch_size=BATCH, verbose=0)
    vector = preset.whitening.unwhiten(told["parameters"])
    parameters = FaceParameters.from_vector(vector, preset.layout)
    return Predictions(told["landmarks"], parameters, told.get("features"))
