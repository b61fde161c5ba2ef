import dataclasses
import json
import pickle

import h5py
import numpy as np
import pytest
import scipy.io

from keras_scnn import face_models
from keras_scnn.face_models import load_face_model
from keras_scnn.geometry.landmarks68 import MIRROR68


def test_the_embedded_model_is_found_by_its_name(open_face):
    np.testing.assert_array_equal(load_face_model("open_face").mean, open_face.mean)


def test_a_saved_model_is_found_by_its_path(tmp_path, tiny_face_model):
    tiny_face_model.save(tmp_path / "a.npz")
    np.testing.assert_array_equal(load_face_model(tmp_path / "a.npz").mean, tiny_face_model.mean)
    np.testing.assert_array_equal(
        load_face_model(str(tmp_path / "a.npz")).mean, tiny_face_model.mean
    )


def flame_table(face):
    shapes = np.concatenate([face.directions, face.expression_directions], axis=1)
    return dict(
        v_template=face.mean / 1000, shapedirs=shapes.reshape(72, 3, 7) / 1000, f=face.triangles
    )


def write_bfm2009(path, face):
    scipy.io.savemat(
        path,
        dict(
            shapeMU=face.mean.reshape(-1, 1) * 1000, shapePC=face.directions,
            shapeEV=face.deviations[:, None], tl=face.triangles[:, ::-1] + 1,
        ),
    )  # fmt: skip


def write_h5(path, face):
    with h5py.File(path, "w") as file:
        file["shape/representer/cells"] = face.triangles.T
        for part in ("shape", "expression"):
            file[f"{part}/model/mean"] = face.mean.reshape(-1) * (part == "shape")
            file[f"{part}/model/pcaBasis"] = face.directions
            file[f"{part}/model/pcaVariance"] = face.deviations**2


def write_flame_npz(path, face):
    np.savez(path, **flame_table(face))


def write_flame_pickle(path, face):
    path.write_bytes(pickle.dumps(flame_table(face)))


def write_ict(path, face):
    path.mkdir()
    vertices = "".join(f"v {x!r} {y!r} {z!r}\n" for x, y, z in (face.mean / 10).tolist())
    faces = "".join(f"f {a} {b} {c}\n" for a, b, c in face.triangles + 1)
    for name in ("generic_neutral_mesh", "identity000", "jawOpen"):
        (path / f"{name}.obj").write_text(vertices + faces)
    table = dict(expressions=["jawOpen"], idx_to_landmark_verts=face.landmarks.tolist())
    (path / "vertex_indices.json").write_text(json.dumps(table))


@pytest.mark.parametrize(
    "name, write, options, model_name",
    [
        ("01_MorphableModel.mat", write_bfm2009, {}, "bfm2009"),
        ("model2019_bfm.h5", write_h5, {}, "model2019_bfm"),
        ("MODEL.HDF5", write_h5, {}, "MODEL"),
        ("flame.npz", write_flame_npz, {"n_identity": 4}, "flame"),
        ("generic_model.pkl", write_flame_pickle, {"n_identity": 4}, "flame"),
        ("FaceXModel", write_ict, {}, "ict_facekit"),
    ],
)
def test_each_format_is_recognized_by_its_suffix_or_content(
    tmp_path, small_face, name, write, options, model_name
):
    write(tmp_path / name, small_face)
    model = load_face_model(tmp_path / name, landmark_indices=small_face.landmarks, **options)
    assert model.name == model_name
    np.testing.assert_allclose(model.mean, small_face.mean, atol=1e-3)


@pytest.mark.parametrize("times", [1000, 10, 0.1, 0.001])
@pytest.mark.parametrize(
    "name, write, options",
    [
        ("01_MorphableModel.mat", write_bfm2009, {}),
        ("model2019_bfm.h5", write_h5, {}),
        ("flame.npz", write_flame_npz, {"n_identity": 4}),
        ("FaceXModel", write_ict, {}),
    ],
)
def test_another_unit_than_the_published_one_is_refused(
    tmp_path, small_face, name, write, options, times
):
    """The dome of 271 mm was read as one of 271 m, for example."""
    write(tmp_path / name, dataclasses.replace(small_face, mean=small_face.mean * times))
    across = np.linalg.norm(np.ptp(small_face.mean, axis=0)) * times
    with pytest.raises(ValueError, match=f"{name}.* the mean face is {across:,.1f} mm across"):
        load_face_model(tmp_path / name, landmark_indices=small_face.landmarks, **options)


