import cv2
import numpy as np
import pytest

from keras_scnn.photos.cropping import (
    DETECTOR_SCALE,
    DETECTOR_SHIFT,
    FaceBox,
    box_from_detector,
    box_from_landmarks,
    crop_face,
    crop_rotated,
    crop_upright,
    listed_boxes,
)


def ramp(height: int, width: int) -> np.ndarray:
    """A photo whose red is twice its x coordinate and whose green is twice its y coordinate."""
    y, x = np.mgrid[:height, :width]
    return np.stack([2 * x, 2 * y, np.full_like(x, 7)], axis=-1).astype(np.uint8)


def test_the_standard_crop_is_the_diagonal_of_the_landmark_box():
    # A box of 30 x 40 px has the diagonal 50. Its center is the pixel coordinate (25, 40), which
    # is 25.5, 40.5 on the scale of box edges.
    landmarks = np.array([[10, 20], [40, 60], [25, 30]])
    box = box_from_landmarks(landmarks, score=0.5)
    np.testing.assert_allclose(box.as_array(), [0.5, 15.5, 50.5, 65.5])
    assert box.score == 0.5


def test_depth_does_not_change_the_box():
    landmarks = np.random.default_rng(0).normal(60, 20, (68, 3))
    assert box_from_landmarks(landmarks) == box_from_landmarks(landmarks[:, :2])


def test_landmarks_fill_the_same_part_of_their_crop_wherever_the_face_is():
    landmarks = np.random.default_rng(1).uniform(0, 50, (68, 2))
    image = np.zeros((20, 20, 3), np.uint8)
    places = []
    for scale, shift in ((1.0, [0, 0]), (3.7, [210.3, -55.8])):
        points = landmarks * scale + shift
        crop = crop_face(image, box_from_landmarks(points), 120)
        places.append(points @ crop.crop_from_image[:, :2].T + crop.crop_from_image[:, 2])
    np.testing.assert_allclose(*places, atol=1e-9)
    # The center of the landmarks' bounding box stands at the center of the crop, pixel 59.5.
    middle = (places[0].min(axis=0) + places[0].max(axis=0)) / 2
    np.testing.assert_allclose(middle, 59.5, atol=1e-9)


@pytest.mark.parametrize("degrees", [0, 20, 90, -135])
def test_a_turned_face_upright_is_the_face_that_was_turned(degrees):
    rng = np.random.default_rng(2)
    image = cv2.resize(rng.integers(0, 256, (12, 12, 3)).astype(np.uint8), (200, 200))
    landmarks = rng.uniform([60, 50], [150, 130], (68, 2))
    matrix = cv2.getRotationMatrix2D((99.5, 99.5), -degrees, 1)  # clockwise as seen
    turned = cv2.warpAffine(image, matrix, (200, 200), flags=cv2.INTER_CUBIC)
    moved = landmarks @ matrix[:, :2].T + matrix[:, 2]
    upright = crop_upright(turned, moved, np.deg2rad(degrees), 96)
    expected = crop_face(image, box_from_landmarks(landmarks), 96)
    assert np.abs(upright.image.astype(int) - expected.image)[8:-8, 8:-8].max() <= 6
    places = moved @ upright.crop_from_image[:, :2].T + upright.crop_from_image[:, 2]
    wanted = landmarks @ expected.crop_from_image[:, :2].T + expected.crop_from_image[:, 2]
    np.testing.assert_allclose(places, wanted, atol=1e-9)


@pytest.mark.parametrize(
    ("landmarks", "message"),
    [
        (np.zeros((68, 4)), "shape"),
        (np.zeros((2, 68, 2)), "shape"),
        (np.zeros((68, 2)), "x1 > x0"),
        (np.full((68, 2), np.nan), "finite"),
    ],
)
def test_landmarks_without_a_box_are_refused(landmarks, message):
    with pytest.raises(ValueError, match=message):
        box_from_landmarks(landmarks)


@pytest.mark.parametrize("edges", [(0, 0, 0, 5), (0, 0, 5, -1), (0, 0, np.inf, 5)])
def test_an_empty_or_endless_box_is_refused(edges):
    with pytest.raises(ValueError, match="x1 > x0"):
        FaceBox(*edges)


