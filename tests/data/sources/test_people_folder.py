import copy
import errno
import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from random_faces import Faces
from skimage import data

from keras_scnn.data.labels.fit import fit_options
from keras_scnn.data.labels.landmarker import FoundFace, Landmarker, mesh_share
from keras_scnn.data.labels.mesh_landmarks import (
    OFFSETS_MM,
    POINTS,
    image_from_head,
    landmarks_from_mesh,
)
from keras_scnn.data.labels.person import (
    Candidate,
    choose_faces,
    excess_limit,
    find_misfits,
    plausible_faces,
    residual_percent,
)
from keras_scnn.data.sources.people import PeopleFolder, scan_people
from keras_scnn.fitting import fit_landmarks, fit_person_landmarks
from keras_scnn.geometry.camera import FLIP, compose, project
from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.io import read_image, write_image
from keras_scnn.photos.cropping import FaceBox, second_box


def found_face(side=100.0, center=(100.0, 100.0), landmarks=None, **changes) -> FoundFace:
    center = np.array(center)
    box = np.r_[center - side / 2, center + side / 2]
    landmarks = np.zeros((68, 3)) if landmarks is None else landmarks
    known = dict(mesh_score=1.0, yaw_degrees=0.0, disagreement=1.0) | changes
    return FoundFace(box=box, landmarks=landmarks, mesh=np.zeros((468, 3)), **known)


# The 68 landmarks from FaceMesh.


