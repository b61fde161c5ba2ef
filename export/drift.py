"""Distances between the outputs of two networks, for each output in ``output_table``."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from keras_scnn.export.exported_model import output_table
from keras_scnn.geometry.camera import project
from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.models import Preset
from keras_scnn.models.inference import Network, decoded_outputs, predict
from keras_scnn.parameters import FaceParameters

Outputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class Drift:
    """Distances between outputs: means over crops and points, and 99th percentiles.

    Attributes:
        landmark_px, landmark_p99_px: between landmarks in the image plane.
        vertex_mm, vertex_p99_mm: between vertices in the model frame: the output ones or those of
            the parameters' coefficients, whichever differ more.
        rotation_degrees: angle between the rotations.
        depth_px: between the landmarks' depths.
        euler_degrees: angle between the rotations given by the Euler angles, which are themselves
            discontinuous near yaw = +-90.
        scale_percent: relative difference in scale.
        translation_px: between translations, including depth.
        camera_px: between landmarks projected by the parameters' cameras.
        coefficient: largest difference in a coefficient, standard deviations or weights.
        feature_degrees: angle between features; unequal lengths count too. None: no features.
    """

    landmark_px: float
    landmark_p99_px: float
    vertex_mm: float
    vertex_p99_mm: float
    rotation_degrees: float
    depth_px: float
    euler_degrees: float
    scale_percent: float
    translation_px: float
    camera_px: float
    coefficient: float
    feature_degrees: float | None


def reference_outputs(preset: Preset, crops: np.ndarray, network: Network | None = None) -> Outputs:
    """The outputs that an exported file of the preset should have, decoded in NumPy.

    Args:
        preset: the Keras network and its parameter space.
        crops: (M, S, S, 3) uint8 RGB, M above 0.
        network: runs the branch; None for Keras.

    Returns:
        (M, ...) by name, as in ``output_table``, with all vertices.
    """
    result = predict(preset, crops, network)
    model, found = preset.face_model, result.parameters
    outputs = decoded_outputs(model, replace(found, pose=found.pose.astype(np.float64)))
    outputs["vertices"] = model.vertices(found.identity, found.expression)
    return outputs if result.features is None else outputs | {"features": result.features}


def output_mismatches(outputs: Outputs, preset: Preset, vertices: bool) -> list[str]:
    """Describe outputs that are missing or whose shape differs from ``output_table``."""
    expected = output_table(preset, vertices or "vertices" in outputs)
    words = [f"{name} is missing" for name in expected.keys() - outputs.keys()]
    for name in expected.keys() & outputs.keys():
        shape = outputs[name].shape[1:]
        if shape != expected[name].shape:
            words.append(f"{name} has the shape {shape}; expected {expected[name].shape}")
    return sorted(words)


def output_drift(outputs: Outputs, expected: Outputs, preset: Preset) -> Drift:
    """Measure outputs, (M, ...) by name, against ``reference_outputs``."""
    flat = _lengths(outputs["landmarks"][..., :2] - expected["landmarks"][..., :2])
    deep = _vertex_distances(outputs, expected, preset)
    ours, theirs = (
        FaceParameters.from_vector(o["parameters"], preset.layout) for o in (outputs, expected)
    )
    points = preset.face_model.landmarks(theirs.identity, theirs.expression)
    cameras = project(ours.pose, points) - project(theirs.pose, points)
    return Drift(
        landmark_px=float(flat.mean()),
        landmark_p99_px=float(np.percentile(flat, 99)),
        vertex_mm=float(deep.mean(axis=(1, 2)).max()),
        vertex_p99_mm=float(np.percentile(deep, 99, axis=(1, 2)).max()),
        rotation_degrees=_between(outputs["rotation"], expected["rotation"]),
        depth_px=_mean_abs(outputs["landmarks"][..., 2] - expected["landmarks"][..., 2]),
        euler_degrees=_between(
            rotation_from_euler(np.radians(outputs["euler_degrees"])), expected["rotation"]
        ),
        scale_percent=100 * _mean_abs(outputs["scale"] / expected["scale"] - 1),
        translation_px=float(_lengths(outputs["translation"] - expected["translation"]).mean()),
        camera_px=float(_lengths(cameras).mean()),
        coefficient=float(np.abs(_coefficients(ours) - _coefficients(theirs)).max()),
        feature_degrees=_feature_degrees(outputs, expected),
    )


def _vertex_distances(outputs: Outputs, expected: Outputs, preset: Preset) -> np.ndarray:
    """(1 or 2, M, N) mm: for the parameters' vertices, and for the output ones if there are any."""
    result = FaceParameters.from_vector(outputs["parameters"], preset.layout)
    meshes = [preset.face_model.vertices(result.identity, result.expression)]
    meshes += [outputs["vertices"]] if "vertices" in outputs else []
    return np.stack([_lengths(vertices - expected["vertices"]) for vertices in meshes])


def _feature_degrees(outputs: Outputs, expected: Outputs) -> float | None:
    if "features" not in expected:
        return None
    chords = _lengths(outputs["features"] - expected["features"])
    return _mean_abs(np.degrees(2 * np.arcsin(np.clip(chords / 2, 0, 1))))


def _between(matrices: np.ndarray, rotations: np.ndarray) -> float:
    """Mean angle, degrees, from the Frobenius norm, which also detects matrices not rotations."""
    chords = np.linalg.norm(matrices - rotations, axis=(-2, -1))
    return _mean_abs(np.degrees(2 * np.arcsin(np.clip(chords / np.sqrt(8), 0, 1))))


def _coefficients(parameters: FaceParameters) -> np.ndarray:
    return np.concatenate([parameters.identity, parameters.expression], axis=-1)


def _lengths(vectors: np.ndarray) -> np.ndarray:
    return np.linalg.norm(vectors, axis=-1)


def _mean_abs(values: np.ndarray) -> float:
    return float(np.abs(values).mean())
