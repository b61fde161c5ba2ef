import dataclasses

import cv2
import numpy as np
import pytest

from keras_scnn.data.records import FaceRecords, load_records, save_records, split_people
from keras_scnn.data.sources import blends
from keras_scnn.data.sources.blends import BlendedFaces, can_blend
from keras_scnn.data.synthesis.rendered_people import SyntheticConfig, render_person
from keras_scnn.geometry.camera import decompose
from keras_scnn.geometry.rotations import euler_from_rotation
from keras_scnn.parameters import FaceParameters, ParameterLayout
from keras_scnn.prepare import main

PEOPLE, PHOTOS = 5, 6


@pytest.fixture(scope="module")
def records():
    """Six renderings each of five synthetic people."""
    config = SyntheticConfig(photos=PHOTOS, yaw_degrees=70)
    images, parameters, landmarks = (
        np.concatenate(part)
        for part in zip(*(render_person(config, p) for p in range(PEOPLE)), strict=True)
    )
    identity = np.repeat(np.arange(PEOPLE), PHOTOS).astype(np.int32)
    weight = np.random.default_rng(0).uniform(0.2, 1, (len(images), 68)).astype(np.float32)
    return FaceRecords(images, parameters, landmarks, identity, "open_face", weight=weight)


def test_faces_turned_by_yaw_or_roll_cannot_be_blended():
    angles = [[80, 0, 0], [0, 59.9, 0], [0, 60, 0], [0, -61, 0], [0, 0, -59.9], [0, 10, 170]]
    assert can_blend(np.array(angles)).tolist() == [True, True, False, False, True, False]


def _yaw(records):
    layout = ParameterLayout(80, 52)
    pose = FaceParameters.from_vector(records.parameters.astype(float), layout).pose
    return np.rad2deg(euler_from_rotation(decompose(pose)[0])[:, 1])


def test_a_blend_has_its_hosts_labels_and_another_person_in_a_similar_pose(records, open_face):
    source, yaw = BlendedFaces(records, open_face, 40), _yaw(records)
    assert len(source.names()) == len(set(source.names())) == 40
    turns = []
    for name in source.names():
        photo = source.load(name)
        host, guest, _ = source.draw(name)
        assert records.identity[host] != records.identity[guest]
        np.testing.assert_array_equal(photo.landmarks, records.landmarks[host])
        np.testing.assert_array_equal(photo.weight, records.weight[host])
        np.testing.assert_array_equal(photo.parameters, records.parameters[host])
        assert np.abs(yaw[[host, guest]]).max() < 60
        turns.append(abs(yaw[host] - yaw[guest]))
    assert np.median(turns) < 15, "at random it is about 35 degrees"


def test_the_look_is_between_the_two(records, open_face):
    """Over the hosts' cheeks and noses, color is the two colors' mean by the guest's share."""
    flat = np.empty_like(records.images)
    color = np.random.default_rng(1).integers(0, 255, (PEOPLE, 3))
    flat[:] = color[records.identity][:, None, None]
    source = BlendedFaces(dataclasses.replace(records, images=flat), open_face, 10)
    for name in source.names():
        photo = source.load(name)
        *pair, share = source.draw(name)
        host, guest = color[records.identity[pair]]
        assert 0.35 <= share <= 0.65
        wanted = (1 - share) * host + share * guest
        assert np.abs(photo.read_image() - wanted).max() <= 1


def test_the_guest_is_bent_to_the_hosts_landmarks():
    """A spot at each of some points is found, by its centroid, where the point is to go."""
    rng = np.random.default_rng(2)
    before = np.stack(np.meshgrid([30, 50, 70, 90], [30, 50, 70, 90]), -1).reshape(-1, 2) * 1.0
    after = before @ [[0.97, 0.1], [-0.1, 0.97]] + [2, 1] + rng.normal(0, 0.5, before.shape)
    for (x0, y0), (x1, y1) in zip(before, after, strict=True):
        image = np.zeros((120, 120, 3), np.uint8)
        cv2.circle(image, (int(x0), int(y0)), 4, (255, 255, 255), -1, cv2.LINE_AA)
        bent = blends._bend(image, before, after)[..., 0].astype(float)
        rows, columns = np.indices(bent.shape)
        result = np.array([(columns * bent).sum(), (rows * bent).sum()]) / bent.sum()
        assert np.linalg.norm(result - [x1, y1]) < 1.5
        assert np.linalg.norm(np.subtract((x1, y1), (x0, y0))) > 2


