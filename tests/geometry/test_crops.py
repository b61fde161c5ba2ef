import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from strategies import floats

from keras_scnn.geometry.alignment import apply_affine
from keras_scnn.geometry.crops import (
    check_crop_box,
    check_patch,
    crop_from_image,
    invert_affine,
)

BOXES = st.builds(
    lambda corner, extent: np.r_[corner, corner + extent],
    floats(2, -300, 300),
    floats(2, 1, 500),
)


@given(BOXES, st.integers(1, 300))
def test_the_outer_edges_of_the_box_become_those_of_the_crop(box, size):
    edges = apply_affine(crop_from_image(box, size), box.reshape(2, 2) - 0.5)
    assert_allclose(edges, [[-0.5, -0.5], [size - 0.5, size - 0.5]], atol=1e-6)


@pytest.mark.parametrize(("x0", "y0"), [(0, 0), (3, 5), (10, 2)])
def test_a_box_of_the_crops_size_copies_the_pixels(x0, y0):
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    transform = crop_from_image(np.array([x0, y0, x0 + 20, y0 + 20]), 20)
    crop = cv2.warpAffine(image, transform, (20, 20), flags=cv2.INTER_LINEAR)
    assert_array_equal(crop, image[y0 : y0 + 20, x0 : x0 + 20])


def test_halving_a_box_samples_between_pixels_as_opencvs_resize_does():
    image = np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8).astype(np.float32)
    transform = crop_from_image(np.array([0, 0, 16, 16]), 8)
    crop = cv2.warpAffine(image, transform, (8, 8), flags=cv2.INTER_LINEAR)
    resized = cv2.resize(image, (8, 8), interpolation=cv2.INTER_LINEAR)
    assert_allclose(crop, resized, atol=1e-3)


@given(BOXES, st.integers(1, 300), floats((5, 2), -500, 500))
def test_a_point_comes_back_from_the_crop(box, size, points):
    transform = crop_from_image(box, size)
    there = apply_affine(transform, points)
    assert_allclose(apply_affine(invert_affine(transform), there), points, atol=1e-6)


@given(floats((3, 2, 3), -2, 2))
def test_inverses_are_opencvs(noise):
    transforms = noise + np.array([[5.0, 0, 0], [0, 5, 0]])
    expected = [cv2.invertAffineTransform(transform) for transform in transforms]
    assert_allclose(invert_affine(transforms), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("box", "size", "message"),
    [
        ([0, 0, 0, 10], 120, "must be above 0"),
        ([0, 0, 10, -1], 120, "must be above 0"),
        ([0, 0, 10, 10], 0, "must be above 0"),
        ([0, 0, 10], 120, r"box has the shape \(3,\); it must be \(..., 4\): x0, y0, x1, y1"),
    ],
)
def test_an_empty_box_is_refused(box, size, message):
    with pytest.raises(ValueError, match=message):
        crop_from_image(np.array(box, float), size)


def test_a_transform_without_inverse_is_refused():
    with pytest.raises(ValueError, match="singular"):
        invert_affine(np.zeros((2, 3)))


def test_a_homogeneous_transform_is_refused_by_its_shape():
    with pytest.raises(ValueError, match=r"to_from has the shape \(3, 3\)"):
        invert_affine(np.eye(3))


def test_transforms_of_a_batch_are_those_of_its_boxes():
    boxes = np.array([[[0.0, 0, 4, 4], [1, 2, 9, 10], [3, 1, 4, 2]]] * 2)
    alone = [[crop_from_image(box, 8) for box in row] for row in boxes]
    assert_array_equal(crop_from_image(boxes, 8), alone)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([0, 0, 10], "expected finite x0, y0, x1, y1"),
        ([[0, 0, 10, 10]], "expected finite x0, y0, x1, y1"),
        ([0, 0, np.inf, np.inf], "expected finite"),
        ([0, 0, np.nan, 10], "expected finite"),
        ([0, 10, 10, 10], "x1 > x0 and y1 > y0"),
        ([10, 0, 0, 10], "x1 > x0 and y1 > y0"),
        ([0, 0, 10.6, 10], "10.6 x 10 px; a crop needs a square"),
        ([5, 5, 15, 14.4], "10 x 9.4 px; a crop needs a square"),
        ([0, 0, 3201, 3201], "3201 px wide, the photo only 200"),
    ],
)
def test_a_box_that_no_crop_can_be_cut_from_is_named(box, message):
    with pytest.raises(ValueError, match=message):
        check_crop_box(np.array(box, float), (100, 200, 3))


@pytest.mark.parametrize("box", [[-500, -500, -400, -400], [0, 0, 10.4, 10], [0, 0, 3200, 3200]])
def test_a_box_outside_the_photo_nearly_square_or_16_times_as_wide_is_valid(box):
    check_crop_box(np.array(box, float), (100, 200, 3))
    check_crop_box(np.array(box, float), (200, 100, 3))


@pytest.mark.parametrize(
    ("photo", "columns", "rows", "block", "fits"),
    [
        ((100, 100, 3), 4000, 4000, 1, True),  # 16 million pixels for small photos
        ((100, 100, 3), 4000, 4001, 1, False),
        ((5000, 4000, 3), 8000, 5000, 1, True),  # twice those of a large one
        ((5000, 4000, 3), 8000, 5001, 1, False),
        ((100, 100, 3), 4, 40_000, 100, True),  # a row of 1 x 400 blocks of 100 x 100
        ((100, 100, 3), 101, 160_001, 100, False),
        ((9, 90_000, 3), 32_766, 9, 1, True),  # OpenCV's largest side
        ((9, 90_000, 3), 32_767, 9, 1, False),
        ((9, 90_000, 3), 9, 32_767, 1, False),
    ],
)
def test_a_part_of_a_photo_has_bounded_pixels_and_sides(photo, columns, rows, block, fits):
    size = np.array([columns, rows])
    if fits:
        check_patch(photo, size, block)
        return
    with pytest.raises(ValueError, match="is too long for a square crop"):
        check_patch(photo, size, block)
