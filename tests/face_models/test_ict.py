import json

import numpy as np
import pytest

from keras_scnn.face_models import read_ict

EXPRESSIONS = ["browDown_L", "jawOpen", "mouthSmile_R"]


def write_obj(path, vertices, quads):
    """As ICT-FaceKit does: a material line, v, vt, and faces of corners vertex/texture."""
    lines = ["mtllib ICTFaceModelMaterial.mtl"]
    lines += [f"v {x:.15f} {y:.15f} {z:.15f}" for x, y, z in vertices]
    lines += ["vt 0.5 0.5", "vt 0.25 0.75"]
    lines += ["f " + " ".join(f"{i + 1}/{1 + i % 2}" for i in quad) for quad in quads]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def folder(tmp_path, small_face):
    """FaceXModel: centimeters, quads, each component as a whole mesh."""
    folder = tmp_path / "FaceXModel"
    folder.mkdir()
    corner = (np.arange(8)[:, None] * 8 + np.arange(7)).ravel()
    quads = np.stack([corner, corner + 1, corner + 9, corner + 8], axis=1)
    neutral = small_face.mean + small_face.expression_mean
    write_obj(folder / "generic_neutral_mesh.obj", neutral / 10, quads)
    for k in range(4):
        step = small_face.deviations[k] * small_face.directions[:, k].reshape(-1, 3)
        write_obj(folder / f"identity{k:03d}.obj", (neutral + step) / 10, quads)
    for k, name in enumerate(EXPRESSIONS):
        step = small_face.expression_directions[:, k].reshape(-1, 3)
        moved = neutral + small_face.expression_deviations[k] * step
        write_obj(folder / f"{name}.obj", moved / 10, quads)
    config = dict(
        expressions=EXPRESSIONS,
        incompatibilities=[],
        idx_to_landmark_verts=small_face.landmarks.tolist(),
        idx_to_rigid_landmark_idx=[0, 36, 39],
    )
    (folder / "vertex_indices.json").write_text(json.dumps(config))
    return folder


def test_vertices_come_back_in_millimeters(folder, small_face, check_same_face):
    model = read_ict(folder)
    check_same_face(model)
    assert model.expression_names == tuple(EXPRESSIONS)
    np.testing.assert_array_equal(model.expression_bounds, [[0, 1]] * 3)
    np.testing.assert_array_equal(model.landmark_indices, small_face.landmarks)
    assert model.regions is None  # only the published mesh of 26,719 vertices has known regions


def test_each_quad_becomes_the_two_triangles_of_a_fan(folder, small_face):
    result = {tuple(t) for t in read_ict(folder).triangles}
    # (a b c d) -> (a b c) and (a c d), as the small face is triangulated.
    assert result == {tuple(t) for t in small_face.triangles}


def test_the_checkout_above_the_folder_is_read_too(folder):
    np.testing.assert_array_equal(read_ict(folder.parent).mean, read_ict(folder).mean)


def test_only_leading_vertices_can_be_kept(folder, small_face):
    kept = read_ict(folder, n_vertices=64, landmark_indices=np.arange(68) % 64)
    assert kept.n_vertices == 64
    whole = read_ict(folder, n_vertices=None)
    np.testing.assert_array_equal(kept.identity_basis, whole.identity_basis[:64])
    # The last of eight rows of 14 triangles reaches vertices 64 to 71.
    assert len(kept.triangles) == len(whole.triangles) - 14


def test_a_landmark_that_is_not_kept_is_refused(folder):
    with pytest.raises(ValueError, match="landmark_indices .* out of range"):
        read_ict(folder, n_vertices=40)


@pytest.mark.parametrize("n_vertices", [0, -1, 2.5])
def test_a_wrong_number_of_vertices_is_refused(folder, n_vertices):
    with pytest.raises(ValueError, match="n_vertices is .* it must be"):
        read_ict(folder, n_vertices=n_vertices)


def test_regions_follow_the_published_table():
    from keras_scnn.face_models.ict import N_VERTICES, _regions

    regions = _regions(N_VERTICES)
    # Vertex counts of the README's table: mouth socket 2046 + gums and tongue 2977, teeth 4412,
    # eyeballs 1570 each.
    assert np.bincount(regions).tolist()[1:] == [2046 + 2977, 4412, 1570, 1570]
    assert regions[21451] == 3 and regions[24590] == 4 and regions[24591] == 0


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected the folder FaceXModel"):
        read_ict(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["generic_neutral_mesh.obj", "identity000.obj", "identity002.obj", "jawOpen.obj"],
)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        read_ict(folder)


def test_a_git_lfs_pointer_is_refused(folder, lfs_pointer):
    (folder / "identity002.obj").write_text(lfs_pointer)
    with pytest.raises(ValueError, match="identity002.obj: a Git LFS pointer"):
        read_ict(folder)


@pytest.mark.parametrize(
    "cut, message", [(2000, "72|OBJ"), (40, "vertices or faces are missing|not a readable")]
)
def test_a_truncated_mesh_is_refused(folder, cut, message):
    path = folder / "identity001.obj"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=f"identity001.obj: .*({message})"):
        read_ict(folder)


def test_a_mesh_with_a_number_that_is_not_finite_is_named(folder):
    path = folder / "jawOpen.obj"
    path.write_text(path.read_text().replace("v ", "v nan ", 1))
    with pytest.raises(ValueError, match=r"jawOpen\.obj: .*a vertex is not finite"):
        read_ict(folder)


def test_a_neutral_mesh_without_faces_is_refused(folder):
    path = folder / "generic_neutral_mesh.obj"
    path.write_text("\n".join(t for t in path.read_text().split("\n") if not t.startswith("f ")))
    with pytest.raises(ValueError, match="vertices or faces are missing"):
        read_ict(folder)


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "not readable as JSON"),
        ("[1, 2]", "holds a list"),
        ('{"expressions": []}', "idx_to_landmark_verts missing"),
        ('{"expressions": [], "idx_to_landmark_verts": [1, 2]}', "must be 68 whole numbers"),
    ],
)
def test_a_wrong_table_is_refused(folder, text, message):
    (folder / "vertex_indices.json").write_text(text)
    with pytest.raises(ValueError, match=f"vertex_indices.json: .*{message}"):
        read_ict(folder)
