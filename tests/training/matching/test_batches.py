"""Batches made on an accelerator, against OpenCV, SciPy and the code that makes them on the CPU."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from keras_scnn.data.labels.recognizer import chip_from_landmarks
from keras_scnn.geometry.crops import invert_affine
from keras_scnn.models.recognizers.chips import (
    CHIP_LANDMARKS,
    CHIP_POINTS,
    CHIP_SIZE,
    DLIB_CHIP,
    weights_path,
)

jax = pytest.importorskip("jax")
jnp = pytest.importorskip("jax.numpy")

from keras_scnn.models.recognizers.dlib import DlibNetwork, read_recognizer  # noqa: E402
from keras_scnn.training.matching import batches  # noqa: E402
from keras_scnn.training.matching.batches import (  # noqa: E402
    BatchPlan,
    chips,
    draw,
    moves,
    recolor,
    render_blends,
)
from keras_scnn.training.matching.labels import SHAPE_LABELS, Supply  # noqa: E402

CROP, MARGIN = 120, 20
FRAME = CROP + 2 * MARGIN
TURNED = np.array([[[0.9, -0.3, 20.0], [0.3, 0.9, -15.0]], [[-0.8, 0.1, 110.0], [0.1, 0.8, 9.0]]])


def plan(people=3, photos=2, singles=40, blend_groups=1.0, blend_singles=1.0):
    return BatchPlan(people, photos, singles, blend_groups, blend_singles, CROP, MARGIN)


@pytest.fixture
def photos():
    """Twelve photos of four people, smooth random colors; the last two show their middle only."""
    rng = np.random.default_rng(0)
    small = rng.uniform(0, 255, (12, 12, 12, 3)).astype(np.float32)
    images = np.stack([cv2.resize(image, (FRAME, FRAME)) for image in small]).astype(np.uint32)
    packed = images[..., 0] | images[..., 1] << 8 | images[..., 2] << 16
    limits = np.tile(np.float32([0, 0, FRAME - 1, FRAME - 1]), (12, 1))
    limits[10:] = [20, 20, FRAME - 21, FRAME - 21]
    face = rng.uniform(0.2, 0.8, (68, 2)) * CROP
    points = face + rng.normal(0, 2, (12, 68, 2))
    landmarks = np.concatenate([points, rng.normal(0, 9, (12, 68, 1)), np.ones((12, 68, 1))], -1)
    table = np.arange(12).reshape(4, 3)
    arrays = {
        "frames": packed.ravel(),
        "limits": limits,
        "landmarks": landmarks.astype(np.float32),
        "identity": np.repeat(np.arange(4), 3),
        "euler": rng.normal(0, 20, (12, 3)).astype(np.float32),
        "is_frontal": np.arange(12) != 5,
        "frontal": np.delete(np.arange(12), 5),
        "of_person": np.c_[table, np.zeros((4, 2), int)],
        "count": np.full(4, 3),
        "single": np.arange(6),
        "single_cdf": np.linspace(1 / 6, 1, 6, dtype=np.float32),
    }
    return images.astype(np.uint8), {name: jnp.asarray(value) for name, value in arrays.items()}


def alone(*rows):
    rows = jnp.asarray(rows)
    return {"host": rows, "guest": rows, "share": jnp.zeros(len(rows))}


@pytest.mark.integration
def test_an_unblended_photo_is_moved_as_opencv_moves_it(photos):
    images, arrays = photos
    matrix = jnp.asarray(TURNED, jnp.float32)
    pixels, inside = render_blends(arrays, alone(1, 2), matrix, plan(), CROP)
    for i, row in enumerate((1, 2)):
        frame = np.float32([[1, 0, -MARGIN], [0, 1, -MARGIN]])
        matrix = TURNED[i] @ np.vstack([frame, [0, 0, 1]])
        options = {"flags": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_REPLICATE}
        expected = cv2.warpAffine(images[row].astype(np.float32), matrix, (CROP, CROP), **options)
        assert np.abs(pixels[i] - expected).max() < 3  # OpenCV rounds places to 1/32 px
        assert np.abs(pixels[i] - expected).mean() < 0.3
    assert 0.5 < inside[0].mean() < 1


@pytest.mark.integration
def test_outside_of_the_photo_its_edge_is_repeated(photos):
    _, arrays = photos
    whole = jnp.asarray([[[1.0, 0, 10], [0, 1, 0]]])
    pixels, inside = render_blends(arrays, alone(11), whole, plan(), CROP)
    np.testing.assert_array_equal(inside[0, :, :10], False)
    np.testing.assert_array_equal(inside[0, :, 10:], True)
    np.testing.assert_allclose(pixels[0, :, 0], pixels[0, :, 9], atol=1e-3)


@pytest.mark.integration
def test_a_batch_has_groups_of_one_person_and_guests_who_are_others(photos):
    _, arrays = photos
    drawn = {k: np.asarray(v) for k, v in draw(jax.random.key(0), arrays, plan()).items()}
    identity = np.asarray(arrays["identity"])
    groups = drawn["host"][:6].reshape(3, 2)
    assert (identity[groups[:, 0]] == identity[groups[:, 1]]).all()
    assert (groups[:, 0] != groups[:, 1]).all() and len(np.unique(identity[groups[:, 0]])) == 3
    guests = identity[drawn["guest"][:6]].reshape(3, 2)
    assert (guests[:, 0] == guests[:, 1]).all()
    assert (identity[drawn["guest"]] != identity[drawn["host"]]).all()
    np.testing.assert_array_equal(drawn["share"] == 0, drawn["host"] == 5)  # profile: unblended
    assert drawn["host"][6:].max() < 6 and len(np.unique(drawn["person"])) == 43


@pytest.fixture
def in_numpy(monkeypatch):
    """Batches are drawn with NumPy instead of JAX, which compiles for seconds."""
    rng = np.random.default_rng(0)
    random = SimpleNamespace(
        split=lambda key, count=2: [key] * count,
        uniform=lambda key, shape, minval=0.0, maxval=1.0: rng.uniform(minval, maxval, shape),
        randint=lambda key, shape, low, high: rng.integers(low, high, shape),
    )
    monkeypatch.setattr(batches, "jax", SimpleNamespace(random=random))
    monkeypatch.setattr(batches, "jnp", np)


@pytest.mark.usefixtures("in_numpy")
def test_a_single_photo_is_blended_with_somebody_else_however_alike_the_poses_are():
    """All photos of a person have one pose; the nearest other is 15 degrees away."""
    identity = np.repeat(np.arange(4), 3)
    photos = {"identity": identity, "euler": np.outer(identity, [0.0, 15, 0])}
    photos |= {"single": np.arange(12), "single_cdf": np.linspace(1 / 12, 1, 12)}
    hosts, guests, _ = batches._draw_singles(0, photos | {"frontal": np.arange(12)}, plan())
    np.testing.assert_array_equal(np.abs(identity[hosts] - identity[guests]), 1)


@pytest.mark.integration
def test_moves_give_about_the_standard_crop(photos):
    _, arrays = photos
    rows = jnp.asarray(np.arange(206) % 12)
    person = jnp.asarray(np.r_[np.zeros(3), np.ones(3), np.arange(2, 202)].astype(int))
    drawn = {"host": rows, "person": person}
    matrix = np.asarray(moves(jax.random.key(3), arrays, drawn, plan(2, 3, 200)))
    points = np.asarray(arrays["landmarks"])[np.asarray(rows), :, :2]
    center = (points.min(axis=1) + points.max(axis=1)) / 2
    placed = np.einsum("bij,bj->bi", matrix[..., :2], center) + matrix[..., 2]
    assert np.abs(placed.mean(axis=0) - (CROP - 1) / 2).max() < 1.5
    mirrored = np.linalg.det(matrix[..., :2]) < 0
    assert 0.35 < mirrored.mean() < 0.65
    assert len(set(mirrored[:3])) == len(set(mirrored[3:6])) == 1  # all of a group, or none


@pytest.mark.integration
def test_chips_are_those_of_the_recognizer(photos):
    landmarks = np.array(photos[1]["landmarks"])
    turn = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    landmarks[:, CHIP_LANDMARKS, :2] = 60 * CHIP_POINTS @ turn.T + [20, 30]
    arrays = photos[1] | {"landmarks": jnp.asarray(landmarks)}
    matrices = np.asarray(chips(arrays, alone(3, 7), DLIB_CHIP))
    for matrix, row in zip(matrices, (3, 7), strict=True):
        center, side, angle = chip_from_landmarks(np.asarray(arrays["landmarks"][row, :, :3]))
        middle = invert_affine(matrix) @ [(CHIP_SIZE - 1) / 2, (CHIP_SIZE - 1) / 2, 1]
        np.testing.assert_allclose(middle + 0.5, center, atol=1e-2)
        linear = matrix[:, :2]
        assert np.sqrt(np.linalg.det(linear)) == pytest.approx(CHIP_SIZE / side, rel=1e-4)
        assert np.arctan2(linear[0, 1], linear[0, 0]) == pytest.approx(angle, abs=1e-4)


@pytest.mark.integration
def test_colors_stay_colors_and_change(photos):
    images = jnp.asarray(photos[0][:, :40, :40], jnp.float32)
    changed = np.asarray(recolor(jax.random.key(1), images, jnp.ones((12, 40, 40, 1), bool)))
    assert changed.shape == images.shape and changed.min() >= 0 and changed.max() <= 255
    assert (np.abs(changed - images).mean(axis=(1, 2, 3)) > 0.5).all()


def test_the_recognizers_embeddings_are_those_of_dlib():
    """The package dlib is the reference."""
    dlib = pytest.importorskip("dlib")
    try:
        path = weights_path()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    small = np.random.default_rng(4).uniform(0, 255, (2, 10, 10, 3)).astype(np.uint8)
    images = np.stack([cv2.resize(image, (CHIP_SIZE, CHIP_SIZE)) for image in small])
    embeddings = DlibNetwork(*read_recognizer())(images.astype(np.float32))
    reference = dlib.face_recognition_model_v1(str(path))
    expected = np.array([reference.compute_face_descriptor(image) for image in images])
    np.testing.assert_allclose(np.asarray(embeddings), expected, atol=1e-3)


def test_shape_labels_are_taught_or_the_photos_own_fits():
    rng = np.random.default_rng(5)
    own, shapes, kernel, offset, gain, embedding = (
        rng.normal(size=size) for size in ((4, 3), (4, 3), (2, 3), 3, (3, 3), (3, 2))
    )
    host = np.array([2, 0, 1])
    photos = {"own": own, "shapes": shapes, "kernel": kernel, "offset": offset, "gain": gain}
    photos["is_frontal"] = np.array([True, False, True, True])
    photos = {name: jnp.asarray(array) for name, array in photos.items()}
    taught, single = (
        np.asarray(labels.of_batch(photos, host, embedding)) for labels in SHAPE_LABELS.values()
    )
    np.testing.assert_allclose(single, own[host], rtol=1e-5)
    np.testing.assert_allclose(taught[2], shapes[1], rtol=1e-5)  # turned: as it was labeled
    prior = embedding[0] @ kernel + offset
    np.testing.assert_allclose(taught[0], prior + gain @ (own[2] - prior), rtol=1e-4)


def test_the_means_of_both_sources_are_subtracted_from_a_blends_embedding():
    """So it is the blend of the two faces' embeddings, each minus the mean of its data set."""
    rng = np.random.default_rng(6)
    means, host, guest = (rng.normal(size=size) for size in ((2, 3), (4, 3), (4, 3)))
    source, length, share = np.array([0, 1]), np.array([2.0, 2, 5]), np.array([0.0, 0.3, 0.6, 1])
    drawn = {"host": np.array([0, 0, 1, 1]), "guest": np.array([1, 0, 0, 1]), "share": share}
    own = 1 - share[:, None], share[:, None]
    raw = own[0] * (means[drawn["host"]] + host) + own[1] * (means[drawn["guest"]] + guest)
    photos = {"means": means, "source": source, "length": length}
    centered = Supply._centered(None, photos, drawn, raw)
    np.testing.assert_allclose(centered, (own[0] * host + own[1] * guest) / length, rtol=1e-5)


