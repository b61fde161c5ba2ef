import numpy as np
import pytest
import scipy.io

from keras_scnn.face_models import read_bfm2009
from keras_scnn.face_models.bfm import BFM2009_LANDMARKS, BFM2009_VERTICES


def contents(face):
    """01_MorphableModel.mat: micrometers, single precision, 1-based clockwise triangles."""
    return dict(
        shapeMU=np.float32(face.mean.reshape(-1, 1) * 1000),
        shapePC=np.float32(face.directions),
        shapeEV=np.float32(face.deviations.reshape(-1, 1) * 1000),
        texMU=np.zeros((216, 1), np.float32),
        tl=np.float64(face.triangles[:, ::-1] + 1),
    )


@pytest.fixture
def model_path(tmp_path, small_face):
    path = tmp_path / "01_MorphableModel.mat"
    scipy.io.savemat(path, contents(small_face))
    return path


def test_vertices_come_back_in_millimeters_with_the_surface_outward(
    model_path, small_face, check_same_face
):
    model = read_bfm2009(model_path, landmark_indices=small_face.landmarks)
    check_same_face(model, with_expressions=False)
    assert (model.n_vertices, model.n_identity, model.n_expression) == (72, 4, 0)
    np.testing.assert_array_equal(model.landmark_indices, small_face.landmarks)
    assert "research" in model.license


@pytest.fixture
def files_of_3ddfa(tmp_path, small_face):
    """A model with 10 more vertices, which 3DDFA trims away, in an order that moves vertices."""
    rng = np.random.default_rng(1)
    place = rng.permutation(82)[:72]
    whole = contents(small_face)
    for key in ("shapeMU", "shapePC"):
        rows = np.float32(rng.normal(0, 1e4, (82, 3, whole[key].shape[1])))
        rows[place] = whole[key].reshape(72, 3, -1)
        whole[key] = rows.reshape(246, -1)
    whole["tl"] = place[small_face.triangles[:, ::-1]] + 1.0
    scipy.io.savemat(tmp_path / "01_MorphableModel.mat", whole)
    scipy.io.savemat(
        tmp_path / "model_info.mat",
        dict(
            trimIndex=place[:, None] + 1.0,
            tri=small_face.triangles[:, ::-1].T + 1.0,
            keypoints=small_face.landmarks[None] + 1.0,
        ),
    )
    scipy.io.savemat(
        tmp_path / "Model_Expression.mat",
        dict(
            mu_exp=small_face.expression_mean.reshape(-1, 1) * 1000,
            w_exp=small_face.expression_directions,
            sigma_exp=small_face.expression_deviations[:, None] * 1000,
        ),
    )
    return tmp_path


def test_the_expressions_and_landmarks_of_3ddfa_lie_on_its_trimmed_mesh(
    files_of_3ddfa, small_face, check_same_face
):
    model = read_bfm2009(
        files_of_3ddfa / "01_MorphableModel.mat",
        expression=files_of_3ddfa / "Model_Expression.mat",
        model_info=files_of_3ddfa / "model_info.mat",
    )
    check_same_face(model)
    np.testing.assert_array_equal(model.landmark_indices, small_face.landmarks)
    assert np.isinf(model.expression_bounds).all()


def test_expressions_alone_are_refused(files_of_3ddfa):
    with pytest.raises(ValueError, match="Model_Expression.mat: .*model_info.mat as well"):
        read_bfm2009(
            files_of_3ddfa / "01_MorphableModel.mat",
            expression=files_of_3ddfa / "Model_Expression.mat",
        )


def test_expressions_of_another_mesh_are_refused(files_of_3ddfa):
    path = files_of_3ddfa / "Model_Expression.mat"
    scipy.io.savemat(
        path, dict(mu_exp=np.zeros((30, 1)), w_exp=np.zeros((30, 2)), sigma_exp=np.ones((2, 1)))
    )
    message = f"^{path}: mu_exp has 30 numbers, the trimmed mesh needs 216"
    with pytest.raises(ValueError, match=message):
        read_bfm2009(
            files_of_3ddfa / "01_MorphableModel.mat",
            expression=path,
            model_info=files_of_3ddfa / "model_info.mat",
        )


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"trimIndex": np.full((72, 1), 83.0)}, "trimIndex lies outside"),
        ({"keypoints": np.full((1, 68), 73.0)}, "keypoints lies outside"),
        ({"keypoints": np.ones((1, 9))}, "tri must be .* and keypoints 68"),
        ({"tri": "text"}, "not a readable MATLAB file; .* tri is a text"),
        ({"tri": np.ones((1, 1))}, "tri must be .3, T"),
        (None, "trimIndex, tri, keypoints missing"),
    ],
)
def test_a_damaged_model_info_is_named_instead_of_the_model(files_of_3ddfa, changes, message):
    path = files_of_3ddfa / "model_info.mat"
    info = scipy.io.loadmat(path)
    kept = {key: info[key] for key in ("trimIndex", "tri", "keypoints")}
    scipy.io.savemat(path, {"other": 1.0} if changes is None else kept | changes)
    with pytest.raises(ValueError, match=f"^{path}: ({message})"):
        read_bfm2009(files_of_3ddfa / "01_MorphableModel.mat", model_info=path)


