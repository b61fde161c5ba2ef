"""CFP: half a face is annotated, a preset supplies the other."""

import pickle

import numpy as np
import pytest

from keras_scnn.data.sources import cfp
from keras_scnn.data.sources.aflw import HAND_WEIGHT
from keras_scnn.data.sources.cfp import (
    HIDDEN_TRUST,
    MIDLINE,
    PREDICTED_TRUST,
    CfpPhotos,
    box_of_half,
    merge,
)
from keras_scnn.io import write_image
from keras_scnn.photos.cropping import crop_face
from keras_scnn.storage.guard import FileError, reading
from keras_scnn.storage.shards import Failures


def half(points):
    """The landmarks with those of one half of the face."""
    given = np.full((68, 2), np.nan)
    rows = [*range(9), 17, 19, 21, *range(27, 34), *range(36, 42), 48, 51, 57, 62, 66]
    given[rows] = points[rows]
    return given


def test_the_box_of_a_frontal_half_is_that_of_the_whole_face():
    points = np.full((68, 2), np.nan)
    points[0], points[8] = [10, 20], [50, 100]  # the cheek, and the chin on the midline
    points[MIDLINE[1:], 0], points[MIDLINE[1:], 1] = 50, 40
    box = box_of_half(points, is_profile=False)
    assert box.width == pytest.approx(np.hypot(80, 80))  # 10 to 90, 20 to 100
    assert (box.x0 + box.x1) / 2 == pytest.approx(50.5)
    assert box_of_half(points, is_profile=True).width == pytest.approx(np.hypot(40, 80))


def test_hand_made_points_move_the_prediction_and_site_offsets_are_removed():
    rng = np.random.default_rng(0)
    predicted = rng.uniform(20, 100, (60, 68, 3))
    camera = rng.normal(0, 1, (60, 2, 3))
    site = rng.normal(0, 1, (68, 3))
    hand = predicted[..., :2] + np.einsum("nij,kj->nki", camera, site)
    hand[7, 30] += [3.0, 0]
    hand = np.stack([half(points) for points in hand])
    profile = np.zeros(60, bool)
    profile[-1] = True
    merged, weight = merge(predicted, camera, hand, profile)
    moved = merged[..., :2] - predicted[..., :2]
    np.testing.assert_allclose(moved[7, 30], [HAND_WEIGHT * 3, 0], atol=0.15)
    moved[7, 30] = 0
    assert np.abs(moved).max() < 0.15
    assert np.isnan(merged[..., 2]).all()
    assert (weight[0, 30], weight[0, 16], weight[-1, 16]) == (1, PREDICTED_TRUST, HIDDEN_TRUST)


def test_hand_made_points_of_the_jaw_count_half():
    """As with AFLW: they slide along the outline."""
    rng = np.random.default_rng(1)
    predicted, camera = rng.uniform(20, 100, (60, 68, 3)), rng.normal(0, 1, (60, 2, 3))
    hand = predicted[..., :2].copy()
    hand[7, [5, 30], 0] += 3
    merged, _ = merge(predicted, camera, hand, np.zeros(60, bool))
    moved = (merged - predicted)[7, :, 0]
    assert moved[30] == pytest.approx(HAND_WEIGHT * 3, abs=0.15)
    assert moved[5] == pytest.approx(HAND_WEIGHT * 3 / 2, abs=0.15)


def test_bad_labels_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"labels\.npz"):
        CfpPhotos(tmp_path)
    np.savez(tmp_path / "labels.npz", name=np.array(["1/a.jpg"]), landmarks68=np.zeros((1, 5, 2)))
    with pytest.raises(ValueError, match=r"labels\.npz: landmarks68 is \(1, 5, 2\)"):
        CfpPhotos(tmp_path)


def test_photos_are_predicted_once_though_the_source_goes_to_other_processes(tmp_path, monkeypatch):
    points = np.tile(half(np.random.default_rng(0).uniform(20, 100, (68, 2))), (2, 1, 1))
    names = ["1/frontal_01.jpg", "1/frontal_02.jpg"]
    np.savez(tmp_path / "labels.npz", name=np.array(names), landmarks68=points)
    (tmp_path / "1").mkdir()
    write_image(tmp_path / names[0], np.zeros((120, 120, 3), np.uint8))
    (tmp_path / names[1]).write_bytes(b"no photo")
    predicted = []

    def predict(images, boxes):
        predicted.append(len(images))
        return np.full((len(images), 68, 3), 50.0), np.tile(np.eye(2, 3), (len(images), 1, 1))

    monkeypatch.setattr(cfp, "predict_landmarks", predict)
    source = CfpPhotos(tmp_path)
    source.get_ready()
    for _ in range(2):
        other = pickle.loads(pickle.dumps(source))  # noqa: S301
        assert other.load(names[0]).landmarks.shape == (68, 3)
        with pytest.raises(ValueError, match="frontal_02.jpg: not a readable image"):
            other.load(names[1])
    assert predicted == [1]


