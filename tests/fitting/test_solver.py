import numpy as np
import pytest
from numpy.testing import assert_allclose
from random_faces import Faces
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from keras_scnn.fitting import FitOptions, fit_landmarks
from keras_scnn.fitting.solver import LandmarkSolver, State
from keras_scnn.geometry.camera import compose, decompose, project


@pytest.mark.parametrize("dimensions", [2, 3])
def test_scipy_finds_no_better_fit_within_the_bounds(tiny_face_model, dimensions):
    faces, options = Faces(tiny_face_model, 3), FitOptions(tolerance=1e-12, iterations=100)
    rng = np.random.default_rng(1)
    given = (faces.landmarks + rng.normal(0, 3, faces.landmarks.shape))[..., :dimensions]
    visibility = rng.uniform(0.1, 1, (3, 68))
    _check_that_scipy_finds_no_better(tiny_face_model, given, visibility, options)


def test_scipy_finds_no_better_fit_where_undamped_steps_make_it_worse(open_face):
    faces = Faces(open_face.truncated(20, 5), 3)
    options = FitOptions(tolerance=1e-12, iterations=300, identity_sd=5.0)
    noise = np.random.default_rng(1).normal(0, 20, faces.landmarks.shape)
    given = (faces.landmarks + noise)[..., :2]
    _check_that_scipy_finds_no_better(faces.model, given, np.ones((3, 68)), options)


def _check_that_scipy_finds_no_better(model, given, visibility, options):
    fit = fit_landmarks(model, given, visibility, options)
    start_scale = _start_scale(model, given, visibility)
    for i in range(3):
        cost = _cost(model, given[i], visibility[i], start_scale[i], options)
        rotation, scale, shift = (part[i] for part in decompose(fit.parameters.pose))
        turn = Rotation.from_matrix(rotation).as_rotvec()
        own = np.r_[fit.parameters.identity[i], fit.parameters.expression[i]]
        result = np.r_[turn, np.log(scale), shift, own]
        bounds = np.full((2, len(result)), [[-np.inf], [np.inf]])
        bounds[:, -model.n_expression :] = [[-1e-9], [1 + 1e-9]]
        best = least_squares(cost, result, bounds=bounds, xtol=1e-12, ftol=1e-12, x_scale="jac")
        assert (cost(result) ** 2).sum() <= 2 * best.cost * (1 + 1e-4)


def _start_scale(model, given, visibility) -> np.ndarray:
    roots = np.sqrt(visibility)[..., None] * np.ones(given.shape[-1])
    group = np.arange(len(given))
    return LandmarkSolver(model, given, roots, group, (1.0, 1.0))._start().scale


def _cost(model, given, visibility, unit_scale, options):
    """The residuals of the documented cost, written once more for one face."""
    dimensions = given.shape[-1]
    noise = np.array([1, 1, options.depth_noise])[:dimensions] * options.noise_mm * unit_scale

    def residuals(unknowns):
        own = unknowns[7:]
        identity, expression = own[: model.n_identity], own[model.n_identity :]
        rotation = Rotation.from_rotvec(unknowns[:3]).as_matrix()
        camera = compose(rotation, np.exp(unknowns[3]), unknowns[4:7])
        points = model.vertices(identity, expression)[model.landmark_indices]
        placed = project(camera, np.float64(points) + model.landmark_offsets)
        data = np.sqrt(visibility)[:, None] * (placed[:, :dimensions] - given) / noise
        return np.r_[
            data.ravel(), identity / options.identity_sd, expression / options.expression_sd
        ]

    return residuals


@pytest.mark.parametrize("dimensions", [2, 3])
def test_jacobians_are_the_finite_differences(tiny_face_model, dimensions):
    faces, step = Faces(tiny_face_model, 2), 1e-5
    roots = np.random.default_rng(1).uniform(0.1, 1, (2, 68, dimensions))
    given = faces.landmarks[..., :dimensions] + 1.0
    solver = LandmarkSolver(tiny_face_model, given, roots, np.arange(2), (1.0, 0.3))
    solver._unit = roots
    rotation, scale, shift = decompose(faces.camera)
    inside = np.clip(faces.expression, 0.2, 0.8)  # a bound would cut a difference short
    state = State(rotation, scale, shift[:, :dimensions], inside, faces.identity)
    own, shared = solver._jacobians(state)
    analytic = np.concatenate([own, shared], axis=-1)
    size = own.shape[-1]
    for column in range(analytic.shape[-1]):
        change = np.zeros((2, analytic.shape[-1]))
        change[:, column] = step
        ahead, behind = (
            solver._residuals(solver._moved(state, moved[:, :size], moved[:, size:]))
            for moved in (change, -change)
        )
        numeric = (ahead - behind).reshape(2, -1) / (2 * step)
        assert_allclose(analytic[..., column], numeric, rtol=1e-5, atol=1e-4)


def test_steps_are_those_of_the_cost_with_its_priors(tiny_face_model):
    """Gauss and Newton's steps: a few are enough. With another prior in them it takes many more."""
    faces = Faces(tiny_face_model, 3)
    given = faces.landmarks + np.random.default_rng(1).normal(0, 3, faces.landmarks.shape)
    soon, late = (
        fit_landmarks(
            tiny_face_model,
            given,
            options=FitOptions(tolerance=0, iterations=steps, identity_sd=0.05, expression_sd=1.0),
        )
        for steps in (6, 200)
    )
    assert_allclose(soon.parameters.identity, late.parameters.identity, rtol=1e-3, atol=1e-5)
    assert_allclose(soon.landmarks, late.landmarks, atol=1e-3)
