import numpy as np
import pytest

from keras_scnn.geometry.landmarks68 import (
    JAW,
    LIDS,
    MIRROR68,
    OPENINGS,
    on_one_line,
    with_lids_in_order,
)
from keras_scnn.geometry.rotations import rotation_from_euler


@pytest.mark.parametrize("degrees", [0, 40, 90, 180, 250])
def test_lower_lids_that_run_backwards_are_put_in_order(open_face, degrees):
    turn = rotation_from_euler(np.deg2rad([0, 35.0, degrees]))
    points = ((open_face.mean[open_face.landmark_indices] @ turn.T) * [1, -1, 1])[:, :2]
    wrong = points.copy()
    wrong[[40, 41]] = points[[41, 40]]
    both = wrong.copy()
    both[[46, 47]] = points[[47, 46]]
    given = np.stack([points, wrong, both])
    ordered, changed = with_lids_in_order(given)
    np.testing.assert_array_equal(ordered, np.stack([points] * 3))
    assert changed.tolist() == [False, True, True]
    np.testing.assert_array_equal(given[1], wrong)  # the caller's are left as they are


def test_missing_points_stay_missing():
    points = np.full((2, 68, 2), np.nan)
    points[0, [37, 38, 40]] = [[0, 0], [4, 0], [0, 3]]
    ordered, changed = with_lids_in_order(points)
    np.testing.assert_array_equal(ordered, points)
    assert not changed.any()


def test_the_lids_of_one_eye_are_those_of_the_other_mirrored():
    # The outer point comes first on the left of the image, last on its right.
    assert MIRROR68[LIDS[0]].tolist() == LIDS[1][[1, 0, 3, 2]].tolist()


def test_the_mirrored_mean_face_has_the_landmarks_of_their_partners(open_face):
    """By the vertices, whose mirror partners come from the mesh and not from this table."""
    points = open_face.mean[open_face.landmark_indices]
    np.testing.assert_allclose(points[MIRROR68] * [-1, 1, 1], points, atol=1e-4)
    assert set(MIRROR68[JAW]) == set(range(17)[JAW])


def test_each_opening_goes_from_a_point_to_one_above_it_on_both_sides(open_face):
    points = open_face.mean[open_face.landmark_indices]
    apart = points[OPENINGS[:, 0]] - points[OPENINGS[:, 1]]
    assert (apart[:, 1] > 1).all() and (np.abs(apart[:, 0]) < 4).all()  # mm, model frame
    pairs = {tuple(pair) for pair in OPENINGS.tolist()}
    assert {tuple(pair) for pair in MIRROR68[OPENINGS].tolist()} == pairs and len(pairs) == 7


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_landmarks_are_on_one_line_up_to_a_millionth_of_their_length(scale):
    along = np.linspace(-1, 1, 68)
    wave = np.sin(40 * along)  # both have a mean square of about a third to a half
    widths = np.array([0, 1e-8, 1e-4, 1.0])[:, None]
    points = scale * np.stack(np.broadcast_arrays(along, widths * wave), axis=-1) + 3.0
    for weights in (np.ones((4, 68)), np.full((4, 68), 1e3)):
        assert on_one_line(points, weights).tolist() == [True, True, False, False]
    outlier, weights = points.copy(), np.ones((4, 68))
    outlier[:, 5], weights[:, 5] = [1e6, -7], 0
    assert on_one_line(outlier, weights).tolist() == [True, True, False, False]
