import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from keras_scnn import MorphableModel
from keras_scnn.data.labels.point_labels import fit_to_points
from keras_scnn.geometry.camera import compose, project
from keras_scnn.shape_distance import shape_coordinates

YAWS = np.radians([0, 5, -5, 85, 80])
PROFILE = YAWS > 1


@pytest.fixture(scope="module")
def person():
    """The model, a shape 1.5 mm from the mean face, and points of its photos, 0.3 px of noise."""
    rng = np.random.default_rng(1)
    model = MorphableModel.open_face()
    identity = rng.normal(size=model.n_identity)
    identity *= 1.5 / np.linalg.norm(shape_coordinates(model, identity[None]))
    points = []
    for yaw in YAWS:
        camera = compose(Rotation.from_euler("y", yaw).as_matrix(), 1.0, np.array([80.0, 80, 0]))
        shape = model.landmarks(identity, np.zeros(model.n_expression))
        points.append(project(camera, shape)[:, :2] + rng.normal(0, 0.3, (68, 2)))
    return model, identity, np.stack(points)


def apart(model, shape, truth):
    """mm, root mean square over the vertices."""
    return np.linalg.norm(shape_coordinates(model, (shape - truth)[None]))


def depth_error(model, shape, truth):
    """mm, root mean square over the 68 landmarks, the mean depth taken off."""
    none = np.zeros(model.n_expression)
    away = model.landmarks(shape, none)[:, 2] - model.landmarks(truth, none)[:, 2]
    return away.std()


def test_points_of_profiles_bring_a_shape_nearer_to_the_truth_in_depth(person):
    model, truth, points = person
    start = np.zeros(model.n_identity)
    frontal = fit_to_points(model, start, points[~PROFILE], PROFILE[~PROFILE])
    every = fit_to_points(model, start, points, PROFILE)
    assert apart(model, every, truth) < apart(model, frontal, truth) < apart(model, start, truth)
    assert depth_error(model, every, truth) < 0.8 * depth_error(model, frontal, truth)


def test_the_given_shape_stays_where_points_carry_no_information(person):
    model, truth, points = person
    nothing = fit_to_points(model, truth, points[:0], PROFILE[:0])
    np.testing.assert_array_equal(nothing, truth)
    held = fit_to_points(model, truth, points, PROFILE)
    assert apart(model, held, truth) < 0.3  # mm: noise alone


def test_labels_do_not_depend_on_the_units_of_the_coefficients(person):
    model, _, points = person
    scale = np.linspace(0.5, 2, model.n_identity)
    other = model.replace(identity_basis=model.identity_basis * np.float32(scale))
    start = np.full(model.n_identity, 0.1)
    first = fit_to_points(model, start, points, PROFILE)
    second = fit_to_points(other, start / scale, points, PROFILE)
    np.testing.assert_allclose(second * scale, first, atol=2e-2)


def test_many_photos_of_one_view_count_as_four(person, monkeypatch):
    model, _, points = person

    def fitted(count):
        photos = points[:1].repeat(count, axis=0)
        return fit_to_points(model, np.zeros(model.n_identity), photos, np.zeros(count, bool))

    four, many = fitted(4), fitted(24)
    monkeypatch.setattr("keras_scnn.data.labels.point_labels.PHOTOS_OF_A_VIEW", 1000)
    assert apart(model, four, many) < 0.5 * apart(model, four, fitted(24))


def test_a_photo_whose_points_lie_on_one_line_does_not_spoil_the_label(person):
    """Wherever in the list it is: the others have a fit."""
    model, _, points = person
    start = np.full(model.n_identity, 0.1)
    line = np.full((68, 2), np.nan)
    line[27:31] = [[50, 10], [50, 20], [50, 30], [50, 40]]  # the bridge of a nose alone
    one, none = fit_to_points(model, start, points[:1], PROFILE[:1]), np.zeros(2, bool)
    for photos in ([line, points[0]], [points[0], line]):
        label = fit_to_points(model, start, np.stack(photos), none)
        np.testing.assert_allclose(label, one, atol=1e-6)
    np.testing.assert_array_equal(fit_to_points(model, start, line[None], none[:1]), start)


def test_ten_photos_of_a_view_count_as_four_and_two_as_two(tiny_face_model, monkeypatch):
    class Seen(Exception):
        pass

    def noted(model, points, weight, options):
        raise Seen(weight)

    monkeypatch.setattr("keras_scnn.data.labels.point_labels.fit_person_landmarks", noted)
    points = np.random.default_rng(0).normal(60, 20, (12, 68, 2))
    points[3, 5] = np.nan  # a point that is not given
    is_profile, identity = np.arange(12) >= 10, np.zeros(tiny_face_model.n_identity)
    with pytest.raises(Seen) as seen:
        fit_to_points(tiny_face_model, identity, points, is_profile)
    expected = np.repeat(np.where(is_profile, 1.0, 0.4)[:, None], 68, axis=1)
    expected[3, 5] = 0
    np.testing.assert_allclose(seen.value.args[0], expected)
