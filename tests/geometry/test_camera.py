import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from strategies import eulers, floats

from keras_scnn.geometry.camera import (
    FLIP,
    angle_in_image,
    compose,
    decompose,
    project,
    transform_camera,
)
from keras_scnn.geometry.crops import crop_from_image, invert_affine
from keras_scnn.geometry.rotations import rotation_from_euler

CAMERAS = st.builds(
    lambda euler, scale, shift: compose(rotation_from_euler(euler), scale, shift),
    eulers(),
    st.floats(0.05, 20),
    floats(3, -500, 500),
)


def test_a_frontal_camera_turns_y_around_and_keeps_x_and_depth():
    camera = compose(np.eye(3), 2.0, [60, 50, 0])
    assert_allclose(project(camera, [[10.0, 20, 30]]), [[80, 10, 60]])  # 60+2*10, 50-2*20, 2*30


@given(eulers((4,)), floats(4, 0.05, 20), floats((4, 3), -500, 500))
def test_a_camera_survives_a_round_trip(euler, scale, translation):
    rotation = rotation_from_euler(euler)
    result = decompose(compose(rotation, scale, translation))
    for part, expected in zip(result, (rotation, scale, translation), strict=True):
        assert_allclose(part, expected, rtol=1e-9, atol=1e-9)


@given(CAMERAS, floats((7, 3), -100, 100))
def test_projection_is_the_matrix_on_homogeneous_points(camera, points):
    homogeneous = np.concatenate([points, np.ones((7, 1))], axis=1)
    assert_allclose(project(camera, points), (camera @ homogeneous.T).T, atol=1e-8)


@given(CAMERAS, floats((2, 3), -100, 100))
def test_projection_scales_all_distances_alike(camera, points):
    scale = decompose(camera)[1]
    first, second = project(camera, points)
    expected = scale * np.linalg.norm(points[0] - points[1])
    assert_allclose(np.linalg.norm(first - second), expected, atol=1e-8)


def test_cameras_broadcast_over_one_face():
    cameras = compose(np.stack([np.eye(3)] * 5), np.arange(1.0, 6), np.zeros((5, 3)))
    points = np.ones((4, 3))
    assert project(cameras, points).shape == (5, 4, 3)
    assert project(cameras[:, None], np.ones((2, 4, 3))).shape == (5, 2, 4, 3)
    assert_allclose(project(cameras, points)[2], project(cameras[2], points))


@given(eulers(), st.floats(0.1, 10), st.floats(0, 10))
def test_the_depth_row_does_not_change_scale_and_rotation(euler, scale, factor):
    rotation = rotation_from_euler(euler)
    camera = compose(rotation, scale, np.zeros(3))
    camera[2] *= factor  # its length alone is wrong, down to no depth at all
    found_rotation, found_scale, _ = decompose(camera)
    assert_allclose(found_scale, scale)
    assert_allclose(found_rotation, rotation, atol=1e-7)


@given(CAMERAS, floats((5, 3), -100, 100), floats(2, -200, 200), st.floats(5, 500))
def test_a_crops_camera_projects_to_where_the_crop_transform_brings_the_pixels(
    camera, points, corner, side
):
    crop = crop_from_image(np.r_[corner, corner + side], 120)
    pixels, cropped = project(camera, points), project(transform_camera(crop, camera), points)
    expected = pixels[:, :2] @ crop[:, :2].T + crop[:, 2]
    assert_allclose(cropped[:, :2], expected, rtol=1e-9, atol=1e-6)
    assert_allclose(cropped[:, 2], pixels[:, 2] * 120 / side, rtol=1e-9, atol=1e-6)


@given(CAMERAS, floats(2, -200, 200), st.floats(5, 500), st.floats(-3, 3))
def test_a_crops_camera_goes_back_to_the_photos(camera, corner, side, angle):
    crop = crop_from_image(np.r_[corner, corner + side], 120)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    crop = turn @ crop
    back = transform_camera(invert_affine(crop), transform_camera(crop, camera))
    assert_allclose(back, camera, rtol=1e-8, atol=1e-6)


