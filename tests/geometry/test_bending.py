"""Bending: affine motions exactly, smooth ones nearly; NumPy and JAX alike."""

import numpy as np
import pytest

from keras_scnn.geometry.bending import bend, grid_points, interpolate_grid

RNG = np.random.default_rng(1)
LINEAR, SHIFT = np.array([[1.1, 0.2], [-0.1, 0.9]]), np.array([5, -3])


@pytest.fixture
def points():
    """(1, 68, 2) over the middle of a crop of 120 px."""
    grid = np.stack(np.meshgrid(np.linspace(20, 100, 9), np.linspace(20, 100, 8)), -1)
    return grid.reshape(1, -1, 2)[:, :68]


def test_an_affine_motion_of_the_landmarks_moves_every_place(points):
    places = RNG.uniform(0, 119, (1, 50, 2))
    moved = bend(places, points, points @ LINEAR + SHIFT, reach=5.0)
    np.testing.assert_allclose(moved, places @ LINEAR + SHIFT, atol=1e-9)


def test_a_smooth_motion_is_met_at_the_landmarks_to_a_part_of_a_pixel(points):
    affine = points @ LINEAR + SHIFT
    smooth = affine + 3 * np.sin(points / 25)
    error = np.abs(bend(points, points, smooth, reach=5.0) - smooth)
    assert error.mean() < 0.3 < np.abs(smooth - affine).mean()


def test_a_bend_is_the_gaussian_weighted_mean_of_the_landmarks_moves(points):
    """Beyond the affine map of least squares, by a loop; ``reach`` is the standard deviation."""
    after = points + RNG.normal(0, 4, points.shape)
    places = RNG.uniform(20, 100, (1, 6, 2))
    rows = np.c_[points[0], np.ones(68)]
    affine = np.linalg.lstsq(rows, after[0], rcond=None)[0]
    rest = after[0] - rows @ affine
    for place, moved in zip(places[0], bend(places, points, after, reach=7.0)[0], strict=True):
        weight = [np.exp(-0.5 * (np.linalg.norm(place - point) / 7) ** 2) for point in points[0]]
        expected = np.r_[place, 1] @ affine + np.average(rest, axis=0, weights=weight)
        np.testing.assert_allclose(moved, expected, atol=1e-9)


def test_far_from_all_landmarks_the_bend_is_finite(points):
    """The nearest landmark counts, where all weights would round to 0."""
    moved = bend(np.full((1, 1, 2), 1e4), points, points + 2.0, reach=1.0)
    np.testing.assert_allclose(moved, 1e4 + 2, rtol=1e-9)


@pytest.mark.integration
def test_jax_gives_the_same(points):
    jnp = pytest.importorskip("jax.numpy")
    arrays = [jnp.asarray(x, jnp.float32) for x in (points[:, :20], points, points @ LINEAR)]
    expected = bend(points[:, :20], points, points @ LINEAR, 5.0)
    np.testing.assert_allclose(bend(*arrays, 5.0, jnp), expected, atol=1e-3)


def test_a_refined_grid_is_linear_between_its_points():
    grid = grid_points(41, 5)[None]  # the places themselves: pixel coordinates
    x, y = np.meshgrid(np.arange(41), np.arange(41))
    np.testing.assert_allclose(interpolate_grid(grid, 41)[0], np.stack([x, y], -1), atol=1e-4)
