import numpy as np
import pytest

from keras_scnn.data.synthesis.elastic_sheet import _harmonic, bend_image
from keras_scnn.data.synthesis.profiling import turn_face
from keras_scnn.geometry.camera import compose, decompose, project
from keras_scnn.geometry.rasterizer import rasterize
from keras_scnn.geometry.rotations import euler_from_rotation, rotation_from_euler
from keras_scnn.geometry.shading import render
from keras_scnn.parameters import FaceParameters

SIZE = 240
EVEN_LIGHT = np.zeros((9, 3), np.float32)
EVEN_LIGHT[0] = 1


def parameters(model, yaw=0.0, pitch=0.0, roll=0.0) -> FaceParameters:
    rotation = rotation_from_euler(np.deg2rad([pitch, yaw, roll]))
    pose = compose(rotation, 0.75, np.array([SIZE / 2, SIZE / 2, 0]))
    rng = np.random.default_rng(1)
    return FaceParameters(pose, rng.normal(size=model.n_identity), np.zeros(model.n_expression))


@pytest.fixture(scope="module")
def texture() -> np.ndarray:
    """Smooth, and the same on both sides of the face."""
    y, x = np.mgrid[:256, :256] / 256
    red, green = 130 + 80 * np.cos(12 * (x - 0.498)), 60 + 150 * y
    return np.stack([red, green, np.full_like(red, 100)], axis=-1).astype(np.float32)


def photo(model, face: FaceParameters, texture) -> np.ndarray:
    """A rendering before a smooth background."""
    posed = project(face.pose, model.vertices(face.identity, face.expression))
    ramp = np.linspace(0, 200, SIZE, dtype=np.float32)
    background = np.stack([np.tile(ramp, (SIZE, 1)), np.tile(ramp[:, None], (1, SIZE))], axis=-1)
    background = np.dstack([background, np.full((SIZE, SIZE), 255, np.float32)])
    scale = 1 / (EVEN_LIGHT[0, 0] * 0.282095 * np.pi)  # the constant of even light
    image, _ = render(posed, model.triangles, model.uv, texture * scale, EVEN_LIGHT, background)
    return image


def face_mask(model, face: FaceParameters, margin: float = 0.0) -> np.ndarray:
    """Where the front of the face is seen: around its landmarks."""
    shape = model.vertices(face.identity, face.expression)
    low, high = (edge(model.landmarks(face.identity), axis=0) for edge in (np.min, np.max))
    front = ((shape > low + margin) & (shape < high - margin))[:, :2].all(axis=1)
    keep = front[model.triangles].all(axis=1)
    return rasterize(project(face.pose, shape), model.triangles[keep], SIZE, SIZE).mask


@pytest.mark.integration
@pytest.mark.parametrize(("yaw", "pitch"), [(30, 0), (-45, 0), (0, 20), (20, -15)])
def test_the_new_camera_is_the_old_one_turned(open_face, texture, yaw, pitch):
    face = parameters(open_face, roll=10)
    _, turned = turn_face(photo(open_face, face, texture), open_face, face, yaw, pitch)
    before, scale, _ = decompose(face.pose)
    after, same_scale, _ = decompose(turned.pose)
    expected = before @ rotation_from_euler(np.deg2rad([pitch, yaw, 0.0]))
    np.testing.assert_allclose(after, expected, atol=1e-6)
    assert same_scale == pytest.approx(scale)
    # The middle of the ears stays in its place.
    ears = open_face.landmarks(face.identity)[[0, 16]].mean(axis=0)
    one, two = (project(f.pose, ears[None])[0, :2] for f in (face, turned))
    np.testing.assert_allclose(one, two, atol=1e-6)
    np.testing.assert_array_equal(turned.identity, face.identity)


@pytest.mark.integration
def test_a_frontal_face_turned_by_yaw_has_that_yaw(open_face, texture):
    face = parameters(open_face)
    _, turned = turn_face(photo(open_face, face, texture), open_face, face, 25)
    euler = np.rad2deg(euler_from_rotation(decompose(turned.pose)[0]))
    np.testing.assert_allclose(euler, [0, 25, 0], atol=1e-4)


