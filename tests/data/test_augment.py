"""Augmentation on the CPU: how far crops are moved, and landmarks with them."""

import numpy as np
import pytest

from keras_scnn.data.augment import UPRIGHT, GroupAugmenter, Jitter, _occlude, augment
from keras_scnn.geometry.similarities import move_landmarks
from keras_scnn.models.augmentation import RandomChannelGain, photometric_layers
from keras_scnn.morphable_model import MorphableModel


@pytest.mark.integration
def test_some_faces_lie_down_or_stand_on_their_heads():
    """By default 8 % are turned by any angle: two thirds of those by more than 60 degrees."""
    landmarks = np.random.default_rng(0).uniform(30, 90, (68, 3))
    image, rng = np.zeros((120, 120, 3), np.uint8), np.random.default_rng(1)
    matrices = [augment(rng, image, landmarks, mirror=False)[1] for _ in range(3000)]
    angles = [abs(np.rad2deg(np.arctan2(m[1, 0], m[0, 0]))) for m in matrices]
    assert np.mean(np.array(angles) > 60) == pytest.approx(0.08 * 2 / 3, abs=0.012)
    upright = [augment(rng, image, landmarks, UPRIGHT, False)[1] for _ in range(300)]
    assert max(abs(np.rad2deg(np.arctan2(m[1, 0], m[0, 0]))) for m in upright) < 30


def test_a_crop_and_its_landmarks_move_together():
    """After augmentation, white dots on black are at the moved landmarks."""
    rng = np.random.default_rng(3)
    landmarks = np.column_stack([rng.uniform(35, 85, (68, 2)), np.zeros(68)])
    errors = []
    for trial in range(40):
        image = np.zeros((120, 120, 3), np.uint8)
        x, y = landmarks[trial % 68, :2].round().astype(int)
        image[y - 2 : y + 3, x - 2 : x + 3] = 255
        seen, matrix = augment(rng, image, landmarks)
        dot = move_landmarks(np.tile([x, y, 0.0], (1, 68, 1)), matrix[None])[0, 0, :2]
        gray = seen.astype(float).mean(axis=-1)
        rows, columns = np.nonzero(gray > 0.6 * gray.max())
        errors.append(np.hypot(columns.mean() - dot[0], rows.mean() - dot[1]))
    # Occasionally a patch of noise hides or outshines a dot.
    assert np.median(errors) < 0.5
    assert np.mean(np.array(errors) < 1) > 0.7


@pytest.mark.parametrize("mirror", [False, True])
def test_without_jitter_the_box_of_the_landmarks_is_about_the_crops_middle(mirror):
    """A mirror image's, too: the pixel centers of 120 px are 0 to 119."""
    landmarks = np.column_stack([np.random.default_rng(3).uniform(20, 80, (68, 2)), np.zeros(68)])
    image, still = np.zeros((120, 120, 3), np.uint8), Jitter(0, 0, 0, wide=0, any_angle=0)
    matrix = augment(np.random.default_rng(0), image, landmarks, still, mirror)[1]
    moved = move_landmarks(landmarks[None], matrix[None])[0, :, :2]
    np.testing.assert_allclose((moved.min(axis=0) + moved.max(axis=0)) / 2, 59.5, atol=1e-4)


@pytest.mark.parametrize(("spread", "zoom"), [(40, 1.0), (60, 120 / (60 * np.sqrt(2)))])
def test_a_face_is_enlarged_to_the_crop_unless_it_is_small(spread, zoom):
    """A face is small if its box's diagonal is at most half of the crop's side."""
    landmarks = np.array([[20.0, 30, 0], [20 + spread, 30 + spread, 0]])
    image, still = np.zeros((120, 120, 3), np.uint8), Jitter(0, 0, 0, wide=0, any_angle=0)
    matrix = augment(np.random.default_rng(0), image, landmarks, still, mirror=False)[1]
    np.testing.assert_allclose(matrix[:, :2], zoom * np.eye(2), atol=1e-9)


def moves(jitter: Jitter, mirror: bool | None, count: int = 1500, size: int = 40) -> np.ndarray:
    """(count, 2, 3) of a small face in the middle of the crop, which is not enlarged."""
    middle = (size - 1) / 2
    landmarks = np.array([[middle - 4, middle - 4, 0], [middle + 4, middle + 4, 0]])
    image, rng = np.zeros((size, size, 3), np.uint8), np.random.default_rng(4)
    return np.stack([augment(rng, image, landmarks, jitter, mirror)[1] for _ in range(count)])


