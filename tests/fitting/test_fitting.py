import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from random_faces import Faces

from keras_scnn import fitting
from keras_scnn.fitting import FitOptions, fit_landmarks, fit_person_landmarks
from keras_scnn.geometry.camera import project, transform_camera

# With landmarks trusted to a tenth of a micrometer, the priors have no effect.
EXACT = FitOptions(noise_mm=1e-4, depth_noise=1.0, iterations=100, tolerance=1e-8)


@pytest.mark.integration
@pytest.mark.parametrize(("dimensions", "identity", "expression"), [(3, 80, 51), (2, 40, 30)])
def test_noise_free_landmarks_give_back_pose_and_every_vertex(
    open_face, dimensions, identity, expression
):
    """One photo's 68 landmarks are 204 (in 2D 136) equations: they determine this many unknowns."""
    faces = Faces(open_face.truncated(identity, expression), 24)
    fit = fit_landmarks(faces.model, faces.landmarks[..., :dimensions], options=EXACT)
    assert faces.pose_error_degrees(fit).max() < 0.1
    assert faces.vertex_error_mm(fit).max() < 0.2
    assert fit.residual_px.max() < 1e-3


def test_photos_of_one_person_give_back_pose_and_every_vertex_of_the_whole_model(open_face):
    """80 + 51 components, from 2D points: 136 equations for 57 unknowns of each photo.

    The last expression, ``tongueOut``, moves no landmark.
    """
    faces = Faces(open_face.truncated(80, 51), 10, one_person=True)
    fit = fit_person_landmarks(faces.model, faces.landmarks[..., :2], options=EXACT)
    assert faces.pose_error_degrees(fit).max() < 0.1
    assert faces.vertex_error_mm(fit).max() < 0.2


def test_one_person_has_one_identity_and_many_photos_show_it_better(open_face):
    faces = Faces(open_face, 10, one_person=True)
    noisy = faces.landmarks + np.random.default_rng(1).normal(0, 0.5, faces.landmarks.shape)
    together = fit_person_landmarks(faces.model, noisy).parameters.identity
    alone = fit_landmarks(faces.model, noisy).parameters.identity
    assert_array_equal(together, np.tile(together[0], (10, 1)))
    weights = faces.model.identity_weights_mm
    error_together, error_alone = (
        np.linalg.norm(weights * (identity - faces.identity), axis=1).mean()
        for identity in (together, alone)
    )
    assert error_together < 0.8 * error_alone


def test_a_person_seen_once_is_fitted_as_a_photo(tiny_face_model):
    faces = Faces(tiny_face_model, 1)
    person = fit_person_landmarks(tiny_face_model, faces.landmarks).parameters.to_vector()
    assert_allclose(person, fit_landmarks(tiny_face_model, faces.landmarks).parameters.to_vector())


def test_expression_weights_stay_within_the_bounds(open_face):
    faces = Faces(open_face, 8)
    noisy = faces.landmarks + np.random.default_rng(1).normal(0, 3, faces.landmarks.shape)
    expression = fit_landmarks(open_face, noisy).parameters.expression
    low, high = open_face.expression_bounds.T
    assert (expression >= low).all()
    assert (expression <= high).all()
    assert (expression == low).any(), "with noise like this some weights end at a bound"


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_photo_that_is_turned_scaled_and_shifted_has_the_same_face(open_face, dimensions):
    faces = Faces(open_face, 6)
    noise = np.random.default_rng(1).normal(0, 0.5, faces.landmarks.shape)
    landmarks = (faces.landmarks + noise)[..., :dimensions]
    turn = 3.0 * np.array([[0.8, -0.6, 10], [0.6, 0.8, -20]])
    moved = landmarks[..., :2] @ turn[:, :2].T + turn[:, 2]
    moved = np.concatenate([moved, 3.0 * landmarks[..., 2:]], axis=-1)
    options = FitOptions(tolerance=1e-10, iterations=100)
    before = fit_landmarks(open_face, landmarks, options=options)
    after = fit_landmarks(open_face, moved, options=options)
    assert_allclose(after.parameters.identity, before.parameters.identity, atol=3e-3)
    assert_allclose(after.parameters.expression, before.parameters.expression, atol=3e-3)
    expected = transform_camera(turn, before.parameters.pose)
    assert_allclose(after.parameters.pose, expected, rtol=1e-3, atol=1e-2)
    assert_allclose(after.residual_px, 3 * before.residual_px, rtol=1e-3)


def test_depth_may_have_any_origin(tiny_face_model):
    faces = Faces(tiny_face_model, 4)
    here = fit_landmarks(tiny_face_model, faces.landmarks).parameters
    there = fit_landmarks(tiny_face_model, faces.landmarks + [0, 0, 500]).parameters
    expected = here.pose.copy()
    expected[:, 2, 3] += 500
    assert_allclose(there.pose, expected, atol=1e-5)
    assert_allclose(there.identity, here.identity, atol=1e-6)