def test_no_turn_leaves_the_photo_as_it_is(open_face, texture):
    face = parameters(open_face)
    image = photo(open_face, face, texture)
    again, _ = turn_face(image, open_face, face, 0)
    assert np.abs(again.astype(int) - image).mean() < 1.5
    mask = face_mask(open_face, face, margin=8)
    assert np.median(np.abs(again.astype(int) - image)[mask]) <= 2


@pytest.mark.parametrize(
    ("start", "yaw", "share"),
    [(0, 20, 0.9), (0, -40, 0.8), (35, -40, 0.8), (55, -55, 0.85), (-55, 55, 0.85)],
)
def test_a_turned_rendering_is_the_rendering_of_the_turned_face(
    open_face, texture, start, yaw, share
):
    """Also where the face was hidden, since its other side looks the same."""
    face = parameters(open_face, yaw=start)
    image, turned = turn_face(photo(open_face, face, texture), open_face, face, yaw)
    expected = photo(open_face, turned, texture).astype(int)
    error = np.abs(image - expected).max(axis=-1)
    assert (error[face_mask(open_face, turned, margin=5)] < 20).mean() > share


def test_the_photos_edges_stay_in_place(open_face, texture):
    face = parameters(open_face)
    image = photo(open_face, face, texture)
    turned, _ = turn_face(image, open_face, face, 40)
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        np.testing.assert_allclose(turned[edge].astype(int), image[edge], atol=12)


def test_harmonic_values_are_the_means_of_their_neighbors():
    rng = np.random.default_rng(0)
    values, known = rng.normal(size=(9, 12, 2)), rng.random((9, 12)) < 0.2
    known[[0, -1]] = known[:, [0, -1]] = True
    filled = _harmonic(values, known)
    np.testing.assert_array_equal(filled[known], values[known])
    mean = (filled[:-2, 1:-1] + filled[2:, 1:-1] + filled[1:-1, :-2] + filled[1:-1, 2:]) / 4
    inner = ~known[1:-1, 1:-1]
    np.testing.assert_allclose(filled[1:-1, 1:-1][inner], mean[inner], atol=1e-9)


def test_the_sheet_shows_a_moved_surface_where_it_is():
    """A bright dot on a plane before the photo, turned by 30 degrees about an upright axis."""
    y, x = np.mgrid[:120, :120]
    dot = 255 * np.exp(-((x - 75) ** 2 + (y - 60) ** 2) / 18)
    image = np.repeat(dot[..., None], 3, axis=-1).astype(np.uint8)
    plane = np.array([[30, 30, 20], [30, 90, 20], [90, 30, 20], [90, 90, 20]], float)
    triangles = np.array([[0, 1, 2], [2, 1, 3]])
    angle = np.deg2rad(30)
    motion = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    pivot = np.array([60.0, 60, 0])
    light = bend_image(image, plane, triangles, motion, pivot)[..., 0].astype(float)
    expected = motion @ (np.array([75.0, 60, 20]) - pivot) + pivot
    result = (light * x).sum() / light.sum(), (light * y).sum() / light.sum()
    np.testing.assert_allclose(result, expected[:2], atol=0.5)


def test_invalid_photos_and_turns_are_refused(open_face, texture):
    face = parameters(open_face)
    image = photo(open_face, face, texture)
    with pytest.raises(ValueError, match="up to 60"):
        turn_face(image, open_face, face, 70)
    with pytest.raises(ValueError, match="uint8 RGB"):
        turn_face(image.astype(float), open_face, face, 10)
    with pytest.raises(ValueError, match="has no uv"):
        turn_face(image, open_face.replace(uv=None), face, 10)
    dot = compose(np.eye(3), 0.75 / SIZE, face.pose[:, 3] + 0.5)
    with pytest.raises(ValueError, match="no more than about 3 px wide"):
        turn_face(image, open_face, FaceParameters(dot, face.identity, face.expression), 10)
    away = FaceParameters(face.pose + np.eye(3, 4, 3) * 400, face.identity, face.expression)
    with pytest.raises(ValueError, match="outside of the photo"):
        turn_face(image, open_face, away, 10)
