import numpy as np
import pytest
from skimage import data

from keras_scnn.photos.iris import IrisFinder

# Read off the enlarged photo by eye, px: the pupils, and the corners of the eyes, outer and inner.
PUPILS = np.array([[202.5, 101.0], [246.5, 103.5]])
CORNERS = np.array([[[192.0, 102.0], [213.0, 104.0]], [[257.0, 104.0], [235.0, 105.0]]])


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return data.astronaut()


@pytest.fixture(scope="module")
def finder() -> IrisFinder:
    return IrisFinder()


def landmarks(corners: np.ndarray) -> np.ndarray:
    """68 landmarks, of which only the eyes' corners are given."""
    points = np.full((68, 2), np.nan)
    points[[36, 39, 45, 42]] = corners.reshape(4, 2)
    return points


def test_irises_are_where_a_person_sees_them(astronaut, finder):
    eyes = finder(astronaut, landmarks(CORNERS))
    assert np.linalg.norm(eyes.iris - PUPILS, axis=1).max() < 1.5
    assert np.linalg.norm(eyes.corners - CORNERS, axis=2).max() < 4
    assert (eyes.opening > 0.2).all()


def test_a_mirror_image_has_mirrored_eyes(astronaut, finder):
    width = astronaut.shape[1]
    flipped = CORNERS[::-1] * [-1, 1] + [width - 1, 0]
    mirrored = finder(np.ascontiguousarray(astronaut[:, ::-1]), landmarks(flipped))
    eyes = finder(astronaut, landmarks(CORNERS))
    expected = eyes.iris[::-1] * [-1, 1] + [width - 1, 0]
    np.testing.assert_allclose(mirrored.iris, expected, atol=0.05)
    np.testing.assert_allclose(mirrored.opening, eyes.opening[::-1], atol=0.01)


def test_a_turned_photo_has_turned_eyes(astronaut, finder):
    turned = np.ascontiguousarray(np.rot90(astronaut))  # (x, y) to (y, width - 1 - x)
    last = astronaut.shape[1] - 1

    def turn(points: np.ndarray) -> np.ndarray:
        return np.stack([points[..., 1], last - points[..., 0]], axis=-1)

    eyes = finder(turned, landmarks(turn(CORNERS)))
    np.testing.assert_allclose(
        eyes.iris, turn(finder(astronaut, landmarks(CORNERS)).iris), atol=0.1
    )


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((5, 2)), r"landmarks have the shape \(5, 2\); expected \(68, 2 or more\)"),
        (np.zeros(68), r"landmarks have the shape \(68,\)"),
        (np.zeros((68, 2)), "box"),  # both corners in one place
        (np.full((68, 2), np.nan), "box"),
    ],
)
def test_landmarks_that_are_none_are_refused(astronaut, finder, points, message):
    with pytest.raises(ValueError, match=message):
        finder(astronaut, points)
