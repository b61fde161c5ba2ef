import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation
from strategies import eulers, floats

from keras_scnn.geometry.rotations import (
    euler_from_rotation,
    nearest_rotation,
    pitch_and_yaw,
    rotation_angle,
    rotation_from_euler,
)

QUARTER = np.pi / 2


def explicit_rotation(pitch: float, yaw: float, roll: float) -> np.ndarray:
    """The matrices of the .mat files, written out as in their documentation."""
    (cp, sp), (cy, sy), (cr, sr) = ((np.cos(a), np.sin(a)) for a in (pitch, yaw, roll))
    rx = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    ry = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    rz = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
    return rx @ ry @ rz


@given(floats(3, -7, 7))
def test_a_rotation_is_the_product_of_the_mat_files_matrices(euler):
    assert_allclose(rotation_from_euler(euler), explicit_rotation(*euler), atol=1e-12)


@given(floats((2, 3, 3), -7, 7))
def test_rotations_are_orthonormal_with_determinant_one(euler):
    rotation = rotation_from_euler(euler)
    identity = np.broadcast_to(np.eye(3), (2, 3, 3, 3))
    assert_allclose(rotation @ np.swapaxes(rotation, -1, -2), identity, atol=1e-12)
    assert_allclose(np.linalg.det(rotation), 1)


@given(eulers((2, 2)))
def test_angles_survive_a_round_trip(euler):
    assert_allclose(euler_from_rotation(rotation_from_euler(euler)), euler, atol=1e-6)


@pytest.mark.parametrize("yaw", [QUARTER, -QUARTER])
def test_a_full_profile_keeps_its_rotation_although_roll_and_pitch_are_one(yaw):
    rotation = rotation_from_euler([0.3, yaw, 0.2])
    euler = euler_from_rotation(rotation)
    assert euler[2] == 0
    assert_allclose(rotation_from_euler(euler), rotation, atol=1e-7)


def test_a_head_that_turns_by_positive_yaw_looks_to_the_images_left():
    nose = rotation_from_euler([0, 0.5, 0]) @ [0, 0, 1]  # by hand: the third column of Ry
    assert_allclose(nose, [-np.sin(0.5), 0, np.cos(0.5)], atol=1e-12)


@given(floats((3, 3), -1, 1), eulers())
def test_no_rotation_is_nearer_than_the_nearest_rotation(noise, euler):
    matrix = rotation_from_euler(euler) + 0.4 * noise
    nearest = nearest_rotation(matrix)
    independent, _ = Rotation.align_vectors(matrix.T, np.eye(3))
    distance = np.linalg.norm(matrix - nearest)
    assert_allclose(nearest @ nearest.T, np.eye(3), atol=1e-9)
    assert_allclose(np.linalg.det(nearest), 1)
    assert distance <= np.linalg.norm(matrix - independent.as_matrix()) + 1e-7


@given(floats((4, 2, 2), -1, 1))
def test_plane_rotations_come_from_the_closed_form(matrix):
    # A 2D matrix [a b; c d] is nearest to the rotation by atan2(c - b, a + d).
    sine, cosine = matrix[:, 1, 0] - matrix[:, 0, 1], matrix[:, 0, 0] + matrix[:, 1, 1]
    clear = np.hypot(sine, cosine) > 1e-6
    angle = np.arctan2(sine, cosine)[clear]
    nearest = nearest_rotation(matrix)[clear]
    assert_allclose(nearest[:, 1, 0], np.sin(angle), atol=1e-6)
    assert_allclose(nearest[:, 0, 0], np.cos(angle), atol=1e-6)


@given(eulers(), eulers())
def test_the_angle_between_rotations_is_scipys_and_symmetric(first, second):
    a, b = rotation_from_euler(first), rotation_from_euler(second)
    expected = (Rotation.from_matrix(a).inv() * Rotation.from_matrix(b)).magnitude()
    assert_allclose(rotation_angle(a, b), expected, atol=1e-6)
    assert_allclose(rotation_angle(b, a), expected, atol=1e-6)


@given(floats(3, -1, 1), st.sampled_from([1e-9, 1e-5, 1e-2, 1.0, 3.0]))
def test_small_angles_keep_their_digits(axis, angle):
    axis = axis + [0, 0, 2]
    turn = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis)).as_matrix()
    assert_allclose(rotation_angle(np.eye(3), turn), angle, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda camera: euler_from_rotation(camera), "rotation"),
        (lambda camera: rotation_angle(camera, np.eye(3, 4)), "a"),
        (lambda camera: rotation_angle(np.eye(3), camera), "b"),
    ],
)
def test_a_camera_is_refused_where_a_rotation_is_needed(call, name):
    with pytest.raises(ValueError, match=rf"^{name} has the shape \(2, 3, 4\)"):
        call(np.zeros((2, 3, 4)))


def test_a_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"euler has the shape \(2,\)"):
        rotation_from_euler([0.1, 0.2])


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_nearest_rotation_to_a_reflection_gives_up_its_shortest_axis(place):
    """trace(R^T M) decides: 2 + 3 - 1 at the identity, and less at each half turn."""
    matrix = np.diag(np.insert([2.0, 3.0], place, -1.0))
    turn = rotation_from_euler([0.3, -0.5, 1.2])
    assert_allclose(nearest_rotation(turn @ matrix), turn, atol=1e-12)


def test_the_angles_of_a_batch_are_those_of_its_rows():
    a, b = rotation_from_euler(np.random.default_rng(3).uniform(-1.5, 1.5, (2, 5, 3)))
    rows = [rotation_angle(*pair) for pair in zip(a, b, strict=True)]
    assert_allclose(rotation_angle(a, b), rows, rtol=1e-12)


def test_angles_of_an_unknown_rotation_are_unknown():
    euler = np.array([[0.1, 0.2, 0.3], [0.0, 0.4, 0.0]])
    matrices = np.insert(rotation_from_euler(euler), 1, np.nan, axis=0)
    found = euler_from_rotation(matrices)
    assert_allclose(found[[0, 2]], euler, atol=1e-12)
    assert np.isnan(found[1]).all() and np.isnan(euler_from_rotation(matrices[1])).all()


def test_pitch_and_yaw_are_the_angles_of_the_rotation_to_a_direction():
    euler = np.random.default_rng(4).uniform(-1.4, 1.4, (50, 3)) * [1, 1, 0]
    directions = rotation_from_euler(euler) @ [0, 0, 1] * np.linspace(0.5, 3, 50)[:, None]
    np.testing.assert_allclose(pitch_and_yaw(directions), euler[:, :2], atol=1e-9)
    assert np.isnan(pitch_and_yaw(np.full(3, np.nan))).all()
