import numpy as np
import pytest
from scipy.spatial import procrustes
from scipy.spatial.distance import mahalanobis

from keras_scnn.evaluation import (
    IdentityEvaluator,
    distinct_pairs,
    shape_distances,
    shape_error,
    summarize_shapes,
)
from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.shape_distance import (
    MIN_VARIANCE_SHARE,
    mahalanobis_coordinates,
    person_means,
    visible_coordinates,
    within_person_covariance,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_pose_and_scale_of_a_prediction_do_not_count_as_shape_error(rng):
    true = rng.normal(0, 40, (3, 50, 3))
    turned = 1.3 * true @ rotation_from_euler(np.array([0.2, 0.7, -0.1])).T + [5, 6, 7]
    result = shape_error(turned, true, rng.normal(0, 40, (50, 3)))
    assert result.vertex_mm == pytest.approx(0, abs=1e-9)
    assert result.relative == pytest.approx(0, abs=1e-9)


def test_the_mean_face_is_exactly_as_good_as_itself(rng):
    true, mean = rng.normal(0, 40, (3, 50, 3)), rng.normal(0, 40, (50, 3))
    result = shape_error(np.repeat(mean[None], 3, axis=0), true, mean)
    assert result.relative == pytest.approx(1)
    assert result.n_faces == 3


def test_the_error_after_alignment_is_that_of_scipy(rng):
    true = rng.normal(0, 40, (60, 3))
    predicted = 1.2 * true + rng.normal(0, 5, true.shape)
    # scipy aligns to the true shape of norm 1 about its center.
    fixed, aligned, _ = procrustes(true, predicted)
    unit = np.linalg.norm(true - true.mean(axis=0))
    expected = unit * np.linalg.norm(fixed - aligned, axis=1).mean()
    result = shape_error(predicted[None], true[None], rng.normal(0, 40, (60, 3)))
    assert result.vertex_mm == pytest.approx(expected, rel=1e-9)


def test_the_chunks_of_a_large_batch_do_not_change_the_mean(rng):
    true, mean = rng.normal(0, 40, (130, 20, 3)), rng.normal(0, 40, (20, 3))
    predicted = true + rng.normal(size=true.shape)
    alone = [
        shape_error(p[None], t[None], mean).vertex_mm for p, t in zip(predicted, true, strict=True)
    ]
    assert shape_error(predicted, true, mean).vertex_mm == pytest.approx(np.mean(alone))


def test_raw_numbers_are_those_of_the_points_as_they_stand(rng):
    true, mean = rng.normal(0, 40, (2, 30, 3)), rng.normal(0, 40, (30, 3))
    result = shape_error(true + [3.0, 0, 4.0], true, mean)
    assert result.raw_vertex_mm == pytest.approx(5)  # by hand: |(3, 0, 4)|
    assert result.vertex_mm == pytest.approx(0, abs=1e-9)
    base = np.mean([np.linalg.norm(mean - face, axis=1).mean() for face in true])
    assert result.raw_mean_face_mm == pytest.approx(base)
    assert result.raw_relative == pytest.approx(5 / base)


def test_explained_variance_is_that_of_its_definition(rng):
    mean = rng.normal(0, 40, (30, 3))
    true = mean + rng.normal(0, 2, (5, 30, 3))
    half = mean + (true - mean) / 2  # half of the deviation leaves a quarter of its square
    assert shape_error(half, true, mean).raw_explained_variance == pytest.approx(0.75)
    assert shape_error(true, true, mean).explained_variance == pytest.approx(1)
    of_mean = shape_error(np.repeat(mean[None], 5, axis=0), true, mean)
    assert of_mean.raw_explained_variance == pytest.approx(0)
    assert of_mean.explained_variance == pytest.approx(0)


def test_annotation_plus_noise_is_off_by_the_mean_length_of_the_noise(rng):
    true, mean = rng.normal(0, 40, (4, 5000, 3)), rng.normal(0, 40, (5000, 3))
    result = shape_error(true + rng.normal(0, 0.7, true.shape), true, mean)
    # The length of a 3D normal vector of deviation s has the mean s sqrt(8 / pi) (Maxwell).
    for value in (result.vertex_mm, result.raw_vertex_mm):
        assert value == pytest.approx(0.7 * np.sqrt(8 / np.pi), rel=0.01)


def test_a_weight_of_two_is_a_face_that_is_there_twice(rng):
    true, mean = rng.normal(0, 40, (3, 30, 3)), rng.normal(0, 40, (30, 3))
    predicted = true + rng.normal(size=true.shape)
    distances = shape_distances(predicted, true, mean)
    result = summarize_shapes(distances, np.array([2.0, 0, 1]))
    again = shape_error(predicted[[0, 0, 2]], true[[0, 0, 2]], mean)
    assert result.vertex_mm == pytest.approx(again.vertex_mm)
    assert result.explained_variance == pytest.approx(again.explained_variance)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shape_error(np.zeros((2, 5, 3)), np.zeros((2, 4, 3)), np.zeros((4, 3))), "mean_f"),
        (
            lambda: shape_error(np.zeros((0, 4, 3)), np.zeros((0, 4, 3)), np.zeros((4, 3))),
            "no face",
        ),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_coordinates_that_are_not_finite_are_refused(rng, which, bad):
    points = list(rng.normal(0, 40, (3, 2, 30, 3)))
    points[which][0, 5, 1] = bad
    with pytest.raises(ValueError, match="coordinates .* must be finite numbers"):
        shape_error(points[0], points[1], points[2][0])