def test_hidden_landmarks_do_not_count_whatever_they_hold(open_face):
    faces = Faces(open_face.truncated(20, 10), 4)
    spoiled, visibility = faces.landmarks[..., :2].copy(), np.ones((4, 68))
    visibility[:, :9] = 0
    spoiled[:2, :9], spoiled[2:, :9] = np.nan, 1e6
    fit = fit_landmarks(faces.model, spoiled, visibility, EXACT)
    assert faces.pose_error_degrees(fit).max() < 0.1
    assert faces.vertex_error_mm(fit).max() < 0.2


def test_a_landmark_of_half_weight_counts_half(tiny_face_model):
    """Two landmark sites at one vertex: weights 1/2 and 1/2 are the weights 1 and 0."""
    index = tiny_face_model.landmark_indices.copy()
    index[1] = index[0]
    model = tiny_face_model.replace(landmark_indices=index, landmark_offsets=None)
    landmarks = Faces(model, 3).landmarks + np.random.default_rng(1).normal(0, 2, (3, 68, 3))
    landmarks[:, 1] = landmarks[:, 0]
    halves, one = np.ones((3, 68)), np.ones((3, 68))
    halves[:, :2], one[:, 1] = 0.5, 0
    options = FitOptions(tolerance=1e-12, iterations=100)
    first, second = (
        fit_landmarks(model, landmarks, weights, options).parameters for weights in (halves, one)
    )
    assert_allclose(first.to_vector(), second.to_vector(), atol=1e-4)


def test_a_strong_prior_gives_the_neutral_mean_face(open_face):
    faces = Faces(open_face, 3)
    options = FitOptions(identity_sd=1e-6, expression_sd=1e-6)
    parameters = fit_landmarks(open_face, faces.landmarks, options=options).parameters
    assert_allclose(parameters.identity, 0, atol=1e-4)
    assert_allclose(parameters.expression, 0, atol=1e-4)


def test_landmark_offsets_are_part_of_what_is_fitted(open_face):
    offsets = np.random.default_rng(1).normal(0, 2, (68, 3))
    faces = Faces(open_face.truncated(20, 10).replace(landmark_offsets=offsets), 4)
    fit = fit_landmarks(faces.model, faces.landmarks, options=EXACT)
    assert_allclose(fit.landmarks, faces.landmarks, atol=1e-3)
    assert faces.vertex_error_mm(fit).max() < 0.2


def test_a_batch_longer_than_a_chunk_is_its_rows(tiny_face_model):
    landmarks = Faces(tiny_face_model, 300).landmarks
    batch = fit_landmarks(tiny_face_model, landmarks)
    single = fit_landmarks(tiny_face_model, landmarks[[270]])
    assert batch.parameters.to_vector().shape == (300, 12 + 6 + 5)
    assert_allclose(batch.parameters.identity[270], single.parameters.identity[0], atol=1e-3)
    assert_allclose(batch.landmarks[270], single.landmarks[0], atol=0.01)


def test_a_photo_is_fitted_alike_beside_photos_that_take_more_steps(open_face):
    given = Faces(open_face, 8).landmarks[..., :2]
    given = given + np.arange(8)[:, None, None] * np.random.default_rng(1).normal(size=(68, 2))
    options = FitOptions(tolerance=3e-3)
    batch = fit_landmarks(open_face, given, options=options).parameters.to_vector()
    alone = [fit_landmarks(open_face, given[[i]], options=options).parameters for i in range(8)]
    expected = np.concatenate([parameters.to_vector() for parameters in alone])
    assert_allclose(batch, expected, rtol=1e-6, atol=1e-6)


def test_the_result_describes_itself(tiny_face_model):
    faces = Faces(tiny_face_model, 2)
    given = faces.landmarks + np.random.default_rng(1).normal(0, 2, (2, 68, 3))
    visibility = np.random.default_rng(2).uniform(0, 1, (2, 68))
    fit = fit_landmarks(tiny_face_model, given, visibility)
    parameters = fit.parameters
    shape = tiny_face_model.landmarks(parameters.identity, parameters.expression)
    assert_allclose(fit.landmarks, project(parameters.pose, shape), atol=1e-3)
    square = ((fit.landmarks - given)[..., :2] ** 2).sum(axis=-1)
    expected = [np.sqrt(np.average(square[i], weights=visibility[i])) for i in range(2)]
    assert_allclose(fit.residual_px, expected)


