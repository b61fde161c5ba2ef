import numpy as np
import pytest

from keras_scnn.geometry.camera import compose, project
from keras_scnn.geometry.rasterizer import interpolate, rasterize
from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.geometry.shading import render
from keras_scnn.reconstruction.texture import TEXTURE_SIZE, photo_texture, vertex_colors

EVEN_LIGHT = np.zeros((9, 3), np.float32)
EVEN_LIGHT[0] = 1


@pytest.fixture(scope="module")
def painted() -> np.ndarray:
    """A smooth texture, the same on both sides of the face."""
    y, x = np.mgrid[:TEXTURE_SIZE, :TEXTURE_SIZE] / TEXTURE_SIZE
    red, green = 120 + 100 * np.cos(12 * (x - 0.5 + 0.5 / TEXTURE_SIZE)), 40 + 180 * y
    return np.stack([red, green, np.full_like(red, 90)], axis=-1).astype(np.float32)


def photo_of(model, texture, yaw_degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """A photo of the mean face that shows the texture as it is, and the posed vertices."""
    rotation = rotation_from_euler(np.deg2rad([0, yaw_degrees, 0]))
    posed = project(compose(rotation, 1.6, np.array([250.0, 250, 0])), model.vertices())
    background = np.zeros((500, 500, 3), np.float32)
    image, _ = render(posed, model.triangles, model.uv, texture, EVEN_LIGHT, background)
    gain = np.median(image[image[..., 2] > 0][:, 2]) / 90  # of the light
    return np.clip(image / gain, 0, 255).astype(np.uint8), posed


@pytest.fixture(scope="module")
def outer_texels(open_face) -> np.ndarray:
    """Texels of the face's skin, away from the mouth's inside and the edges of the map."""
    flat = np.column_stack(
        [(open_face.uv * [1, -1] + [0, 1]) * TEXTURE_SIZE - 0.5, np.zeros(open_face.n_vertices)]
    )
    shape = TEXTURE_SIZE, TEXTURE_SIZE
    texels = rasterize(flat, open_face.triangles, *shape, cull_back_faces=False)
    place = interpolate(texels, open_face.triangles, open_face.vertices())
    low, high = (edge(open_face.landmarks(), axis=0) for edge in (np.min, np.max))
    inside = ((place > low) & (place < high))[..., :2].all(axis=-1)
    return texels.mask & inside & (place[..., 2] > np.percentile(open_face.landmarks()[:, 2], 20))


@pytest.mark.parametrize(("yaw", "share"), [(0, 0.9), (35, 0.85), (-60, 0.7)])
def test_a_rendered_face_gives_its_texture_back(open_face, painted, outer_texels, yaw, share):
    """The far side too, since the texture is symmetric: it comes from the side that is seen."""
    image, posed = photo_of(open_face, painted, yaw)
    error = np.abs(photo_texture(open_face, image, posed) - painted).max(axis=-1)
    assert (error[outer_texels] < 16).mean() > share


def test_the_side_that_is_seen_is_not_mixed_with_the_hidden_one(open_face, painted, outer_texels):
    lopsided = painted.copy()
    lopsided[:, : TEXTURE_SIZE // 2, 1] *= 0.6
    image, posed = photo_of(open_face, lopsided, 0)
    error = np.abs(photo_texture(open_face, image, posed) - lopsided).max(axis=-1)
    assert (error[outer_texels] < 16).mean() > 0.85


def test_a_vertex_has_the_color_of_its_texel(open_face):
    """u = 0 is the outer edge of the first texel, as in OBJ and glTF."""
    middle = (np.arange(TEXTURE_SIZE) + 0.5) / TEXTURE_SIZE
    u, v = np.meshgrid(middle, 1 - middle)
    texture = (np.stack([u, v, u], axis=-1) * 255).round().astype(np.uint8)
    colors = vertex_colors(open_face, texture)
    np.testing.assert_allclose(colors[:, :2], np.clip(open_face.uv, 0, 1) * 255, atol=1.5)


def test_a_face_outside_of_the_photo_has_a_texture_all_the_same(open_face, painted):
    image, posed = photo_of(open_face, painted, 0)
    texture = photo_texture(open_face, image, posed + [2000, 0, 0])
    assert texture.shape == (TEXTURE_SIZE, TEXTURE_SIZE, 3)


def test_a_model_without_uv_is_refused(open_face, painted):
    image, posed = photo_of(open_face, painted, 0)
    with pytest.raises(ValueError, match="has no uv"):
        photo_texture(open_face.replace(uv=None), image, posed)
    with pytest.raises(ValueError, match="has no uv"):
        vertex_colors(open_face.replace(uv=None), painted)
