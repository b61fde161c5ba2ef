import numpy as np
import pytest

from keras_scnn.geometry.landmarks68 import LIDS, MIRROR68, with_lids_in_order
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


def test_points_that_are_not_given_stay_so():
    points = np.full((2, 68, 2), np.nan)
    points[0, [37, 38, 40]] = [[0, 0], [4, 0], [0, 3]]
    ordered, changed = with_lids_in_order(points)
    np.testing.assert_array_equal(ordered, points)
    assert not changed.any()


def test_the_lids_of_one_eye_are_those_of_the_other_mirrored():
    # The outer point comes first on the left of the image, last on its right.
    assert MIRROR68[LIDS[0]].tolist() == LIDS[1][[1, 0, 3, 2]].tolist()
