import numpy as np
import pytest

from keras_scnn.evaluation import (
    landmark_error,
    normalized_mean_error,
    place_in_photo,
    summarize_by_yaw,
)
from keras_scnn.evaluation.nme import box_side
from keras_scnn.geometry.alignment import apply_affine
from keras_scnn.geometry.crops import crop_from_image, invert_affine


@pytest.fixture
def annotated(rng) -> np.ndarray:
    """(6, 68, 2) points whose boxes are 100 x 49 px, so that 1 % is 0.7 px."""
    points = rng.uniform(0, 1, (6, 68, 2)) * [100, 49]
    points[:, 0], points[:, 1] = 0, [100, 49]
    return points


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_a_shift_of_all_points_is_its_length_over_the_root_of_the_box_area(annotated):
    result = normalized_mean_error(annotated + [3, 4], annotated)
    np.testing.assert_allclose(
        result, 100 * 5 / 70, rtol=1e-12
    )  # by hand: |(3, 4)|, sqrt(100 * 49)


@pytest.mark.parametrize("place", [[-300, 40], [5000, -7]])
def test_the_error_does_not_depend_on_the_place_in_the_photo(annotated, place):
    result = normalized_mean_error(annotated + place + [3, 4], annotated + place)
    np.testing.assert_allclose(result, 100 * 5 / 70, rtol=1e-9)
    np.testing.assert_allclose(box_side(annotated + place), 70, rtol=1e-9)  # sqrt(100 * 49)


def test_depth_is_not_looked_at(annotated, rng):
    deep = np.concatenate([annotated, rng.normal(size=(6, 68, 1))], axis=-1)
    np.testing.assert_array_equal(normalized_mean_error(deep, annotated), 0)


def test_the_error_does_not_depend_on_the_photo_size(annotated, rng):
    predicted = annotated + rng.normal(size=annotated.shape)
    small = normalized_mean_error(predicted, annotated)
    np.testing.assert_allclose(normalized_mean_error(7 * predicted, 7 * annotated), small)


def test_the_summary_is_the_mean_of_the_bins_not_of_the_faces(annotated):
    predicted = annotated + np.array([0.7, 0.7, 0.7, 1.4, -1.4, 2.8])[:, None, None] * [1, 0]
    result = landmark_error(predicted, annotated, [0, -10, 29.99, 30, -59, 100])
    # By hand: 0.7 px are 1 %; |yaw| puts three faces into the first bin, two, and one.
    np.testing.assert_allclose(result.bins_percent, [1, 2, 4])
    assert result.bins_count == (3, 2, 1)
    assert result.mean_percent == pytest.approx(7 / 3)
    assert result.faces_percent == pytest.approx(11 / 6)


def test_an_empty_bin_has_no_part_in_the_mean(annotated):
    result = landmark_error(annotated + [0.7, 0], annotated, np.zeros(6))
    assert result.mean_percent == pytest.approx(1)
    assert np.isnan(result.bins_percent[1:]).all()


def test_exact_placement_undoes_the_crop_transform(rng):
    boxes = np.array([[93, 150, 361, 418], [-20.5, 3, 99.5, 123]])
    photo = rng.uniform(0, 400, (2, 68, 2))
    crop = apply_affine(crop_from_image(boxes, 120), photo)
    np.testing.assert_allclose(place_in_photo(crop, boxes, 120), photo, atol=1e-9)
    back = apply_affine(invert_affine(crop_from_image(boxes, 120)), crop)
    np.testing.assert_allclose(place_in_photo(crop, boxes, 120, "exact"), back, atol=1e-9)


def test_field_placement_is_the_benchmark_scripts():
    # 3DDFA's benchmark: crop pixels from 1, "x * side / 120 + x0" against pixels from 1.
    box, crop = np.array([[93.0, 150, 361, 418]]), np.array([[[10.0, 20.0]]])
    scripts = (crop + 1) * 268 / 120 + [93, 150]
    np.testing.assert_allclose(place_in_photo(crop, box, 120, "field"), scripts - 1)


def test_the_conventions_agree_where_crop_and_photo_have_the_same_scale():
    box, crop = np.array([[5.0, 6, 125, 126]]), np.array([[[10.0, 20.0]]])
    exact, field = (place_in_photo(crop, box, 120, name) for name in ("exact", "field"))
    np.testing.assert_allclose(exact, field)
    np.testing.assert_allclose(exact, crop + [5, 6])


