"""GNM's layout as its public code reads it: github.com/google/GNM, gnm/shape/gnm_data_loader.py."""

import numpy as np
import pytest

from keras_scnn.face_models import load_face_model, read_gnm


def contents(face):
    """The arrays of gnm_head.npz, meters, components first, with those that are not read."""
    bases = [
        (directions * deviations).T.reshape(-1, 72, 3) / 1000
        for directions, deviations in (
            (face.directions, face.deviations),
            (face.expression_directions, face.expression_deviations),
        )
    ]
    groups = np.zeros((3, 72), np.float32)
    groups[0], groups[1, :4], groups[2, 8:16] = 1, 1, 1
    return dict(
        version="3.0", variant="head",
        template_vertex_positions=((face.mean + face.expression_mean) / 1000).astype(np.float32),
        vertex_identity_basis=bases[0].astype(np.float32),
        expression_basis=bases[1].astype(np.float32),
        triangles=face.triangles.astype(np.int32),
        identity_names=[f"head_{i}" for i in range(4)],
        expression_names=["left_eye_region_0", "lower_face_region_0", "tongue_0"],
        vertex_groups=groups, vertex_group_names=["skin", "tongue", "eyes"],
        mirror_indices=np.arange(72).reshape(9, 8)[:, ::-1].ravel(),
        template_joint_positions=np.zeros((4, 3)), skinning_weights=np.ones((4, 72)) / 4,
        pose_correctives_regressor=np.zeros((36, 216)),
    )  # fmt: skip


@pytest.fixture
def sites(small_face):
    """68 points on triangles: vertices (68, 3), weights (68, 3), and where they are, mm."""
    rng = np.random.default_rng(1)
    corners = small_face.triangles[rng.integers(0, len(small_face.triangles), 68)]
    weights = rng.dirichlet([1, 1, 1], 68).round(3)
    mean = small_face.mean + small_face.expression_mean
    points = [
        sum(w * mean[v] for w, v in zip(*row, strict=True)) / sum(row[0])
        for row in zip(weights, corners, strict=True)
    ]
    return corners, weights, np.array(points)


def write_landmarks(path, corners, weights):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        " ".join(f"{v} {w:.3f}" for v, w in zip(*row, strict=True))
        for row in zip(corners, weights, strict=True)
    ]
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture
def checkout(tmp_path, small_face, sites):
    """GNM's folder data/ with the model and its landmarks; the model's path."""
    path = tmp_path / "data" / "versions" / "v3_0" / "gnm_head.npz"
    path.parent.mkdir(parents=True)
    np.savez_compressed(path, **contents(small_face))
    write_landmarks(tmp_path / "data" / "landmarks" / "head_sparse_68.txt", *sites[:2])
    return path


def test_the_model_comes_back_in_millimeters(checkout, check_same_face):
    model = load_face_model(checkout)
    check_same_face(model)
    assert (model.name, model.n_identity, model.n_expression) == ("gnm_head", 4, 3)
    assert model.expression_names == ("left_eye_region_0", "lower_face_region_0", "tongue_0")
    assert "Apache-2.0" in model.license
    assert model.mirror[:8].tolist() == [7, 6, 5, 4, 3, 2, 1, 0]
    # x < 0 is the subject's right; vertices 8 to 15 run from right to left.
    assert model.regions[:17].tolist() == [1] * 4 + [0] * 4 + [4] * 4 + [3] * 4 + [0]


def test_names_stored_as_bytes_are_the_same_names(tmp_path, small_face):
    """Regions were lost, and an expression was called "b'tongue_0'"."""
    arrays = contents(small_face)
    arrays |= {key: np.bytes_(arrays[key]) for key in ("expression_names", "vertex_group_names")}
    np.savez(tmp_path / "gnm_head.npz", **arrays)
    model = read_gnm(tmp_path / "gnm_head.npz", landmark_indices=small_face.landmarks)
    assert model.expression_names == ("left_eye_region_0", "lower_face_region_0", "tongue_0")
    assert model.regions[:17].tolist() == [1] * 4 + [0] * 4 + [4] * 4 + [3] * 4 + [0]


