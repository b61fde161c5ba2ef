import dataclasses

import cv2
import numpy as np
import pytest

from keras_scnn.data.mixture import Mixture
from keras_scnn.data.records import IMAGES, load_records
from keras_scnn.data.synthesis import rendered_people
from keras_scnn.data.synthesis.rendered_people import (
    LIMITS,
    SyntheticConfig,
    cached_records,
    render_people,
    render_person,
    render_records,
)
from keras_scnn.face_models import load_face_model
from keras_scnn.geometry.camera import decompose, project
from keras_scnn.geometry.rotations import euler_from_rotation
from keras_scnn.parameters import FaceParameters, ParameterLayout

CONFIG = SyntheticConfig(people=2, photos=3, size=64)
LAYOUT = ParameterLayout(80, 52)


@pytest.fixture(scope="module")
def person():
    return render_person(SyntheticConfig(people=1, photos=12), 0)


def test_the_labels_are_the_projected_parameters(person, open_face):
    _, vectors, landmarks = person
    outputs = FaceParameters.from_vector(vectors, LAYOUT)
    expected = project(outputs.pose, open_face.landmarks(outputs.identity, outputs.expression))
    np.testing.assert_allclose(landmarks, expected, atol=1e-3)


def test_the_face_is_where_the_labels_say(person):
    # Between the eyes and the mouth there is skin: brighter or darker than the noise around it,
    # and the same photo without the face differs there. Here: the landmarks' box fills the crop.
    _, _, landmarks = person
    low, high = landmarks[..., :2].min(axis=1), landmarks[..., :2].max(axis=1)
    diagonal = np.linalg.norm(high - low, axis=1)
    assert (abs(diagonal / 120 - 1) < 0.2).all()  # the standard crop, with jitter
    assert (abs((low + high) / 2 - 59.5) < 20).all()
    assert landmarks[..., :2].min() > -20 and landmarks[..., :2].max() < 140


def test_shrunk_renderings_match_their_labels():
    """A picture of its own columns' numbers, shrunk as photos are, tells where each comes from."""
    columns = np.tile(np.arange(40, dtype=np.float32), (40, 1))
    from_large = cv2.resize(columns, (20, 20), interpolation=cv2.INTER_AREA)[0]
    x = np.arange(20)
    places = np.stack([x, x[::-1], np.zeros(20)], axis=-1)  # of the crop, px
    large = project(rendered_people._enlarged(np.eye(3, 4), 2), places)
    np.testing.assert_allclose(large[:, 0], from_large)
    np.testing.assert_allclose(large[:, 1], from_large[::-1])


def test_one_person_has_one_identity_in_many_poses(person):
    _, vectors, _ = person
    outputs = FaceParameters.from_vector(vectors, LAYOUT)
    assert (outputs.identity == outputs.identity[0]).all()
    assert len(np.unique(outputs.expression, axis=0)) > 1
    yaw = np.degrees(euler_from_rotation(decompose(outputs.pose)[0]))[:, 1]
    assert np.ptp(yaw) > 40 and abs(yaw).max() <= 61


def test_expressions_stay_within_the_models_bounds(person):
    expression = person[1][:, LAYOUT.expression]
    assert expression.min() >= 0 and expression.max() <= 1 and (expression > 0).any()


def test_the_tongue_comes_out_of_an_open_mouth(open_face):
    rng = np.random.default_rng(0)
    weights = np.stack([rendered_people._expression(open_face, rng) for _ in range(300)])
    tongue, jaw = (
        weights[:, open_face.expression_names.index(n)] for n in ("tongueOut", "jawOpen")
    )
    assert (tongue > 0).any()
    assert jaw[tongue > 0].min() >= 0.35 - 1e-6 and (jaw[tongue == 0] < 0.35).any()


def test_the_photos_differ(person):
    images = person[0].astype(float)
    assert all(abs(images[0] - image).mean() > 5 for image in images[1:])


