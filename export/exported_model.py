"""The exported network: the single-image branch with its decoding inside the graph.

Every operation is supported by TFLite, ONNX and TensorFlow. Decoding is in float32.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_scnn.geometry.camera import FLIP
from keras_scnn.models import Preset
from keras_scnn.models.heads import FaceDecoder, posed

ROUNDS = 3  # each raises the matrix whose principal eigenvector is the rotation to the power of 8
DEGREES = 180 / np.pi


@dataclass(frozen=True)
class Output:
    """One named output of an exported network.

    Attributes:
        shape: for one face, without the leading batch axis.
        unit: unit and meaning of its numbers.
    """

    shape: tuple[int, ...]
    unit: str


def output_table(preset: Preset, vertices: bool) -> dict[str, Output]:
    """The outputs of ``build_exported_model`` by name; all are float32."""
    size = preset.layout.size
    table = {
        "parameters": Output(
            (size,),
            "pose 3x4 row-major (px, px per mm; crop from model), identity (standard deviations), "
            "expression (weights within the face model's bounds)",
        ),
        "rotation": Output((3, 3), "rotation of the head in the model frame (y up)"),
        "euler_degrees": Output((3,), "pitch, yaw, roll in degrees; order of the .mat files"),
        "scale": Output((), "px per mm"),
        "translation": Output((3,), "px: where the model's origin appears, and its depth"),
        "landmarks": Output((68, 3), "px of the crop, y down, depth towards the viewer"),
    }
    if preset.feature_size:
        table["features"] = Output((preset.feature_size,), "identity feature of unit length")
    if vertices:
        table["vertices"] = Output((preset.face_model.n_vertices, 3), "mm, model frame")
    return table


def build_exported_model(
    preset: Preset, vertices: bool = False, batch_size: int | None = None
) -> keras.Model:
    """A network from the crop of a face to the numbers of its ``Reconstruction``.

    Args:
        preset: trained network and its parameter space.
        vertices: also output all vertices.
        batch_size: fixed number of crops; None for any.

    Returns:
        A model from ``image`` (B, S, S, 3) uint8 RGB to a dictionary of float32 outputs, see
        ``output_table``. Weights are shared with the preset's branch.
    """
    size = preset.input_size
    image = keras.Input((size, size, 3), batch_size, dtype="uint8", name="image")
    raw = preset.branch(ops.cast(image, "float32"), training=False)
    outputs = FaceReadout(preset, vertices, name="readout")(raw["parameters"])
    if preset.feature_size:
        outputs["features"] = raw["features"]
    return keras.Model(image, outputs, name="reconstruct")


def save_module(module: Any, folder: str | os.PathLike, signatures: dict) -> None:
    """``tf.saved_model.save``, but disk errors become an OSError with a message of one line."""
    import tensorflow as tf

    try:
        tf.saved_model.save(module, str(folder), signatures=signatures)
    except tf.errors.OpError as error:  # such as a full disk
        raise OSError(str(error).splitlines()[0]) from error


def check_backend() -> None:
    """Raise a ValueError if Keras does not run on TensorFlow, which all writers need."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"Keras runs on {keras.backend.backend()}; files are exported through TensorFlow: "
            "set KERAS_BACKEND=tensorflow (a preset's weights fit every backend)"
        )


class FaceReadout(keras.layers.Layer):
    """Whitened parameters (B, P) to the named numbers of a ``Reconstruction``.

    Args:
        preset: whose parameter space is used.
        vertices: also output all vertices.
    """

    def __init__(self, preset: Preset, vertices: bool = False, **kwargs):
        super().__init__(dtype="float32", trainable=False, **kwargs)
        self.decoder = FaceDecoder.landmarks(preset.space, clip=True, name="landmarks")
        self.vertices = FaceDecoder.vertices(preset.space, name="vertices") if vertices else None

    def build(self, input_shape):
        for decoder in filter(None, (self.decoder, self.vertices)):
            decoder.build(input_shape)

    def call(self, whitened):
        """The outputs by name, from whitened parameters (B, P)."""
        pose, coefficients = self.decoder.pose_and_coefficients(whitened)
        camera = ops.reshape(pose, (-1, 3, 4))
        linear, translation = camera[:, :, :3], camera[:, :, 3]
        rotation = nearest_rotation_ops(linear * FLIP.sum(axis=1, keepdims=True).astype(np.float32))
        lengths = ops.sqrt(ops.sum(ops.square(linear[:, :2]), axis=-1))
        outputs = {
            "parameters": ops.concatenate([pose, coefficients], axis=-1),
            "rotation": rotation,
            "euler_degrees": euler_degrees(rotation),
            "scale": ops.mean(lengths, axis=-1),
            "translation": translation,
            "landmarks": posed(self.decoder.model_points(coefficients), pose),
        }
        if self.vertices is not None:
            outputs["vertices"] = self.vertices.model_points(coefficients)
        return outputs


