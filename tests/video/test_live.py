import dataclasses

import numpy as np
import pytest

from keras_scnn.geometry.camera import compose, decompose
from keras_scnn.geometry.rotations import rotation_angle, rotation_from_euler
from keras_scnn.parameters import FaceParameters
from keras_scnn.photos.cropping import FaceBox
from keras_scnn.reconstruction.faces import Reconstruction
from keras_scnn.video.live import LiveFace
from keras_scnn.video.tracks import with_shape


def faces(model, count: int, rng, noise: float) -> list[Reconstruction]:
    """A face at rest, as a network with noise sees it."""
    identity = rng.normal(0, 1, model.n_identity)
    result = []
    for _ in range(count):
        turn = rotation_from_euler(np.array([0.1, 0.2, 0]) + rng.normal(0, 0.02 * noise, 3))
        pose = compose(turn, 1 + 0.01 * noise * rng.normal(), np.array([100.0, 90, 0]))
        shape = identity + rng.normal(0, 0.1 * noise, len(identity))
        weights = np.clip(0.4 + rng.normal(0, 0.05 * noise, model.n_expression), 0, 1)
        box = FaceBox.square((100, 90), 120, 0.9)
        result.append(Reconstruction(model, FaceParameters(pose, shape, weights), box))
    return result


def test_the_shape_freezes_and_pose_and_expression_calm_down(tiny_face_model):
    live, seen = (
        LiveFace(freeze_frames=20),
        faces(tiny_face_model, 60, np.random.default_rng(0), 0.2),
    )
    found = []
    for i, face in enumerate(seen):
        assert live.is_frozen == (i >= 20)
        found.append(live.update(face, i / 30))
    identities = np.stack([face.parameters.identity for face in found])
    assert (identities[20:] == identities[20]).all() and (identities[5] != identities[10]).any()
    for pick in (
        lambda f: f.parameters.expression,
        lambda f: rotation_angle(np.eye(3), decompose(f.parameters.pose)[0])[None],
    ):
        before, after = (np.stack([pick(f) for f in part[20:]]).std() for part in (seen, found))
        assert after < 0.6 * before


@pytest.mark.parametrize("wrong", ["seconds", "text", "identity", "expression"])
def test_a_frame_that_is_refused_has_no_effect(tiny_face_model, wrong):
    seen = faces(tiny_face_model, 3, np.random.default_rng(5), 0.2)
    live, other = LiveFace(freeze_frames=2), LiveFace(freeze_frames=2)
    expected = [other.update(face, i / 30) for i, face in enumerate(seen)][-1]
    live.update(seen[0], 0)
    bad = dataclasses.replace(seen[2].parameters)
    seconds = {"seconds": np.nan, "text": "0.02"}.get(wrong, 0.02)
    if wrong in ("identity", "expression"):
        bad = dataclasses.replace(bad, **{wrong: getattr(bad, wrong) * np.nan})
    with pytest.raises(ValueError, match="seconds is"):
        live.update(dataclasses.replace(seen[2], parameters=bad), seconds)
    assert not live.is_frozen
    live.update(seen[1], 1 / 30)
    found = live.update(seen[2], 2 / 30)
    np.testing.assert_array_equal(found.parameters.pose, expected.parameters.pose)
    np.testing.assert_array_equal(found.parameters.identity, expected.parameters.identity)


@pytest.mark.parametrize("seconds", [2 / 30, 1 / 30, -5.0])
def test_a_time_that_does_not_increase_resets_the_filters(tiny_face_model, seconds):
    seen = faces(tiny_face_model, 4, np.random.default_rng(6), 0.2)
    live = LiveFace(freeze_frames=2)
    for i, face in enumerate(seen[:3]):
        before = live.update(face, i / 30)
    found = live.update(seen[3], seconds).parameters
    alone = with_shape(seen[3], before.parameters.identity).parameters
    np.testing.assert_array_equal(found.identity, alone.identity)
    np.testing.assert_allclose(found.expression, alone.expression)
    np.testing.assert_allclose(found.pose, alone.pose, atol=1e-4)


def test_a_face_is_smoothed_alike_however_large_it_is(tiny_face_model):
    """Motion is filtered in mm on the face, not in px."""
    seen = faces(tiny_face_model, 30, np.random.default_rng(3), 0.2)
    lives, rng = (LiveFace(), LiveFace()), np.random.default_rng(4)
    for i, face in enumerate(seen):
        face.parameters.pose[:2, 3] += rng.normal(0, 2, 2)
        large = FaceParameters(
            3 * face.parameters.pose, face.parameters.identity, face.parameters.expression
        )
        found = [
            live.update(dataclasses.replace(face, parameters=given), i / 30).parameters.pose
            for live, given in zip(lives, (face.parameters, large), strict=True)
        ]
        np.testing.assert_allclose(found[1], 3 * found[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("count", [0, -1, 2.5, True])
def test_an_invalid_number_of_frames_is_refused(count):
    with pytest.raises(ValueError, match=f"freeze_frames is {count}; it must be"):
        LiveFace(freeze_frames=count)


def test_a_head_upside_down_does_not_spin(tiny_face_model):
    live, (face, *_) = LiveFace(), faces(tiny_face_model, 1, np.random.default_rng(2), 0)
    for i, degrees in enumerate((178.0, 179.5, -179.0, 179.0, -178.0)):
        turn = rotation_from_euler(np.deg2rad([0, 0, degrees]))
        pose = compose(turn, 1.0, np.array([100.0, 90, 0]))
        given = FaceParameters(pose, face.parameters.identity, face.parameters.expression)
        smooth = live.update(dataclasses.replace(face, parameters=given), i / 30)
        away = decompose(smooth.parameters.pose)[0] @ turn.T
        assert np.degrees(rotation_angle(np.eye(3), away)) < 5


def test_without_noise_nothing_changes(tiny_face_model):
    live, (face, *_) = LiveFace(), faces(tiny_face_model, 1, np.random.default_rng(1), 0)
    for i in range(5):
        found = live.update(face, i / 30)
        np.testing.assert_allclose(found.landmarks, face.landmarks, atol=1e-3)
        np.testing.assert_allclose(found.parameters.pose, face.parameters.pose, atol=1e-6)