@pytest.mark.parametrize(
    ("landmarks", "visibility", "message"),
    [
        (np.zeros((68, 2)), None, "landmarks have the shape"),
        (np.zeros((0, 68, 2)), None, "landmarks have the shape"),
        (np.zeros((1, 68, 4)), None, "landmarks have the shape"),
        (np.zeros((1, 68, 2)), np.ones((1, 67)), r"visibility must be \(1, 68\)"),
        (np.zeros((1, 68, 2)), -np.ones((1, 68)), "none below 0"),
        (np.zeros((1, 68, 2)), np.full((1, 68), np.inf), r"visibility must be \(1, 68\) finite"),
        (np.zeros((1, 68, 2)), np.full((1, 68), np.nan), r"visibility must be \(1, 68\) finite"),
        (np.zeros((1, 68, 2)), np.eye(68)[:1], "a pose needs 4"),
        (np.full((1, 68, 2), np.nan), None, "must be finite"),
        ("points.pts", None, "landmarks must be an array of numbers .could not convert string"),
        ([[[1.0, 2.0]], [[3.0]]], None, "landmarks must be an array of numbers"),
        (np.zeros((1, 68, 2)), "all", "visibility must be an array of numbers"),
    ],
)
def test_wrong_landmarks_are_refused(tiny_face_model, landmarks, visibility, message):
    for fit in (fit_landmarks, fit_person_landmarks):
        with pytest.raises(ValueError, match=message):
            fit(tiny_face_model, landmarks, visibility)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("flat", ["line", "point"])
def test_landmarks_on_a_line_leave_the_other_photos_their_fits(open_face, dimensions, flat):
    landmarks = Faces(open_face, 3).landmarks[..., :dimensions].copy()
    alone = fit_landmarks(open_face, landmarks[[0, 2]])
    along = np.arange(68.0) if flat == "line" else np.zeros(68)
    landmarks[1] = np.stack([along, 2 * along, along][:dimensions], axis=1)
    for fit in (fit_landmarks, fit_person_landmarks):
        result = fit(open_face, landmarks)
        assert np.isfinite(result.residual_px).tolist() == [True, False, True]
        assert np.isnan(result.parameters.to_vector()[1]).all()
    together = fit_landmarks(open_face, landmarks)
    assert_allclose(together.residual_px[[0, 2]], alone.residual_px, rtol=1e-3)


def test_a_matrix_that_cannot_be_solved_is_one_photos_failure(open_face, monkeypatch):
    landmarks = Faces(open_face, 3).landmarks
    solve, bad = fitting.LandmarkSolver.solve, landmarks[1]

    def solver(self, *arguments):
        if (self._target == bad).all(axis=(1, 2)).any():
            raise np.linalg.LinAlgError("Singular matrix")
        return solve(self, *arguments)

    monkeypatch.setattr(fitting.LandmarkSolver, "solve", solver)
    for fit in (fit_landmarks, fit_person_landmarks):
        residual = fit(open_face, landmarks).residual_px
        assert np.isfinite(residual).tolist() == [True, False, True]
    with monkeypatch.context() as patch:
        patch.setattr(fitting.LandmarkSolver, "solve", lambda *_: np.linalg.inv(np.zeros((1, 1))))
        assert np.isinf(fit_person_landmarks(open_face, landmarks).residual_px).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise_mm": 0.0}, "noise_mm is 0.0; it must be above 0"),
        ({"depth_noise": -1.0}, "depth_noise is -1.0; it must be above 0"),
        ({"identity_sd": np.nan}, "identity_sd is nan; it must be above 0"),
        ({"expression_sd": np.inf}, "expression_sd is inf; it must be above 0"),
        ({"iterations": 0}, "iterations is 0; it must be 1 or more"),
        ({"iterations": 2.5}, "iterations is 2.5; it must be a whole number, 1 or more"),
        ({"tolerance": -1.0}, "tolerance is -1.0; it must be 0 or more"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FitOptions(**options)


@pytest.mark.parametrize("one_person", [False, True])
def test_a_fit_is_the_most_probable_identity(open_face, one_person):
    """The slopes of the squares and of the prior, with unlike noise in depth, cancel out."""
    options = FitOptions(depth_noise=3.0, identity_sd=0.8, iterations=100, tolerance=0)
    faces = Faces(open_face, 3, one_person=one_person)
    landmarks = faces.landmarks + np.random.default_rng(0).normal(0, 1, faces.landmarks.shape)
    fit = (fit_person_landmarks if one_person else fit_landmarks)(
        open_face, landmarks, options=options
    )
    moves = np.einsum("bij,mjk->bmik", fit.parameters.pose[..., :3], open_face.landmark_basis()[1])
    misses = (fit.landmarks - landmarks) * [1, 1, 1 / 9]
    slope = np.einsum("bmi,bmik->bk", misses, moves)  # px^2
    scale = np.linalg.norm(fit.parameters.pose[:, 0, :3], axis=1, keepdims=True)
    slope = slope / (options.noise_mm * scale) ** 2
    prior = fit.parameters.identity / options.identity_sd**2
    for rows in [[0, 1, 2]] if one_person else [[0], [1], [2]]:
        # The noise is in px of each photo's scale at the start, which is nearly the last one.
        share = np.linalg.lstsq(slope[rows].T, -prior[rows[0]], rcond=None)[0]
        assert_allclose(share, 1, atol=0.2)
        assert_allclose(share @ slope[rows], -prior[rows[0]], atol=1e-4)
