"""From the rows of frames to tracks, with made-up rows whose truth is known."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from keras_scnn.geometry.camera import compose, decompose, project
from keras_scnn.geometry.rotations import rotation_angle, rotation_from_euler
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import FaceParameters
from keras_scnn.photos.cropping import FaceBox
from keras_scnn.reconstruction.faces import Reconstruction
from keras_scnn.video.tracks import (
    BestFrames,
    _people,
    face_box,
    find_people,
    find_tracklets,
    pose_of,
    smooth_pose,
    smooth_tracks,
    with_shape,
)

RATE, FEATURES = 25.0, 8
CALIBRATION = {"feature": {"a": 20.0, "b": -10.0}}  # cosine 0.5: even


def rows_of(model: MorphableModel, frame: int, faces: list[Reconstruction]) -> dict:
    """A frame's rows, as the parts hold them."""
    return {
        "frame": np.full(len(faces), frame),
        "box": np.array([f.box.as_array() for f in faces]).reshape(-1, 4),
        "score": np.array([f.box.score for f in faces]),
        "image_from_model": np.array([f.parameters.pose.ravel() for f in faces]).reshape(-1, 12),
        "identity": np.array([f.parameters.identity for f in faces]).reshape(-1, model.n_identity),
        "expression": np.array([f.parameters.expression for f in faces]),
        "landmarks": np.array([f.landmarks.ravel() for f in faces]).reshape(-1, 204),
        "features": np.array([f.features for f in faces]).reshape(-1, FEATURES),
    }


def face(model, x: float, person: int, rng, yaw: float = 0.0, score: float = 0.9):
    """A face of one of three people at a place, with a noise of the network's kind."""
    own = np.random.default_rng(person)
    identity = own.normal(0, 1, model.n_identity) + rng.normal(0, 0.2, model.n_identity)
    features = np.eye(FEATURES)[person] + rng.normal(0, 0.05, FEATURES)
    pose = compose(rotation_from_euler(np.array([0, yaw, 0])), 1.0, np.array([x, 100.0, 0]))
    expression = np.full(model.n_expression, 0.3)
    return Reconstruction(
        model,
        FaceParameters(pose, identity, expression),
        FaceBox.square((x, 100), 120, score),
        features / np.linalg.norm(features),
    )


@pytest.fixture
def model(tiny_face_model) -> MorphableModel:
    return tiny_face_model


def tracked(model, frames: list[list[Reconstruction]], cuts=(), calibration=CALIBRATION):
    rows = [(i, 0.0, rows_of(model, i, faces)) for i, faces in enumerate(frames)]
    seconds = np.arange(len(frames)) / RATE
    tracklets, numbers = find_tracklets(model, rows, seconds, set(cuts))
    people = find_people(tracklets, calibration)
    return people, smooth_tracks(model, people, rows, numbers, seconds)


def test_one_shape_holds_for_all_frames_and_is_nearer_to_the_truth(model):
    rng = np.random.default_rng(0)
    frames = [[face(model, 200 + 2 * i, 1, rng)] for i in range(40)]
    (person,), (track,) = tracked(model, frames)
    truth = np.random.default_rng(1).normal(0, 1, model.n_identity)
    single = [np.linalg.norm(f[0].parameters.identity - truth) for f in frames]
    assert np.linalg.norm(track.identity - truth) < np.median(single) / 3
    assert track.frames.tolist() == list(range(40)) and track.seen.all()
    assert np.array_equal(track.identity, person.identity)
    # The landmarks stay where the network saw them; the tiny model's own shape differs by mm.
    seen = np.stack([f[0].landmarks[:, :2] for f in frames])
    found = np.stack([track.face(i).landmarks[:, :2] for i in range(40)])
    assert np.abs(found.mean(axis=1) - seen.mean(axis=1)).max() < 0.5


def test_a_stranger_in_some_frames_does_not_count(model):
    rng = np.random.default_rng(0)
    frames = [[face(model, 200, 1, rng)] for _ in range(20)]
    odd = face(model, 200, 2, rng)
    odd = dataclasses.replace(
        odd, features=frames[0][0].features
    )  # features that do not distinguish them
    frames[7] = [odd]
    (person,), _ = tracked(model, frames)
    alone, _ = tracked(model, frames[:7] + frames[8:])
    assert person.strange == 1
    assert np.linalg.norm(person.identity - alone[0].identity) < 0.1


def test_frames_without_the_face_are_filled_in(model):
    rng = np.random.default_rng(0)
    frames = [[face(model, 200 + 3 * i, 1, rng, yaw=0.02 * i)] for i in range(30)]
    frames[10:16] = [[]] * 6
    _, (track,) = tracked(model, frames)
    assert track.frames.tolist() == list(range(30))
    assert np.flatnonzero(~track.seen).tolist() == list(range(10, 16))
    assert (track.scores == 0).tolist() == (~track.seen).tolist()
    rotation, _, shift = decompose(track.pose)
    np.testing.assert_allclose(np.diff(shift[8:18, 0]), 3, atol=1.0)
    steps = rotation_angle(rotation[8:17], rotation[9:18])
    np.testing.assert_allclose(steps, 0.02, atol=0.012)


