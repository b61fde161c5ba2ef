import dataclasses

import keras
import numpy as np
import pytest
import scipy.linalg

from keras_scnn.export.exported_model import (
    build_exported_model,
    check_backend,
    euler_degrees,
    nearest_rotation_ops,
    output_table,
)
from keras_scnn.geometry import rotations
from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.parameters import ParameterSpace, Whitening


def random_matrices(count: int, seed: int = 0) -> np.ndarray:
    """(count, 3, 3) float32 of either handedness, with singular values well apart from 0."""
    rng = np.random.default_rng(seed)
    turns = rotation_from_euler(rng.uniform(-3, 3, (2, count, 3)))
    lengths = np.sort(rng.uniform(0.3, 1.5, (count, 3)))[:, ::-1] * [1, 1, 0.7]
    lengths[::2, 2] *= -1
    return ((turns[0] * lengths[:, None]) @ turns[1]).astype(np.float32)


def test_the_rotation_is_the_nearest_one_of_either_handedness():
    matrices = random_matrices(400)
    result = np.asarray(nearest_rotation_ops(matrices))
    expected = rotations.nearest_rotation(matrices.astype(float))  # by an SVD
    np.testing.assert_allclose(result, expected, atol=5e-6)
    np.testing.assert_allclose(np.linalg.det(result), 1, atol=1e-5)


def test_the_rotation_of_a_right_handed_matrix_is_scipys_polar_factor():
    for matrix in random_matrices(20, seed=1)[1::2]:
        expected, _ = scipy.linalg.polar(matrix.astype(float))
        result = np.asarray(nearest_rotation_ops(matrix[None]))[0]
        np.testing.assert_allclose(result, expected, atol=5e-6)


@pytest.mark.parametrize("factor", [1e-3, 1, 1e3])
def test_a_scaled_rotation_gives_the_rotation(factor):
    rotation = rotation_from_euler(np.random.default_rng(2).uniform(-1.5, 1.5, (50, 3)))
    result = np.asarray(nearest_rotation_ops((factor * rotation).astype(np.float32)))
    np.testing.assert_allclose(result, rotation, atol=2e-6)


def test_euler_angles_are_those_that_make_the_rotation():
    angles = np.random.default_rng(3).uniform(-1, 1, (300, 3)) * [180, 89, 180]
    rotation = rotation_from_euler(np.radians(angles)).astype(np.float32)
    np.testing.assert_allclose(np.asarray(euler_degrees(rotation)), angles, atol=2e-3)


def test_every_output_is_that_of_keras(small):
    outputs = build_exported_model(small.preset, vertices=True)(small.crops)
    expected = small.expected
    assert outputs.keys() == expected.keys() == output_table(small.preset, True).keys()
    tolerance = {"vertices": 1e-3, "landmarks": 1e-4, "euler_degrees": 1e-2}
    for name, value in expected.items():
        atol = tolerance.get(name, 2e-5)
        np.testing.assert_allclose(np.asarray(outputs[name]), value, atol=atol, err_msg=name)


def test_expression_weights_stay_within_the_models_bounds(small):
    space, where = small.preset.space, small.preset.layout.expression
    mean = space.whitening.mean.copy()
    mean[where] -= 0.3  # so that there is something to clip
    space = ParameterSpace(space.face_model, Whitening(mean, space.whitening.scale))
    preset = dataclasses.replace(small.preset, space=space)
    expression = np.asarray(build_exported_model(preset)(small.crops)["parameters"])[:, where]
    low, high = preset.face_model.expression_bounds.T
    assert (expression >= low).all() and (expression <= high).all()
    raw = np.asarray(preset.branch(small.crops.astype(np.float32))["parameters"])
    raw = space.whitening.unwhiten(raw)[:, where]
    assert (raw < low).any()


@pytest.mark.parametrize("vertices", [False, True])
def test_shapes_and_types_are_those_of_the_table(small, vertices):
    model = build_exported_model(small.preset, vertices, batch_size=1)
    assert model.input_shape == (1, 64, 64, 3)
    assert model.inputs[0].dtype == "uint8"
    for name, output in output_table(small.preset, vertices).items():
        assert model.output[name].shape == (1, *output.shape)
        assert model.output[name].dtype == "float32"


def test_another_backend_gets_an_error_with_its_remedy(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="Keras runs on jax.*KERAS_BACKEND=tensorflow"):
        check_backend()
