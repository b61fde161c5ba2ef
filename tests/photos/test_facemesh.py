import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose
from skimage import data

from keras_scnn.photos import blazeface
from keras_scnn.photos.blazeface import RawDetections
from keras_scnn.photos.cropping import FaceBox, FaceCrop, crop_face, crop_rotated
from keras_scnn.photos.detection import FaceDetector
from keras_scnn.photos.facemesh import RAW_SHIFT, FaceMesh, decode_points

# Read off the enlarged photo by eye: pupils, nose tip and the middle of the mouth, px.
ASTRONAUT_POINTS = np.array([[202.5, 101], [246.5, 103.5], [224, 128], [224, 146]])
# The same places on FaceMesh's published map (canonical_face_model_uv_visualization.png): the rims
# of the irises are not part of the 468, so the mean of an eye's corners; nose tip; lips' middle.
MESH_PLACES = ([33, 133], [362, 263], [4], [13, 14])
MIRRORED_PAIRS = ((33, 263), (61, 291), (234, 454), (133, 362), (4, 4), (152, 152))


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    """A public-domain photo, 512 x 512, with one face about 100 px wide."""
    return data.astronaut()


@pytest.fixture(scope="module")
def face(astronaut) -> RawDetections:
    return FaceDetector(tiles=False).detect_raw(astronaut)[0]


@pytest.fixture(scope="module")
def mesh() -> FaceMesh:
    return FaceMesh()


def test_points_are_where_the_eye_sees_them(astronaut, face, mesh):
    result = mesh(astronaut, face)
    assert result.points.shape == (468, 3)
    assert result.score > 0.99
    places = [result.points[index, :2].mean(axis=0) for index in MESH_PLACES]
    assert np.linalg.norm(places - ASTRONAUT_POINTS, axis=1).max() < 4  # of a face of 100 px


def test_depth_is_larger_nearer_to_the_viewer(astronaut, face, mesh):
    depth = mesh(astronaut, face).points[:, 2]
    nose, ears, eyes = depth[4], depth[[234, 454]], depth[[33, 263]]
    assert nose > eyes.max() > eyes.min() > ears.max()


@pytest.mark.parametrize("degrees", [-70, 30, 100])
def test_a_turned_photo_has_turned_points(astronaut, face, mesh, degrees):
    """The eyes say how to turn the crop, so that the network sees the same picture."""
    matrix = cv2.getRotationMatrix2D((224.0, 120.0), degrees, 1.0)
    turned = cv2.warpAffine(astronaut, matrix, (512, 512))
    keypoints = face.keypoints @ matrix[:, :2].T + matrix[:, 2]
    center = (face.boxes[:2] + face.boxes[2:]) / 2 @ matrix[:, :2].T + matrix[:, 2]
    half = (face.boxes[2:] - face.boxes[:2]) / 2
    result = mesh(turned, RawDetections(np.r_[center - half, center + half], keypoints, 1.0))
    expected = mesh(astronaut, face).points
    expected[:, :2] = expected[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    assert np.linalg.norm((result.points - expected)[:, :2], axis=1).mean() < 1.0


def test_a_mirrored_photo_has_mirrored_points(astronaut, face, mesh):
    width = astronaut.shape[1]
    box = face.boxes[[2, 1, 0, 3]] * [-1, 1, -1, 1] + [width, 0, width, 0]
    keypoints = (face.keypoints * [-1, 1] + [width, 0])[[1, 0, 2, 3, 5, 4]]
    result = mesh(astronaut[:, ::-1].copy(), RawDetections(box, keypoints, 1.0)).points
    straight = mesh(astronaut, face).points
    left, right = np.transpose(MIRRORED_PAIRS)
    back = (straight[right, :2] * [-1, 1]) + [width - 1, 0]
    assert np.linalg.norm(result[left, :2] - back, axis=1).mean() < 2.0  # of a face of 100 px


def test_images_without_a_face_score_low(mesh):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    keypoints = np.array([[80.0, 80], [120, 80], [100, 100], [100, 120], [60, 90], [140, 90]])
    assert mesh(noise, RawDetections(np.array([50.0, 50, 150, 150]), keypoints, 1.0)).score < 0.5


def test_a_second_pass_forgives_a_bad_first_crop(astronaut, face, mesh):
    shifted = RawDetections(face.boxes + 12, face.keypoints + 12, face.scores)
    best = mesh(astronaut, face).points
    errors = [
        np.linalg.norm((FaceMesh(n)(astronaut, shifted).points - best)[:, :2], axis=1).mean()
        for n in (1, 2)
    ]
    assert errors[1] < errors[0]


def test_decoding_brings_the_crop_back_into_the_photo():
    # A crop of half the size, turned by 90 degrees: u = (y - 20) / 2, v = -(x - 10) / 2.
    crop = FaceCrop(np.zeros((192, 192, 3), np.uint8), np.array([[0, 0.5, -10], [-0.5, 0, 5]]))
    raw = np.array([[40.0, 60.0, 8.0]]) - [RAW_SHIFT, RAW_SHIFT, 0]
    assert_allclose(decode_points(raw, crop), [[10 - 120, 20 + 80, -16]])


def test_a_rotated_crop_of_no_rotation_is_the_square_crop(astronaut):
    box = FaceBox(150.0, 40.0, 290.0, 180.0)
    turned = crop_rotated(astronaut, np.array([220.0, 110.0]), 140.0, 0.0, 96)
    square = crop_face(astronaut, box, 96)
    assert_allclose(turned.crop_from_image, square.crop_from_image)
    np.testing.assert_array_equal(turned.image, square.image)


def test_a_rotated_crop_shows_what_its_matrix_says(astronaut):
    crop = crop_rotated(astronaut, np.array([224.0, 120.0]), 150.0, 0.7, 150)
    direct = cv2.warpAffine(astronaut, crop.crop_from_image, (150, 150))
    assert np.abs(crop.image.astype(int) - direct).mean() < 1.0
    assert_allclose(crop.crop_from_image @ [223.5, 119.5, 1], [74.5, 74.5])  # the center
    x, y = crop.crop_from_image[:, :2] @ [np.cos(0.7), np.sin(0.7)]  # the crop's x axis
    assert_allclose([x, y], [1, 0], atol=1e-12)


def test_bad_input_is_refused(astronaut, face, mesh):
    with pytest.raises(ValueError, match="passes is 0"):
        FaceMesh(passes=0)
    with pytest.raises(ValueError, match="one row"):
        mesh(astronaut, FaceDetector(tiles=False).detect_raw(astronaut))
    with pytest.raises(ValueError, match="expected \\(H, W, 3\\) uint8"):
        mesh(astronaut.astype(float), face)
    with pytest.raises(ValueError, match="face box needs finite edges"):
        crop_rotated(astronaut, np.zeros(2), 0.0, 0.0, 10)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(blazeface, "PACKAGE", "no-such-package")
    with pytest.raises(FileNotFoundError, match=r"face_landmark.tflite of the package no-such"):
        FaceMesh()