def test_landmarks_lie_where_the_file_says(checkout, sites):
    landmarks = read_gnm(checkout).landmarks()
    np.testing.assert_allclose(landmarks[17:], sites[2][17:], atol=1e-3)
    np.testing.assert_allclose(landmarks[8], sites[2][8], atol=1e-3)
    for half in (slice(0, 8), slice(9, 17)):  # the same points, in another order
        for axis in range(3):
            expected = np.sort(sites[2][half, axis])
            np.testing.assert_allclose(np.sort(landmarks[half, axis]), expected, atol=1e-3)


def test_the_jaw_runs_down_to_the_chin_and_up_again(tmp_path, small_face):
    """The published order of the right half: rows 0, 1, 6, 5, 4, 3, 2, 7 run downwards."""
    vertices = np.r_[np.arange(64, -1, -8)[:8], 3, np.arange(7, 72, 8)[:8], np.arange(17, 68)]
    published = vertices[[0, 1, 6, 5, 4, 3, 2, 7, *range(8, 68)]]
    path = tmp_path / "gnm_head.npz"
    np.savez(path, **contents(small_face))
    weights = np.tile([1.0, 0, 0], (68, 1))
    for rows in (published, vertices):
        corners = np.repeat(rows[:, None], 3, axis=1)
        file = write_landmarks(tmp_path / "head_sparse_68.txt", corners, weights)
        model = read_gnm(path, landmark_file=file)
        np.testing.assert_array_equal(model.landmark_indices, vertices)


def test_landmarks_can_be_given(tmp_path, small_face):
    path = tmp_path / "gnm_head.npz"
    np.savez(path, **contents(small_face))
    with pytest.raises(ValueError, match="gnm_head.npz: .*give landmark_file, GNM's head_"):
        read_gnm(path)
    model = read_gnm(path, landmark_indices=small_face.landmarks)
    np.testing.assert_array_equal(model.landmark_indices, small_face.landmarks)


@pytest.mark.parametrize(
    "text, message",
    [
        ("0 1.0 1 0.0 2 0.0\n" * 67, r"numbers of shape \(67, 6\); they must be 68 rows of 6"),
        ("0 1.0 1 0.0 72 0.0\n" * 68, "a vertex index lies outside of the model's 72 vertices"),
        ("0.5 1.0 1 0.0 2 0.0\n" * 68, "vertices are of float64; they must be whole numbers"),
        ("0 nan 1 0.0 2 0.0\n" * 68, "weights that are not finite"),
        ("a b c d e f\n" * 68, "not the landmarks of GNM"),
    ],
)
def test_a_landmark_file_that_does_not_fit_is_refused(tmp_path, checkout, text, message):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(ValueError, match=f"^{tmp_path}/a.txt: .*{message}"):
        read_gnm(checkout, landmark_file=tmp_path / "a.txt")
    (tmp_path / "a.dat").write_text(text)
    with pytest.raises(ValueError, match=f"^{tmp_path}/a.dat: expected the landmarks of GNM"):
        read_gnm(checkout, landmark_file=tmp_path / "a.dat")
    with pytest.raises(FileNotFoundError, match="gone.txt"):
        read_gnm(checkout, landmark_file=tmp_path / "gone.txt")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"vertex_identity_basis": np.zeros((72, 3, 4))}, "must be .N, 3., .K, N, 3."),
        ({"expression_basis": np.zeros((3, 216))}, "must be .N, 3., .K, N, 3."),
        ({"triangles": np.int32([[0, 1, 72]])}, "outside of the 72 vertices"),
        ({"expression_names": ["one"]}, "1 names for 3"),
        ({"vertex_groups": np.zeros((3, 70))}, "gnm_head.npz"),
        ({"expression_basis": None}, "expression_basis missing"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, small_face, change, message):
    arrays = {k: v for k, v in (contents(small_face) | change).items() if v is not None}
    np.savez(tmp_path / "gnm_head.npz", **arrays)
    with pytest.raises(ValueError, match=f"gnm_head.npz: .*{message}|{message}"):
        load_face_model(tmp_path / "gnm_head.npz", landmark_indices=small_face.landmarks)
