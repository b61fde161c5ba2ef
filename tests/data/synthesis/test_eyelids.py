import cv2
import numpy as np
import pytest

from keras_scnn.data.synthesis.eyelids import LIDS, close_lid
from keras_scnn.evaluation.openings import openings
from keras_scnn.geometry.landmarks68 import MIRROR68

SIZE, SKIN = 160, (200, 150, 120)
CENTERS, HALF, OPEN = {"right": (50, 70), "left": (110, 70)}, 20, 7


def _on_ellipse(center, degrees):
    angle = np.deg2rad(degrees)
    return np.array(center) + np.stack([HALF * np.cos(angle), OPEN * np.sin(angle)], axis=-1)


@pytest.fixture
def face():
    """Two eyes of random colors on plain skin, and 68 landmarks; those around the eyes fit."""
    rng = np.random.default_rng(0)
    image = np.full((SIZE, SIZE, 3), SKIN, np.uint8)
    landmarks = rng.uniform(0, SIZE, (68, 3))
    for side, center in CENTERS.items():
        eyeball = np.zeros((SIZE, SIZE), np.uint8)
        cv2.ellipse(eyeball, center, (HALF, OPEN), 0, 0, 360, 1, -1)
        image[eyeball > 0] = rng.integers(0, 90, (int(eyeball.sum()), 3))
        upper, lower, brow = LIDS[side]
        landmarks[list(upper), :2] = _on_ellipse(center, np.array([180, 240, 300, 360]))
        landmarks[list(lower[1:3]), :2] = _on_ellipse(center, np.array([120, 60]))
        x = np.linspace(-25, 25, 5)
        landmarks[list(brow), :2] = np.stack([center[0] + x, np.full(5, center[1] - 25)], axis=-1)
    return image, landmarks


def _dark(image, side):
    """Share of the pixels about an eye that are none of the skin's."""
    x, y = CENTERS[side]
    part = image[y - 12 : y + 13, x - 22 : x + 23].astype(int)
    return (part.sum(axis=-1) < sum(SKIN) - 150).mean()


@pytest.mark.parametrize("side", LIDS)
@pytest.mark.parametrize("remaining", [0.0, 0.3, 0.8, 1.0])
def test_the_opening_that_remains_is_the_share_that_was_asked_for(face, side, remaining):
    image, landmarks = face
    closed, moved = close_lid(image, landmarks, side, remaining)
    before, after = openings(landmarks), openings(moved)
    other = "left" if side == "right" else "right"
    assert after[side] == pytest.approx(remaining * before[side], abs=1e-9)
    assert after[other] == before[other]
    seen = _dark(closed, side) / _dark(image, side)
    assert remaining - 0.05 < seen < remaining + 0.5 * (1 - remaining) + 0.01, "the rest are lashes"
    assert _dark(closed, other) == _dark(image, other)


def test_a_lid_that_does_not_move_changes_nothing(face):
    image, landmarks = face
    closed, moved = close_lid(image, landmarks, "left", 1.0)
    np.testing.assert_array_equal(closed, image)
    np.testing.assert_allclose(moved, landmarks, atol=1e-9)


@pytest.mark.parametrize("side", LIDS)
def test_the_upper_lid_comes_down_and_the_lower_one_up_a_little(face, side):
    image, landmarks = face
    _, moved = close_lid(image, landmarks, side, 0.0)
    upper, lower = (list(line[1:3]) for line in LIDS[side][:2])
    down, up = moved[upper, 1] - landmarks[upper, 1], landmarks[lower, 1] - moved[lower, 1]
    assert (up > 0).all() and (up < down / 4).all()


def test_the_eyeball_stays_where_it_is(face):
    """The visible part between the lids keeps its colors."""
    image, landmarks = face
    closed, _ = close_lid(image, landmarks, "right", 0.6)
    x, y = CENTERS["right"]
    inside = np.s_[y - 1 : y + 4, x - 8 : x + 9]
    np.testing.assert_array_equal(closed[inside], image[inside])


def test_nothing_changes_far_from_the_eye_and_the_depth_is_kept(face):
    image, landmarks = face
    closed, moved = close_lid(image, landmarks, "right", 0.0)
    x, y = CENTERS["right"]
    far = np.hypot(*(np.indices((SIZE, SIZE))[::-1] - np.array([x, y])[:, None, None])) > 2.4 * HALF
    np.testing.assert_array_equal(closed[far], image[far])
    np.testing.assert_array_equal(moved[:, 2], landmarks[:, 2])
    lids = [i for line in LIDS["right"][:2] for i in line[1:3]]
    rest = np.setdiff1d(np.arange(68), lids)
    np.testing.assert_array_equal(moved[rest], landmarks[rest])


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_closing_turns_with_the_photo(face, turns):
    image, landmarks = face
    closed, moved = close_lid(image, landmarks, "right", 0.2)
    turned = landmarks.copy()
    for _ in range(turns):  # np.rot90: (x, y) to (y, SIZE - 1 - x)
        turned[:, :2] = np.stack([turned[:, 1], SIZE - 1 - turned[:, 0]], axis=-1)
        moved[:, :2] = np.stack([moved[:, 1], SIZE - 1 - moved[:, 0]], axis=-1)
    other, points = close_lid(np.ascontiguousarray(np.rot90(image, turns)), turned, "right", 0.2)
    np.testing.assert_allclose(points, moved, atol=1e-6)
    difference = np.abs(other.astype(int) - np.rot90(closed, turns)).max(axis=-1)
    assert np.quantile(difference, 0.999) <= 3


def test_the_mirror_image_closes_the_other_eye(face):
    image, landmarks = face
    mirrored = landmarks[MIRROR68] * [-1, 1, 1] + [SIZE - 1, 0, 0]
    _, moved = close_lid(image, landmarks, "right", 0.4)
    _, other = close_lid(np.ascontiguousarray(image[:, ::-1]), mirrored, "left", 0.4)
    np.testing.assert_allclose(other, moved[MIRROR68] * [-1, 1, 1] + [SIZE - 1, 0, 0], atol=1e-6)


@pytest.mark.parametrize("shift", [(-60, 0), (60, -50), (0, 80), (400, 0)])
def test_an_eye_at_the_edge_or_outside_of_the_photo_closes_as_far_as_it_is_seen(face, shift):
    image, landmarks = face
    landmarks[:, :2] += shift
    closed, moved = close_lid(image, landmarks, "right", 0.0)
    assert closed.shape == image.shape
    assert openings(moved)["right"] == pytest.approx(0, abs=1e-9)


def test_bad_input_is_named(face):
    image, landmarks = face
    with pytest.raises(ValueError, match=r"remaining is 1\.5; it must be from 0 to 1"):
        close_lid(image, landmarks, "right", 1.5)
    with pytest.raises(ValueError, match=r"the left eye is 4\.0 px wide; 6 are needed"):
        close_lid(image, landmarks * 0.1, "left", 0.5)
