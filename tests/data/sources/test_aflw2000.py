import cv2
import numpy as np
import pytest
import scipy.io
from annotated_faces import random_parameters, sent_through_a_pipe

from keras_scnn.data.sources.aflw2000 import Aflw2000, read_aflw2000
from keras_scnn.protocols.aflw2000 import read_photos
from keras_scnn.protocols.evaluation import AFLW2000, kind_of_data


@pytest.fixture
def folder(tmp_path):
    """Two faces in the layout of the published files, whose variables and shapes these are."""
    rng = np.random.default_rng(2)
    for name, yaw in (("image00002", 0.5), ("image00004", -1.2)):
        pose = np.array([[0.1, yaw, -0.2, 200, 210, -60, 1e-3]], np.float32)
        points = rng.uniform(100, 300, (3, 68)).astype(np.float32)
        scipy.io.savemat(tmp_path / f"{name}.mat", {"pt3d_68": points, "Pose_Para": pose})
        cv2.imwrite(str(tmp_path / f"{name}.jpg"), np.zeros((450, 450, 3), np.uint8))
    return tmp_path


def test_pixels_count_from_0_and_depth_is_left_alone(folder):
    face = read_aflw2000(folder)[0]
    points = scipy.io.loadmat(folder / "image00002.mat")["pt3d_68"]
    np.testing.assert_allclose(face.landmarks, points.T - [1, 1, 0], atol=1e-4)


def test_angles_are_pitch_yaw_roll_and_the_yaw_sorts_the_face(folder):
    face = read_aflw2000(folder)[1]
    np.testing.assert_allclose(face.euler, [0.1, -1.2, -0.2], rtol=1e-6)
    assert face.yaw_degrees == pytest.approx(np.rad2deg(-1.2))
    assert face.box is None
    assert face.image_path == folder / "image00004.jpg"


def test_annotations_in_capitals_are_read(folder):
    expected = Aflw2000(folder).names()
    for path in folder.glob("*.mat"):
        path.rename(path.with_suffix(".MAT"))
    source = Aflw2000(folder)
    assert kind_of_data(folder) == AFLW2000
    assert source.names() == expected and source.load(expected[0]).landmarks.shape == (68, 3)


def test_photos_in_capitals_are_those_of_their_annotations(folder):
    expected = [face.landmarks for face in read_aflw2000(folder)]
    for path in folder.glob("*.jpg"):
        path.rename(path.with_suffix(".JPG"))
    faces = read_aflw2000(folder)
    assert [face.image_path.suffix for face in faces] == [".JPG"] * len(expected)
    np.testing.assert_array_equal([face.landmarks for face in faces], expected)


def test_the_protocol_chooses_order_yaw_and_boxes(folder):
    (folder / "protocol.csv").write_text(
        "name,yaw_degrees,crop_x0,crop_y0,crop_x1,crop_y1\nimage00004,-66.5,10,20,130,140\n"
    )
    (face,) = read_aflw2000(folder)
    assert (face.name, face.yaw_degrees) == ("image00004", -66.5)
    np.testing.assert_array_equal(face.box, [10, 20, 130, 140])


def test_as_a_source_each_photo_is_a_person_with_the_same_labels(folder):
    source = sent_through_a_pipe(Aflw2000(folder))
    assert source.names() == ["image00002.jpg", "image00004.jpg"]
    assert len({source.person(name) for name in source.names()}) == 2
    for name, face in zip(source.names(), read_aflw2000(folder), strict=True):
        photo = source.load(name)
        assert (photo.name, photo.person) == (name, source.person(name))
        np.testing.assert_array_equal(photo.landmarks, face.landmarks)
        assert photo.read_image().shape == (450, 450, 3)
    with pytest.raises(FileNotFoundError, match=r"other\.jpg: the data set has no such photo"):
        source.load("other.jpg")