def test_the_sites_are_mirror_symmetric():
    mirror = np.array(
        [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31]
        + [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48]
        + [59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
    )
    assert_allclose(OFFSETS_MM[mirror] * [-1, 1, 1], OFFSETS_MM, atol=0.11)  # rounded to 0.1
    assert len(set(POINTS)) == 68


def test_sites_turn_and_scale_with_the_head(open_face):
    """A mesh made of the mean face, seen by a known camera: the offsets are seen by it too."""
    mean = np.float64(open_face.mean[open_face.mediapipe_indices])
    rotation = rotation_from_euler(np.array([0.2, -0.5, 0.3]))
    camera = compose(rotation, 1.7, np.array([100.0, 80.0, 5.0]))
    mesh = project(camera, mean)
    assert_allclose(image_from_head(mesh, open_face), 1.7 * FLIP @ rotation, atol=1e-6)
    expected = project(camera, mean[POINTS] + OFFSETS_MM)
    assert_allclose(landmarks_from_mesh(mesh, open_face), expected, atol=1e-6)
    batch = landmarks_from_mesh(np.stack([mesh, mesh + 1]), open_face)
    assert_allclose(batch[1] - batch[0], 1, atol=1e-6)


def test_a_mesh_of_another_kind_is_refused(open_face):
    with pytest.raises(ValueError, match=r"expected \(..., 468, 3\)"):
        landmarks_from_mesh(np.zeros((478, 3)), open_face)
    with pytest.raises(ValueError, match="no mediapipe_indices"):
        landmarks_from_mesh(np.zeros((468, 3)), open_face.replace(mediapipe_indices=None))


# Two networks together.


def test_facemesh_does_not_change_profiles():
    assert mesh_share(0) == mesh_share(-40) == 0.5
    assert mesh_share(47.5) == pytest.approx(0.25)
    assert mesh_share(-55) == mesh_share(90) == 0


def test_the_second_crop_falls_back_where_landmarks_make_no_sense():
    box = FaceBox(0.0, 0.0, 100.0, 100.0)
    square = np.array([[10.0, 10], [70, 90]])
    assert second_box(square, box).width == pytest.approx(100)  # 60-80-100 triangle
    for nonsense in (square * 10, square * 0.01, np.zeros((2, 2))):
        assert second_box(nonsense, box) is box


@pytest.fixture(scope="module")
def landmarker() -> Landmarker:
    return Landmarker()


def test_both_networks_see_the_face_alike(landmarker):
    astronaut, nobody = data.astronaut(), np.zeros((64, 64, 3), np.uint8)
    none, faces = landmarker([nobody, astronaut])
    assert none == []
    face = faces[0]
    assert face.landmarks.shape == (68, 3)
    assert face.disagreement < 3
    assert face.mesh_score > 0.99
    # Read off the enlarged photo by eye: nose tip, middle of the lips.
    assert np.linalg.norm(face.landmarks[30, :2] - [224, 128]) < 4
    assert np.linalg.norm(face.landmarks[[62, 66], :2].mean(axis=0) - [224, 146]) < 4
    assert face.landmarks[30, 2] > face.landmarks[[0, 16], 2].max()  # depth: larger nearer


def test_both_networks_see_a_face_that_is_upside_down(landmarker):
    upside_down = np.ascontiguousarray(data.astronaut()[::-1, ::-1])
    ((face,),) = landmarker([upside_down])
    assert face.disagreement < 3
    assert np.linalg.norm(face.landmarks[30, :2] - [511 - 224, 511 - 128]) < 4


def test_landmarks_near_hand_made_ones(shared_data, landmarker):
    """The mean of FaceMesh and the preset has 3.4 % on 300-W before any site is learned."""
    paths = sorted((shared_data / "300w").glob("*.pts"))[::60]
    result = landmarker([read_image(path.with_suffix(".jpg")) for path in paths])
    errors = []
    for path, faces in zip(paths, result, strict=True):
        rows = path.read_text().split("{")[1].split("}")[0].split()
        points = np.array(rows, float).reshape(68, 2) - 1
        apart = [np.linalg.norm(f.landmarks[:, :2] - points, axis=1).mean() for f in faces]
        errors.append(100 * min(apart) / np.sqrt(np.ptp(points, axis=0).prod()))
    assert np.median(errors) < 3.6


# Which face is the person's.


def test_faces_that_the_networks_see_differently_are_not_taken():
    with pytest.raises(ValueError, match="no face found"):
        plausible_faces([], (200, 200, 3))
    with pytest.raises(ValueError, match="preset differ by 9.0 %.*yaw 50"):
        plausible_faces([found_face(disagreement=9.0, yaw_degrees=50.0)], (200, 200, 3))
    with pytest.raises(ValueError, match=r"score 0.10"):
        plausible_faces([found_face(mesh_score=0.1)], (200, 200, 3))
    with pytest.raises(ValueError, match="not finite"):
        plausible_faces([found_face(landmarks=np.full((68, 3), np.nan))], (200, 200, 3))


def test_the_largest_and_most_central_face_comes_first():
    corner, middle = found_face(center=(20.0, 20.0)), found_face(side=90.0)
    small, wrong = found_face(side=30.0), found_face(side=200.0, disagreement=8.0)
    faces = plausible_faces([small, corner, wrong, middle], (200, 200, 3))
    assert faces == [middle, corner]  # the small one is in the background


def embedded(*places) -> list[Candidate]:
    return [Candidate(found_face(), np.eye(128)[0] * place) for place in places]


def test_embeddings_tell_the_person_from_others():
    photos = {"a": embedded(0.0), "b": embedded(0.1), "c": embedded(0.2, 2.0)}
    photos |= {"d": embedded(2.0, 0.1), "e": embedded(5.0)}
    chosen, strangers = choose_faces(photos)
    assert list(chosen) == ["a", "b", "c", "d"]
    assert chosen["d"] is photos["d"][1]
    assert chosen["c"] is photos["c"][0]
    assert "4.90 from the median" in strangers["e"]  # median of 5, 4.9, 4.8 and 4.9


def test_without_embeddings_the_first_face_is_taken():
    photos = {name: [Candidate(found_face()), Candidate(found_face())] for name in "abc"}
    chosen, strangers = choose_faces(photos)
    assert chosen == {name: rows[0] for name, rows in photos.items()}
    assert strangers == {}


# Photos that no face fits, or not the person's.


def test_the_limit_is_by_median_and_mad():
    # Median 1, absolute deviations 0, 0.1, 0.1, 0.2, 9: MAD 0.1.
    assert excess_limit(np.array([0.9, 1.0, 1.1, 1.2, 10])) == pytest.approx(1.1 + 3.5 * 0.14826)
    assert excess_limit(np.array([0.1, 0.1, 0.1])) == 0.3


def test_residuals_are_percent_of_the_crop(open_face):
    faces = Faces(open_face, 3)
    fit = fit_landmarks(open_face, faces.landmarks)
    sides = [np.linalg.norm(np.ptp(points[:, :2], axis=0)) for points in faces.landmarks]
    assert_allclose(residual_percent(fit, faces.landmarks), 100 * fit.residual_px / sides)


def test_photos_of_one_person_are_kept_and_spoiled_ones_are_not(open_face):
    faces = Faces(open_face, 9, one_person=True)
    landmarks = faces.landmarks + np.random.default_rng(0).normal(0, 0.3, faces.landmarks.shape)
    size = np.ptp(landmarks[..., 0], axis=1)
    spoiled = landmarks.copy()
    spoiled[3, :, :2] += np.random.default_rng(1).normal(0, 0.1, (68, 2)) * size[3]  # failed
    spoiled[6, 36:48, 1] += 0.12 * size[6]  # the eyes of somebody else
    misfits = find_misfits(open_face, spoiled)
    assert set(misfits) == {3, 6}
    assert "the fit misses its landmarks" in misfits[3]
    assert "the person's shape misses its landmarks" in misfits[6]


def test_a_photo_with_noisy_landmarks_is_not_taken_for_another_persons(open_face):
    """No face fits it well, its own neither: what counts is by how much the person's is worse."""
    faces, rng = Faces(open_face, 9, one_person=True), np.random.default_rng(0)
    size = np.linalg.norm(np.ptp(faces.landmarks[..., :2], axis=1), axis=1)
    noise = np.where(np.arange(9) == 4, 0.007, 0.001) * size
    landmarks = faces.landmarks + rng.normal(size=(9, 68, 3)) * noise[:, None, None]
    assert find_misfits(open_face, landmarks) == {}
    residual = residual_percent(fit_person_landmarks(open_face, landmarks), landmarks)
    assert residual[4] > 0.3 + np.median(residual)


def test_nothing_is_kept_where_nothing_fits(open_face):
    noise = np.random.default_rng(0).normal(0, 50, (3, 68, 3))
    assert set(find_misfits(open_face, noise)) == {0, 1, 2}


# Folders.


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two people: one with three photos of a face, one with a blank and a broken file."""
    folder, face = tmp_path_factory.mktemp("people"), data.astronaut()[:300, 100:350]
    for name in ("ann/1.jpg", "ann/trip/2.png", "bob/blank.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    write_image(folder / "ann" / "1.jpg", face)
    write_image(folder / "ann" / "trip" / "2.png", face[10:, 10:])
    write_image(folder / "ann" / "3.JPG.jpg", (face * 0.7).astype(np.uint8))
    write_image(folder / "bob" / "blank.jpg", np.zeros((100, 100, 3), np.uint8))
    (folder / "bob" / "broken.png").write_bytes(b"no picture")
    (folder / "bob" / "notes.txt").write_text("not a photo")
    (folder / "stray.jpg").write_bytes(b"belongs to nobody")
    return folder


@pytest.fixture(scope="module")
def people(folder) -> PeopleFolder:
    return PeopleFolder(folder)


def test_people_are_the_subfolders(people, folder):
    assert people.people() == ["ann", "bob"]
    assert people.names() == [
        *("ann/1.jpg", "ann/3.JPG.jpg", "ann/trip/2.png"),
        *("bob/blank.jpg", "bob/broken.png"),
    ]
    assert people.person("ann/trip/2.png") == "ann"
    assert scan_people(folder)["bob"] == ["bob/blank.jpg", "bob/broken.png"]


def test_failures_of_the_machine_and_of_the_photo_are_of_different_types(folder, monkeypatch):
    """Without a face nothing is fitted, and no network is asked."""
    source = PeopleFolder(folder)
    monkeypatch.setattr(source, "_networks", (lambda images: [[] for _ in images], None))
    read = Path.read_bytes

    def read_bytes(self):
        if self.name == "blank.jpg":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with pytest.raises(OSError, match=r"blank\.jpg: .*Permission denied"):
        source.load("bob/blank.jpg")
    with pytest.raises(ValueError, match=r"broken\.png: not a readable image"):
        source.load("bob/broken.png")


@pytest.mark.integration
def test_photos_of_a_person_are_labeled(people):
    photos = [people.load(name) for name in people.names()[:3]]
    assert {photo.person for photo in photos} == {"ann"}
    landmarks = np.stack([photo.landmarks for photo in photos])
    model = people.face_model
    fit = fit_person_landmarks(model, landmarks, options=fit_options(model))
    apart = np.linalg.norm((fit.landmarks - landmarks)[..., :2], axis=-1)
    assert apart.mean(axis=1).max() < 3  # px of a face of 100 px
    for photo in photos:
        assert photo.embedding is None
        assert photo.read_image().dtype == np.uint8
    moved = photos[0].landmarks - photos[2].landmarks  # the second one was cut by 10 px
    assert_allclose(moved[:, :2].mean(axis=0), 10, atol=1.5)


def test_a_photo_is_read_without_its_labels(folder, monkeypatch):
    """``prepare --turned`` labeled every photo a second time, only to read it."""
    source = PeopleFolder(folder)
    monkeypatch.setattr(source, "label", lambda _: pytest.fail("labeled"))
    np.testing.assert_array_equal(
        source.read_image("ann/1.jpg"), read_image(folder / "ann" / "1.jpg")
    )


def test_photos_without_a_label_have_a_reason(people, folder):
    with pytest.raises(ValueError, match="blank.jpg: no face found"):
        people.load("bob/blank.jpg")
    with pytest.raises(ValueError, match="broken.png.*not a readable image"):
        people.load("bob/broken.png")
    assert set(people.label("bob").left_out) == {"bob/blank.jpg", "bob/broken.png"}
    assert people.label("bob").photos == []
    with pytest.raises(FileNotFoundError, match="ann/9.jpg"):
        people.load("ann/9.jpg")
    with pytest.raises(FileNotFoundError, match="carl"):
        people.label("carl")


@pytest.mark.integration
def test_a_source_travels_to_another_process(people):
    people.load("ann/1.jpg")
    assert len(pickle.dumps(people)) < 10_000  # networks cannot be pickled: they stay behind
    there = copy.copy(people)  # by the same state
    assert there.names() == people.names()
    fresh = there.load("ann/1.jpg")
    assert_allclose(fresh.landmarks, people.load("ann/1.jpg").landmarks)


def test_a_folder_without_people_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        PeopleFolder(tmp_path / "missing")
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="a folder of its own"):
        PeopleFolder(tmp_path)


def test_real_people_are_labeled(shared_data):
    source = PeopleFolder(shared_data / "celeba-people")
    person = source.people()[0]
    labels = source.label(person)
    assert len(labels.photos) > 0.8 * (len(labels.photos) + len(labels.left_out))
    landmarks = np.stack([photo.landmarks for photo in labels.photos])
    model = source.face_model
    fit = fit_person_landmarks(model, landmarks, options=fit_options(model))
    assert np.median(residual_percent(fit, landmarks)) < 0.8
