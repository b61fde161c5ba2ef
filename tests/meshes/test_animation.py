"""Animations in GLB, read back by a reader of this file's own and by trimesh."""

import json
import struct

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from keras_scnn.geometry.camera import compose, project
from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.meshes.animation import HOLD_SECONDS, motion_of, turn_to
from keras_scnn.meshes.face import write_face_animation
from keras_scnn.meshes.options import MeshOptions

SIZE = (640, 360)


def read(path) -> tuple[dict, bytes]:
    content = path.read_bytes()
    length = struct.unpack_from("<I", content, 12)[0]
    return json.loads(content[20 : 20 + length]), content[28 + length :]


def rows(document: dict, binary: bytes, accessor: int) -> np.ndarray:
    """The rows of a float accessor that is whole."""
    item = document["accessors"][accessor]
    view = document["bufferViews"][item["bufferView"]]
    assert item["componentType"] == 5126 and "target" not in view
    size = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[item["type"]]
    flat = np.frombuffer(binary, "<f4", item["count"] * size, view["byteOffset"])
    return flat.reshape(-1, size)


@pytest.fixture(scope="module")
def moving(open_face_of_module):
    model, n = open_face_of_module, 7
    rng = np.random.default_rng(0)
    angles = np.radians([[3 * i, -10 * i, 2 * i] for i in range(n)])
    shift = np.stack([[300 + 20 * i, 200 - 10 * i, 5.0] for i in range(n)])
    pose = compose(rotation_from_euler(angles), np.linspace(1.0, 1.6, n), shift)
    weights = rng.uniform(0, 1, (n, model.n_expression))
    shots = np.array([0, 0, 0, 0, 1, 1, 1])
    seconds = np.array([0, 0.04, 0.08, 0.12, 1.0, 1.05, 1.1])
    return model, seconds, pose, weights, shots


@pytest.fixture(scope="module")
def open_face_of_module():
    from keras_scnn.morphable_model import MorphableModel

    return MorphableModel.open_face()


@pytest.fixture(scope="module")
def written(moving, tmp_path_factory):
    model, seconds, pose, weights, shots = moving
    path = tmp_path_factory.mktemp("glb") / "a.glb"
    motion = motion_of(seconds, pose, weights, shots, SIZE)
    write_face_animation(path, model, np.zeros(model.n_identity), motion)
    return path, motion


def test_channels_and_values(moving, written):
    model, _, _, weights, _ = moving
    document, binary = read(written[0])
    (animation,) = document["animations"]
    found = {}
    for channel in animation["channels"]:
        sampler = animation["samplers"][channel["sampler"]]
        node = document["nodes"][channel["target"]["node"]]
        times = rows(document, binary, sampler["input"])[:, 0]
        values = rows(document, binary, sampler["output"])
        found[node["name"], channel["target"]["path"]] = times, values, node
        bounds = document["accessors"][sampler["input"]]
        assert np.float32(bounds["min"]) == times[0] and np.float32(bounds["max"]) == times[-1]
        assert (np.diff(times) > 0).all() and len(times) == 8  # one more holds the first shot's end
    assert set(found) == {
        ("face", "rotation"), ("face", "translation"), ("head", "weights"),
        ("eye_left", "weights"), ("eye_right", "weights"),
    }  # fmt: skip
    _, values, node = found["eye_left", "weights"]
    names = document["meshes"][node["mesh"]]["extras"]["targetNames"]
    own = values.reshape(8, len(names))
    for i, name in enumerate(names):
        column = weights[:, model.expression_names.index(name)]
        np.testing.assert_allclose(own[[0, 1, 2, 3, 5, 6, 7], i], column, atol=1e-6)
        assert own[4, i] == own[3, i]
    assert found["head", "weights"][1].size == 8 * model.n_expression
    turns = found["face", "rotation"][1]
    np.testing.assert_allclose(np.linalg.norm(turns, axis=1), 1, atol=1e-6)
    assert ((turns[1:] * turns[:-1]).sum(axis=1) > 0).all()


def test_the_clips_camera_sees_the_face_where_the_clip_does(moving, written):
    """The file's own transforms and camera, as a renderer applies them, in pixels.

    A perspective camera cannot show all of a face as an orthographic one does: the model's origin
    is exact, points 50 mm about it are off by the depth of the face, less than 6 %.
    """
    model, _, pose, _, _ = moving
    document, _ = read(written[0])
    motion = written[1]
    node = next(n for n in document["nodes"] if n["name"] == "clip_camera")
    lens = document["cameras"][node["camera"]]["perspective"]
    assert lens["aspectRatio"] == pytest.approx(640 / 360)
    focal = SIZE[1] / 2 / np.tan(lens["yfov"] / 2)
    points = np.array([[0, 0, 0], [50, 0, 0], [0, 50, 0], [0, -50, 0]], float)
    kept = [0, 1, 2, 3, 5, 6, 7]
    for turn, place, camera in zip(motion.rotations[kept], motion.places[kept], pose, strict=True):
        world = (points @ turn.T + place) / 1000 - node["translation"]
        seen = focal * world[:, :2] / -world[:, 2:] * [1, -1] + (np.array(SIZE) - 1) / 2
        expected = project(camera, points)[:, :2]
        np.testing.assert_allclose(seen[0], expected[0], atol=1e-6)
        np.testing.assert_allclose(seen - seen[0], expected - expected[0], atol=0.06 * 80)


