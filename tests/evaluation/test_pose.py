import numpy as np
import pytest

from keras_scnn.evaluation import pose_error
from keras_scnn.evaluation.pose import angle_errors


def radians(*degrees) -> np.ndarray:
    return np.deg2rad(np.array(degrees, np.float64))


def test_each_angle_is_averaged_alone_and_the_mean_is_over_the_three():
    annotated = radians([0, 10, 0], [5, -20, 10])
    result = pose_error(annotated + radians([3, 6, 0], [-5, 2, 9]), annotated)
    # By hand, in the order pitch, yaw, roll: (3 + 5) / 2, (6 + 2) / 2, (0 + 9) / 2.
    assert result.pitch_degrees == pytest.approx(4)
    assert result.yaw_degrees == pytest.approx(4)
    assert result.roll_degrees == pytest.approx(4.5)
    assert result.mean_degrees == pytest.approx(12.5 / 3)


def test_profiles_have_a_mean_of_their_own():
    annotated = radians([0, 10, 0], [0, -80, 0], [0, 70, 0], [0, -120, 0])
    result = pose_error(annotated + radians([3, 0, 0], [0, 9, 0], [0, 0, 3], [9, 9, 9]), annotated)
    assert result.bins_degrees[0] == pytest.approx(1)
    assert np.isnan(result.bins_degrees[1])
    assert result.bins_degrees[2] == pytest.approx((3 + 1) / 2)  # the last is beyond the limit
    assert result.rotation_bins_degrees[0] == pytest.approx(3)  # one turn of 3, one of 9 and 3
    assert np.isnan(result.rotation_bins_degrees[1])
    assert result.rotation_bins_degrees[2] == pytest.approx((9 + 3) / 2)


def test_faces_with_an_annotated_angle_of_99_degrees_or_more_are_left_out():
    annotated = radians([0, 0, 0], [0, 99.5, 0], [0, 0, -120], [-98.9, 0, 0])
    predicted = annotated + radians([1, 1, 1], [50, 50, 50], [50, 50, 50], [3, 3, 3])
    result = pose_error(predicted, annotated)
    assert (result.n_faces, result.n_left_out) == (2, 2)
    assert result.mean_degrees == pytest.approx(2)


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_face_with_an_angle_at_the_limit_is_left_out(sign):
    annotated = radians([0, 0, 0], [0, sign * 99, 0], [0, sign * 98.9, 0])
    result = pose_error(annotated + radians([0, 0, 3]), annotated)
    assert (result.n_faces, result.n_left_out) == (2, 1)


def test_the_rotation_between_two_yaws_is_their_difference():
    result = pose_error(radians([0, 40, 0]), radians([0, -5, 0]))
    assert result.rotation_degrees == pytest.approx(45)


def test_the_rotation_error_is_0_for_two_names_of_one_rotation():
    result = pose_error(radians([180, 100, 180]), radians([0, 80, 0]))
    assert result.rotation_degrees == pytest.approx(0, abs=1e-5)
    assert result.mean_degrees == pytest.approx((180 + 20 + 180) / 3)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"\(M, 3\)"):
        pose_error(np.zeros((4, 3)), np.zeros((5, 3)))
    with pytest.raises(ValueError, match="below 99"):
        pose_error(np.zeros((1, 3)), radians([0, 120, 0]))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_angles_that_are_not_finite_are_refused(which, bad):
    pair = np.zeros((2, 4, 3))
    pair[which, 2, 1] = bad
    for measure in (angle_errors, pose_error):
        with pytest.raises(ValueError, match="angles must be finite numbers"):
            measure(*pair)


@pytest.mark.parametrize("turns", [-2, 0, 1])
def test_angles_on_both_sides_of_a_half_turn_are_near_each_other(turns):
    predicted = np.deg2rad([[0.0, 0.0, 170.0 + 360 * turns], [0, -178, 10], [-95, 0, 0]])
    annotated = np.deg2rad([[0.0, 0.0, -95.0], [0, 90, 0], [85, 0, 0]])
    errors = angle_errors(predicted, annotated)
    np.testing.assert_allclose(errors[0, :3], [0, 0, 95], atol=1e-9)  # 170 to 265
    np.testing.assert_allclose(errors[1, :3], [0, 92, 10], atol=1e-9)
    np.testing.assert_allclose(errors[2, :3], [180, 0, 0], atol=1e-9)
