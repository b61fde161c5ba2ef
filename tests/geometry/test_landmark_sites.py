import numpy as np

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