def test_a_missing_package_is_no_damaged_photo_in_other_processes_either(tmp_path, monkeypatch):
    points = half(np.random.default_rng(0).uniform(20, 100, (68, 2)))[None]
    np.savez(tmp_path / "labels.npz", name=np.array(["1/frontal_01.jpg"]), landmarks68=points)

    def lacking(path):
        with reading(path, "a readable image"):
            raise ValueError("a HEIC photo") from ImportError("pillow_heif")

    monkeypatch.setattr(cfp, "read_image", lacking)
    source = CfpPhotos(tmp_path)
    source.get_ready()
    failures = Failures()
    for one in (source, pickle.loads(pickle.dumps(source))):  # noqa: S301
        with pytest.raises((OSError, ValueError), match="a HEIC photo") as caught:
            one.load("1/frontal_01.jpg")
        failures.note(len(failures), caught.value)
    assert failures.passing == {0, 1}


@pytest.mark.parametrize(
    ("rows", "is_profile", "message"),
    [
        ([], False, "a box needs two landmarks in different places; 0 given"),
        ([], True, "two landmarks in different places; 0 given"),
        ([30], True, "two landmarks in different places; 1 given"),
        ([30, 31], True, "two landmarks in different places; 2 given"),  # in one place
        ([36, 39], False, "no landmark of the midline is given; a frontal face needs one"),
    ],
)
def test_too_few_landmarks_for_a_box_are_reported(rows, is_profile, message):
    points, places = np.full((68, 2), np.nan), np.arange(68.0)[:, None] + [0, 50]
    places[31] = places[30]
    points[rows] = places[rows]
    with pytest.raises(ValueError, match=message):
        box_of_half(points, is_profile)


def test_a_profile_needs_no_landmark_of_the_midline():
    points = np.full((68, 2), np.nan)
    points[[36, 39]] = [[10, 20], [40, 60]]
    assert box_of_half(points, is_profile=True).width == pytest.approx(50)  # 30 by 40


def test_photos_without_landmarks_for_a_box_are_left_out_by_name(tmp_path, monkeypatch):
    names = [f"1/{name}.jpg" for name in ("frontal_01", "frontal_02", "frontal_03", "profile_01")]
    points = np.tile(half(np.random.default_rng(0).uniform(20, 100, (68, 2))), (4, 1, 1))
    points[1], points[2:, MIDLINE] = np.nan, np.nan
    np.savez(tmp_path / "labels.npz", name=np.array(names), landmarks68=points)
    (tmp_path / "1").mkdir()
    for name in names:
        write_image(tmp_path / name, np.zeros((120, 120, 3), np.uint8))

    def predict(images, boxes):
        assert len(images) == len(boxes) == 2
        return np.full((2, 68, 3), 50.0), np.tile(np.eye(2, 3), (2, 1, 1))

    monkeypatch.setattr(cfp, "predict_landmarks", predict)
    source = CfpPhotos(tmp_path)
    for name in (names[0], names[3]):
        assert np.isfinite(source.load(name).landmarks[:, :2]).all()
    for name, message in ((names[1], "two landmarks .* 0 given"), (names[2], "of the midline")):
        with pytest.raises(FileError, match=f"^{tmp_path / name}: in labels.npz, .*{message}"):
            source.load(name)


def test_a_photo_whose_box_is_far_wider_than_it_is_left_out_alone(tmp_path, monkeypatch):
    """Before, such a row of labels.npz ended the preparation, without the photo's name."""
    names = ["1/frontal_01.jpg", "1/frontal_02.jpg"]
    points = np.tile(half(np.random.default_rng(0).uniform(20, 100, (68, 2))), (2, 1, 1))
    points[1] *= 1000
    np.savez(tmp_path / "labels.npz", name=np.array(names), landmarks68=points)
    (tmp_path / "1").mkdir()
    for name in names:
        write_image(tmp_path / name, np.zeros((120, 120, 3), np.uint8))

    def predict(images, boxes):
        for image, box in zip(images, boxes, strict=True):
            crop_face(image, box)
        return np.full((len(images), 68, 3), 50.0), np.tile(np.eye(2, 3), (len(images), 1, 1))

    monkeypatch.setattr(cfp, "predict_landmarks", predict)
    source = CfpPhotos(tmp_path)
    assert np.isfinite(source.load(names[0]).landmarks[:, :2]).all()
    message = f"^{tmp_path / names[1]}: in labels.npz, box is .* px wide, the photo only 120"
    with pytest.raises(FileError, match=message):
        source.load(names[1])
