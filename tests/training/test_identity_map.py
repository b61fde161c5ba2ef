"""People of known shapes, with predictions that are disturbed by the pose."""

import dataclasses

import numpy as np
import pytest

from keras_scnn.training.identity_map import MapOptions, learn_identity_map

PEOPLE, PHOTOS, K = 60, 6, 4
FAST = MapOptions(people=16, photos=4, steps=150, learning_rate=0.05, contrast_weight=0)
NUMBERS = ("people", "photos", "steps", "seed")


@pytest.fixture
def photos():
    """Shapes, and inputs: shape + what the pose adds to it + noise, and the pose itself."""
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(PEOPLE), PHOTOS)
    shapes = rng.normal(0, 0.5, (PEOPLE, K))[person]
    pose = rng.uniform(-1, 1, (len(person), 2))
    seen = shapes + pose @ rng.normal(0, 0.5, (2, K)) + rng.normal(0, 0.1, shapes.shape)
    return np.concatenate([seen, pose], axis=1), shapes, person


def learn(photos, options=FAST, source=None, weight=None):
    inputs, shapes, person = photos
    source = np.zeros(len(person), int) if source is None else source
    return learn_identity_map(inputs[None], shapes[None], person, source, weight, options)


@pytest.mark.integration
def test_without_contrast_it_is_the_regression(photos):
    inputs, shapes, _ = (part - part.mean(axis=0) for part in photos)
    expected = np.linalg.lstsq(inputs, shapes, rcond=None)[0]
    np.testing.assert_allclose(learn(photos), expected, atol=0.1)


@pytest.mark.integration
def test_a_penalty_is_ridge_regression_around_the_start(photos):
    inputs, shapes, person = photos
    x, y = inputs - inputs.mean(axis=0), shapes - shapes.mean(axis=0)
    start = np.random.default_rng(1).normal(0, 0.5, (x.shape[1], K))
    # Of inputs of unit variance, and a loss that is the mean over the coefficients.
    ridge = 0.1 * K * np.diag(x.var(axis=0))
    expected = start + np.linalg.solve(x.T @ x / len(x) + ridge, x.T @ (y - x @ start) / len(x))
    options = MapOptions(**{**vars(FAST), "penalty": 0.1})
    source = np.zeros(len(person), int)
    kernel = learn_identity_map(inputs[None], shapes[None], person, source, None, options, start)
    np.testing.assert_allclose(kernel, expected, atol=0.1)
    assert np.abs(kernel - learn(photos)).max() > 0.2  # not the regression alone, nor the start
    assert np.abs(kernel - start).max() > 0.2


@pytest.mark.integration
def test_the_effect_of_the_pose_is_removed(photos):
    inputs, shapes, _ = (part - part.mean(axis=0) for part in photos)
    before = np.mean((inputs[:, :K] - shapes) ** 2)
    assert np.mean((inputs @ learn(photos) - shapes) ** 2) < 0.1 * before


@pytest.mark.integration
def test_data_sets_may_differ_by_a_constant(photos):
    inputs, shapes, person = photos
    source = person % 2
    moved = inputs + 3.0 * source[:, None], shapes - 5.0 * source[:, None], person
    np.testing.assert_allclose(learn(moved, source=source), learn(photos, source=source), atol=1e-3)


def ratio(photos, kernel):
    """Mean distance within people over that between people."""
    inputs, _, person = photos
    shape = inputs @ kernel
    distance = np.linalg.norm(shape[:, None] - shape[None], axis=-1)
    same = person[:, None] == person[None]
    return distance[same & ~np.eye(len(person), dtype=bool)].mean() / distance[~same].mean()


@pytest.mark.integration
def test_contrast_brings_one_person_s_shapes_together(photos):
    """Labels that are fits of single photos: each has an error of its own, of the pose."""
    inputs, shapes, person = photos
    noisy = inputs, shapes + inputs[:, K:] @ np.ones((2, K)) * 0.4, person
    plain = ratio(photos, learn(noisy))
    contrast = MapOptions(**{**vars(FAST), "contrast_weight": 3.0})
    assert ratio(photos, learn(noisy, contrast)) < 0.85 * plain


@pytest.mark.integration
def test_a_higher_quantile_pushes_people_further_apart(photos):
    def spread(quantile):
        options = {**vars(FAST), "contrast_weight": 1.0, "margin_quantile": quantile}
        return (photos[0] @ learn(photos, MapOptions(**options))).std()

    assert spread(0.95) > 1.05 * spread(0.3)


@pytest.mark.integration
def test_photos_count_by_their_weight(photos):
    """Photos of weight 9 have labels of twice the size."""
    inputs, shapes, person = photos
    heavy = np.arange(len(person)) % 2 == 0
    two = inputs, np.where(heavy[:, None], 2 * shapes, shapes), person
    scale = [
        np.trace(learn(two, weight=weight)[:K]) / K for weight in (None, np.where(heavy, 9, 1))
    ]
    assert scale[1] > scale[0] + 0.2


def test_too_few_people_are_named(photos):
    with pytest.raises(ValueError, match="60"):
        learn(photos, MapOptions(people=61))


@pytest.mark.parametrize("value", [4.5, 4.0, "4", True, None])
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_batches_that_are_not_whole_are_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name} is {value!r}; it must be a whole number"):
        dataclasses.replace(FAST, **{name: value})


def test_numbers_of_batches_may_be_of_numpy_and_rates_need_not_be_whole():
    dataclasses.replace(FAST, learning_rate=1, penalty=0, **dict.fromkeys(NUMBERS, np.int64(4)))
    with pytest.raises(ValueError, match="^penalty is -0.5"):
        dataclasses.replace(FAST, penalty=-0.5)