@pytest.mark.parametrize("score", [95, -0.1, np.nan, None, "0.9"])
def test_a_score_is_a_number_from_0_to_1(score):
    with pytest.raises(ValueError, match="score is"):
        FaceBox(0, 0, 1, 1, score)
    assert [FaceBox(0, 0, 1, 1, end).score for end in (0, 1, np.float32(0.5))] == [0, 1, 0.5]


def test_a_square_is_about_its_center():
    np.testing.assert_array_equal(FaceBox.square([3, 4.5], 7).center, [3, 4.5])
    np.testing.assert_array_equal(
        FaceBox(*np.array([200, 10, 250, 40], np.uint8)).center, [225, 25]
    )


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.float16, np.float64])
def test_edges_of_every_type_give_the_same_size(dtype):
    box = FaceBox(*np.array([-100, -90, 100, 110], dtype))
    assert (box.width, box.height) == (200, 200)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint64])
def test_unsigned_edges_in_the_wrong_order_are_refused(dtype):
    with pytest.raises(ValueError, match="finite edges with x1 > x0"):
        FaceBox(*np.array([50, 0, 10, 40], dtype))


@pytest.mark.parametrize("angle", [np.nan, np.inf])
def test_an_angle_that_is_not_finite_is_refused(angle):
    with pytest.raises(ValueError, match="finite angle"):
        FaceBox(0, 0, 1, 1, angle=angle)


def test_a_box_upside_down_shows_the_photo_upside_down():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    box = FaceBox(10, 5, 42, 37)
    upright = crop_face(image, box, 32)
    crop = crop_face(image, FaceBox(10, 5, 42, 37, angle=np.pi), 32)
    np.testing.assert_array_equal(crop.image, upright.image[::-1, ::-1])
    np.testing.assert_allclose(crop.crop_from_image, [[-1, 0, 41], [0, -1, 36]], atol=1e-12)


def test_a_box_of_the_crops_size_copies_pixels():
    image = np.random.default_rng(2).integers(0, 256, (50, 60, 3), np.uint8)
    crop = crop_face(image, FaceBox(13, 7, 33, 27), 20)
    np.testing.assert_array_equal(crop.image, image[7:27, 13:33])
    np.testing.assert_allclose(crop.crop_from_image, [[1, 0, -13], [0, 1, -7]])


@pytest.mark.parametrize("side", [10.0, 20.0, 30.0, 33.7, 50.0, 61.3, 90.0, 105.5])
def test_every_pixel_shows_the_place_that_the_transform_names(side):
    crop = crop_face(ramp(126, 122), FaceBox.square((60.2, 62.6), side), 20)
    scale = crop.crop_from_image[0, 0]
    assert scale == pytest.approx(20 / side)
    y, x = np.mgrid[:20, :20]
    place = (np.stack([x, y], axis=-1) - crop.crop_from_image[:, 2]) / scale
    # A linear ramp stays itself under averaging of blocks (whole numbers, since its slope is 2)
    # and under bilinear sampling, which OpenCV does in steps of 1/32 of a pixel.
    error = crop.image[..., :2] - 2 * place
    assert np.abs(error).max() < 0.5 + 2 * max(1, side / 20) / 32 + 1e-6


def test_fine_patterns_become_gray_instead_of_aliasing():
    board = np.indices((400, 400)).sum(axis=0) % 2 * 255
    image = np.repeat(board[..., None], 3, axis=-1).astype(np.uint8)
    crop = crop_face(image, FaceBox(20.3, 20.3, 380.3, 380.3), 60).image
    # Bilinear sampling alone would show stripes from 0 to 255.
    assert np.abs(crop.astype(float) - 127.5).max() < 20


def test_the_area_outside_of_the_photo_is_black():
    image = np.full((40, 40, 3), 200, np.uint8)
    crop = crop_face(image, FaceBox(-40, -40, 40, 40), 80).image
    assert (crop[:39] == 0).all() and (crop[:, :39] == 0).all()
    assert (crop[40:, 40:] == 200).all()


@pytest.mark.parametrize("start", [-500, 500])
def test_a_box_far_from_the_photo_gives_a_black_crop(start):
    box = FaceBox.square((start, start), 90)
    assert not crop_face(np.full((30, 30, 3), 255, np.uint8), box, 24).image.any()


