import os
import pickle
import sys
import types

import numpy as np
import pytest
import scipy.sparse

from keras_scnn.face_models import read_flame


def contents(face):
    """The published table's keys: meters, identity before expression, unsigned triangles."""
    bases = (
        face.directions * face.deviations,
        face.expression_directions * face.expression_deviations,
    )
    return {
        "v_template": (face.mean + face.expression_mean) / 1000,
        "shapedirs": np.concatenate(bases, axis=1).reshape(72, 3, 7) / 1000,
        "f": face.triangles.astype(np.uint32),
        "posedirs": np.zeros((72, 3, 36)),
        "weights": np.ones((72, 5)) / 5,
        "J_regressor": scipy.sparse.csc_matrix(np.ones((5, 72)) / 72),
        "kintree_table": np.uint32([[4294967295, 0, 1, 1, 1], [0, 1, 2, 3, 4]]),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }


class Ch:
    """The state that chumpy.ch.Ch pickles (github.com/mattloper/chumpy, ch.py, __getstate__)."""

    def __init__(self, x):
        self.x = x

    def __getstate__(self):
        return {"x": self.x, "_dirty_vars": {"x"}, "_itr": None, "_make_dense": False,
                "_make_sparse": False, "_depends_on_deps": {}}  # fmt: skip


@pytest.fixture
def published_pickle(monkeypatch):
    """Dumps a table as the published files are: protocol 2, chumpy arrays, NumPy 1's modules."""
    Ch.__module__ = "chumpy.ch"
    chumpy = types.ModuleType("chumpy.ch")
    chumpy.Ch = Ch
    monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
    monkeypatch.setitem(sys.modules, "chumpy.ch", chumpy)

    def dump(path, table):
        data = pickle.dumps(table | {"shapedirs": Ch(table["shapedirs"])}, protocol=2)
        data = data.replace(b"cnumpy._core.", b"cnumpy.core.")
        data = data.replace(b"cscipy.sparse._csc\n", b"cscipy.sparse.csc\n")
        assert b"cchumpy.ch\nCh\n" in data and b"cscipy.sparse.csc\ncsc_matrix\n" in data
        path.write_bytes(data)
        for name in ("chumpy", "chumpy.ch"):
            monkeypatch.delitem(sys.modules, name)
        return path

    return dump


def options(face):
    return dict(landmark_indices=face.landmarks, n_identity=4)


def test_the_published_pickle_comes_back_in_millimeters_without_chumpy(
    tmp_path, small_face, published_pickle, check_same_face
):
    path = published_pickle(tmp_path / "generic_model.pkl", contents(small_face))
    model = read_flame(path, **options(small_face))
    check_same_face(model)
    assert "chumpy" not in sys.modules
    assert (model.n_identity, model.n_expression) == (4, 3)
    np.testing.assert_array_equal(model.landmark_indices, small_face.landmarks)


def test_an_npz_of_the_same_arrays_is_read_too(tmp_path, small_face, check_same_face):
    table = contents(small_face)
    np.savez(
        tmp_path / "flame.npz", **{key: table[key] for key in ("v_template", "shapedirs", "f")}
    )
    check_same_face(read_flame(tmp_path / "flame.npz", **options(small_face)))


def test_the_first_300_components_are_identity(tmp_path, small_face):
    rng = np.random.default_rng(0)
    table = contents(small_face) | {"shapedirs": rng.normal(size=(72, 3, 400))}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(table))
    model = read_flame(tmp_path / "a.pkl", landmark_indices=small_face.landmarks)
    # 300 + 100: "FLAME model ... 300 shape and 100 expression" (flame.is.tue.mpg.de).
    assert (model.n_identity, model.n_expression) == (300, 100)
    expected = table["shapedirs"][..., 300] * 1000
    np.testing.assert_allclose(model.expression_basis[..., 0], expected, rtol=1e-6)


@pytest.fixture
def embedding(small_face):
    """68 triangles and barycentric weights, and where those points lie on the mean in mm."""
    rng = np.random.default_rng(3)
    faces = rng.integers(0, len(small_face.triangles), 68)
    weights = rng.dirichlet([1, 1, 1], 68)
    mean = small_face.mean + small_face.expression_mean
    points = [
        sum(w * mean[v] for w, v in zip(weights[i], small_face.triangles[faces[i]], strict=True))
        for i in range(68)
    ]
    return faces, weights, np.array(points)