def test_every_photo_has_the_mean_of_its_person():
    shapes = np.array([[1.0, 2], [3, 4], [10, 0], [5, 6]])
    means = person_means(shapes, np.array([7, 7, 2, 7]))
    np.testing.assert_allclose(means, [[3, 4], [3, 4], [10, 0], [3, 4]])


def test_the_scatter_of_one_person_is_the_pooled_covariance(rng):
    person = np.repeat([4, 9, 2], [5, 7, 1])
    coordinates = rng.normal(size=(13, 3)) * [1, 2, 3] + 10 * person[:, None]
    parts = [coordinates[person == p] for p in (4, 9)]
    # NumPy's covariances, each by its degrees of freedom; who has one photo says nothing.
    expected = sum((len(p) - 1) * np.cov(p.T) for p in parts) / (4 + 6)
    np.testing.assert_allclose(within_person_covariance(coordinates, person), expected, atol=1e-9)
    with pytest.raises(ValueError, match="13 people with one photo each"):
        within_person_covariance(coordinates, np.arange(13))


def test_scaled_distances_are_mahalanobis_distances(rng):
    """SciPy's, with the least variance added to the scatter by hand."""
    root = rng.normal(size=(4, 4))
    scatter = root @ root.T
    shapes = rng.normal(size=(2, 4))
    one, two = mahalanobis_coordinates(shapes, scatter)
    full = scatter + MIN_VARIANCE_SHARE * np.linalg.eigvalsh(scatter)[-1] * np.eye(4)
    expected = mahalanobis(*shapes, np.linalg.inv(full))
    assert np.linalg.norm(one - two) == pytest.approx(expected)


def test_directions_that_vary_within_a_person_count_less(rng):
    person = np.repeat(np.arange(40), 5)
    true = np.repeat(rng.normal(size=(40, 4)), 5, axis=0)
    shapes = true + rng.normal(size=true.shape) * [3.0, 0.2, 0.2, 0.2]
    pairs = distinct_pairs(person)
    plain = IdentityEvaluator(shapes, pairs).summary(np.ones(200))[1]
    scaled = mahalanobis_coordinates(shapes, within_person_covariance(shapes, person))
    result = IdentityEvaluator(scaled, pairs).summary(np.ones(200))[1]
    assert plain.accuracy_percent < 75 < 85 < result.accuracy_percent


def test_one_shape_for_all_photos_has_finite_distances_of_zero(rng):
    """As a network of random weights predicts, whose within-person covariance is zero."""
    shapes = np.tile(rng.normal(size=4), (6, 1))
    covariance = within_person_covariance(shapes, np.repeat(np.arange(3), 2))
    for coordinates in (mahalanobis_coordinates, visible_coordinates):
        scaled = coordinates(shapes, covariance)
        np.testing.assert_array_equal(scaled - scaled[0], 0)