@pytest.mark.integration
def test_guests_of_groups_are_never_turned_faces():
    """Of 300 people with three photos each, every third has only turned faces."""
    rng = np.random.default_rng(0)
    table = np.arange(900).reshape(300, 3)
    is_frontal = (rng.random((300, 3)) < 0.6) & (np.arange(300) % 3 != 0)[:, None]
    arrays = {
        "of_person": table,
        "count": np.full(300, 3),
        "identity": np.repeat(np.arange(300), 3),
        "euler": rng.normal(0, 20, (900, 3)).astype(np.float32),
        "is_frontal": is_frontal.ravel(),
        "frontal": np.flatnonzero(is_frontal),
        "single": np.arange(6),
        "single_cdf": np.linspace(1 / 6, 1, 6, dtype=np.float32),
    }
    arrays = {name: jnp.asarray(value) for name, value in arrays.items()}
    drawn = jax.jit(lambda key: draw(key, arrays, plan(300, singles=1)))(jax.random.key(4))
    hosts, guests, shares = (np.asarray(drawn[name])[:600] for name in ("host", "guest", "share"))
    assert is_frontal.ravel()[guests[shares > 0]].all()
    has_guest = is_frontal.any(axis=1)[guests // 3]
    assert 100 < has_guest.sum() < 500
    # Every photo with a guest is blended, except turned faces.
    np.testing.assert_array_equal(shares > 0, has_guest & is_frontal.ravel()[hosts])
