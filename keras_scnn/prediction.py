"""Runs a trained network on many crops at once."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np

from keras_scnn.geometry.camera import decompose
from keras_scnn.geometry.rotations import euler_from_rotation
from keras_scnn.models import FaceDecoder, Preset
from keras_scnn.parameters import FaceParameters

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
