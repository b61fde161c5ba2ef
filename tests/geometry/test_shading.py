import numpy as np
import pytest
from scipy.special import sph_harm_y

from keras_scnn.geometry.mesh import vertex_normals
from keras_scnn.geometry.rasterizer import interpolate, rasterize
from keras_scnn.geometry.shading import render, sample_texture, shade, spherical_harmonics

ORDER = [(0, 0), (1, -1), (1, 0), (1, 1), (2, -2), (2, -1), (2, 0), (2, 1), (2, 2)]


def real_harmonic(degree, order, normal):
    """From SciPy's complex harmonics (with the Condon-Shortley phase, which is taken off)."""
    x, y, z = normal
    value = sph_harm_y(degree, abs(order), np.arccos(z), np.arctan2(y, x))
    if order == 0:
        return value.real
    return np.sqrt(2) * (-1) ** order * (value.imag if order < 0 else value.real)


def test_the_harmonics_are_scipys():
    normals = np.random.default_rng(0).normal(size=(20, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    expected = [[real_harmonic(*index, n) for index in ORDER] for n in normals]
    np.testing.assert_allclose(spherical_harmonics(normals), expected, atol=1e-5)


def test_whole_numbers_are_normals_too():
    axes = np.eye(3, dtype=int)
    np.testing.assert_array_equal(spherical_harmonics(axes), spherical_harmonics(np.eye(3)))
    light = np.arange(27.0).reshape(9, 3)
    np.testing.assert_array_equal(shade(axes.tolist(), light), shade(np.eye(3), light))
    assert spherical_harmonics(np.float32(axes)).dtype == np.float32


def test_ambient_light_is_the_same_from_all_sides():
    light = np.zeros((9, 3))
    light[0] = [1, 2, 3]
    normals = np.array([[0, 0, 1.0], [0, 1, 0], [-1, 0, 0]])
    colors = shade(normals, light)
    np.testing.assert_allclose(colors, np.tile(0.282095 * np.array([1, 2, 3]), (3, 1)))


@pytest.mark.parametrize(
    "uv, expected", [((0, 1), 0), ((1, 1), 1), ((0, 0), 2), ((1, 0), 3), ((0.5, 0.5), 1.5)]
)
def test_texture_coordinates_run_right_and_up(uv, expected):
    texture = np.array([[[0.0], [1.0]], [[2.0], [3.0]]])
    assert sample_texture(texture, np.array(uv))[0] == pytest.approx(expected)


def rendered_plane(side: int, texture: np.ndarray, background: np.ndarray):
    """Image and mask of a square of ``side`` px with all of a texture, in even light of 1."""
    corners = side * np.array([[0.0, 0], [0, 1], [1, 1], [1, 0]])
    vertices = np.column_stack([corners, np.zeros(4)])
    uv = np.array([[0, 1.0], [0, 0], [1, 0], [1, 1]])
    light = np.zeros((9, 3))
    light[0] = 1 / 0.282095
    return render(vertices, [[0, 1, 2], [0, 2, 3]], uv, texture, light, background)


def test_a_rendered_plane_shows_its_texture_under_its_light():
    texture = np.random.default_rng(0).uniform(50, 200, (16, 16, 3))
    image, mask = rendered_plane(15, texture, np.full((20, 20, 3), 7.0))
    # A texel for every pixel: the image is the texture, but for rounding. (The outermost
    # pixel centers lie on the plane's edges, and an edge may belong to the outside.)
    inner = slice(1, 15)
    np.testing.assert_allclose(image[inner, inner], texture[inner, inner], rtol=0, atol=0.51)
    assert mask[inner, inner].all() and not mask[16:].any()
    assert (image[~mask] == 7).all()


@pytest.mark.parametrize(("value", "drawn"), [(99.4, 99), (99.6, 100), (-3.0, 0), (255.7, 255)])
def test_colors_are_rounded_to_the_nearest_in_range(value, drawn):
    image, mask = rendered_plane(8, np.full((4, 4, 3), value), np.full((8, 8, 3), value))
    assert set(image[mask].ravel()) == {drawn}
    assert set(image[~mask].ravel()) == {drawn}


def test_between_texels_a_rendered_plane_shows_their_blend():
    texture = np.random.default_rng(1).uniform(50, 200, (16, 16, 3))
    image, _ = rendered_plane(45, texture, np.zeros((50, 50, 3)))
    y, x = np.mgrid[1:45, 1:45]  # three pixels a texel
    place = np.stack([x / 45, 1 - y / 45], axis=-1)
    np.testing.assert_allclose(image[1:45, 1:45], sample_texture(texture, place), rtol=0, atol=0.51)


def test_a_curved_surface_has_the_texture_and_the_light_of_its_pixels():
    """As from the buffers of ``rasterize``, which tests compare with definitions."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[2:38:6j, 2:38:6j]
    vertices = np.stack([x, y, rng.uniform(-4, 4, x.shape)], axis=-1).reshape(-1, 3)
    corner = np.arange(36).reshape(6, 6)
    quads = [corner[:-1, :-1], corner[1:, :-1], corner[1:, 1:], corner[:-1, 1:]]
    triangles = np.concatenate(
        [np.stack([quads[i].ravel() for i in t], axis=-1) for t in ((0, 1, 2), (0, 2, 3))]
    )
    uv, texture = rng.uniform(0, 1, (36, 2)), rng.uniform(50, 120, (9, 9, 3))
    light = rng.uniform(-0.3, 0.3, (9, 3))
    light[0] = [2.5, 3.0, 3.5]
    image, mask = render(vertices, triangles, uv, texture, light, np.zeros((40, 40, 3)))
    buffers = rasterize(vertices, triangles, 40, 40)
    normals = vertex_normals(vertices * [1, -1, 1], triangles)
    albedo = sample_texture(texture, interpolate(buffers, triangles, uv))
    expected = albedo * interpolate(buffers, triangles, shade(normals, light))
    assert mask.sum() > 1000 and (mask == buffers.mask).all()
    np.testing.assert_allclose(image[mask], np.floor(expected[mask]), atol=1)
    behind = render(vertices, triangles[:, ::-1], uv, texture, light, np.zeros((40, 40, 3)))
    assert not behind[1].any()  # seen from behind, nothing is drawn


@pytest.mark.parametrize("uv", [np.zeros((2, 2)), np.zeros((3, 3)), None])
def test_too_few_texture_coordinates_are_refused(uv):
    vertices = np.array([[0, 0, 0], [0, 4, 0], [4, 0, 0.0]])
    with pytest.raises(ValueError, match=r"uv has the shape .* must be \(3, 2\)"):
        render(vertices, [[0, 1, 2]], uv, np.ones((4, 4, 3)), np.ones((9, 3)), np.zeros((5, 5, 3)))
