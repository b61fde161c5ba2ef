import importlib

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose
from skimage import data

from keras_scnn.data.labels.recognizer import SAME_PERSON, FaceTeacher, chip_from_landmarks
from keras_scnn.data.sources.people import PeopleFolder
from keras_scnn.models.recognizers import chips
from keras_scnn.models.recognizers.chips import CHIP_LANDMARKS, CHIP_POINTS, weights_path

# Landmarks of the face in skimage's astronaut, read off the enlarged photo by eye, px: image's
# right eye outer and inner corner, left eye outer and inner corner, base of the nose.
ASTRONAUT = {45: (255, 104), 42: (238, 105), 36: (194, 101), 39: (211, 103), 33: (223, 134)}


def landmarks68(points: np.ndarray) -> np.ndarray:
    landmarks = np.full((68, 2), 1.0)
    landmarks[CHIP_LANDMARKS] = points
    return landmarks


@pytest.fixture(scope="module")
def network() -> FaceTeacher:
    pytest.importorskip("dlib")
    try:
        return FaceTeacher()
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("angle", [-2.5, 0.0, 0.3])
def test_the_chip_is_dlibs_own(angle):
    """dlib rounds points to pixels, so the face is a large one."""
    dlib = pytest.importorskip("dlib")
    cos, sin = np.cos(angle), np.sin(angle)
    turned = CHIP_POINTS @ np.array([[cos, sin], [-sin, cos]]) * 4000 + [9000, 8000]
    points = (turned + np.random.default_rng(0).normal(0, 100, (5, 2))).round()
    parts = dlib.points([dlib.point(int(x), int(y)) for x, y in points])
    detection = dlib.full_object_detection(dlib.rectangle(0, 0, 9, 9), parts)
    details = dlib.get_face_chip_details(detection, 150, 0.25)
    center, side, turn = chip_from_landmarks(landmarks68(points))
    corners = details.rect.tl_corner(), details.rect.br_corner()
    middle = np.mean([(c.x, c.y) for c in corners], axis=0)
    assert_allclose(side, details.rect.width(), atol=1.5)
    assert_allclose(center - 0.5, middle, atol=1.5)
    assert_allclose(turn, details.angle, atol=1e-9)


def test_landmarks_as_in_a_chip_give_that_chip():
    """150 px about dlib's (75, 75), a pixel center; so 75.5 in box coordinates."""
    points = (CHIP_POINTS + 0.25) / 1.5 * 150
    center, side, turn = chip_from_landmarks(landmarks68(points))
    assert_allclose(center, 75.5, rtol=1e-9)
    assert_allclose((side, turn), (150, 0), atol=1e-9)


def test_a_darker_turned_photo_shows_the_same_person(network):
    photo, points = data.astronaut(), np.array(list(ASTRONAUT.values()), float)
    embedding = network(photo, landmarks68(points))
    assert embedding.shape == (128,)
    assert embedding.dtype == np.float32
    matrix = cv2.getRotationMatrix2D((224.0, 120.0), 50, 1.3)
    turned = cv2.warpAffine((photo * 0.7).astype(np.uint8), matrix, (512, 512))
    moved = landmarks68(points @ matrix[:, :2].T + matrix[:, 2])
    assert np.linalg.norm(embedding - network(turned, moved)) < SAME_PERSON / 2
    assert np.linalg.norm(embedding - network(turned, landmarks68(points))) > SAME_PERSON


def test_people_of_celeba_are_distinguished(shared_data, network, tmp_path):
    for person in sorted((shared_data / "celeba-people").iterdir())[:3]:
        (tmp_path / person.name).mkdir()
        for photo in sorted(person.iterdir())[:5]:
            (tmp_path / person.name / photo.name).symlink_to(photo)
    source = PeopleFolder(tmp_path, teacher=True)
    groups = []
    for person in source.people():
        photos = source.label(person).photos
        groups.append(np.stack([photo.embedding for photo in photos]))
    rows, who = np.concatenate(groups), np.repeat([0, 1, 2], [len(g) for g in groups])
    distance = np.linalg.norm(rows[:, None] - rows, axis=-1)
    same = who[:, None] == who
    pairs = np.triu(np.ones_like(same), 1)
    right = (distance < SAME_PERSON) == same
    assert right[pairs].mean() > 0.85


@pytest.mark.parametrize(
    ("landmarks", "message"),
    [
        (np.zeros((5, 2)), "expected \\(68, 2\\)"),
        (np.zeros((68, 2)), "not all in one place"),
        (np.full((68, 2), np.nan), "finite"),
    ],
)
def test_bad_landmarks_are_refused(landmarks, message):
    with pytest.raises(ValueError, match=message):
        chip_from_landmarks(landmarks)


def test_a_missing_package_is_named_with_the_extra(monkeypatch):
    monkeypatch.setattr(chips, "PACKAGE", "no-such-package")
    with pytest.raises(FileNotFoundError, match=r"resnet_model_v1.dat.*pip install .*teacher"):
        weights_path()

    def without_dlib(name, *rest):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", without_dlib)
    with pytest.raises(FileNotFoundError, match=r"dlib.*\.\[teacher\]"):
        FaceTeacher()