@pytest.mark.parametrize(
    ("image", "box", "message"),
    [
        (np.zeros((5, 5), np.uint8), FaceBox(0, 0, 5, 5), "RGB"),
        (
            np.zeros((5, 5, 3), np.uint8).tolist(),
            FaceBox(0, 0, 5, 5),
            "list; expected .*, a NumPy",
        ),
        (np.zeros((5, 5, 3)), FaceBox(0, 0, 5, 5), "uint8"),
        (np.zeros((0, 5, 3), np.uint8), FaceBox(0, 0, 5, 5), "shape"),
        (np.zeros((5, 5, 3), np.uint8), FaceBox(0, 0, 5, 7), "square"),
    ],
)
def test_invalid_images_and_boxes_are_refused(image, box, message):
    with pytest.raises(ValueError, match=message):
        crop_face(image, box)


def test_the_detectors_box_is_moved_down_and_enlarged():
    box = box_from_detector(np.array([100, 50, 200, 150]), 0.9)
    assert box.width == pytest.approx(100 * DETECTOR_SCALE)
    assert (box.x0 + box.x1) / 2 == pytest.approx(150)
    assert (box.y0 + box.y1) / 2 == pytest.approx(100 + 100 * DETECTOR_SHIFT)
    assert box.score == 0.9


def test_the_crops_of_aflw_are_standard_crops(shared_data):
    with np.load(shared_data / "aflw" / "labels.npz", allow_pickle=False) as labels:
        landmarks = labels["teacher_landmarks68"][::40]
    boxes = np.array([box_from_landmarks(points).as_array() for points in landmarks])
    # Their own margin makes these crops about 5 % wider than the landmarks' diagonal.
    sides = boxes[:, 2] - boxes[:, 0]
    assert np.median(sides) == pytest.approx(120, rel=0.08)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    np.testing.assert_allclose(np.median(centers, axis=0), 60, atol=2)


@pytest.mark.parametrize("shape", [(1, 40_000), (40_000, 1), (2, 4_000_000)])
def test_a_box_around_a_line_of_pixels_takes_little_memory(shape):
    image = np.zeros((*shape, 3), np.uint8)
    side = 16 * max(shape)
    box = FaceBox.square(np.array(shape[::-1]) / 2, side)
    with pytest.raises(ValueError, match="too long for a square crop"):
        crop_face(image, box)
    with pytest.raises(ValueError, match="too long for a square crop"):
        crop_rotated(image, np.array(shape[::-1]) / 2, side, 0.3, 120)


def test_more_columns_than_opencv_counts_are_refused_in_one_line():
    image = np.zeros((100, 40_000, 3), np.uint8)
    with pytest.raises(ValueError, match="too long for a square crop"):
        crop_face(image, FaceBox(0, -20_000, 40_000, 20_000), 40_000)
    assert crop_face(image, FaceBox(0, 0, 100, 100)).image.shape == (120, 120, 3)


def test_a_mirrored_crop_shows_each_place_of_the_photo_where_its_transform_brings_it():
    image = np.zeros((80, 100, 3), np.uint8)
    image[30, 70] = 255
    crop = crop_face(image, FaceBox.square((64, 38), 40), 80)
    mirrored = crop.mirrored()
    (x, y), (u, v) = (
        np.array(np.nonzero(one.image[..., 0].T)).mean(axis=1) for one in (crop, mirrored)
    )
    np.testing.assert_allclose([u, v], [79 - x, y])
    np.testing.assert_allclose(mirrored.crop_from_image @ [70, 30, 1], [u, v], atol=1e-9)
    np.testing.assert_array_equal(mirrored.mirrored().image, crop.image)
    np.testing.assert_array_equal(mirrored.mirrored().crop_from_image, crop.crop_from_image)


@pytest.mark.parametrize("given", [{"x0": "1"}, {"y1": None}, {"angle": [0.1]}])
def test_edges_that_are_no_numbers_are_named(given):
    (name,) = given
    with pytest.raises(ValueError, match=f"{name} is .*; it must be a number"):
        FaceBox(**({"x0": 0, "y0": 0, "x1": 9, "y1": 9} | given))


@pytest.mark.parametrize("boxes", [FaceBox(0, 0, 9, 9), None, [(0, 0, 9, 9)], np.zeros((1, 4))])
def test_an_invalid_list_of_boxes_is_named(boxes):
    with pytest.raises(ValueError, match="near must be a list of FaceBox, .* as .box."):
        listed_boxes("near", boxes)
    assert listed_boxes("near", ()) == []
