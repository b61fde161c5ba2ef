"""From face crops to parameters: the code shared by reconstruction, evaluation and servers."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from keras_scnn.geometry.camera import decompose, euler_from_camera, project
from keras_scnn.geometry.rotations import euler_from_rotation
from keras_scnn.models.crops import check_crops
from keras_scnn.models.litert import LiteNetwork, lite_file
from keras_scnn.models.preset_network import Preset, PresetData
from keras_scnn.models.presets import load_preset, read_preset
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import FaceParameters

if TYPE_CHECKING:
    import keras

MAX_BATCH = 32

Network = Callable[[np.ndarray], dict[str, np.ndarray]]
"""(M, S, S, 3) uint8 RGB crops to the branch's outputs, (M, ...) float32."""


class BatchedNetwork:
    """Runs a branch, compiled, on batches padded to a power of two.

    It is thus traced once for each power of two up to ``batch``, and, except for rounding, a crop's
    result does not depend on the number of crops.

    Args:
        branch: from ``build_branch``.
        batch: maximum batch size; a power of two.
    """

    def __init__(self, branch: keras.Model, batch: int = MAX_BATCH):
        self._branch, self._batch = branch, batch

    def __call__(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        """The branch's outputs, float32, for (M, S, S, 3) uint8 RGB crops, M above 0.

        Raises:
            ValueError: the crops have another shape or dtype.
        """
        check_crops(crops, self._branch.input_shape[1])
        starts = range(0, len(crops), self._batch)
        parts = [self._run(crops[start : start + self._batch]) for start in starts]
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def _run(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        size = 1 << (len(crops) - 1).bit_length()
        missing = np.zeros((size - len(crops), *crops.shape[1:]), crops.dtype)
        padded = np.concatenate([crops, missing]) if len(missing) else crops
        outputs = self._branch.predict_on_batch(padded)
        return {key: np.asarray(value)[: len(crops)] for key, value in outputs.items()}


def keras_network(preset: Preset | PresetData) -> BatchedNetwork:
    """A preset's branch in Keras, compiled.

    Raises:
        ValueError: the preset has no network (``PresetData``).
    """
    if isinstance(preset, PresetData):
        raise ValueError("preset has no network (PresetData); pass the argument network too")
    return BatchedNetwork(preset.branch)


def open_network(name_or_path: str | os.PathLike) -> tuple[Preset | PresetData, Network]:
    """A preset and its network: in LiteRT if there is a ``lite_file`` of the same weights.

    Then neither Keras nor its backend is imported. Otherwise the network runs in Keras, compiled.

    Raises:
        FileNotFoundError, ValueError: as ``load_preset``.
    """
    if path := lite_file(name_or_path):
        return read_preset(name_or_path), LiteNetwork(path)
    preset = load_preset(name_or_path)
    return preset, keras_network(preset)


@dataclass(frozen=True, eq=False)
class Predictions:
    """The faces that a network predicts from M crops.

    Attributes:
        face_model: the model that the parameters belong to.
        parameters: pose (M, 3, 4) crop_from_model, identity (M, K), expression (M, L) within the
            face model's bounds.
        features: (M, F) float32 of unit length, or None where there is no feature head.
    """

    face_model: MorphableModel
    parameters: FaceParameters
    features: np.ndarray | None

    @property
    def landmarks(self) -> np.ndarray:
        """(M, 68, 3) crop px, depth towards the viewer, landmark offsets included."""
        shape = self.parameters.identity, self.parameters.expression
        return project(self.parameters.pose, self.face_model.landmarks(*shape))

    @property
    def euler(self) -> np.ndarray:
        """(M, 3) pitch, yaw, roll in radians."""
        return euler_from_camera(self.parameters.pose)


def decoded_outputs(model: MorphableModel, parameters: FaceParameters) -> dict[str, np.ndarray]:
    """Outputs (M, ...) of exported files and servers by name, without features and vertices.

    Shapes and units are in ``export.exported_model.output_table``; px are those of the pose.
    """
    rotation, scale, translation = decompose(parameters.pose)
    points = model.landmarks(parameters.identity, parameters.expression)
    return {
        "parameters": parameters.to_vector(),
        "rotation": rotation,
        "euler_degrees": np.degrees(euler_from_rotation(rotation)),
        "scale": scale,
        "translation": translation,
        "landmarks": project(parameters.pose, points),
    }


def predict(
    preset: Preset | PresetData, crops: np.ndarray, network: Network | None = None
) -> Predictions:
    """Run a preset's network on crops.

    Args:
        preset: defines the meaning of the network's outputs; a ``Preset`` has the network too.
        crops: (M, S, S, 3) uint8 RGB, M above 0.
        network: runs the branch; None: the ``Preset``'s own, in Keras.

    Raises:
        ValueError: there is no network, or the crops have another shape or dtype.
    """
    check_crops(crops, preset.input_size)
    outputs = (network or keras_network(preset))(crops)
    raw = preset.space.parameters(outputs["parameters"])
    expression = preset.face_model.clip_expression(raw.expression)
    parameters = FaceParameters(raw.pose, raw.identity, expression)
    return Predictions(preset.face_model, parameters, outputs.get("features"))