def test_moves_are_similarities_within_the_jitter():
    jitter = Jitter(shift=0.1, scale=0.2, degrees=20.0, wide=0.0, any_angle=0.0)
    matrices = moves(jitter, mirror=False)
    linear = matrices[:, :, :2]
    square = np.linalg.det(linear)
    gram = np.swapaxes(linear, 1, 2) @ linear
    np.testing.assert_allclose(gram, square[:, None, None] * np.eye(2), atol=1e-9)
    measured = {
        "scale": np.log(square) / 2,
        "degrees": np.rad2deg(np.arctan2(linear[:, 1, 0], linear[:, 0, 0])),
        "shift": ((matrices @ [19.5, 19.5, 1]) - 19.5).ravel() / 40,
    }
    for name, values in measured.items():  # standard errors of 2 and 3 %
        assert values.std() == pytest.approx(getattr(jitter, name), rel=0.08), name
        assert abs(values.mean()) < 0.1 * getattr(jitter, name), name


def test_a_share_of_the_moves_is_wide_and_half_are_mirrored():
    matrices = moves(Jitter(degrees=0.0, wide=0.4, wide_degrees=30.0, any_angle=0.0), mirror=None)
    mirrored = np.linalg.det(matrices[:, :, :2]) < 0
    assert mirrored.mean() == pytest.approx(0.5, abs=0.05)
    degrees = np.rad2deg(np.arctan2(matrices[:, 1, 0], matrices[:, 1, 1]))
    assert np.abs(degrees).max() < 30.001
    # A uniform angle of 0 to 30 degrees is above 15 half of the time.
    assert (np.abs(degrees) > 15).mean() == pytest.approx(0.4 / 2, abs=0.04)


