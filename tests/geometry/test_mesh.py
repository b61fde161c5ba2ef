import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from strategies import similarities

from keras_scnn.geometry.alignment import apply_similarity
from keras_scnn.geometry.mesh import smooth_normals, sphere_center, vertex_normals

SPHERE = trimesh.creation.icosphere(subdivisions=3, radius=70)


def slow_normals(vertices, triangles):
    """The definition, one triangle after another."""
    normals = np.zeros_like(vertices)
    for a, b, c in triangles:
        normals[[a, b, c]] += np.cross(vertices[b] - vertices[a], vertices[c] - vertices[a])
    return normals / np.linalg.norm(normals, axis=1, keepdims=True)


def test_normals_of_a_sphere_point_outward():
    normals = vertex_normals(SPHERE.vertices, SPHERE.faces)
    assert_allclose(normals, SPHERE.vertices / 70, atol=0.02)  # 642 vertices, not a true sphere


@given(st.integers(0, 2**32 - 1))
def test_normals_are_the_means_of_triangle_normals_by_area(seed):
    rng = np.random.default_rng(seed)
    vertices = rng.normal(size=(8, 3))
    triangles = np.array([[0, 1, 2], [2, 3, 0], [4, 5, 6], [5, 7, 6], [1, 7, 3]])
    result = vertex_normals(vertices, triangles)
    assert_allclose(result, slow_normals(vertices, triangles), atol=1e-6)


@given(similarities(3))
def test_normals_turn_with_the_mesh_and_ignore_scale_and_place(similarity):
    _, rotation, _ = similarity
    moved = apply_similarity(*similarity, SPHERE.vertices)
    expected = vertex_normals(SPHERE.vertices, SPHERE.faces) @ rotation.T
    assert_allclose(vertex_normals(moved, SPHERE.faces), expected, atol=1e-9)


def test_turning_the_triangles_around_turns_the_normals_around():
    forward = vertex_normals(SPHERE.vertices, SPHERE.faces)
    assert_allclose(vertex_normals(SPHERE.vertices, SPHERE.faces[:, ::-1]), -forward, atol=1e-12)


def test_a_batch_is_its_rows_and_keeps_its_dtype():
    batch = np.random.default_rng(0).normal(size=(2, 4, 8, 3)).astype(np.float32)
    triangles = np.array([[0, 1, 2], [3, 4, 5], [5, 6, 7]], np.int32)
    normals = vertex_normals(batch, triangles)
    assert normals.dtype == np.float32
    assert normals.shape == batch.shape
    assert_allclose(normals[1, 2], vertex_normals(batch[1, 2], triangles), atol=1e-7)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.float16, ">f4", ">f8"])
def test_vertices_of_any_kind_of_numbers_have_normals_of_unit_length(kind):
    vertices = np.round(SPHERE.vertices + 80)
    expected = slow_normals(vertices, SPHERE.faces)
    assert_allclose(vertex_normals(vertices.astype(kind), SPHERE.faces), expected, atol=1e-12)


def test_vertices_without_a_triangle_have_no_normal():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [9, 9, 9]])
    expected = [[0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 0]]
    assert_allclose(vertex_normals(vertices, [[0, 1, 2]]), expected)


@pytest.mark.parametrize(
    ("vertices", "triangles", "message"),
    [
        (np.zeros((4, 2)), [[0, 1, 2]], "have the shapes"),
        (np.zeros((4, 3)), [[0, 1, 2, 3]], "have the shapes"),
        (np.zeros((4, 3)), [[0, 1, 4]], "must index the 4 vertices"),
        (np.zeros((4, 3)), [[0, 1, -1]], "must index the 4 vertices"),
        (np.zeros((4, 3)), [[0, 1, 2.5]], "triangles are of float64; they must be whole numbers"),
        (np.zeros((4, 3)), [[0, 1, np.nan]], "must be whole numbers"),
        (np.zeros((4, 3)), [["0", "1", "2"]], "must be whole numbers"),
    ],
)
def test_wrong_meshes_are_refused(vertices, triangles, message):
    with pytest.raises(ValueError, match=message):
        vertex_normals(vertices, triangles)


def test_whole_numbers_may_be_of_any_type():
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    for kind in (np.float64, np.float32, np.uint8, np.int64, ">i4"):
        triangles = np.array([[0, 1, 2]], kind)
        assert_allclose(vertex_normals(vertices, triangles), [[0, 0, 1]] * 3)
        assert_allclose(smooth_normals(vertices, triangles), [[0, 0, 1]] * 3)


def test_smooth_normals_of_a_split_mesh_are_those_of_the_whole_one():
    """Each triangle with vertices of its own, as if every edge were a seam of the texture."""
    corners = SPHERE.faces.ravel()
    apart = np.arange(len(corners)).reshape(-1, 3)
    expected = vertex_normals(SPHERE.vertices, SPHERE.faces)[corners]
    assert_allclose(smooth_normals(SPHERE.vertices[corners], apart), expected, atol=1e-12)


def test_a_vertex_of_no_triangle_has_a_unit_normal():
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 0, -1], [5, 5, 5]])
    expected = [[0, 1, 0]] * 3 + [[0, 0, 1]]
    assert_allclose(smooth_normals(vertices, np.array([[0, 1, 2]])), expected)


@given(similarities(3))
def test_the_center_of_a_part_of_a_sphere(similarity):
    cap = SPHERE.vertices[SPHERE.vertices[:, 2] > 30]
    expected = apply_similarity(*similarity, np.zeros((1, 3)))[0]
    found = sphere_center(apply_similarity(*similarity, cap))
    assert_allclose(found, expected, atol=1e-6 * np.ptp(apply_similarity(*similarity, cap)))
