import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation
from skimage.transform import SimilarityTransform
from strategies import floats, scattered_points, similarities

from keras_scnn.geometry.alignment import (
    affine_alignment,
    apply_affine,
    apply_similarity,
    similarity_alignment,
)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_similarity_is_recovered_exactly(dimensions):
    @given(scattered_points(dimensions), similarities(dimensions))
    def recovered(points, similarity):
        result = similarity_alignment(points, apply_similarity(*similarity, points))
        for part, expected in zip(result, similarity, strict=True):
            assert_allclose(part, expected, rtol=1e-8, atol=1e-8)

    recovered()


def estimated(source: np.ndarray, target: np.ndarray) -> SimilarityTransform:
    """scikit-image's alignment, which is a method in the last version for Python 3.10 (0.25)."""
    if hasattr(SimilarityTransform, "from_estimate"):
        return SimilarityTransform.from_estimate(source, target)
    transform = SimilarityTransform(dimensionality=source.shape[1])
    transform.estimate(source, target)
    return transform


@pytest.mark.parametrize("dimensions", [2, 3])
def test_unequal_point_sets_align_as_in_scikit_image(dimensions):
    @given(scattered_points(dimensions), scattered_points(dimensions))
    def same(source, target):
        expected = estimated(source, target).params
        scale, rotation, translation = similarity_alignment(source, target)
        assert_allclose(scale * rotation, expected[:dimensions, :dimensions], atol=1e-9)
        assert_allclose(translation, expected[:dimensions, dimensions], atol=1e-9)

    same()


@given(scattered_points(3), scattered_points(3), floats(12, 0.1, 2))
def test_weighted_rigid_alignment_is_scipys(source, target, weights):
    scale, rotation, _ = similarity_alignment(source, target, weights, with_scale=False)
    center = [np.average(points, axis=0, weights=weights) for points in (source, target)]
    expected, _ = Rotation.align_vectors(target - center[1], source - center[0], weights)
    assert scale == 1
    assert_allclose(rotation, expected.as_matrix(), atol=1e-6)


@pytest.mark.integration
@given(scattered_points(2), scattered_points(2), floats(12, 0.1, 2))
def test_no_other_weighted_similarity_is_better(source, target, weights):
    def cost(unknowns):
        scale, angle, *shift = unknowns
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        moved = apply_similarity(scale, turn, shift, source)
        return (weights * ((target - moved) ** 2).sum(axis=1)).sum()

    scale, rotation, shift = similarity_alignment(source, target, weights)
    result = np.r_[scale, np.arctan2(rotation[1, 0], rotation[0, 0]), shift]
    assert cost(result) <= minimize(cost, result).fun * (1 + 1e-6)


@given(scattered_points(3), similarities(3))
def test_points_of_weight_zero_do_not_matter(points, similarity):
    target = apply_similarity(*similarity, points)
    target[3] += 1000
    weights = np.ones(len(points))
    weights[3] = 0
    assert_allclose(similarity_alignment(points, target, weights)[1], similarity[1], atol=1e-8)


@pytest.mark.parametrize("align", [similarity_alignment, affine_alignment])
def test_points_of_weight_zero_may_be_missing(align):
    rng = np.random.default_rng(2)
    source, target, weights = rng.normal(size=(9, 3)), rng.normal(size=(2, 9, 3)), np.ones(9)
    expected = align(source[1:], target[:, 1:])
    weights[0], target[0, 0], target[1, 0, 2] = 0, np.nan, np.inf
    source[0, 1] = np.nan
    for part, part_of_others in zip(align(source, target, weights), expected, strict=True):
        assert_allclose(part, part_of_others, atol=1e-12)


@pytest.mark.parametrize("align", [similarity_alignment, affine_alignment])
@pytest.mark.parametrize("count", [1, 4])
def test_sets_of_different_numbers_of_points_are_refused(align, count):
    points = np.random.default_rng(0).normal(size=(5, 3))
    for pair in ((points, points[:count]), (points[:count], points)):
        with pytest.raises(ValueError, match="must have the same number of points"):
            align(*pair)


@given(scattered_points(3))
def test_a_mirror_image_is_never_matched_by_a_reflection(points):
    rotation = similarity_alignment(points, points * [-1, 1, 1])[1]
    assert_allclose(np.linalg.det(rotation), 1)


def test_a_batch_is_its_rows():
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(9, 3)), rng.normal(size=(4, 5, 9, 3))
    weights = rng.uniform(0.1, 1, (4, 5, 9))
    batch = similarity_alignment(source, target, weights)
    single = similarity_alignment(source, target[2, 3], weights[2, 3])
    for part, expected in zip(batch, single, strict=True):
        assert part.shape[:2] == (4, 5)
        assert_allclose(part[2, 3], expected)


@given(scattered_points(3), floats((2, 4), -5, 5), st.floats(0.1, 5))
def test_an_affine_map_is_recovered_exactly(points, matrix, weight):
    target = apply_affine(matrix, points)
    result = affine_alignment(points, target, np.linspace(0.1, weight, len(points)))
    assert_allclose(result, matrix, atol=1e-8)


@given(scattered_points(3), scattered_points(2), floats(12, 0.1, 2))
def test_an_affine_map_is_numpys_weighted_least_squares(source, target, weights):
    design = np.concatenate([source, np.ones((12, 1))], axis=1)
    root = np.sqrt(weights)[:, None]
    expected = np.linalg.lstsq(root * design, root * target, rcond=None)[0].T
    assert_allclose(affine_alignment(source, target, weights), expected, atol=1e-7)


def test_points_in_a_plane_still_have_an_affine_map():
    rng = np.random.default_rng(0)
    source = rng.normal(size=(6, 3)) * [1, 1, 0]
    target = source[:, :2] * 2 + 1
    assert_allclose(apply_affine(affine_alignment(source, target), source), target, atol=1e-9)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(4), "its last axis must be 5"),
        (np.zeros(5), "positive sum"),
        (np.array([1, 1, 1, 1, -1]), "must not be negative"),
    ],
)
def test_wrong_weights_are_named(weights, message):
    points = np.random.default_rng(0).normal(size=(5, 3))
    with pytest.raises(ValueError, match=message):
        similarity_alignment(points, points, weights)


def test_affine_maps_of_a_batch_are_those_of_its_rows():
    rng = np.random.default_rng(5)
    source, target = rng.normal(size=(9, 3)), rng.normal(size=(4, 9, 2))
    weights = rng.uniform(0.1, 1, (4, 9))
    together = affine_alignment(source, target, weights)
    alone = [affine_alignment(source, *row) for row in zip(target, weights, strict=True)]
    assert_allclose(together, alone, atol=1e-12)
    moved = apply_affine(together, source)
    assert_allclose(moved, [apply_affine(one, source) for one in alone], atol=1e-12)
    for one, points in zip(alone, moved, strict=True):  # x' = A x + t, point by point
        assert_allclose(points, [one[:, :3] @ p + one[:, 3] for p in source], atol=1e-12)