def test_shots_of_one_person_are_one_track_where_features_are_calibrated(model):
    """Shot and reverse shot: A, B, A, B; and then both at once."""
    rng = np.random.default_rng(0)
    shots = [[face(model, 200, person, rng)] for person in (1, 2, 1, 2) for _ in range(10)]
    both = [[face(model, 200, 2, rng), face(model, 400, 1, rng)] for _ in range(10)]
    people, tracks = tracked(model, shots + both, cuts=(10, 20, 30, 40))
    assert [track.tracklets[-1] + 1 for track in tracks] == [3, 3]
    first = [*range(10), *range(20, 30), *range(40, 50)]
    assert tracks[0].frames.tolist() == first
    assert (np.diff(tracks[0].tracklets) > 0).sum() == 2
    separate, _ = tracked(model, shots + both, cuts=(10, 20, 30, 40), calibration=None)
    assert len(people) == 2 and len(separate) == 6


@pytest.mark.parametrize("cosine, people", [(0.58, 2), (0.70, 1)])
def test_shots_are_joined_from_a_probability_of_95_percent_on(model, cosine, people):
    """The calibration gives 0.83 and 0.98; below 0.95, tracks stay separate."""
    rng, first = np.random.default_rng(0), np.eye(FEATURES)[0]
    second = cosine * first + np.sqrt(1 - cosine**2) * np.eye(FEATURES)[1]
    shots = [
        [dataclasses.replace(face(model, 200, 1, rng), features=features)]
        for features in (first, second)
        for _ in range(10)
    ]
    assert len(tracked(model, shots, cuts=(10,))[1]) == people


@pytest.mark.parametrize(("first", "people"), [(5, [0, 1]), (6, [0, 0])])
def test_who_is_seen_in_the_same_frame_is_another_person(first, people):
    features = np.eye(FEATURES)[0]
    shots = [SimpleNamespace(features=features, frames=f) for f in (range(6), range(first, 12))]
    assert _people(shots, CALIBRATION["feature"]).tolist() == people


def test_a_person_seen_in_many_shots_is_no_likelier_for_that():
    """A third shot whose probability is 60 % by each of the first two, not 120 %."""
    cosine = (np.log(0.6 / 0.4) + 10) / 20
    vectors = [[1.0, 0.0], [1.0, 0.0], [cosine, np.sqrt(1 - cosine**2)]]
    shots = [
        SimpleNamespace(features=np.array(vector), frames=range(10 * i, 10 * i + 8))
        for i, vector in enumerate(vectors)
    ]
    assert _people(shots, CALIBRATION["feature"]).tolist() == [0, 0, 1]


def test_people_who_are_seen_together_are_never_one(model):
    rng = np.random.default_rng(0)
    frames = [[face(model, 200, 1, rng), face(model, 400, 1, rng)] for _ in range(10)]
    assert len(tracked(model, frames)[1]) == 2


def test_faces_of_a_few_frames_are_left_out(model):
    rng = np.random.default_rng(0)
    frames = [[face(model, 200, 1, rng)] for _ in range(12)]
    frames[5] = [*frames[5], face(model, 500, 2, rng)]
    people, tracks = tracked(model, frames)
    assert len(people) == len(tracks) == 1


def test_clips_without_faces_have_no_track(model):
    people, tracks = tracked(model, [[], []])
    assert people == tracks == []


def test_best_frames_are_few_and_spread_over_all(model):
    rng, best = np.random.default_rng(0), BestFrames(size=8)
    for i in range(1000):
        best.add(i, face(model, 200, 1, rng, score=0.95 if i % 100 == 37 else 0.8))
    frames = sorted(frame for _, frame, _ in best.best.values())
    assert 4 <= len(frames) <= 8
    assert all(frame % 100 == 37 for frame in frames)
    assert best.length == 128


def test_the_pose_of_another_shape_keeps_the_landmarks(open_face):
    rng = np.random.default_rng(0)
    truth = compose(rotation_from_euler(rng.normal(0, 0.3, (5, 3))), 1.3, np.array([90.0, 80, 4]))
    identity = rng.normal(0, 1, open_face.n_identity)
    expression = rng.uniform(0, 0.3, (5, open_face.n_expression))
    shape = np.broadcast_to(identity, (5, len(identity)))
    points = project(truth, open_face.landmarks(shape, expression))
    found = pose_of(open_face, identity, expression, points)
    np.testing.assert_allclose(found, truth, atol=1e-4)
    box = face_box(np.array([0.0, 0, 180, 180]), 0.9)
    seen = Reconstruction(open_face, FaceParameters(truth[0], identity, expression[0]), box)
    other = with_shape(seen, identity + rng.normal(0, 0.3, len(identity)))
    apart = np.linalg.norm((other.landmarks - seen.landmarks)[:, :2], axis=1)
    assert apart.mean() < 1.5  # of 180 px


def test_a_head_that_turns_over_has_no_jump():
    """Quaternions of 0 and 360 degrees have opposite signs, and are one rotation."""
    angles = np.radians(np.arange(0, 720, 6.0))
    pose = compose(
        rotation_from_euler(np.stack([angles, 0 * angles, 0 * angles], axis=1)),
        np.ones(120),
        np.zeros((120, 3)),
    )
    smoothed = smooth_pose(np.arange(120) / RATE, pose)
    turned = rotation_angle(decompose(smoothed)[0], decompose(pose)[0])
    assert np.degrees(turned).max() < 1.0
