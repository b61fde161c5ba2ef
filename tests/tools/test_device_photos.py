"""Batches made on an accelerator, against OpenCV, SciPy and the code that makes them on the CPU."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from keras_scnn.data.augment import ParameterMover, move_landmarks
from keras_scnn.data.labels.recognizer import (
    CHIP_LANDMARKS,
    CHIP_POINTS,
    CHIP_SIZE,
    chip_from_landmarks,
    weights_path,
)
from keras_scnn.geometry.crops import invert_affine
from keras_scnn.morphable_model import mirror_matrices

jnp = pytest.importorskip("jax.numpy")
TOOLS = Path(__file__).resolve().parents[2] / "tools"
TURNED = np.array([[[0.9, -0.3, 20.0], [0.3, 0.9, -15.0]], [[-0.8, 0.1, 110.0], [0.1, 0.8, 9.0]]])


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)


@pytest.fixture
def photos(tools):
    """Twelve photos of four people, smooth random colors; the last two show their middle only."""
    from device_photos import CROP, FRAME

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


def test_an_unmixed_photo_is_moved_as_opencv_moves_it(photos):
    from device_photos import CROP, MARGIN, render

    images, arrays = photos
    told, inside = render(arrays, alone(1, 2), jnp.asarray(TURNED, jnp.float32), CROP)
    for i, row in enumerate((1, 2)):
        frame = np.float32([[1, 0, -MARGIN], [0, 1, -MARGIN]])
        matrix = TURNED[i] @ np.vstack([frame, [0, 0, 1]])
        options = {"flags": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_REPLICATE}
        expected = cv2.warpAffine(images[row].astype(np.float32), matrix, (CROP, CROP), **options)
        assert np.abs(told[i] - expected).max() < 3  # OpenCV rounds places to 1/32 px
        assert np.abs(told[i] - expected).mean() < 0.3
    assert 0.5 < inside[0].mean() < 1


def test_outside_of_the_photo_its_rim_goes_on(photos):
    from device_photos import CROP, render

    _, arrays = photos
    whole = jnp.asarray([[[1.0, 0, 10], [0, 1, 0]]])
    told, inside = render(arrays, alone(11), whole, CROP)
    np.testing.assert_array_equal(inside[0, :, :10], False)
    np.testing.assert_array_equal(inside[0, :, 10:], True)
    np.testing.assert_allclose(told[0, :, 0], told[0, :, 9], atol=1e-3)


def test_a_guest_is_bent_to_the_landmarks_of_the_host(photos, tools):
    from device_photos import bend

    rng = np.random.default_rng(1)
    before = np.stack(np.meshgrid(np.linspace(20, 100, 9), np.linspace(20, 100, 8)), -1)
    before = before.reshape(1, -1, 2)[:, :68]
    affine = before @ np.array([[1.1, 0.2], [-0.1, 0.9]]) + [5, -3]
    # An affine motion exactly, anywhere; a smooth one at the landmarks to a part of a pixel.
    places = rng.uniform(0, 119, (1, 50, 2))
    expected = places @ np.array([[1.1, 0.2], [-0.1, 0.9]]) + [5, -3]
    given = (jnp.asarray(x, jnp.float32) for x in (places, before, affine))
    np.testing.assert_allclose(bend(*given), expected, atol=1e-3)
    smooth = affine + 3 * np.sin(before / 25)
    given = (jnp.asarray(x, jnp.float32) for x in (before, before, smooth))
    assert np.abs(bend(*given) - smooth).mean() < 0.3 < np.abs(smooth - affine).mean()


def test_a_batch_has_groups_of_one_person_and_guests_who_are_others(photos):
    import jax

    from device_photos import BatchPlan, draw

    _, arrays = photos
    plan = BatchPlan(people=3, photos=2, singles=40, mixed=1.0, mixed_groups=1.0)
    drawn = {k: np.asarray(v) for k, v in draw(jax.random.key(0), arrays, plan).items()}
    identity = np.asarray(arrays["identity"])
    groups = drawn["host"][:6].reshape(3, 2)
    assert (identity[groups[:, 0]] == identity[groups[:, 1]]).all()
    assert (groups[:, 0] != groups[:, 1]).all() and len(np.unique(identity[groups[:, 0]])) == 3
    guests = identity[drawn["guest"][:6]].reshape(3, 2)
    assert (guests[:, 0] == guests[:, 1]).all()
    assert (identity[drawn["guest"]] != identity[drawn["host"]]).all()
    np.testing.assert_array_equal(drawn["share"] == 0, drawn["host"] == 5)  # a profile stays whole
    assert drawn["host"][6:].max() < 6 and len(np.unique(drawn["person"])) == 43


def test_labels_move_as_they_do_on_the_cpu(photos, open_face):
    from device_photos import move_labels

    _, arrays = photos
    size = 12 + open_face.n_identity + open_face.n_expression
    vectors = np.random.default_rng(2).normal(size=(2, size)).astype(np.float32)
    landmarks = np.asarray(arrays["landmarks"][:2])
    mirrors = [jnp.asarray(matrix) for matrix in mirror_matrices(open_face)]
    given = (jnp.asarray(x, jnp.float32) for x in (TURNED, landmarks, vectors))
    points, moved = move_labels(*given, mirrors)
    mover = ParameterMover(open_face)
    for i in range(2):
        np.testing.assert_allclose(points[i], move_landmarks(TURNED[i], landmarks[i]), atol=1e-3)
        np.testing.assert_allclose(moved[i], mover(TURNED[i], vectors[i]), atol=1e-3)


def test_moves_put_the_standard_crop_near_the_image(photos):
    import jax

    from device_photos import CROP, BatchPlan, moves

    _, arrays = photos
    plan = BatchPlan(people=2, photos=3, singles=200)
    rows = jnp.asarray(np.arange(206) % 12)
    person = jnp.asarray(np.r_[np.zeros(3), np.ones(3), np.arange(2, 202)].astype(int))
    drawn = {"host": rows, "person": person}
    matrix = np.asarray(moves(jax.random.key(3), arrays, drawn, plan))
    points = np.asarray(arrays["landmarks"])[np.asarray(rows), :, :2]
    center = (points.min(axis=1) + points.max(axis=1)) / 2
    placed = np.einsum("bij,bj->bi", matrix[..., :2], center) + matrix[..., 2]
    assert np.abs(placed.mean(axis=0) - (CROP - 1) / 2).max() < 1.5
    mirrored = np.linalg.det(matrix[..., :2]) < 0
    assert 0.35 < mirrored.mean() < 0.65
    assert len(set(mirrored[:3])) == len(set(mirrored[3:6])) == 1  # all of a group or none


def test_chips_are_those_of_the_recognizer(photos):
    from device_photos import chips

    landmarks = np.array(photos[1]["landmarks"])
    turn = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    landmarks[:, CHIP_LANDMARKS, :2] = 60 * CHIP_POINTS @ turn.T + [20, 30]
    arrays = photos[1] | {"landmarks": jnp.asarray(landmarks)}
    told = np.asarray(chips(arrays, alone(3, 7)))
    for matrix, row in zip(told, (3, 7), strict=True):
        center, side, angle = chip_from_landmarks(np.asarray(arrays["landmarks"][row, :, :3]))
        middle = invert_affine(matrix) @ [(CHIP_SIZE - 1) / 2, (CHIP_SIZE - 1) / 2, 1]
        np.testing.assert_allclose(middle + 0.5, center, atol=1e-2)
        linear = matrix[:, :2]
        assert np.sqrt(np.linalg.det(linear)) == pytest.approx(CHIP_SIZE / side, rel=1e-4)
        assert np.arctan2(linear[0, 1], linear[0, 0]) == pytest.approx(angle, abs=1e-4)


def test_colors_stay_colors_and_change(photos):
    import jax

    from device_photos import recolor

    images = jnp.asarray(photos[0][:, :40, :40], jnp.float32)
    told = np.asarray(recolor(jax.random.key(1), images, jnp.ones((12, 40, 40, 1), bool)))
    assert told.shape == images.shape and told.min() >= 0 and told.max() <= 255
    assert (np.abs(told - images).mean(axis=(1, 2, 3)) > 0.5).all()


def test_the_whole_recognizer_says_what_dlib_says(tools):
    """The package dlib is the reference."""
    from dlib_network import DlibNetwork
    from join_recognizer import read_tensors

    dlib = pytest.importorskip("dlib")
    try:
        path = weights_path()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    small = np.random.default_rng(4).uniform(0, 255, (2, 10, 10, 3)).astype(np.uint8)
    chips = np.stack([cv2.resize(image, (CHIP_SIZE, CHIP_SIZE)) for image in small])
    told = DlibNetwork(read_tensors(path.read_bytes()))(chips.astype(np.float32))
    dlibs = dlib.face_recognition_model_v1(str(path))
    expected = np.array([dlibs.compute_face_descriptor(chip) for chip in chips])
    np.testing.assert_allclose(np.asarray(told), expected, atol=1e-3)
