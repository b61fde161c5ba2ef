import keras
import numpy as np
import pytest

from keras_scnn.data.synthesis.rendered_people import SyntheticConfig, render_person
from keras_scnn.geometry.similarities import invert, move_landmarks
from keras_scnn.models import FaceDecoder
from keras_scnn.models.augmentation import MoveParameters, RandomMove, warp
from keras_scnn.parameters import ParameterSpace, Whitening

SIZE = 120
TURN = np.array([[0.9, -0.3, 20], [0.3, 0.9, -8]], np.float32)
FLIP = np.array([[-0.9, -0.2, 110], [-0.2, 0.9, 15]], np.float32)
STILL = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
MOVES = np.stack([TURN, FLIP, STILL])


@pytest.fixture(scope="module")
def person():
    """Three crops of a synthetic person, its parameters and landmarks with weight 1."""
    images, parameters, landmarks = render_person(SyntheticConfig(photos=3), 0)
    landmarks[..., 2] = 1
    return images, parameters, landmarks


@pytest.fixture(scope="module")
def dots(person) -> np.ndarray:
    """(3, 6, S, S, 3): for each photo six pictures, each with a dot on one landmark."""
    pictures = np.zeros((3, 6, SIZE, SIZE, 3), np.float32)
    y, x = np.mgrid[:SIZE, :SIZE]
    for i in range(3):
        for j, landmark in enumerate((8, 30, 36, 45, 48, 54)):
            center = person[2][i, landmark]
            square = (x - center[0]) ** 2 + (y - center[1]) ** 2
            pictures[i, j] = 255 * np.exp(-square / 8)[..., None]
    return pictures


def centers(pictures) -> np.ndarray:
    """The centers of light of (n, S, S, 3) pictures, px."""
    light = np.asarray(pictures)[..., 0]
    y, x = np.mgrid[:SIZE, :SIZE]
    total = light.sum(axis=(1, 2))
    return (
        np.stack([(light * x).sum(axis=(1, 2)), (light * y).sum(axis=(1, 2))], 1) / total[:, None]
    )


def test_landmarks_move_with_the_image(person, dots):
    """A dot on the outer corner of one eye is, mirrored, on that of the other: 36 and 45 swap."""
    moved = np.asarray(move_landmarks(person[2], MOVES))
    for i in range(3):
        seen = centers(warp(dots[i], np.tile(MOVES[i], (6, 1, 1))))
        order = (8, 30, 45, 36, 54, 48) if i == 1 else (8, 30, 36, 45, 48, 54)
        np.testing.assert_allclose(seen, moved[i, order, :2], atol=0.05)


def test_parameters_move_with_the_landmarks(person, open_face):
    _, parameters, landmarks = person
    whitening = Whitening(parameters.mean(axis=0), np.full(parameters.shape[1], 0.7))
    decode = FaceDecoder.landmarks(ParameterSpace(open_face, whitening))
    move = MoveParameters.of(ParameterSpace(open_face, whitening))
    result = np.asarray(decode(move(whitening.whiten(parameters), MOVES)))
    expected = np.asarray(move_landmarks(landmarks, MOVES))
    np.testing.assert_allclose(result[..., :2], expected[..., :2], atol=0.02)


def test_the_inverse_takes_predictions_back(person, open_face):
    parameters = person[1]
    whitening = Whitening(parameters.mean(axis=0), np.full(parameters.shape[1], 0.7))
    move, whitened = (
        MoveParameters.of(ParameterSpace(open_face, whitening)),
        whitening.whiten(parameters),
    )
    back = np.asarray(move(move(whitened, MOVES), invert(MOVES)))
    np.testing.assert_allclose(back, whitened, atol=2e-3)
    product = np.asarray(invert(MOVES))
    full = [np.vstack([m, [0, 0, 1]]) for m in (product[1], FLIP)]
    np.testing.assert_allclose(full[0] @ full[1], np.eye(3), atol=1e-5)


