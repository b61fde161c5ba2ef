import numpy as np
import pytest
import scipy.io
from annotated_faces import random_basis, random_parameters, write_face

from keras_scnn.data.sources.aflw2000 import read_aflw2000
from keras_scnn.data.sources.bfm_landmarks import BfmLandmarks
from keras_scnn.data.sources.reannotation import read_neutral_landmarks, read_reannotation
from keras_scnn.geometry.alignment import apply_similarity, similarity_alignment

NAMES = ["one", "two"]


@pytest.fixture
def points() -> np.ndarray:
    return np.random.default_rng(2).uniform(1, 450, (2, 68, 2))


@pytest.mark.parametrize("layout", [(0, 1, 2), (0, 2, 1)])
def test_an_array_of_all_faces_is_read_either_way_round(tmp_path, points, layout):
    np.save(tmp_path / "all.npy", points.transpose(layout))
    result = read_reannotation(tmp_path / "all.npy", NAMES)
    np.testing.assert_array_equal(result, points - 1)  # counted from 1, as published
    result = read_reannotation(tmp_path / "all.npy", NAMES, first_pixel=0)
    np.testing.assert_array_equal(result, points)


def test_depth_is_dropped(tmp_path, points):
    deep = np.concatenate([points, np.ones((2, 68, 1))], axis=2).transpose(0, 2, 1)
    np.save(tmp_path / "all.npy", deep)
    np.testing.assert_array_equal(read_reannotation(tmp_path / "all.npy", NAMES), points - 1)


@pytest.mark.parametrize("suffixes", [(".pts", ".mat"), (".PTS", ".MAT")])
def test_a_folder_may_hold_pts_and_mat_files(tmp_path, points, suffixes):
    lines = "\n".join(f"{x!r} {y!r}" for x, y in points[0].tolist())
    first, second = tmp_path / f"one{suffixes[0]}", tmp_path / f"two{suffixes[1]}"
    first.write_text(f"version: 1\nn_points: 68\n{{\n{lines}\n}}\n")
    arrays = {"pt2d": points[1].T, "roi": np.zeros((1, 4))}
    scipy.io.savemat(second, arrays, appendmat=False)
    np.testing.assert_array_equal(read_reannotation(tmp_path, NAMES), points - 1)


def write(name, value):
    def make(folder, points):
        if isinstance(value, np.ndarray):
            np.save(folder / name, value)
        elif isinstance(value, dict):
            scipy.io.savemat(folder / name, value)
        else:
            (folder / name).write_text(value)
        return folder / name if name.endswith("npy") else folder

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (write("all.npy", np.ones((3, 68, 2))), r"expected \(2, 68, 2\)"),
        (write("all.npy", np.ones((2, 21, 2))), r"expected \(2, 68, 2\)"),
        (write("all.npy", np.ones((2, 68, 5))), "68 points of 2 numbers"),
        (write("all.npy", np.full((2, 68, 2), "x")), "68 points of 2 numbers"),
        (write("all.npy", np.full((2, 68, 2), np.nan)), "finite"),
        (write("all.npy", np.array([{}])), "not a readable .npy file"),  # would need unpickling
        (write("all.npy", "text"), "not a readable .npy file"),
        (write("one.pts", "version: 1"), "not a .pts file"),
        (write("one.pts", "{ 1 2 3 }"), "not a .pts file"),
        (write("one.pts", "version: 1\nn_points: 2\n{\n1 2\n3 4\n}\n"), "2 points; expected 68"),
        (write("one.mat", {"a": np.ones((68, 2)), "b": np.ones((2, 68))}), "2 arrays of the shape"),
        (write("one.mat", {"a": np.ones(3)}), "0 arrays of the shape"),
        (write("one.mat", "text"), "not a readable .mat file"),
    ],
)
def test_another_layout_is_refused(tmp_path, points, make, message):
    with pytest.raises(ValueError, match=message):
        read_reannotation(make(tmp_path, points), NAMES)


def test_missing_annotations_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such annotation"):
        read_reannotation(tmp_path / "no.npy", NAMES)
    with pytest.raises(FileNotFoundError, match="one.pts.*no one.mat either"):
        read_reannotation(tmp_path, NAMES)


def test_neutral_landmarks_are_those_of_a_slow_loop(tmp_path):
    basis, arrays = random_basis(), random_parameters(np.random.default_rng(6))
    write_face(tmp_path / "one", arrays)
    faces, mean = read_neutral_landmarks([tmp_path / "one.mat"], basis)
    np.testing.assert_allclose(mean, basis.mean / 1000, rtol=1e-5)
    shape = arrays["Shape_Para"][:, 0]
    expected = basis.mean + sum(shape[k] * basis.identity_basis[..., k] for k in range(199))
    np.testing.assert_allclose(faces[0], expected / 1000, rtol=1e-3, atol=1e-2)
    with pytest.raises(FileNotFoundError, match="two.mat"):
        read_neutral_landmarks([tmp_path / "two.mat"], basis)


def test_real_annotations_are_their_own_re_annotation(shared_data):
    folder = shared_data / "aflw2000-3d-dev"
    faces = read_aflw2000(folder)[:20]
    result = read_reannotation(folder, [face.name for face in faces])
    np.testing.assert_array_equal(result, [face.landmarks[:, :2] for face in faces])


def test_real_people_differ_from_their_mean_face_by_the_published_amount(shared_data):
    files = sorted((shared_data / "aflw2000-3d-dev").glob("*.mat"))
    basis = BfmLandmarks.load(shared_data / "300w-lp-fixture" / "bfm_landmarks68.npz")
    faces, mean = read_neutral_landmarks(files, basis)
    moved = apply_similarity(*similarity_alignment(mean, faces), np.broadcast_to(mean, faces.shape))
    # 1.82 mm on all 2,000 photos.
    assert np.linalg.norm(moved - faces, axis=-1).mean() == pytest.approx(1.82, abs=0.1)