def test_a_whole_published_mesh_has_the_published_landmarks(tmp_path):
    path = tmp_path / "01_MorphableModel.mat"
    vertices = np.random.default_rng(0).normal(0, 5e4, (BFM2009_VERTICES * 3, 1))
    scipy.io.savemat(
        path,
        dict(
            shapeMU=np.float32(vertices),
            shapePC=np.ones((BFM2009_VERTICES * 3, 1), np.float32),
            shapeEV=np.ones((1, 1), np.float32),
            tl=np.array([[1.0, 2.0, 3.0]]),
        ),
    )
    model = read_bfm2009(path)
    # The nose tip, iBUG 31, is line 31 of Landmarks68_BFM.anl: vertex 8320, counted from 1.
    np.testing.assert_allclose(model.landmarks()[30], vertices[8319 * 3 :][:3, 0] / 1000, rtol=1e-6)
    assert len(set(BFM2009_LANDMARKS)) == 68


def test_landmarks_must_be_given_for_another_mesh(model_path):
    with pytest.raises(ValueError, match="give landmark_indices, or model_info"):
        read_bfm2009(model_path)


@pytest.mark.parametrize("landmarks", [np.arange(67), np.arange(68) * 1.0])
def test_landmarks_of_another_shape_or_type_are_refused(model_path, landmarks):
    with pytest.raises(ValueError, match="must be 68 whole numbers"):
        read_bfm2009(model_path, landmark_indices=landmarks)


def test_a_landmark_beyond_the_mesh_is_refused(model_path):
    with pytest.raises(ValueError, match="01_MorphableModel.mat: landmark_indices .* out of range"):
        read_bfm2009(model_path, landmark_indices=np.arange(68) + 10)


@pytest.mark.parametrize("key", ["shapeMU", "shapePC", "shapeEV", "tl"])
def test_a_missing_key_is_named(model_path, small_face, key):
    arrays = contents(small_face)
    del arrays[key]
    scipy.io.savemat(model_path, arrays)
    with pytest.raises(ValueError, match=f"01_MorphableModel.mat: {key} missing"):
        read_bfm2009(model_path, landmark_indices=small_face.landmarks)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(shapeEV=np.ones((5, 1))), "does not fit 5 standard deviations"),
        (dict(shapeMU=np.ones((219, 1))), "identity_basis has the shape"),
        (dict(shapeMU=np.ones((214, 1))), "reshape"),
        (dict(shapeMU=np.ones((3, 72))), r"shape \(3, 72\); it must be \(3N, 1\)"),  # was scrambled
        (dict(tl=np.array([[1.0, 2.0, 73.0]])), "outside of the 72 vertices"),
        (dict(tl=np.ones((4, 4))), r"must be \(T, 3\)"),
        (dict(tl=np.array([[1.5, 2.5, 3.5]])), "tl are of float64; they must be whole numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(model_path, small_face, change, message):
    scipy.io.savemat(model_path, contents(small_face) | change)
    landmarks = np.zeros(68, int)
    with pytest.raises(ValueError, match=f"01_MorphableModel.mat: .*{message}"):
        read_bfm2009(model_path, landmark_indices=landmarks)


def test_a_truncated_file_is_refused(model_path):
    model_path.write_bytes(model_path.read_bytes()[:900])
    with pytest.raises(ValueError, match="not a readable MATLAB file"):
        read_bfm2009(model_path)


def test_text_is_refused(model_path):
    model_path.write_text("no such page " * 40)
    with pytest.raises(ValueError, match="not a readable MATLAB file"):
        read_bfm2009(model_path)


def test_a_git_lfs_pointer_is_refused(model_path, lfs_pointer):
    model_path.write_text(lfs_pointer)
    with pytest.raises(ValueError, match="Git LFS pointer.*git lfs pull"):
        read_bfm2009(model_path)


def test_an_empty_file_another_suffix_and_no_file_are_refused(model_path, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.mat: no such file"):
        read_bfm2009(tmp_path / "nowhere.mat")
    with pytest.raises(ValueError, match=r"name ends in \.mat"):
        read_bfm2009(model_path.rename(tmp_path / "model.bin"))
    (tmp_path / "empty.mat").touch()
    with pytest.raises(ValueError, match="the file is empty"):
        read_bfm2009(tmp_path / "empty.mat")