def test_in_3d_depth_counts_but_not_its_origin(annotated):
    deep = np.concatenate([annotated, np.zeros((6, 68, 1))], axis=-1)
    np.testing.assert_allclose(normalized_mean_error(deep + [0, 0, 9], deep, 3), 0, atol=1e-12)
    bent = deep.copy()
    bent[:, :34, 2], bent[:, 34:, 2] = 7, -7
    # By hand: 7 px in depth of every point, over sqrt(100 * 49).
    np.testing.assert_allclose(normalized_mean_error(bent, deep, 3), 10)
    np.testing.assert_array_equal(normalized_mean_error(bent, deep), 0)


def test_annotation_plus_noise_has_the_error_of_the_noise(rng):
    points = rng.uniform(0, 1, (60, 68, 3)) * [100, 49, 80]
    points[:, 0], points[:, 1] = 0, [100, 49, 80]
    noisy = points + rng.normal(0, 1.4, points.shape)
    # Mean lengths of normal vectors of deviation s: s sqrt(pi / 2) in 2D (Rayleigh), s sqrt(8 / pi)
    # in 3D (Maxwell; the mean depth that is taken off makes it a little smaller).
    yaw = np.linspace(-90, 90, 60)
    result = landmark_error(noisy, points, yaw)
    assert result.mean_percent == pytest.approx(2 * np.sqrt(np.pi / 2), rel=0.03)
    result = landmark_error(noisy, points, yaw, dimensions=3)
    assert result.mean_percent == pytest.approx(2 * np.sqrt(8 / np.pi), rel=0.03)


def test_a_dense_error_is_normalized_by_the_landmarks(annotated, rng):
    vertices = rng.normal(0, 300, (6, 500, 3))
    moved = vertices + [3, 4, 0]
    np.testing.assert_allclose(normalized_mean_error(moved, vertices, 3, annotated), 100 * 5 / 70)


def test_weights_count_faces():
    errors, yaw = np.array([1.0, 2, 4, 8]), np.array([0, 10, 40, 80])
    result = summarize_by_yaw(errors, yaw, np.array([3.0, 1, 2, 0]))
    np.testing.assert_allclose(result.bins_percent, [1.25, 4, np.nan])
    assert result.mean_percent == pytest.approx((1.25 + 4) / 2)
    assert result.faces_percent == pytest.approx(13 / 6)


def deep(points: np.ndarray) -> np.ndarray:
    """With a depth of 0."""
    return np.concatenate([points, np.zeros((*points.shape[:-1], 1))], axis=-1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: place_in_photo(p, np.zeros((6, 4)), 120, "matlab"), "exact, field"),
        (lambda p: place_in_photo(p, np.zeros(4), 120), "landmarks and boxes"),
        (lambda p: place_in_photo(p[..., :1], np.ones((6, 4)), 120), r"\(6, 68, 1\).*2 or more"),
        (lambda p: normalized_mean_error(p[:, :5], p), "predicted and annotated"),
        (lambda p: normalized_mean_error(p, p * [1, 0]), "no area"),
        (lambda p: normalized_mean_error(p, p, dimensions=3), "3 or more"),
        (lambda p: landmark_error(p, p, [0.0]), "yaw_degrees"),
        (lambda p: landmark_error(p[:0], p[:0], np.zeros(0)), "M above 0"),
        (lambda p: landmark_error(p, p, [np.nan, *range(5)]), "yaw_degrees must be finite"),
        (lambda p: summarize_by_yaw(np.ones(2), [np.inf, 0]), "yaw_degrees must be finite"),
        (lambda p: landmark_error(p * [np.nan, 1], p, range(6)), "errors must be finite numbers"),
        (lambda p: summarize_by_yaw([np.inf, 1], [0, 80]), "errors must be finite numbers"),
        (lambda p: normalized_mean_error(p, p[..., :1]), r"\(6, 68, 1\); both must be"),
        (lambda p: normalized_mean_error(deep(p), p, 3), r"\(6, 68, 2\); both must be .*3 or more"),
        (lambda p: normalized_mean_error(p, p[..., 0]), r"\(6, 68\); both must be"),
        (lambda p: normalized_mean_error(p[0], p[0]), r"\(68, 2\); both must be"),
        (lambda p: normalized_mean_error(p, p, 2, p[:5]), "box_points has 5 faces; it must have 6"),
        (lambda p: normalized_mean_error(p, p, 2, p[:1]), "box_points has 1 faces; it must have 6"),
        (lambda p: box_side(p[0]), r"points have the shape \(68, 2\); it must be \(M, N, 2 or"),
        (lambda p: box_side(p[..., :1]), r"points have the shape \(6, 68, 1\)"),
        (lambda p: box_side(p[:, :0]), r"points have the shape \(6, 0, 2\)"),
    ],
)
def test_wrong_arguments_are_named(annotated, call, message):
    with pytest.raises(ValueError, match=message):
        call(annotated)
