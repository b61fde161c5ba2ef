import numpy as np
import pytest

from keras_scnn.evaluation.openings import openings


def face(lid: float, lip: float) -> np.ndarray:
    """68 points whose eyes are 10 px wide and ``lid`` px open, the mouth 20 wide, ``lip`` open."""
    points = np.zeros((68, 2))
    for start in (36, 42):
        points[start], points[start + 3] = (0, 0), (10, 0)
        points[start + 1], points[start + 2] = (3, -lid / 2), (7, -lid / 2)
        points[start + 5], points[start + 4] = (3, lid / 2), (7, lid / 2)
    points[60], points[64] = (0, 0), (20, 0)
    for upper, lower, x in ((61, 67, 5), (62, 66, 10), (63, 65, 15)):
        points[upper], points[lower] = (x, -lip / 2), (x, lip / 2)
    return points


def test_openings_are_lid_distance_over_width():
    result = openings(np.stack([face(3, 8), face(0, 0)]))
    np.testing.assert_allclose(result["right"], [0.3, 0])
    np.testing.assert_allclose(result["left"], [0.3, 0])
    np.testing.assert_allclose(result["mouth"], [0.4, 0])


def test_size_place_and_turn_in_the_image_do_not_matter():
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    result = openings(3 * face(3, 8) @ turn.T + [50, 60])
    assert result["left"] == pytest.approx(0.3)
    assert result["mouth"] == pytest.approx(0.4)


def test_other_points_are_refused():
    with pytest.raises(ValueError, match="expected"):
        openings(np.zeros((5, 67, 2)))