def test_standing_still_changes_nothing(person):
    images = person[0].astype(np.float32)
    np.testing.assert_allclose(warp(images, np.tile(STILL, (3, 1, 1))), images, atol=1e-3)
    mirrored = np.array([[-1, 0, SIZE - 1], [0, 1, 0]], np.float32)
    np.testing.assert_allclose(
        warp(images, np.tile(mirrored, (3, 1, 1))), images[:, :, ::-1], atol=1e-3
    )


def test_outside_of_training_nothing_moves(person):
    (images,), (matrix,) = RandomMove(seed=1)([person[0]])
    np.testing.assert_array_equal(images, person[0].astype(np.float32))
    np.testing.assert_array_equal(matrix, np.tile(STILL, (3, 1, 1)))


def test_both_photos_of_a_pair_are_mirrored_or_neither():
    images = np.zeros((400, 8, 8, 3), np.uint8)
    _, (one, two) = RandomMove(flip=0.3, seed=1)([images, images], training=True)
    flipped = [np.linalg.det(np.asarray(m)[:, :, :2]) < 0 for m in (one, two)]
    np.testing.assert_array_equal(flipped[0], flipped[1])
    assert flipped[0].mean() == pytest.approx(0.3, abs=0.1)
    # Otherwise the two move each in its own way.
    assert np.abs(np.asarray(one) - np.asarray(two)).max(axis=(1, 2)).min() > 0


def test_half_of_all_photos_are_mirrored_by_default():
    _, (matrix,) = RandomMove(seed=1)([np.zeros((1000, 8, 8, 3), np.uint8)], training=True)
    mirrored = np.linalg.det(np.asarray(matrix)[:, :, :2]) < 0
    assert mirrored.mean() == pytest.approx(0.5, abs=0.06)  # four standard deviations


def test_moves_are_as_large_as_asked():
    images = np.zeros((3000, 8, 8, 3), np.uint8)
    layer = RandomMove(shift=0.1, scale=0.2, degrees=10, flip=0, seed=1)
    _, (matrix,) = layer([images], training=True)
    matrix = np.asarray(matrix, np.float64)
    scale = np.sqrt(np.linalg.det(matrix[:, :, :2]))
    assert np.log(scale).std() == pytest.approx(0.2, rel=0.05)
    angle = np.rad2deg(np.arctan2(matrix[:, 1, 0], matrix[:, 0, 0]))
    assert angle.std() == pytest.approx(10, rel=0.05)
    center = matrix[:, :, :2] @ [3.5, 3.5] + matrix[:, :, 2] - 3.5
    assert center.std(axis=0) == pytest.approx(0.8, rel=0.05)
    every = np.column_stack([np.log(scale), angle, center])
    assert np.abs(np.corrcoef(every.T) - np.eye(4)).max() < 0.08  # four standard errors


def test_a_seed_repeats_the_moves():
    images = np.zeros((5, 8, 8, 3), np.uint8)
    result = [np.asarray(RandomMove(seed=s)([images], training=True)[1][0]) for s in (3, 3, 4)]
    np.testing.assert_array_equal(result[0], result[1])
    assert np.abs(result[0] - result[2]).max() > 1e-3


def test_the_layers_survive_saving(tmp_path, open_face):
    size = 12 + open_face.n_identity + open_face.n_expression
    whitening = Whitening(np.zeros(size), np.full(size, 2.0))
    images, parameters = keras.Input((16, 16, 3)), keras.Input((size,))
    (moved,), (matrix,) = RandomMove(seed=2)([images])
    outputs = MoveParameters.of(ParameterSpace(open_face, whitening))(parameters, matrix)
    model = keras.Model([images, parameters], [moved, outputs])
    model.save(tmp_path / "moves.keras")
    again = keras.models.load_model(tmp_path / "moves.keras")
    given = [np.ones((2, 16, 16, 3)), np.random.default_rng(0).normal(size=(2, size))]
    for one, two in zip(model(given), again(given), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)
    assert again.layers[-1].get_config() == model.layers[-1].get_config()