def test_any_angle_is_one_of_a_full_turn():
    """Uniform: half of them beyond a right angle, and as many to either side."""
    matrices = moves(Jitter(0, 0, 0, wide=0, any_angle=1.0), mirror=False, count=800)
    degrees = np.rad2deg(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    assert (np.abs(degrees) > 90).mean() == pytest.approx(0.5, abs=0.06)
    assert (degrees > 0).mean() == pytest.approx(0.5, abs=0.06)


def test_a_fifth_of_the_variants_is_gray_but_for_the_white_balance():
    """In a gray image all pixels have the same ratio of red to blue, whatever the gains."""
    image = np.full((40, 40, 3), [120, 80, 60], np.uint8)
    image[20:] = [60, 80, 120]
    landmarks, rng = np.array([[16.0, 16, 0], [23, 23, 0]]), np.random.default_rng(5)
    still = Jitter(0, 0, 0, wide=0, any_angle=0)
    seen = np.stack([augment(rng, image, landmarks, still, mirror=False)[0] for _ in range(800)])
    upper, lower = (np.median(half, axis=(1, 2)) for half in (seen[:, :20], seen[:, 20:]))
    red_less_blue = [half[:, 0] - half[:, 2] for half in (upper, lower)]
    is_gray = np.abs(red_less_blue[0] - red_less_blue[1]) < 20  # in color it is about 120
    assert is_gray.mean() == pytest.approx(0.2, abs=0.05)


def test_a_quarter_of_the_variants_is_hidden_in_part():
    """Tested on an image of one color, which blur and color changes keep uniform."""
    image, still = np.full((40, 40, 3), 128, np.uint8), Jitter(0, 0, 0, wide=0, any_angle=0)
    landmarks, rng = np.array([[16.0, 16, 0], [23, 23, 0]]), np.random.default_rng(6)
    # Within the image, so that no border comes in.
    seen = [augment(rng, image, landmarks, still, False)[0][1:-1, 1:-1] for _ in range(600)]
    is_hidden = np.array([one.std(axis=(0, 1)).any() for one in seen])
    assert is_hidden.mean() == pytest.approx(0.25, abs=0.06)


def test_an_occluder_is_a_rectangle_of_one_color_within_the_image():
    """Its sides are a tenth of the image's to 42 %."""
    rng, places = np.random.default_rng(7), []
    for _ in range(200):
        image = np.full((50, 50, 3), 7, np.uint8)
        _occlude(rng, image)
        rows, columns = np.nonzero((image != 7).any(axis=-1))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert len(rows) == height * width and 5 <= min(height, width) <= max(height, width) < 21
        assert len(np.unique(image[rows, columns], axis=0)) == 1
        places.append((rows.mean(), columns.mean()))
    np.testing.assert_allclose(np.mean(places, axis=0), 24.5, atol=2.5)


def test_records_for_recognizing_people_stay_upright():
    """About 12 % of those for landmarks turn by more than 30 degrees."""
    model, count = MorphableModel.open_face(), 200
    upright = np.arange(count) % 2 == 0
    landmarks = np.random.default_rng(0).uniform(2, 6, (68, 3)).astype(np.float32)
    landmarks[[0, 16], :2] = [[0, 4], [7, 4]]  # a line between two mirror partners
    vectors = np.ones((count, 12 + model.n_identity + model.n_expression), np.float32)
    images, every = np.zeros((count, 8, 8, 3), np.uint8), np.arange(count)
    stack = np.tile(landmarks, (count, 1, 1))
    moved = GroupAugmenter(model, upright)(0, 0, every, every, images, stack, vectors)[1]
    line = moved[:, 16] - moved[:, 0]
    turned = np.abs(np.rad2deg(np.arctan2(line[:, 1], line[:, 0]))) > 30
    assert not turned[upright].any()
    assert turned[~upright].sum() >= 5


@pytest.mark.parametrize("value", [np.nan, 0.0, 400.0])
def test_a_landmark_without_label_moves_no_crop(value):
    """A crop, its face and its other landmarks are those of a label within the face."""
    model, every = MorphableModel.open_face(), np.arange(5)
    rng = np.random.default_rng(0)
    landmarks = np.concatenate([rng.uniform(2, 6, (5, 68, 3)), np.ones((5, 68, 1))], axis=-1)
    landmarks[:, 3] = [4, 4, 4, 0]
    images = rng.integers(0, 256, (5, 8, 8, 3), np.uint8)
    vectors = rng.normal(size=(5, 12 + model.n_identity + model.n_expression))
    batch = np.arange(5), images, landmarks, vectors
    augmenter = GroupAugmenter(model, np.zeros(5, bool))
    expected = augmenter(0, 0, every, *batch)
    landmarks[:, 3, :3] = value
    result = augmenter(0, 0, every, *batch)
    np.testing.assert_array_equal(result[0], expected[0])
    np.testing.assert_array_equal(result[2], expected[2])
    known = expected[1][..., 3] > 0
    np.testing.assert_array_equal(result[1][known], expected[1][known])


def test_a_crop_without_any_label_is_moved_about_its_middle():
    image, still = np.zeros((120, 120, 3), np.uint8), Jitter(0, 0, 0, wide=0, any_angle=0)
    matrix = augment(np.random.default_rng(0), image, np.zeros((0, 4)), still, mirror=False)[1]
    np.testing.assert_allclose(matrix, [[1, 0, 0], [0, 1, 0]], atol=1e-9)


def test_white_balance_changes_about_as_much_as_in_the_layers():
    """Two grays, 80 apart: their distance in a channel is its gain, whatever is added to both."""
    image = np.full((120, 120, 3), 60, np.uint8)
    image[60:] = 140
    landmarks, rng = np.array([[50.0, 50, 0], [69, 69, 0]]), np.random.default_rng(0)
    still = Jitter(0, 0, 0, wide=0, any_angle=0)
    seen = np.stack([augment(rng, image, landmarks, still, mirror=False)[0] for _ in range(200)])
    halves = np.float64(seen[:, ::4, ::4]).reshape(200, 2, -1, 3)
    gain = np.diff(np.median(halves, axis=2), axis=1)[:, 0] / 80
    (layer,) = (one for one in photometric_layers() if isinstance(one, RandomChannelGain))
    between = np.log(gain[:, 0] / gain[:, 2]).std()  # of two independent channels
    assert between == pytest.approx(np.sqrt(2) * layer.deviation, rel=0.5)


def test_a_sampler_of_the_same_seed_draws_other_numbers():
    """Which photos are mirrored does not follow from a sampler's first draws."""
    model, count = MorphableModel.open_face(), 64
    augmenter = GroupAugmenter(model, np.zeros(count, bool), seed=3)
    images = np.zeros((count, 8, 8, 3), np.uint8)
    landmarks = np.random.default_rng(0).uniform(0, 8, (count, 68, 3)).astype(np.float32)
    vectors = np.ones((count, 12 + model.n_identity + model.n_expression), np.float32)
    identity = slice(12, 12 + model.n_identity)
    every = np.arange(count)
    moved = augmenter(5, 0, every, every, images, landmarks, vectors)[2]
    mirrored = (moved[:, identity] != 1).any(axis=1)  # a face that is not symmetric
    sampler = np.random.default_rng([3, 5]).random(count) < 0.5
    assert 20 < mirrored.sum() < 44
    assert 20 < (mirrored == sampler).sum() < 44
