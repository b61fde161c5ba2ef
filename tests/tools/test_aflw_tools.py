"""The tools that made the released weights: targets, augmentation, landmark offsets."""

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from random_faces import Faces

from keras_scnn.data.augment import UPRIGHT, augment
from keras_scnn.data.sources.aflw import AflwTargets
from keras_scnn.geometry.camera import project
from keras_scnn.geometry.landmarks68 import MIRROR68
from keras_scnn.parameters import FaceParameters, ParameterLayout

TOOLS = Path(__file__).resolve().parents[2] / "tools"
# What one person looks like in a mirror does not depend on which side of the face is called left.
MIRRORING = np.array([[-0.9, 0.2, 118.0], [0.2, 0.9, 3.0]])
TURNING = np.array([[0.8, 0.3, 10.0], [-0.3, 0.8, 25.0]])


@pytest.fixture(autouse=True)
def tools(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    yield
    for name in ("aflw_fit", "train_aflw_preset"):
        sys.modules.pop(name, None)


# The mirror image of a coefficient is a coefficient but for the bases' rounding errors.
@pytest.mark.parametrize(("matrix", "atol"), [(TURNING, 1e-3), (MIRRORING, 0.02)])
def test_moved_parameters_have_the_moved_landmarks(open_face, matrix, atol):
    from keras_scnn.data.augment import ParameterMover, move_landmarks

    layout = ParameterLayout(open_face.n_identity, open_face.n_expression)
    faces, mover = Faces(open_face, 4), ParameterMover(open_face)
    vectors = FaceParameters(faces.camera, faces.identity, faces.expression).to_vector()
    for vector, landmarks in zip(vectors, faces.landmarks, strict=True):
        moved = FaceParameters.from_vector(mover(matrix, vector), layout)
        found = project(moved.pose, open_face.landmarks(moved.identity, moved.expression))
        expected = move_landmarks(matrix, landmarks)
        np.testing.assert_allclose(found[:, :2], expected[:, :2], atol=atol)
        depth = found[:, 2] - expected[:, 2]
        np.testing.assert_allclose(depth, depth.mean(), atol=atol)


def test_mirrored_landmarks_swap_their_sides():
    from keras_scnn.data.augment import move_landmarks

    np.testing.assert_array_equal(MIRROR68[MIRROR68], np.arange(68))
    landmarks = np.random.default_rng(0).uniform(0, 120, (68, 3))
    flip = np.array([[-1.0, 0, 119], [0, 1, 0]])
    moved = move_landmarks(flip, landmarks)
    # iBUG: 36 is the outer corner of the eye on the left of the image, 45 on the right.
    np.testing.assert_allclose(moved[36], landmarks[45] * [-1, 1, 1] + [119, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(moved[30], landmarks[30] * [-1, 1, 1] + [119, 0, 0], rtol=1e-6)


def test_some_faces_lie_down_or_stand_on_their_heads():
    """By default 8 % are turned by any angle: two thirds of those by more than 60 degrees."""
    landmarks = np.random.default_rng(0).uniform(30, 90, (68, 3))
    image, rng = np.zeros((120, 120, 3), np.uint8), np.random.default_rng(1)
    matrices = [augment(rng, image, landmarks, mirror=False)[1] for _ in range(3000)]
    angles = [abs(np.rad2deg(np.arctan2(m[1, 0], m[0, 0]))) for m in matrices]
    assert np.mean(np.array(angles) > 60) == pytest.approx(0.08 * 2 / 3, abs=0.012)
    upright = [augment(rng, image, landmarks, UPRIGHT, False)[1] for _ in range(300)]
    assert max(abs(np.rad2deg(np.arctan2(m[1, 0], m[0, 0]))) for m in upright) < 30


def test_a_crop_and_its_landmarks_move_together():
    """White dots on black stand, after augmentation, where the moved landmarks say."""
    from keras_scnn.data.augment import augment, move_landmarks

    rng = np.random.default_rng(3)
    landmarks = np.column_stack([rng.uniform(35, 85, (68, 2)), np.zeros(68)])
    errors = []
    for trial in range(40):
        image = np.zeros((120, 120, 3), np.uint8)
        x, y = landmarks[trial % 68, :2].round().astype(int)
        image[y - 2 : y + 3, x - 2 : x + 3] = 255
        seen, matrix = augment(rng, image, landmarks)
        dot = move_landmarks(matrix, np.tile([x, y, 0.0], (68, 1)))[0, :2]
        gray = seen.astype(float).mean(axis=-1)
        rows, columns = np.nonzero(gray > 0.6 * gray.max())
        errors.append(np.hypot(columns.mean() - dot[0], rows.mean() - dot[1]))
    # A patch of noise may hide or outshine a dot, no more than now and then.
    assert np.median(errors) < 0.5
    assert np.mean(np.array(errors) < 1) > 0.7


def test_learned_landmark_offsets_are_those_of_the_annotation(open_face, capsys):
    """Faces annotated 3 mm beside the model's chin: the tool finds the 3 mm, and their direction.

    What the shape can explain as well, by a longer chin, is taken as shape: so most of it.
    """
    from aflw_fit import _learn_offsets

    truth = np.zeros((68, 3))
    truth[8] = [0, -3, 0]
    plain = open_face.replace(landmark_offsets=np.zeros((68, 3)))
    faces = Faces(plain.replace(landmark_offsets=truth), 60)
    targets = AflwTargets(
        np.arange(60).astype(str),
        faces.landmarks,
        np.zeros(60),
        np.zeros(60, bool),
        np.ones((60, 68)),
    )
    offsets = _learn_offsets(plain, targets)
    assert -4.0 < offsets[8, 1] < -1.5
    assert np.abs(np.delete(offsets, [6, 7, 8, 9, 10], axis=0)).max() < 1.0
    assert "mm left over" in capsys.readouterr().out


def test_training_keeps_its_weights_and_learns(tmp_path, monkeypatch, capsys):
    keras = pytest.importorskip("keras")
    import train_aflw_preset

    monkeypatch.setattr(train_aflw_preset, "KEEP_EVERY", 20)
    image = keras.Input((8, 8, 3))
    points = keras.layers.Dense(68 * 3)(keras.layers.Flatten()(image))
    model = keras.Model(image, {"landmarks": keras.layers.Reshape((68, 3))(points)})
    rng = np.random.default_rng(0)
    fixed = rng.uniform(0, 1, (4, 8, 8, 3)), rng.uniform(0, 20, (4, 68, 3)), np.zeros((4, 5))
    before = train_aflw_preset.validation_nme(*fixed[:2], model)
    weights = tmp_path / "made.weights.h5"
    told = []
    train_aflw_preset.train(
        model, itertools.repeat(fixed), 200, 0.1, 0.1, weights,
        lambda m: told.append(train_aflw_preset.validation_nme(*fixed[:2], m)) or told[-1],
    )  # fmt: skip
    assert told[0] < 0.8 * before
    assert {p.name for p in tmp_path.iterdir()} == {weights.name, f"running-{weights.name}"}
    model.load_weights(weights)
    assert train_aflw_preset.validation_nme(*fixed[:2], model) == pytest.approx(told[0])
    assert "held-out NME" in capsys.readouterr().out