def test_the_same_seed_gives_the_same_photos_and_another_gives_others():
    first, again = (render_person(CONFIG, 1) for _ in range(2))
    other = render_person(dataclasses.replace(CONFIG, seed=1), 1)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], other[0])


def test_rendering_is_cached_by_its_settings(tmp_path):
    records = cached_records(CONFIG, tmp_path)
    np.testing.assert_array_equal(records.identity, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(records.images[3:], render_person(CONFIG, 1)[0])
    (folder,) = tmp_path.iterdir()
    before = (folder / f"00000.{IMAGES}").stat().st_mtime_ns
    cached_records(CONFIG, tmp_path)
    assert (folder / f"00000.{IMAGES}").stat().st_mtime_ns == before
    assert dataclasses.replace(CONFIG, photos=4).key != CONFIG.key


def test_other_people_follow_from_another_first_number(tmp_path):
    config = dataclasses.replace(CONFIG, people=1, first_person=1)
    records = cached_records(config, tmp_path)
    np.testing.assert_array_equal(records.identity, 1)
    np.testing.assert_array_equal(records.images, render_person(CONFIG, 1)[0])


def test_a_face_model_that_replaces_another_is_rendered(tmp_path, open_face):
    paths = [str(tmp_path / name) for name in ("a.npz", "b.npz")]
    wide = open_face.replace(mean=open_face.mean * [1.5, 1, 1])
    open_face.save(paths[0])
    wide.save(paths[1])
    first, other = (render_person(dataclasses.replace(CONFIG, face_model=p), 0) for p in paths)
    wide.save(paths[0])
    again = render_person(dataclasses.replace(CONFIG, face_model=paths[0]), 0)
    assert not np.array_equal(first[2], other[2])
    for now, wanted in zip(again, other, strict=True):
        np.testing.assert_array_equal(now, wanted)


def test_records_in_memory_name_the_model_and_not_its_file(tmp_path, open_face):
    path = tmp_path / "mine.npz"
    open_face.save(path)
    config = dataclasses.replace(CONFIG, people=1, photos=1, face_model=str(path))
    records = render_people(config)
    assert records.face_model == open_face.name
    Mixture(records, np.zeros(1, np.int32)).annotated(open_face)
    assert records.config["face_model_digest"] == load_face_model(path).digest


def test_two_workers_render_what_one_does(tmp_path):
    config = dataclasses.replace(CONFIG, people=4, photos=2)
    for count in (1, 2):
        render_records(config, tmp_path / str(count), workers=count)
    one, two = ((tmp_path / n / f"00000.{IMAGES}").read_bytes() for n in "12")
    assert one == two


def test_an_interrupted_rendering_is_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr(rendered_people, "PEOPLE_PER_SHARD", 2)
    config = dataclasses.replace(CONFIG, people=5, photos=2)
    render_records(config, tmp_path / "whole")

    def interrupted(config, person):
        if person == 3:
            raise KeyboardInterrupt
        return render_person(config, person)

    monkeypatch.setattr(rendered_people, "render_person", interrupted)
    with pytest.raises(KeyboardInterrupt):
        render_records(config, tmp_path / "again", workers=1)
    rendered = []
    monkeypatch.setattr(
        rendered_people, "render_person", lambda c, p: (rendered.append(p), render_person(c, p))[1]
    )
    render_records(config, tmp_path / "again")
    assert min(rendered) == 2, "the first shard, people 0 and 1, was there"
    whole, again = (load_records(tmp_path / name) for name in ("whole", "again"))
    np.testing.assert_array_equal(np.asarray(whole.images), np.asarray(again.images))
    np.testing.assert_array_equal(again.identity, np.repeat(np.arange(5), 2))


def test_a_damaged_cache_is_refused(tmp_path):
    cached_records(CONFIG, tmp_path)
    (folder,) = tmp_path.iterdir()
    (folder / f"00000.{IMAGES}").write_bytes(b"broken")
    with pytest.raises(ValueError, match="missing or damaged"):
        cached_records(CONFIG, tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("people", 0, "1 or more"),
        ("photos", 0, "1 or more"),
        ("size", 7, "8 or more"),
        ("seed", -1, "0 or more"),
        ("first_person", -1, "0 or more"),
        ("yaw_degrees", 120.0, "0 to 90"),
        ("pitch_degrees", -1.0, "0 to 60"),
        ("roll_degrees", 90.0, "0 to 60"),
        ("jitter", 0.6, "0 to 0.5"),
        ("spread", float("nan"), "0 to 2"),
    ],
)
def test_numbers_that_cannot_be_rendered_are_refused(name, value, right):
    with pytest.raises(ValueError, match=f"^{name} is {value}; it must be {right}$"):
        SyntheticConfig(**{name: value})