def nearest_rotation_ops(matrix: keras.KerasTensor):
    """The rotation nearest to (B, 3, 3) matrices in the Frobenius norm, without an SVD.

    Horn, "Closed-form solution of absolute orientation using unit quaternions", 1987: the
    rotation's quaternion q is the principal eigenvector of a symmetric 4x4 matrix that is linear in
    the given one. Powers of that matrix, shifted to be positive, converge to q q^T, of which the
    rotation is a linear function. Agrees with ``geometry.rotations.nearest_rotation``, also for
    negative determinants.

    Returns:
        (B, 3, 3) rotations.
    """
    flat = ops.reshape(matrix, (-1, 9))
    size = ops.sqrt(ops.sum(ops.square(flat), axis=-1, keepdims=True))
    profile = ops.matmul(flat / size, _PROFILE_OF_MATRIX) + 2.0 * np.eye(4, dtype="f").ravel()
    profile = profile / 8  # its trace, which is that of the shift
    power = ops.reshape(profile, (-1, 4, 4))
    for _ in range(ROUNDS):
        for _ in range(3):  # the trace is at least 4^-8, far above underflow
            power = ops.matmul(power, power)
        power = power / _trace(power)
    return ops.reshape(ops.matmul(ops.reshape(power, (-1, 16)), _ROTATION_OF_OUTER), (-1, 3, 3))


def _trace(matrix):
    return ops.sum(matrix * np.eye(4, dtype="f"), axis=(-2, -1), keepdims=True)


def _horn_matrices() -> tuple[np.ndarray, np.ndarray]:
    """(9, 16) from a matrix to Horn's 4x4 one; (16, 9) from q q^T (w, x, y, z) to the rotation.

    The two are adjoint: ``trace(R^T M) = q^T N q`` for the rotation R of q and N of M.
    """
    w, x, y, z = range(4)
    rotation = np.zeros((3, 3, 4, 4))
    for i, own in enumerate((x, y, z)):
        for other in (w, x, y, z):
            rotation[i, i, other, other] = 1 if other in (w, own) else -1
    for i, j, axis, sign in ((0, 1, z, -1), (0, 2, y, 1), (1, 2, x, -1)):
        for row, column, turn in ((i, j, sign), (j, i, -sign)):
            a, b = row + 1, column + 1
            rotation[row, column, a, b] = rotation[row, column, b, a] = 1
            rotation[row, column, w, axis] = rotation[row, column, axis, w] = turn
    flat = rotation.reshape(9, 16).astype(np.float32)
    return flat, flat.T


_PROFILE_OF_MATRIX, _ROTATION_OF_OUTER = _horn_matrices()


def euler_degrees(rotation: keras.KerasTensor):
    """Pitch, yaw and roll of (B, 3, 3) rotations; see ``geometry.rotations``.

    Returns:
        (B, 3) degrees. At yaw = +-90 only a combination of pitch and roll is defined.
    """
    r = rotation
    across = ops.sqrt(ops.square(r[:, 0, 0]) + ops.square(r[:, 0, 1]))
    pitch = ops.arctan2(r[:, 1, 2], r[:, 2, 2])
    yaw = ops.arctan2(-r[:, 0, 2], across)
    roll = ops.arctan2(r[:, 0, 1], r[:, 0, 0])
    return ops.stack([pitch, yaw, roll], axis=-1) * DEGREES
