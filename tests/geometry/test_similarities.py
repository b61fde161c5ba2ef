"""Moved crops: landmarks, cameras and faces move along, with every array library alike."""

import numpy as np
import pytest
from random_faces import Faces

from keras_scnn.geometry.camera import project
from keras_scnn.geometry.landmarks68 import MIRROR68
from keras_scnn.geometry.similarities import invert, move_landmarks, move_parameters
from keras_scnn.morphable_model import mirror_matrices
from keras_scnn.parameters import FaceParameters, ParameterLayout

TURNING = np.array([[0.8, 0.3, 10.0], [-0.3, 0.8, 25.0]])
MIRRORING = np.array([[-0.9, 0.2, 118.0], [0.2, 0.9, 3.0]])
BOTH = np.stack([TURNING, MIRRORING])


# The mirror image of a coefficient is a coefficient but for the bases' rounding errors.
@pytest.mark.parametrize(("matrix", "atol"), [(TURNING, 1e-3), (MIRRORING, 0.02)])
def test_moved_parameters_have_the_moved_landmarks(open_face, matrix, atol):
    layout = ParameterLayout(open_face.n_identity, open_face.n_expression)
    faces, matrices = Faces(open_face, 4), np.tile(matrix, (4, 1, 1))
    vectors = FaceParameters(faces.camera, faces.identity, faces.expression).to_vector()
    moved = move_parameters(vectors, matrices, mirror_matrices(open_face))
    moved = FaceParameters.from_vector(moved, layout)
    landmarks = project(moved.pose, open_face.landmarks(moved.identity, moved.expression))
    expected = move_landmarks(faces.landmarks, matrices)
    np.testing.assert_allclose(landmarks[..., :2], expected[..., :2], atol=atol)
    depth = landmarks[..., 2] - expected[..., 2]
    depth = depth - depth.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(depth, 0, atol=atol)


def test_mirrored_landmarks_swap_their_sides():
    np.testing.assert_array_equal(MIRROR68[MIRROR68], np.arange(68))
    landmarks = np.random.default_rng(0).uniform(0, 120, (1, 68, 4))
    flip = np.array([[[-1.0, 0, 119], [0, 1, 0]]])
    (moved,), (before,) = move_landmarks(landmarks, flip), landmarks
    # iBUG: 36 is the outer corner of the eye on the left of the image, 45 on the right.
    np.testing.assert_allclose(moved[36], before[45] * [-1, 1, 1, 1] + [119, 0, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(moved[30], before[30] * [-1, 1, 1, 1] + [119, 0, 0, 0], rtol=1e-6)


def test_depth_scales_with_the_crop_and_weights_stay():
    landmarks = np.ones((1, 68, 4))
    doubled = np.array([[[2.0, 0, 0], [0, 2, 0]]])
    np.testing.assert_allclose(move_landmarks(landmarks, doubled)[0, 0], [2, 2, 2, 1])


def test_the_inverse_undoes_a_map():
    full = [np.vstack([m, [0, 0, 1]]) for m in (invert(BOTH)[1], MIRRORING)]
    np.testing.assert_allclose(full[0] @ full[1], np.eye(3), atol=1e-12)


@pytest.mark.parametrize("library", ["jax.numpy", "keras.ops"])
def test_every_array_library_gives_the_same(open_face, library):
    xp = pytest.importorskip(library)
    rng = np.random.default_rng(2)
    size = 12 + open_face.n_identity + open_face.n_expression
    given = rng.normal(size=(2, size)), rng.normal(20, 30, (2, 68, 4)), BOTH
    vectors, landmarks, matrices = (np.float32(array) for array in given)
    mirrors = mirror_matrices(open_face)
    expected = (
        move_parameters(vectors, matrices, mirrors),
        move_landmarks(landmarks, matrices),
        invert(matrices),
    )
    convert = xp.asarray if library == "jax.numpy" else xp.convert_to_tensor
    vectors, landmarks, matrices, *mirrors = map(convert, (vectors, landmarks, matrices, *mirrors))
    results = (
        move_parameters(vectors, matrices, mirrors, xp),
        move_landmarks(landmarks, matrices, xp),
        invert(matrices, xp),
    )
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_allclose(np.asarray(result), wanted, atol=1e-3)