@pytest.fixture
def model_path(tmp_path, small_face):
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(pickle.dumps(contents(small_face), protocol=2))
    return path


def test_landmarks_of_decas_embedding_are_exact_on_the_mean_face(tmp_path, model_path, embedding):
    faces, weights, points = embedding
    path = tmp_path / "landmark_embedding.npy"
    table = {
        "full_lmk_faces_idx": faces[None],
        "full_lmk_bary_coords": weights[None],
        "static_lmk_faces_idx": faces[17:],
    }
    np.save(path, table)
    model = read_flame(model_path, landmark_embedding=path, n_identity=4)
    np.testing.assert_allclose(model.landmarks(), points, atol=1e-4)
    # Each vertex is the nearest corner in the barycentric sense.
    for i, vertex in enumerate(model.landmark_indices):
        assert vertex in model.triangles[faces[i]]


def test_a_jaw_from_the_dynamic_embedding_completes_the_51_static_points(
    tmp_path, model_path, embedding
):
    faces, weights, points = embedding
    static, contour = tmp_path / "flame_static_embedding.pkl", tmp_path / "dynamic.npy"
    static.write_bytes(
        pickle.dumps({"lmk_face_idx": faces[17:], "lmk_b_coords": weights[17:]}, protocol=2)
    )
    by_angle = np.zeros((79, 17), int), np.full((79, 17, 3), 1 / 3)
    by_angle[0][0], by_angle[1][0] = faces[:17], weights[:17]  # row 0 is yaw 0
    np.save(contour, {"lmk_face_idx": by_angle[0], "lmk_b_coords": by_angle[1]})
    model = read_flame(model_path, static, contour, n_identity=4)
    np.testing.assert_allclose(model.landmarks(), points, atol=1e-4)
    message = f"^{static}: 51 points; .*give contour_embedding for the jaw"
    with pytest.raises(ValueError, match=message):
        read_flame(model_path, static, n_identity=4)


def test_an_embedding_of_another_mesh_is_refused(tmp_path, model_path, embedding):
    path = tmp_path / "a.npz"
    np.savez(path, lmk_face_idx=embedding[0] + 100, lmk_b_coords=embedding[1])
    message = f"^{path}: a point lies on none of the model's 112 triangles"
    with pytest.raises(ValueError, match=message):
        read_flame(model_path, path, n_identity=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda faces, weights: (faces + 100, weights), "on none of the model's 112 triangles"),
        (lambda faces, weights: (faces - 113, weights), "on none of the model's 112 triangles"),
        (lambda faces, weights: (faces + 0.5, weights), "lmk_face_idx .* must be whole numbers"),
        (lambda faces, weights: (faces, 100 * weights), "do not sum to 1"),
        (lambda faces, weights: (faces, np.nan * weights), "are not finite"),
        (lambda faces, weights: (faces, weights[:, :2]), "does not fit"),
    ],
)
@pytest.mark.parametrize("damaged", ["static.npz", "contour.npz"])
def test_of_two_embeddings_the_damaged_one_is_named(
    tmp_path, model_path, embedding, damaged, change, message
):
    for name, part in (("static.npz", slice(17, 68)), ("contour.npz", slice(17))):
        arrays = [array[part] for array in embedding[:2]]
        faces, weights = change(*arrays) if name == damaged else arrays
        np.savez(tmp_path / name, lmk_face_idx=faces, lmk_b_coords=weights)
    with pytest.raises(ValueError, match=f"^{tmp_path / damaged}: .*{message}"):
        read_flame(model_path, tmp_path / "static.npz", tmp_path / "contour.npz", n_identity=4)


def test_triangles_that_the_embedding_needs_are_of_the_model(tmp_path, small_face, embedding):
    """The embedding was named, although the model is damaged."""
    np.savez(tmp_path / "a.npz", lmk_face_idx=embedding[0], lmk_b_coords=embedding[1])
    for triangles in (small_face.triangles + 60, small_face.triangles[:, :2]):
        np.savez(tmp_path / "flame.npz", **contents(small_face) | {"f": triangles})
        with pytest.raises(ValueError, match=rf"^{tmp_path}/flame\.npz: (a triangle|triangles of)"):
            read_flame(tmp_path / "flame.npz", tmp_path / "a.npz", n_identity=4)


