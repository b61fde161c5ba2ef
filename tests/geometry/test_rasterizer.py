import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_scnn.geometry.rasterizer import interpolate, rasterize

SQUARE = np.array([[0, 1, 2], [0, 2, 3]])


def slow(vertices, triangles, height, width):
    """Depth by the definition: barycentric coordinates of every pixel in every triangle."""
    depth = np.full((height, width), -np.inf)
    for corners in vertices[triangles].astype(np.float64):
        matrix = np.vstack([corners[:, :2].T, np.ones(3)])
        if abs(np.linalg.det(matrix)) < 1e-9:
            continue
        for y in range(height):
            for x in range(width):
                weights = np.linalg.solve(matrix, [x, y, 1])
                if (weights > 1e-6).all():
                    depth[y, x] = max(depth[y, x], weights @ corners[:, 2])
    return depth


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_it_agrees_with_the_definition_away_from_edges(seed):
    rng = np.random.default_rng(seed)
    vertices = rng.uniform(-2, 12, (9, 3))
    triangles = rng.integers(0, 9, (5, 3))
    expected = slow(vertices, triangles, 10, 10)
    buffers = rasterize(vertices, triangles, 10, 10, cull_back_faces=False)
    clear = np.isfinite(expected)
    assert buffers.mask[clear].all()
    np.testing.assert_allclose(buffers.depth[clear], expected[clear], atol=1e-3)
    assert (buffers.mask & ~clear).sum() <= 2  # pixel centers on an edge to within rounding


def test_the_depth_of_a_plane_is_exact():
    # z = 3 + 0.5 x - 0.25 y over the whole image.
    xy = np.array([[-9.0, -9], [-9, 29], [29, 29], [29, -9]])
    z = 3 + 0.5 * xy[:, 0] - 0.25 * xy[:, 1]
    buffers = rasterize(np.column_stack([xy, z]), SQUARE, 20, 20)
    y, x = np.mgrid[:20, :20]
    np.testing.assert_allclose(buffers.depth, 3 + 0.5 * x - 0.25 * y, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_barycentrics_reproduce_the_pixel(seed):
    vertices = np.random.default_rng(seed).uniform(-3, 18, (3, 3))
    buffers = rasterize(vertices, np.array([[0, 1, 2]]), 16, 16, cull_back_faces=False)
    y, x = np.nonzero(buffers.mask)
    weights = buffers.barycentric[buffers.mask]
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    place = interpolate(buffers, np.array([[0, 1, 2]]), vertices)[buffers.mask]
    np.testing.assert_allclose(place[:, :2], np.column_stack([x, y]), atol=2e-2)


def test_attributes_of_another_face_are_refused():
    """The compiled loop would read memory that is not theirs."""
    vertices = np.array([[0.0, 0, 0], [0, 9, 0], [9, 9, 0], [9, 0, 0]])
    buffers = rasterize(vertices, SQUARE, 8, 8, cull_back_faces=False)
    with pytest.raises(ValueError, match="triangles: the largest index is 3, of 3 rows"):
        interpolate(buffers, SQUARE, vertices[:3])
    with pytest.raises(ValueError, match="buffers: the largest index is 1, of 1 rows"):
        interpolate(buffers, SQUARE[:1], vertices)
    with pytest.raises(ValueError, match="triangles: the smallest index is -1, below 0"):
        interpolate(buffers, SQUARE - 1, vertices)
    with pytest.raises(ValueError, match="triangles are of float64; they must be whole numbers"):
        interpolate(buffers, SQUARE + 0.5, vertices)
    with pytest.raises(ValueError, match=r"attributes have the shape \(4,\); they must be"):
        interpolate(buffers, SQUARE, vertices[:, 0])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_two_halves_cover_a_quad_exactly_once(seed, on_pixels):
    rng = np.random.default_rng(seed)
    # A convex quad, often with corners on pixel centers, where ties are.
    corners = np.array([[0.0, 0], [0, 8], [8, 8], [8, 0]]) + rng.uniform(0, 1.9, (4, 2))
    corners = np.round(corners) if on_pixels else corners
    vertices = np.column_stack([corners, np.zeros(4)])
    count = sum(
        rasterize(vertices, SQUARE[i : i + 1], 12, 12, cull_back_faces=False).mask.astype(int)
        for i in range(2)
    )
    both = rasterize(vertices, SQUARE, 12, 12, cull_back_faces=False).mask
    assert count.max() <= 1
    np.testing.assert_array_equal(count.astype(bool), both)
    inside = rasterize(vertices, SQUARE[:, ::-1], 12, 12, cull_back_faces=False).mask
    np.testing.assert_array_equal(inside, both)


def test_a_fan_has_neither_holes_nor_double_cover():
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    rim = 20 + 15 * np.column_stack([np.cos(angle), np.sin(angle)])
    vertices = np.column_stack([np.vstack([[20, 20], rim]), np.zeros(13)])
    triangles = np.array([[0, 1 + i, 1 + (i + 1) % 12] for i in range(12)])
    count = sum(
        rasterize(vertices, triangles[i : i + 1], 40, 40, cull_back_faces=False).mask.astype(int)
        for i in range(12)
    )
    y, x = np.mgrid[:40, :40]
    well_inside = np.hypot(x - 20, y - 20) < 14
    assert (count[well_inside] == 1).all() and count.max() == 1


def test_the_nearest_wins_whatever_the_order():
    plane = np.array([[-5.0, -5], [-5, 30], [30, -5]])
    near, far = (np.column_stack([plane, np.full(3, z)]) for z in (5.0, 1.0))
    for first, second in ((near, far), (far, near)):
        buffers = rasterize(np.vstack([first, second]), np.arange(6).reshape(2, 3), 8, 8)
        assert (buffers.depth == 5).all()


def test_back_faces_are_culled_only_when_asked():
    front = np.array([[0, 0, 0], [0, 9, 0], [9, 0, 0]])  # counter-clockwise once y points up
    back = front[[0, 2, 1]]
    triangle = np.array([[0, 1, 2]])
    assert rasterize(front, triangle, 8, 8).mask.any()
    assert not rasterize(back, triangle, 8, 8).mask.any()
    assert rasterize(back, triangle, 8, 8, cull_back_faces=False).mask.any()


@pytest.mark.parametrize(
    "vertices", [np.zeros((0, 3)), np.array([[50, 50, 0], [50, 60, 0], [60, 50, 0]])]
)
def test_nothing_in_sight_gives_empty_buffers(vertices):
    triangles = np.zeros((0, 3), int) if not len(vertices) else np.array([[0, 1, 2]])
    buffers = rasterize(vertices, triangles, 8, 8)
    assert not buffers.mask.any() and np.isneginf(buffers.depth).all()
    assert (buffers.barycentric == 0).all()


@pytest.mark.parametrize(
    "vertices, triangles, message",
    [
        (np.zeros((3, 2)), np.array([[0, 1, 2]]), "must be"),
        (np.zeros((3, 3)), np.array([[0, 1]]), "must be"),
        (np.full((3, 3), np.nan), np.array([[0, 1, 2]]), "finite"),
        (np.zeros((3, 3)), np.array([[0, 1, 3]]), "0 to 2"),
        (np.zeros((3, 3)), np.array([[0, 1, 2**32]]), "0 to 2"),
        (np.zeros((3, 3)), np.array([[0, 1, 1.7]]), "of float64; they must be whole numbers"),
    ],
)
def test_bad_meshes_are_refused(vertices, triangles, message):
    with pytest.raises(ValueError, match=message):
        rasterize(vertices, triangles, 8, 8)