def test_turns_take_the_shorter_way_all_around(open_face_of_module, tmp_path):
    model, n = open_face_of_module, 13
    angles = np.zeros((n, 3))
    angles[:, 2] = np.radians(30 * np.arange(n))  # roll, a whole turn
    pose = compose(rotation_from_euler(angles), np.ones(n), np.tile([320.0, 180, 0], (n, 1)))
    weights = np.zeros((n, model.n_expression))
    motion = motion_of(np.arange(n) / 25, pose, weights, np.zeros(n), SIZE)
    quaternions = Rotation.from_matrix(motion.rotations).as_quat()
    assert ((quaternions[1:] * quaternions[:-1]).sum(axis=1) < 0).any()  # as SciPy gives them
    write_face_animation(tmp_path / "a.glb", model, np.zeros(model.n_identity), motion)
    document, binary = read(tmp_path / "a.glb")
    (animation,) = document["animations"]
    (channel,) = (c for c in animation["channels"] if c["target"]["path"] == "rotation")
    turns = rows(document, binary, animation["samplers"][channel["sampler"]]["output"])
    steps = (turns[1:] * turns[:-1]).sum(axis=1)
    np.testing.assert_allclose(steps, np.cos(np.radians(15)), atol=1e-6)


@pytest.mark.parametrize("hours", [0, 4.6, 9, 200])
def test_times_rise_in_the_file_however_long_the_clip_is(hours):
    n = 400
    seconds = hours * 3600 + np.arange(n) * 0.2
    pose = compose(np.tile(np.eye(3), (n, 1, 1)), np.ones(n), np.zeros((n, 3)))
    motion = motion_of(seconds, pose, np.zeros((n, 1)), np.arange(n) // 2, SIZE)
    assert len(motion.seconds) == n + n // 2 - 1
    assert (np.diff(np.float32(motion.seconds)) > 0).all()


@pytest.mark.parametrize("rate", [960, 1000, 4000])
def test_times_rise_in_the_file_at_the_rates_of_high_speed_cameras(rate):
    n = 40
    seconds = 900 + np.arange(n) / rate
    pose = compose(np.tile(np.eye(3), (n, 1, 1)), np.ones(n), np.zeros((n, 3)))
    motion = motion_of(seconds, pose, np.zeros((n, 1)), np.arange(n) // 4, SIZE)
    assert len(motion.seconds) == n + 9
    assert (np.diff(np.float32(motion.seconds)) > 0).all()


def test_between_shots_the_face_stays(written):
    motion = written[1]
    assert motion.seconds[4] == pytest.approx(1.0 - HOLD_SECONDS)
    np.testing.assert_array_equal(motion.places[4], motion.places[3])
    np.testing.assert_array_equal(motion.rotations[4], motion.rotations[3])


def test_rays_turn_as_scipys_alignment_of_vectors_says():
    rays = np.random.default_rng(1).normal(0, 1, (20, 3)) * [1, 1, 0.3] - [0, 0, 3]
    for turn, ray in zip(turn_to(rays), rays, strict=True):
        np.testing.assert_allclose(turn @ [0, 0, -1], ray / np.linalg.norm(ray), atol=1e-12)
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
        axis = np.cross([0, 0, -1], ray / np.linalg.norm(ray))
        angle = np.arcsin(np.linalg.norm(axis))
        expected = Rotation.from_rotvec(axis / np.linalg.norm(axis) * angle).as_matrix()
        np.testing.assert_allclose(turn, expected, atol=1e-9)


def test_other_readers_take_it_and_parts_are_as_asked_for(moving, written, tmp_path):
    scene = trimesh.load(written[0])
    assert len(scene.geometry) >= 4
    model, motion = moving[0], written[1]
    path = tmp_path / "skin.glb"
    options = MeshOptions(parts=("skin",))
    write_face_animation(path, model, np.zeros(model.n_identity), motion, options=options)
    document, _ = read(path)
    assert [n["name"] for n in document["nodes"]] == ["head", "face", "clip_camera"]


def test_one_moment_is_an_animation_too(open_face_of_module, tmp_path):
    model = open_face_of_module
    pose = compose(np.eye(3), 1.0, np.array([100.0, 100, 0]))[None]
    motion = motion_of(np.zeros(1), pose, np.zeros((1, model.n_expression)), np.zeros(1), SIZE)
    write_face_animation(tmp_path / "a.glb", model, np.zeros(model.n_identity), motion)
    document, _ = read(tmp_path / "a.glb")
    assert document["animations"][0]["name"] == "clip"


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("identity", np.nan, "identity of shape .* finite numbers"),
        ("weights", np.inf, "weights of shape .* finite numbers"),
        ("weights", "wide", r"weights of shape \(\d+, \d+\); it must be \d+ x \d+ finite"),
        ("weights", "narrow", r"weights of shape \(\d+, \d+\); it must be \d+ x \d+ finite"),
    ],
)
def test_numbers_that_do_not_fit_the_face_model_are_refused(
    moving, tmp_path, part, change, message
):
    model, seconds, pose, weights, shots = moving
    identity, weights = np.zeros(model.n_identity), weights.copy()
    if change == "wide":
        weights = np.c_[weights, weights[:, :1]]
    elif change == "narrow":
        weights = weights[:, :-1]
    elif part == "identity":
        identity[0] = change
    else:
        weights[1, 0] = change
    motion = motion_of(seconds, pose, weights, shots, SIZE)
    with pytest.raises(ValueError, match=f"a.glb: {message}"):
        write_face_animation(tmp_path / "a.glb", model, identity, motion)
    assert not list(tmp_path.iterdir())