def write_turned_flame(path, model, file_from_model):
    """The embedded face as a FLAME file in another frame; one component, which does not matter."""
    vertices = np.float64(model.mean) @ np.transpose(file_from_model) / 1000
    shapes = np.full((*vertices.shape, 1), 1e-4)
    np.savez(path, v_template=vertices, shapedirs=shapes, f=model.triangles)


@pytest.mark.parametrize(
    ("file_from_model", "axes"),
    [
        (np.diag([1, -1, -1]), "x, -y, -z"),  # OpenCV's frame: y down, z away from the viewer
        (np.diag([1, -1, 1]), "x, -y, z"),
        (np.diag([1, 1, -1]), "x, y, -z"),
        (np.diag([-1, 1, 1]), "-x, y, z"),
        (np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]), "x, z, -y"),  # Blender's: z up, y backward
    ],
)
def test_a_face_in_another_frame_is_refused_with_its_axes(
    tmp_path, open_face, file_from_model, axes
):
    write_turned_flame(tmp_path / "a.npz", open_face, file_from_model)
    with pytest.raises(ValueError, match=f"a.npz: .*right, up and forward are {axes} instead of"):
        load_face_model(
            tmp_path / "a.npz", n_identity=1, landmark_indices=open_face.landmark_indices
        )


def test_saved_models_of_another_unit_or_frame_are_refused(tmp_path, open_face):
    """They were used as they are, though the result is documented to be in the model frame."""
    for name, mean, message in (
        ("meters", open_face.mean / 1000, "the mean face is 0.3 mm across"),
        ("y down", open_face.mean * [1, -1, 1], "right, up and forward are x, -y, z instead of"),
    ):
        open_face.replace(mean=mean).save(tmp_path / f"{name}.npz")
        with pytest.raises(ValueError, match=f"{name}.npz: .*{message}"):
            load_face_model(tmp_path / f"{name}.npz")


def test_landmarks_numbered_from_the_other_side_are_refused(tmp_path, open_face):
    write_turned_flame(tmp_path / "a.npz", open_face, np.eye(3))
    mirrored = open_face.landmark_indices[MIRROR68]
    with pytest.raises(ValueError, match="a.npz: .* or give the landmarks in iBUG order"):
        load_face_model(tmp_path / "a.npz", n_identity=1, landmark_indices=mirrored)


@pytest.mark.parametrize("degrees", [-40, 40])
def test_a_face_that_nods_is_accepted(tmp_path, open_face, degrees):
    """Published mean faces look up or down by some degrees."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    nod = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    write_turned_flame(tmp_path / "a.npz", open_face, nod)
    landmarks = open_face.landmark_indices
    model = load_face_model(tmp_path / "a.npz", n_identity=1, landmark_indices=landmarks)
    np.testing.assert_allclose(model.mean, open_face.mean @ nod.T, atol=1e-3)


def test_an_unknown_name_or_suffix_is_refused_with_what_would_be_right(tmp_path):
    for name in ("closed_face", tmp_path / "face.obj"):
        with pytest.raises(ValueError, match="not a face model; expected 'open_face', .*npz, .mat"):
            load_face_model(name)


def test_a_row_of_the_table_is_all_that_a_format_needs(tmp_path):
    """Its suffix is known, its reader is imported from its module, and messages name it."""
    for module, (reader, suffixes) in face_models._READERS.items():
        assert getattr(face_models, reader).__module__ == f"keras_scnn.face_models.{module}"
        for suffix in suffixes:
            with pytest.raises(ValueError, match=f"name ends in .*{suffix}"):
                load_face_model(tmp_path / "face.obj")
            with pytest.raises(FileNotFoundError, match=f"gone{suffix}: no such file"):
                load_face_model(tmp_path / f"gone{suffix}")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.npz"):
        load_face_model(tmp_path / "nowhere.npz")


def test_an_npz_that_is_no_face_model_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match="expected 'keras_scnn.morphable_model' version 1"):
        load_face_model(tmp_path / "a.npz")
