import numpy as np
from scipy.optimize import minimize
from scipy.special import huber

from keras_scnn.geometry.landmark_sites import site_offset


def test_the_offset_of_a_site_is_found_through_its_projections():
    rng = np.random.default_rng(0)
    offset, camera = np.array([1.5, -2.0, 4.0]), rng.normal(0, 0.5, (300, 2, 3))
    difference = camera @ offset + rng.normal(0, 0.1, (300, 2))
    difference[:20] += 30  # gross errors
    weight = np.ones(300)
    weight[20:40] = 0
    difference[20:40] = np.nan
    np.testing.assert_allclose(site_offset(camera, difference, weight), offset, atol=0.1)


def test_photos_count_by_their_weight_to_the_end():
    rng = np.random.default_rng(1)
    camera = rng.normal(0, 0.5, (400, 2, 3))
    offsets = np.where(np.arange(400)[:, None] < 200, [1.0, 0, 0], [0.0, 1, 0])  # none an outlier
    difference = np.einsum("mij,mj->mi", camera, offsets)
    weight = np.where(np.arange(400) < 200, 1.0, 0.01)
    found = site_offset(camera, difference, weight)
    np.testing.assert_allclose(found, [0.99, 0.01, 0], atol=0.01)


def test_a_direction_that_no_view_shows_stays_zero():
    camera = np.broadcast_to(np.diag([2.0, -2.0, 0.0])[:2], (6, 2, 3))
    difference = np.broadcast_to([3.0, 1.0], (6, 2))
    offset = site_offset(camera, difference, np.ones(6))
    np.testing.assert_allclose(offset, [1.5, -0.5, 0], atol=1e-9)


def test_the_offset_has_the_least_huber_loss():
    """Huber, "Robust Estimation of a Location Parameter", 1964, of each photo's distance in px."""
    rng = np.random.default_rng(2)
    camera, weight = rng.normal(0, 0.5, (200, 2, 3)), rng.uniform(0.1, 1, 200)
    difference = camera @ [1.5, -2.0, 4.0] + rng.standard_t(2, (200, 2)) * 2 + 1

    def loss(offset):
        return weight @ huber(2.0, np.linalg.norm(difference - camera @ offset, axis=1))

    best = minimize(loss, np.zeros(3), tol=1e-12).x
    np.testing.assert_allclose(site_offset(camera, difference, weight), best, atol=1e-3)
