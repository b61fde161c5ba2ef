"""People of two groups: similar ones differ in directions in which all shapes are small."""

import numpy as np
import pytest

from keras_scnn.training.shape_metric import ShapeMetricOptions, learn_shape_metric

PEOPLE, PHOTOS = 60, 6
GROUP, PERSON, POSE = 0, slice(1, 3), slice(3, 5)  # what the coordinates depend on
FAST = ShapeMetricOptions(
    people=20, photos=4, steps=200, learning_rate=0.02, penalty=0.0, scale=0.5
)


@pytest.fixture(scope="module")
def photos():
    """(n, 5) shapes in mm, (n,) the people."""
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(PEOPLE), PHOTOS)
    shapes = np.zeros((len(person), 5))
    shapes[:, GROUP] = np.where(person % 2, 0.5, -0.5)
    shapes[:, PERSON] = rng.normal(0, 0.1, (PEOPLE, 2))[person]
    shapes += rng.normal(0, [0.1, 0.02, 0.02, 0.2, 0.2], shapes.shape)
    return shapes - shapes.mean(axis=0), person


def means(shapes, person):
    return np.stack([shapes[person == one].mean(axis=0) for one in range(PEOPLE)])[person]


def learn(photos, options=FAST):
    shapes, person = photos
    return learn_shape_metric(shapes[None], person, None, options)


@pytest.fixture(scope="module")
def metric(photos):
    """The kernel learned with the options FAST."""
    return learn(photos)


def nearest_is_of_the_same_person(shapes, person):
    """Share of the photos whose nearest other photo shows the same person."""
    distance = np.linalg.norm(shapes[:, None] - shapes[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    return np.mean(person[distance.argmin(axis=1)] == person)


def gains(metric):
    """Length of each coordinate's axis after the map."""
    return np.linalg.norm(metric, axis=1)


def test_directions_that_distinguish_similar_people_are_enlarged(metric):
    of_group, of_person, of_pose = (gains(metric)[part] for part in (GROUP, PERSON, POSE))
    assert of_person.min() > 2 * of_group
    assert of_person.min() > 4 * of_pose.max()


def test_people_not_trained_on_are_told_apart_better(photos):
    shapes, person = photos
    seen = person < PEOPLE // 2
    kernel = learn((shapes[seen], person[seen]))
    new, who = shapes[~seen], person[~seen]
    before, after = (nearest_is_of_the_same_person(part, who) for part in (new, new @ kernel))
    assert after > before + 0.2


def test_the_size_of_the_shapes_is_kept(photos, metric):
    shapes, _ = photos
    np.testing.assert_allclose(np.sum((shapes @ metric) ** 2), np.sum(shapes**2))


@pytest.mark.integration
def test_without_the_loss_it_is_the_regression_up_to_the_size(photos):
    shapes, person = photos
    options = ShapeMetricOptions(**{**vars(FAST), "neighbor_weight": 0, "learning_rate": 0.05})
    kernel = learn(photos, options)
    targets = means(shapes, person)
    expected = np.linalg.lstsq(shapes, targets, rcond=None)[0]
    expected *= np.sqrt(np.sum(shapes**2) / np.sum((shapes @ expected) ** 2))
    np.testing.assert_allclose(kernel, expected, atol=0.05)


@pytest.mark.integration
def test_a_large_penalty_keeps_the_shapes_as_they_were(photos, metric):
    kernel = learn(photos, ShapeMetricOptions(**{**vars(FAST), "penalty": 100.0}))
    np.testing.assert_allclose(kernel / kernel[0, 0], np.eye(5), atol=0.05)
    assert np.abs(metric / metric[0, 0] - np.eye(5)).max() > 0.5


@pytest.mark.integration
def test_the_result_does_not_depend_on_the_unit(photos, metric):
    shapes, person = photos
    np.testing.assert_allclose(learn((1000 * shapes, person)), metric, atol=1e-3)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"neighbor_weight": -1.0}, "neighbor_weight is -1.0; it must be 0 or more"),
        ({"scale": 0.0}, "scale is 0.0; it must be above 0"),
        ({"scale": float("nan")}, "scale is nan"),
        ({"people": 1}, "people is 1"),
        ({"penalty": -1.0}, "penalty is -1.0"),
    ],
)
def test_options_out_of_range_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        ShapeMetricOptions(**setting)