def test_parameters_of_the_face_model_are_read_where_they_are(folder):
    arrays = {
        **random_parameters(np.random.default_rng(0)),
        "pt3d_68": np.zeros((3, 68), np.float32),
    }
    scipy.io.savemat(folder / "image00002.mat", arrays)
    first, second = (face.parameters for face in read_aflw2000(folder))
    np.testing.assert_array_equal(first["shape"], arrays["Shape_Para"][:, 0])
    np.testing.assert_array_equal(first["expression"], arrays["Exp_Para"][:, 0])
    assert list(second) == ["pose"]


def test_a_source_reports_a_damaged_file_when_it_is_loaded(folder):
    (folder / "image00002.mat").write_bytes(b"damaged")
    source = Aflw2000(folder)
    with pytest.raises(ValueError, match=r"image00002\.mat: not a readable"):
        source.load("image00002.jpg")
    assert source.load("image00004.jpg").person == "image00004.jpg"


def test_missing_and_damaged_files_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_aflw2000(tmp_path / "nowhere")
    (folder / "image00002.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"image00002\.jpg"):
        read_aflw2000(folder)
    (folder / "image00002.mat").write_bytes(b"not a file of MATLAB")
    (folder / "image00002.jpg").touch()
    with pytest.raises(ValueError, match=r"image00002\.mat: not a readable"):
        read_aflw2000(folder)


def test_a_mat_file_of_another_kind_is_refused(folder):
    scipy.io.savemat(folder / "image00002.mat", {"Pose_Para": np.zeros((1, 7))})
    with pytest.raises(ValueError, match=r"pt3d_68 is missing; AFLW2000-3D has \(3, 68\)"):
        read_aflw2000(folder)


@pytest.mark.parametrize("side", [225, 900])
def test_a_resized_photo_is_refused_since_its_labels_do_not_fit(folder, side):
    path = folder / "image00002.jpg"
    cv2.imwrite(str(path), np.zeros((side, side, 3), np.uint8))
    message = f"image00002.jpg: {side} x {side} px; its labels are of the photo of 450 x 450 px"
    with pytest.raises(ValueError, match=message):
        Aflw2000(folder).load("image00002.jpg").read_image()
    photos = read_photos(folder, 120)
    assert [face.name for face in photos.faces] == ["image00004"]
    assert len(photos.left_out) == 1 and message in photos.left_out[0]


def test_a_folder_without_annotations_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no \.mat files"):
        read_aflw2000(tmp_path)


def test_a_protocol_without_its_columns_is_refused(folder):
    (folder / "protocol.csv").write_text("name,yaw\nimage00002,3\n")
    with pytest.raises(ValueError, match=r"protocol\.csv: not a table whose columns are name"):
        read_aflw2000(folder)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("", "no face below the header"),
        ("image00002,nan,10,20,130,140\n", "must be finite"),
        (2 * "image00002,9,10,20,130,140\n", "image00002 is listed 2 times"),
    ],
)
def test_a_damaged_protocol_is_refused(folder, rows, message):
    header = "name,yaw_degrees,crop_x0,crop_y0,crop_x1,crop_y1\n"
    (folder / "protocol.csv").write_text(header + rows)
    with pytest.raises(ValueError, match=rf"protocol.csv: not a table .*{message}"):
        Aflw2000(folder)
    with pytest.raises(ValueError, match=message):
        read_photos(folder, 120)


def test_the_real_files_are_read_with_landmarks_inside_of_the_boxes(shared_data):
    faces = read_aflw2000(shared_data / "aflw2000-3d-dev")
    assert len(faces) == 200
    for face in faces:
        assert face.yaw_degrees == pytest.approx(np.rad2deg(face.euler[1]), abs=1e-3)
        low, high = face.landmarks[:, :2].min(axis=0), face.landmarks[:, :2].max(axis=0)
        # The benchmark's boxes are square, and as wide as the landmarks' box is long diagonally.
        side = face.box[2:] - face.box[:2]
        assert np.abs(side / np.linalg.norm(high - low) - 1).max() < 0.25