def test_a_missing_embedding_is_named(tmp_path, model_path):
    for path in (tmp_path / "gone.npy", tmp_path / "gone.pkl"):
        with pytest.raises(FileNotFoundError, match=f"^{path}: no such file"):
            read_flame(model_path, path, n_identity=4)


def test_an_embedding_without_its_keys_is_refused(tmp_path, model_path):
    np.savez(tmp_path / "a.npz", other=np.zeros(3))
    with pytest.raises(ValueError, match=f"^{tmp_path}/a.npz: lmk_face_idx, lmk_b_coords missing"):
        read_flame(model_path, tmp_path / "a.npz", n_identity=4)


def test_landmarks_must_be_given(model_path):
    with pytest.raises(ValueError, match="give landmark_embedding or landmark_indices"):
        read_flame(model_path, n_identity=4)


class Call:
    def __reduce__(self):
        return os.system, ("touch marker",)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, small_face, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(pickle.dumps(contents(small_face) | {"shapedirs": Call()}))
    with pytest.raises(ValueError, match=r"generic_model.pkl: .*(posix|nt).system"):
        read_flame(path, **options(small_face))
    assert not (tmp_path / "marker").exists()


def test_pickled_objects_in_an_npz_are_refused(tmp_path, small_face):
    table = {key: np.array(Call(), dtype=object) for key in ("v_template", "shapedirs", "f")}
    np.savez(tmp_path / "flame.npz", **table)
    with pytest.raises(ValueError, match="flame.npz: not a readable .npz file"):
        read_flame(tmp_path / "flame.npz", **options(small_face))


@pytest.mark.parametrize("key", ["v_template", "shapedirs", "f"])
def test_a_missing_key_is_named(tmp_path, small_face, key):
    table = contents(small_face)
    del table[key]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(table))
    with pytest.raises(ValueError, match=f"a.pkl: {key} missing"):
        read_flame(tmp_path / "a.pkl", **options(small_face))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"shapedirs": np.zeros((70, 3, 7))}, "v_template .* must be"),
        ({"shapedirs": np.zeros((72, 3, 2))}, "fewer than n_identity=4"),
        ({"v_template": np.zeros(216)}, "v_template .* must be"),
        ({"v_template": "text"}, "v_template has the dtype"),
        ({"f": np.uint32([[0, 1, 72]])}, "outside of the 72 vertices"),
        ({"f": np.array([[0, 1, 2.5]])}, "triangles are of float64; they must be whole numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, small_face, change, message):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(contents(small_face) | change))
    with pytest.raises(ValueError, match=f"a.pkl: .*{message}"):
        read_flame(tmp_path / "a.pkl", **options(small_face))


@pytest.mark.parametrize("n_identity", [-1, 2.5, "4"])
def test_a_wrong_number_of_components_is_refused(model_path, small_face, n_identity):
    """-1 made all components but the last one identity."""
    with pytest.raises(ValueError, match="n_identity is .* it must be"):
        read_flame(model_path, landmark_indices=small_face.landmarks, n_identity=n_identity)


def test_a_pickle_of_something_else_is_refused(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match="holds a list, not the table of a FLAME model"):
        read_flame(tmp_path / "a.pkl")


def test_truncated_files_and_git_lfs_pointers_are_refused(tmp_path, model_path, lfs_pointer):
    model_path.write_bytes(model_path.read_bytes()[:4000])
    with pytest.raises(ValueError, match="generic_model.pkl: not a pickle of plain arrays"):
        read_flame(model_path)
    model_path.write_text(lfs_pointer)
    with pytest.raises(ValueError, match="Git LFS pointer"):
        read_flame(model_path)
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ValueError, match="a.npz: not a readable .npz file"):
        read_flame(tmp_path / "a.npz")


def test_another_suffix_and_no_file_are_refused(tmp_path, model_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pkl"):
        read_flame(tmp_path / "nowhere.pkl")
    with pytest.raises(ValueError, match=r"ends in \.pkl or \.npz"):
        read_flame(model_path.rename(tmp_path / "model.h5"))
