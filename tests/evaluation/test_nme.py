import numpy as np
import pytest

from keras_scnn.evaluation import landmark_error, normalized_mean_error, place_in_photo
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
    found = normalized_mean_error(annotated + [3, 4], annotated)
    np.testing.assert_allclose(found, 100 * 5 / 70, rtol=1e-12)  # by hand: |(3, 4)|, sqrt(100 * 49)


def test_depth_is_not_looked_at(annotated, rng):
    deep = np.concatenate([annotated, rng.normal(size=(6, 68, 1))], axis=-1)
    np.testing.assert_array_equal(normalized_mean_error(deep, annotated), 0)


def test_the_error_does_not_depend_on_the_photo_size(annotated, rng):
    predicted = annotated + rng.normal(size=annotated.shape)
    small = normalized_mean_error(predicted, annotated)
    np.testing.assert_allclose(normalized_mean_error(7 * predicted, 7 * annotated), small)


def test_the_summary_is_the_mean_of_the_bins_not_of_the_faces(annotated):
    predicted = annotated + np.array([0.7, 0.7, 0.7, 1.4, -1.4, 2.8])[:, None, None] * [1, 0]
    found = landmark_error(predicted, annotated, [0, -10, 29.99, 30, -59, 100])
    # By hand: 0.7 px are 1 %; |yaw| puts three faces into the first bin, two, and one.
    np.testing.assert_allclose(found.bins_percent, [1, 2, 4])
    assert found.bins_count == (3, 2, 1)
    assert found.mean_percent == pytest.approx(7 / 3)
    assert found.faces_percent == pytest.approx(11 / 6)


def test_an_empty_bin_has_no_part_in_the_mean(annotated):
    found = landmark_error(annotated + [0.7, 0], annotated, np.zeros(6))
    assert found.mean_percent == pytest.approx(1)
    assert np.isnan(found.bins_percent[1:]).all()


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: place_in_photo(p, np.zeros((6, 4)), 120, "matlab"), "exact, field"),
        (lambda p: place_in_photo(p, np.zeros(4), 120), "landmarks and boxes"),
        (lambda p: normalized_mean_error(p[:, :5], p), "predicted and annotated"),
        (lambda p: normalized_mean_error(p, p * [1, 0]), "no area"),
        (lambda p: landmark_error(p, p, [0.0]), "yaw_degrees"),
        (lambda p: landmark_error(p[:0], p[:0], np.zeros(0)), "M above 0"),
    ],
)
def test_wrong_arguments_are_named(annotated, call, message):
    with pytest.raises(ValueError, match=message):
        call(annotated)
