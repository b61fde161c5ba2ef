import json

import h5py
import numpy as np
import pytest

from keras_scnn.face_models import read_bfm_h5
from keras_scnn.face_models.bfm_h5 import IBUG_OF_NAME


def contents(face):
    """The Statismo layout: mm, variances, 0-based triangles in columns, named points in JSON."""
    return {
        "shape/model/mean": np.float32(face.mean.reshape(-1)),
        "shape/model/pcaBasis": np.float32(face.directions),
        "shape/model/pcaVariance": np.float32(face.deviations**2),
        "shape/model/noiseVariance": np.float32([0.0]),
        "shape/representer/cells": np.int32(face.triangles.T),
        "shape/representer/points": np.float32(face.mean.T),
        "expression/model/mean": np.float32(face.expression_mean.reshape(-1)),
        "expression/model/pcaBasis": np.float32(face.expression_directions),
        "expression/model/pcaVariance": np.float32(face.expression_deviations**2),
        "version/majorVersion": 0,
        "version/minorVersion": 9,
    }


def write(path, arrays):
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            file[key] = value
    return path


@pytest.fixture
def model_path(tmp_path, small_face):
    return write(tmp_path / "model2019_face12.h5", contents(small_face))


def test_vertices_come_back_in_millimeters(model_path, small_face, check_same_face):
    model = read_bfm_h5(model_path, landmark_indices=small_face.landmarks)
    check_same_face(model)
    assert model.name == "model2019_face12"
    assert (model.n_vertices, model.n_identity, model.n_expression) == (72, 4, 3)
    np.testing.assert_array_equal(model.triangles, small_face.triangles)


def named_points(points):
    return json.dumps(
        [{"id": name, "coordinates": points[i].tolist()} for name, i in IBUG_OF_NAME.items()]
    )


@pytest.mark.parametrize("stored", ["text", "bytes"])
def test_landmarks_are_found_from_the_named_points(tmp_path, open_face, stored):
    # The embedded model in another size and place: the true landmarks are its own, by index.
    vertices = np.float64(open_face.mean) * 1.1 + [3, -20, 60]
    text = named_points(vertices[open_face.landmark_indices])
    values = np.frombuffer(text.encode(), np.int8) if stored == "bytes" else text
    n = vertices.size
    path = write(
        tmp_path / "model2017-1_bfm_nomouth.h5",
        {
            "shape/model/mean": vertices.reshape(-1),
            "shape/representer/cells": open_face.triangles.T,
            "expression/model/mean": np.zeros(n),
            **{f"{part}/model/pcaBasis": np.ones((n, 1)) for part in ("shape", "expression")},
            **{f"{part}/model/pcaVariance": np.ones(1) for part in ("shape", "expression")},
            "metadata/landmarks/json": values,
        },
    )
    model = read_bfm_h5(path)
    expected = vertices[open_face.landmark_indices]
    np.testing.assert_allclose(model.landmarks(), expected, atol=1e-3)


def test_landmarks_must_be_given_where_no_points_are_named(model_path):
    with pytest.raises(ValueError, match="68 iBUG landmarks; give landmark_indices"):
        read_bfm_h5(model_path)


def test_named_points_that_are_not_json_are_refused(tmp_path, small_face):
    path = write(
        tmp_path / "a.h5", contents(small_face) | {"metadata/landmarks/json": "[{'id': 1}"}
    )
    with pytest.raises(ValueError, match="a.h5: not a Basel Face Model of 2017 or 2019"):
        read_bfm_h5(path)


@pytest.mark.parametrize(
    "key", ["shape/model/mean", "expression/model/pcaBasis", "shape/representer/cells"]
)
def test_a_missing_key_is_named(tmp_path, small_face, key):
    arrays = contents(small_face)
    del arrays[key]
    with pytest.raises(ValueError, match=f"a.h5: {key} missing"):
        read_bfm_h5(write(tmp_path / "a.h5", arrays), landmark_indices=small_face.landmarks)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"shape/model/pcaVariance": np.ones(3)}, "shape/model: .* does not fit 3"),
        ({"expression/model/mean": np.zeros(30)}, "different numbers of vertices"),
        ({"expression/model/mean": np.zeros(31)}, "expression/model: .*reshape"),
        (
            {"shape/model/mean": np.zeros((3, 72))},
            r"shape/model: .*\(3, 72\); it must be \(3N, 1\)",
        ),
        ({"shape/representer/cells": np.zeros((5, 4), int)}, r"must be \(T, 3\)"),
        ({"shape/model/mean": np.full(216, np.nan)}, "mean has values that are not finite"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, small_face, change, message):
    path = write(tmp_path / "a.h5", contents(small_face) | change)
    with pytest.raises(ValueError, match=f"a.h5: .*{message}"):
        read_bfm_h5(path, landmark_indices=small_face.landmarks)


def test_a_truncated_file_and_a_git_lfs_pointer_are_refused(model_path, lfs_pointer):
    model_path.write_bytes(model_path.read_bytes()[:3000])
    with pytest.raises(ValueError, match="or damaged"):
        read_bfm_h5(model_path)
    model_path.write_text(lfs_pointer)
    with pytest.raises(ValueError, match="Git LFS pointer"):
        read_bfm_h5(model_path)


def test_another_suffix_and_no_file_are_refused(tmp_path, model_path):
    with pytest.raises(FileNotFoundError, match="nowhere.h5"):
        read_bfm_h5(tmp_path / "nowhere.h5")
    with pytest.raises(ValueError, match=r"ends in \.h5 or \.hdf5"):
        read_bfm_h5(model_path.rename(tmp_path / "model.mat"))