def test_equal_settings_have_one_folder_and_others_another():
    config = SyntheticConfig(yaw_degrees=60, people=3)
    assert config.key == SyntheticConfig(yaw_degrees=60.0, people=3).key
    assert config.key != SyntheticConfig(yaw_degrees=60.5, people=3).key


def test_every_number_of_the_settings_has_limits():
    numbers = {
        f.name for f in dataclasses.fields(SyntheticConfig) if type(f.default) in (int, float)
    }
    assert numbers == set(LIMITS)


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [("people", 2.5, "int"), ("seed", 1.0, "int"), ("photos", True, "int"), ("people", "5", "int")]
    + [("spread", "1", "float"), ("yaw_degrees", None, "float")]
    + [("portraits", "no", "bool"), ("portraits", 1, "bool"), ("face_model", 3, "str")],
)
def test_values_of_another_type_are_refused(name, value, kind):
    message = f"^{name} is {value!r} .{type(value).__name__}.; it must be {kind}$"
    with pytest.raises(ValueError, match=message):
        SyntheticConfig(**{name: value})


def test_numbers_of_numpy_are_the_same_settings():
    config = SyntheticConfig(people=np.int64(3), spread=np.float32(0.5))
    assert config == SyntheticConfig(people=3, spread=0.5)
    assert config.key == SyntheticConfig(people=3, spread=0.5).key


def test_a_file_instead_of_the_cache_folder_is_named(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(NotADirectoryError, match="cache.*a file is in its place"):
        cached_records(CONFIG, tmp_path / "cache")


def test_an_invalid_number_of_workers_is_refused(tmp_path):
    with pytest.raises(ValueError, match="workers is 0; it must be 1 or more"):
        render_records(CONFIG, tmp_path / "out", workers=0)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("landmark_offsets", lambda model: model.landmark_offsets + 1),
        ("landmark_indices", lambda model: model.landmark_indices[::-1]),
        ("expression_bounds", lambda model: model.expression_bounds / 2),
        ("uv", lambda model: np.full((70, 2), 0.5)),
        ("regions", lambda model: np.arange(70, dtype=np.uint8) % 2),
    ],
)
def test_the_folder_depends_on_all_visible_parts_of_the_face_model(
    tmp_path, tiny_face_model, name, change
):
    keys = []
    for model in (tiny_face_model, tiny_face_model.replace(**{name: change(tiny_face_model)})):
        for _ in range(2):
            model.save(tmp_path / "face.npz")
            keys.append(SyntheticConfig(face_model=str(tmp_path / "face.npz")).key)
    assert keys[0] == keys[1] != keys[2] == keys[3]


def test_a_folder_of_another_seed_is_made_again(tmp_path):
    config = dataclasses.replace(CONFIG, people=1, photos=1, size=16)
    other = dataclasses.replace(config, seed=1)
    for one in (config, other):
        render_records(one, tmp_path, workers=1)
    records = load_records(tmp_path)
    np.testing.assert_array_equal(records.images, render_person(other, 0)[0])
    assert records.config["seed"] == 1


@pytest.mark.parametrize("portraits", [False, True])
def test_the_smallest_photos_can_be_rendered(portraits):
    config = SyntheticConfig(people=1, photos=20, size=8, portraits=portraits)
    images, _, landmarks = render_person(config, 0)
    assert images.shape == (20, 8, 8, 3) and np.isfinite(landmarks).all()
