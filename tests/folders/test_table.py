import os
import sys

import numpy as np
import pytest

from keras_scnn.folders.table import (
    columns,
    joined,
    read_about,
    read_columns,
    read_part,
    vector_sizes,
    write_part,
)
from keras_scnn.geometry.camera import compose
from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.parameters import FaceParameters
from keras_scnn.photos.cropping import FaceBox
from keras_scnn.reconstruction.faces import Faces

pyarrow = pytest.importorskip("pyarrow", reason="extra 'batch' is not installed")
pytest.importorskip("pyarrow.parquet", reason="extra 'batch' is not installed")


def test_a_part_that_cannot_be_opened_is_not_taken_for_a_damaged_one(tmp_path):
    (tmp_path / "part-00000.parquet").mkdir()
    with pytest.raises(OSError, match="part-00000"):
        read_part(tmp_path / "part-00000.parquet")
    (tmp_path / "part-00001.parquet").write_bytes(b"no Parquet")
    assert read_part(tmp_path / "part-00001.parquet") is None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are text")
def test_a_folder_whose_name_is_not_utf8_has_parts_too(tmp_path):
    folder = tmp_path / os.fsdecode(b"r\xe9sultats")
    folder.mkdir()
    path, sizes = folder / "part-00000.parquet", vector_sizes(2, 3, 0)
    table = joined([], sizes)
    row = {key: np.ones((1, sizes[key]) if key in sizes else 1) for key in table}
    table = {**row, "photo": ["a.jpg"], "face": np.array([4], np.int32)}
    write_part(path, table, sizes, {"preset": "mobile"}, [("b.jpg", "no face")])
    about, failures, rows = read_part(path)
    assert (about["preset"], failures, rows) == ("mobile", [("b.jpg", "no face")], 1)
    assert read_about(path) == about
    assert read_columns(path)["identity"].tolist() == [[1, 1]]
    assert read_columns(path, ("face", 4, 5))["photo"].tolist() == ["a.jpg"]
    assert not len(read_columns(path, ("face", 5, 6))["photo"])
    assert [one.name for one in folder.iterdir()] == ["part-00000.parquet"]


@pytest.fixture
def faces(tiny_face_model) -> Faces:
    """Three faces of known pitch, yaw and roll, at 0.5 px per mm."""
    rng = np.random.default_rng(2)
    model, angles = tiny_face_model, np.array([[10.0, -30, 5], [0, 60, 0], [-15, 0, 20]])
    shift = np.array([[90.0, 80, 0], [20, 30, 7], [5, 6, -7]])
    pose = compose(rotation_from_euler(np.deg2rad(angles)), np.full(3, 0.5), shift)
    identity = rng.normal(size=(3, model.n_identity))
    parameters = FaceParameters(pose, identity, np.zeros((3, model.n_expression)))
    boxes = tuple(FaceBox.square(place, 60, 0.8) for place in shift[:, :2])
    return Faces(model, parameters, boxes, np.float32(np.eye(3, 4)))


def test_columns_are_those_of_the_faces_one_by_one(faces):
    table = columns(faces, scored=True)
    np.testing.assert_allclose(table["pitch"], [10, 0, -15], atol=1e-6)
    np.testing.assert_allclose(table["yaw"], [-30, 60, 0], atol=1e-6)
    np.testing.assert_allclose(table["roll"], [5, 0, 20], atol=1e-6)
    np.testing.assert_allclose(table["scale"], 0.5)
    np.testing.assert_allclose(table["translation"], [[90, 80], [20, 30], [5, 6]])
    np.testing.assert_array_equal(table["features"], np.eye(3, 4))
    for i, face in enumerate(faces):
        # float32 vertices of 64 to 128 mm are 8e-6 mm apart
        expected = face.landmarks.ravel()
        np.testing.assert_allclose(table["landmarks"][i], expected, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(table["image_from_model"][i], face.parameters.pose.ravel())
        np.testing.assert_array_equal(table["box"][i], face.box.as_array())
        assert (table["score"][i], table["quality"][i]) == (0.8, face.quality)


def test_without_a_detector_or_a_feature_head_there_is_no_score_and_no_feature(faces, tmp_path):
    bare = Faces(faces.model, faces.parameters, faces.boxes)
    table = columns(bare, scored=False)
    assert "features" not in table
    assert np.isnan([table["score"], table["quality"]]).all()
    sizes = vector_sizes(faces.model.n_identity, faces.model.n_expression, 0)
    keys = {"photo": ["a.jpg"] * 3, "face": np.arange(3), "photo_reduced_by": np.ones(3, int)}
    path = tmp_path / "part-00000.parquet"
    write_part(path, {**keys, "width": [9] * 3, "height": [8] * 3, **table}, sizes, {}, [])
    stored = pyarrow.parquet.read_table(path)
    assert {f.name for f in stored.schema if f.nullable} == {"score", "quality"}
    assert [stored[name].null_count for name in ("score", "quality", "yaw")] == [3, 3, 0]
    again = read_columns(path)
    assert "features" not in again and np.isnan(again["score"]).all()
    np.testing.assert_allclose(again["rotation"], table["rotation"], atol=1e-6)
    np.testing.assert_array_equal(again["landmarks"], np.float32(table["landmarks"]))


@pytest.mark.parametrize("about", [{"version": 1}, {"format": "keras_scnn.other"}])
def test_a_part_of_another_version_is_not_taken_for_a_damaged_one(faces, tmp_path, about):
    sizes, path = vector_sizes(2, 3, 0), tmp_path / "part-00000.parquet"
    write_part(path, joined([], sizes), sizes, {"preset": "mobile"}, [])
    assert read_part(path)[2] == 0
    write_part(path, joined([], sizes), sizes, about, [])
    with pytest.raises(ValueError, match="part-00000.parquet: not one of faces"):
        read_part(path)