def test_points_that_stay_leave_the_image_as_it_is(records):
    points = records.landmarks[0, :, :2]
    bent = blends._bend(records.images[0], points, points)
    assert np.abs(bent.astype(int) - records.images[0]).max() <= 1, "not even by 1/32 px"


def test_blends_depend_only_on_their_number(records, open_face):
    few, many = (BlendedFaces(records, open_face, count) for count in (3, 30))
    images = [few.load(name).read_image() for name in few.names()]
    for name, image in zip(few.names(), images, strict=True):
        np.testing.assert_array_equal(image, many.load(name).read_image())
    assert (images[0] != images[1]).any() and (images[1] != images[2]).any()


def test_the_people_that_training_holds_out_take_no_part(records, open_face):
    """With mirror images, they are drawn at random; a person and the mirror image count as one."""
    mirror = np.array([1, 0, 3, 2, -1], np.int32)[records.identity]
    mirrored = dataclasses.replace(records, mirror=mirror)
    seen, unseen = split_people(mirrored.identity, 1, mirror)
    assert set(mirrored.identity[unseen]) != {PEOPLE - 1}
    source = BlendedFaces(mirrored, open_face, 60, held_out=1)
    pairs = np.array([source.draw(name)[:2] for name in source.names()])
    host, guest = mirrored.identity[pairs].T
    assert {*host, *guest} == set(mirrored.identity[seen])
    assert (host != guest).all() and (mirror[pairs[:, 0]] != guest).all()


def test_held_out_people_take_no_part(records, open_face):
    source = BlendedFaces(records, open_face, 60, held_out=2)
    shown = {int(i) for name in source.names() for i in source.draw(name)[:2]}
    assert {int(person) for person in records.identity[list(shown)]} == {0, 1, 2}


def test_wrong_settings_are_named(records, open_face):
    with pytest.raises(ValueError, match="count is 0"):
        BlendedFaces(records, open_face, 0)
    with pytest.raises(ValueError, match="held_out -1"):
        BlendedFaces(records, open_face, 5, held_out=-1)
    with pytest.raises(ValueError, match="5 people, 4 of them held out: fewer than two are left"):
        BlendedFaces(records, open_face, 5, held_out=4)


def test_the_command_makes_records_to_train_on(tmp_path, records, open_face, capsys):
    config = {"landmark_offsets": open_face.landmark_offsets.tolist()}
    save_records(tmp_path / "cache", dataclasses.replace(records, config=config))
    out = tmp_path / "blends"
    command = ["blends", str(tmp_path / "cache"), "--out", str(out), "--workers", "1"]
    assert main([*command, "--count", "5", "--held-out", "1"]) == 0
    made = load_records(out)
    source = BlendedFaces(records, open_face, 5, held_out=1)
    assert made.name.tolist() == source.names() and len(np.unique(made.identity)) == 5
    for i, name in enumerate(source.names()):
        photo = source.load(name)
        np.testing.assert_array_equal(made.images[i], photo.read_image())
        np.testing.assert_allclose(made.parameters[i], photo.parameters, atol=1e-4)
        points = made.landmarks[i, :, :2]
        np.testing.assert_allclose(points, photo.landmarks[:, :2], atol=1e-3)
    # Other blends do not go into the same folder, and bad settings leave nothing behind.
    assert main([*command, "--count", "6", "--held-out", "1"]) == 2
    assert "holds records of other photos or settings" in capsys.readouterr().err
    command[command.index(str(out))] = str(tmp_path / "none")
    assert main([*command, "--count", "0"]) == 2
    assert "count is 0" in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_a_teacher_embeds_the_blend(tmp_path, records, open_face):
    pytest.importorskip("dlib", reason="needs the extra 'teacher'")
    config = {"landmark_offsets": open_face.landmark_offsets.tolist()}
    save_records(tmp_path / "cache", dataclasses.replace(records, config=config))
    command = ["blends", str(tmp_path / "cache"), "--out", str(tmp_path / "out"), "--count", "3"]
    assert main([*command, "--workers", "1", "--teacher-embeddings"]) == 0
    embedding = load_records(tmp_path / "out").embedding
    assert embedding.shape == (3, 128) and np.isfinite(embedding).all()