def test_a_transformed_camera_is_still_a_scaled_rotation():
    camera = compose(rotation_from_euler([0.1, 0.7, -0.2]), 3.0, [10, 20, 30])
    linear = transform_camera(crop_from_image(np.array([5.0, 6, 45, 46]), 120), camera)[:, :3]
    assert_allclose(linear @ linear.T, np.eye(3) * 9**2, atol=1e-9)  # 3 px/mm, crop enlarges by 3


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: project(np.eye(3), np.zeros((2, 3))), "image_from_model"),
        (lambda: decompose(np.zeros((2, 4))), "image_from_model"),
        (lambda: transform_camera(np.eye(3), np.zeros((3, 4))), "to_from"),
    ],
)
def test_a_wrong_shape_is_named(call, name):
    with pytest.raises(ValueError, match=f"{name} has the shape"):
        call()


def test_the_flip_cannot_be_overwritten():
    with pytest.raises(ValueError, match="read-only"):
        FLIP[1, 1] = 1


def test_the_annotations_of_300w_lp_fit_this_camera(shared_data):
    """300W-LP: BFM's landmarks under Pose_Para lie on the annotated points pt3d_68."""
    bfm = np.load(shared_data / "300w-lp-fixture" / "bfm_landmarks68.npz", allow_pickle=False)
    checked = 0
    for path in sorted((shared_data / "aflw2000-3d-dev").glob("*.mat"))[:20]:
        label = scipy.io.loadmat(path)
        face = bfm["mean"] + bfm["identity_basis"] @ label["Shape_Para"][:, 0]
        face = face + bfm["expression_basis"] @ label["Exp_Para"][:, 0]
        pitch, yaw, roll, tx, ty, tz, scale = label["Pose_Para"][0]
        rotation = rotation_from_euler([pitch, yaw, roll])
        # MATLAB's y := 451 - y in 1-based pixels is 450 - y with the first pixel at 0.
        camera = compose(rotation, scale, [tx - 1, 450 - ty, tz])
        given = label["pt3d_68"].T - [1, 1, 0]
        result = project(camera, face)
        assert np.abs(result[:, :2] - given[:, :2]).max() < 0.01
        checked += 1
    assert checked


def test_a_head_that_leans_to_the_images_right_is_turned_clockwise():
    camera = compose(rotation_from_euler([0, 0, np.deg2rad(30)]), 2.0, [60, 50, 0])
    top, origin = project(camera, [[0.0, 100, 0], [0, 0, 0]])[:, :2]
    assert_allclose(top - origin, [100, -100 * np.sqrt(3)])
    assert_allclose(angle_in_image(camera), np.deg2rad(30))


@given(CAMERAS, st.floats(-3, 3))
def test_the_head_turns_with_the_image(camera, angle):
    if np.linalg.norm(camera[:2, 1]) < 1e-3 * np.linalg.norm(camera[:, 1]):
        return  # seen from above: no direction is up
    cos, sin = np.cos(angle), np.sin(angle)
    turned = transform_camera(np.array([[cos, -sin, 4], [sin, cos, 7]]), camera)
    apart = angle_in_image(turned) - angle_in_image(camera) - angle
    assert_allclose(np.cos(apart), 1, atol=1e-9)


def test_an_unknown_camera_has_no_rotation_and_does_not_affect_others():
    turns = rotation_from_euler([[0.1, 0.2, 0.3], [0.0, 0.4, 0.0]])
    cameras = compose(turns, [1.0, 2.0], np.full((2, 3), 9.0))
    unknown = np.insert(cameras, 1, np.nan, axis=0)  # as from a fit to points on one line
    rotation, scale, translation = decompose(unknown)
    for found, expected in zip((rotation, scale, translation), decompose(cameras), strict=True):
        assert np.isnan(found[1]).all()
        assert_allclose(found[[0, 2]], expected)
    assert np.isnan(decompose(np.full((3, 4), np.inf))[0]).all()


def test_one_rotation_or_scale_serves_many_translations():
    shifts = np.random.default_rng(0).normal(size=(4, 3))
    turn = rotation_from_euler([0.1, 0.2, 0.3])
    expected = [compose(turn, 2.0, shift) for shift in shifts]
    assert_allclose(compose(turn, 2.0, shifts), expected)
    assert_allclose(compose(turn, [[1.0], [2.0]], shifts)[1], expected)
    assert_allclose(compose(np.stack([turn] * 4), 2.0, shifts[0]), [expected[0]] * 4)
