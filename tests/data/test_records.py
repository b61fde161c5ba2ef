import dataclasses
import json

import numpy as np
import pytest

from keras_scnn.data import records as records_module
from keras_scnn.data.records import (
    IMAGES,
    LABELS,
    MANIFEST,
    OPTIONAL,
    REQUIRED,
    FaceRecords,
    finish_records,
    is_records,
    load_records,
    part_of,
    read_shard,
    save_records,
    split_people,
    write_shard,
)
from keras_scnn.data.sharded_images import ShardedImages
from keras_scnn.geometry.camera import compose
from keras_scnn.geometry.rotations import rotation_from_euler


@pytest.fixture
def records():
    rng = np.random.default_rng(0)
    return FaceRecords(
        rng.integers(0, 256, (6, 8, 8, 3), np.uint8),
        rng.normal(size=(6, 14)).astype(np.float32),
        rng.normal(size=(6, 68, 3)).astype(np.float32),
        np.array([0, 0, 1, 1, 2, 2], np.int32),
        "open_face",
        {"seed": 5},
    )


@pytest.fixture
def folder(tmp_path, records):
    save_records(tmp_path / "records", records)
    return tmp_path / "records"


def test_saved_records_are_restored(folder, records):
    again = load_records(folder)
    for name in ("images", "parameters", "landmarks", "identity"):
        np.testing.assert_array_equal(getattr(again, name), getattr(records, name))
    assert (again.face_model, again.config, len(again)) == ("open_face", {"seed": 5}, 6)
    assert isinstance(again.images, ShardedImages)
    files = [f"00000.{IMAGES}", f"00000.{LABELS}", "00000.json", MANIFEST]
    assert sorted(p.name for p in folder.iterdir()) == sorted(files)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((6, 8, 8, 3), np.float32)}, r"\(6, 8, 8, 3\) of float32; .* uint8"),
        ({"images": np.zeros((6, 3, 8, 8), np.uint8)}, r"images are \(6, 3, 8, 8\) of uint8; they"),
        ({"images": np.zeros((6, 8, 8), np.uint8)}, r"images are \(6, 8, 8\) of uint8; they must"),
        ({"landmarks": np.zeros((6, 68, 2))}, r"landmarks are \(6, 68, 2\); .*x, y and depth"),
        ({"parameters": np.zeros(6)}, r"parameters are \(6,\); they must be an array \(n, P\)"),
        ({"parameters": [[0.0]] * 6}, "parameters are of the type list; they must be an array"),
        ({"identity": np.zeros((6, 1), int)}, r"identity are \(6, 1\); .* array \(n,\)"),
        ({"weight": np.ones(6)}, r"weight are \(6,\); they must be an array \(n, 68\)"),
        ({"mirror": np.zeros((6, 1), int)}, r"mirror are \(6, 1\); .* array \(n,\)"),
        ({"name": np.full((6, 2), "a")}, r"name are \(6, 2\); .* array \(n,\)"),
        ({"crop_from_image": np.zeros((6, 6))}, r"crop_from_image are \(6, 6\); .* \(n, 2, 3\)"),
        ({"embedding": np.zeros(6)}, r"embedding are \(6,\); they must be an array \(n, E\)"),
    ],
)
def test_records_that_no_network_can_train_on_are_refused(records, changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(records, **changes)


def test_photos_in_fortran_order_are_restored_too(tmp_path, records):
    save_records(tmp_path, dataclasses.replace(records, images=np.asfortranarray(records.images)))
    np.testing.assert_array_equal(load_records(tmp_path).images, records.images)


def test_a_folder_without_a_manifest_is_not_complete(folder):
    (folder / MANIFEST).unlink()
    assert not is_records(folder)
    with pytest.raises(FileNotFoundError, match="no complete face records"):
        load_records(folder)


def test_optional_labels_are_restored_too(tmp_path, records):
    rng = np.random.default_rng(1)
    more = dataclasses.replace(
        records,
        weight=rng.random((6, 68)).astype(np.float32),
        mirror=np.array([1, 1, 0, 0, -1, -1], np.int32),
        name=np.array([f"a/{i}.jpg" for i in range(6)]),
        crop_from_image=rng.normal(size=(6, 2, 3)).astype(np.float32),
        embedding=rng.normal(size=(6, 4)).astype(np.float32),
    )
    save_records(tmp_path, more)
    again = load_records(tmp_path)
    assert again.arrays() == [*REQUIRED, *OPTIONAL]
    for name in again.arrays():
        np.testing.assert_array_equal(getattr(again, name), getattr(more, name))
    part = part_of(again, np.array([5, 1]))
    np.testing.assert_array_equal(part.images, more.images[[5, 1]])
    np.testing.assert_array_equal(part.name, ["a/5.jpg", "a/1.jpg"])


def test_shards_are_read_as_one(tmp_path, records):
    for number, index in enumerate(([0, 1, 2], [], [3, 4], [5])):
        part = part_of(records, np.array(index, int)) if index else None
        write_shard(tmp_path, number, part, {} if index else {"x.jpg": "no face"})
    assert not is_records(tmp_path)
    manifest = finish_records(tmp_path, 4, "open_face", {"seed": 5})
    assert (manifest["count"], manifest["left_out"]) == (6, {"x.jpg": "no face"})
    again = load_records(tmp_path)
    for name in REQUIRED:
        np.testing.assert_array_equal(np.asarray(getattr(again, name)), getattr(records, name))


def test_records_of_one_shard_replace_those_of_several(tmp_path, records):
    """Files that belong to no shard are kept."""
    for number in range(3):
        write_shard(tmp_path, number, records)
    finish_records(tmp_path, 3, "open_face", {})
    (tmp_path / "face_model.npz").write_bytes(b"kept")
    save_records(tmp_path, part_of(records, np.array([4, 2])))
    names = {path.name for path in tmp_path.iterdir()}
    own = {f"00000.{kind}" for kind in (IMAGES, LABELS, "json")}
    assert names == own | {MANIFEST, "face_model.npz"}
    again = load_records(tmp_path)
    np.testing.assert_array_equal(np.asarray(again.images), records.images[[4, 2]])


def test_an_unfinished_shard_does_not_count(tmp_path, records):
    write_shard(tmp_path, 0, records)
    write_shard(tmp_path, 1, records)
    assert read_shard(tmp_path, 0)["count"] == 6
    assert read_shard(tmp_path, 2) is None
    (tmp_path / f"00001.{LABELS}").write_bytes(b"half")
    assert read_shard(tmp_path, 1) is None
    with pytest.raises(ValueError, match="shard 1 is missing or damaged"):
        finish_records(tmp_path, 2, "open_face", {})
    assert not is_records(tmp_path)


def test_records_whose_photos_were_all_left_out_are_refused(tmp_path):
    write_shard(tmp_path, 0, None, {"x.jpg": "no face"})
    with pytest.raises(ValueError, match="no records to write: 1 left out; the first: no face"):
        finish_records(tmp_path, 1, "open_face", {})


@pytest.mark.parametrize("name", [f"00000.{IMAGES}", f"00000.{LABELS}"])
def test_a_changed_byte_is_noticed(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: missing or damaged"):
        load_records(folder)


def test_a_missing_file_is_noticed(folder):
    (folder / f"00000.{LABELS}").unlink()
    with pytest.raises(ValueError, match="labels.npz: missing or damaged"):
        load_records(folder)


@pytest.mark.parametrize("change", [{"version": 9}, {"format": "other"}])
def test_another_version_is_refused(folder, change):
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, **change}))
    with pytest.raises(ValueError, match="expected keras_scnn.face_records 2"):
        load_records(folder)


def test_a_broken_manifest_is_refused(folder):
    (folder / MANIFEST).write_text("{")
    with pytest.raises(ValueError, match="not a manifest"):
        load_records(folder)


def test_landmarks_without_a_weight_count_fully(records):
    weighted = dataclasses.replace(
        records, weight=np.linspace(0, 1, 6 * 68, dtype=np.float32).reshape(6, 68)
    )
    for rows in (2, np.array([4, 1]), slice(None)):
        np.testing.assert_array_equal(records.weights(rows), np.ones_like(weighted.weight)[rows])
        np.testing.assert_array_equal(weighted.weights(rows), weighted.weight[rows])


def test_parts_of_different_length_are_refused(records):
    with pytest.raises(ValueError, match="differ in length"):
        FaceRecords(
            records.images[:5],
            *(getattr(records, n) for n in ("parameters", "landmarks", "identity")),
            "open_face",
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameters": None}, "parameters are of the type NoneType; they must be an array"),
        ({"parameters": 3}, "parameters are of the type int"),
        ({"landmarks": np.float32(1)}, "landmarks are of the type float32"),
        ({"identity": np.array(3)}, r"identity are \(\); they must be an array \(n,\)"),
        ({"parameters": np.full((6, 4), None)}, "parameters are of the dtype object; .* numbers"),
        ({"weight": np.full((6, 68), "1")}, "weight are of the dtype <U1; they must be numbers"),
        ({"name": np.arange(6)}, "name are of the dtype int64; they must be text"),
        ({"images": None}, r"images are \(\) of no array"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(records, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(records, **change)


@pytest.mark.parametrize("value", [-0.5, np.nan])
def test_a_landmark_weight_below_zero_is_refused(records, value):
    weight = np.ones((len(records), 68), np.float32)
    weight[2, 7] = value
    with pytest.raises(ValueError, match="weight: the smallest is"):
        dataclasses.replace(records, weight=weight)


@pytest.mark.parametrize("name", ["parameters", "landmarks"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_labels_that_would_make_the_loss_nan_are_refused(records, name, value):
    """Except landmarks of weight 0, which no loss reads."""
    array = getattr(records, name).copy()
    array[2:4, 3] = value
    with pytest.raises(ValueError, match=f"{name} of 2 of 6 photos, first 2, are not finite"):
        dataclasses.replace(records, **{name: array})
    weight = np.ones((len(records), 68), np.float32)
    weight[2:4, 3] = 0
    if name == "landmarks":
        assert dataclasses.replace(records, landmarks=array, weight=weight).landmarks is array
        weight[3, 3] = 0.5
    with pytest.raises(ValueError, match=f"{name} of .* are not finite"):
        dataclasses.replace(records, **{name: array}, weight=weight)


@pytest.mark.parametrize("held_out", [-1, 1.5, "2"])
def test_an_invalid_number_of_held_out_people_is_refused(records, held_out):
    with pytest.raises(ValueError, match="held_out is .*; it must be .*0 or more"):
        split_people(records.identity, held_out)


def test_angles_are_those_of_the_poses(records, monkeypatch):
    angles = np.random.default_rng(1).uniform(-80, 80, (6, 3))
    poses = compose(rotation_from_euler(np.deg2rad(angles)), np.ones(6), np.zeros((6, 3)))
    parameters = records.parameters.copy()
    parameters[:, :12] = poses.reshape(6, 12)
    records = dataclasses.replace(records, parameters=parameters)
    monkeypatch.setattr(records_module, "CHUNK", 4)
    np.testing.assert_allclose(records.euler_degrees(), angles, atol=1e-3)


def test_people_are_split_whole(records):
    seen, unseen = split_people(records.identity, held_out=1)
    np.testing.assert_array_equal(seen, [0, 1, 2, 3])
    np.testing.assert_array_equal(unseen, [4, 5])
    with pytest.raises(ValueError, match="only 3 people"):
        split_people(records.identity, held_out=3)


def people_with_mirror_images() -> tuple[np.ndarray, np.ndarray]:
    """Three photos each of 40 people and of their mirror images, numbered as 300W-LP's are."""
    person = np.repeat(np.arange(80), 3)
    return person, (person + 40) % 80


def renumbered(seed: int, count: int, *persons: np.ndarray) -> list[np.ndarray]:
    """Other numbers for the people 0 to ``count`` - 1, so that others are drawn."""
    number = np.random.default_rng(seed).permutation(count)
    return [np.where((p >= 0) & (p < count), number[p % count], p) for p in persons]


@pytest.mark.parametrize("held_out", [1, 2, 7, 30, 78])
@pytest.mark.parametrize("seed", [0, 5])
def test_nobody_is_held_out_whose_mirror_image_is_trained_on(held_out, seed):
    identity, mirror = renumbered(seed, 80, *people_with_mirror_images())
    seen, unseen = split_people(identity, held_out, mirror)
    assert not set(mirror[unseen]) & set(identity[seen])
    assert sorted([*seen, *unseen]) == list(range(240))
    assert len(set(identity[unseen])) == held_out + held_out % 2


def test_data_without_the_mirror_images_holds_out_the_same_people_first(held_out=20):
    """As packs do, which have their numbers, but not their photos."""
    identity, mirror = people_with_mirror_images()
    of_both = set(identity[split_people(identity, held_out, mirror)[1]])
    alone = identity < 40
    of_one = set(identity[alone][split_people(identity[alone], held_out, mirror[alone])[1]])
    assert len(of_one) == 20 and of_both & set(range(40)) < of_one


def test_the_draw_of_mirror_pairs_is_the_same_for_all_runs_and_takes_of_all(held_out=20):
    identity, mirror = people_with_mirror_images()
    first, again = (split_people(identity, held_out, mirror)[1] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len({int(identity[i]) % 40 // 10 for i in first}) > 1  # not those of one data set


def test_one_sided_and_missing_mirror_images_are_held_out_correctly():
    people = np.array([0, 1, 2, 3]), np.array([2, -1, -1, 9])
    held_out = set()
    for seed in range(8):
        identity, mirror = renumbered(seed, 4, *people)
        _, unseen = split_people(identity, 1, mirror)
        held_out.add(frozenset(unseen.tolist()))
    assert held_out == {frozenset({0, 2}), frozenset({1}), frozenset({3})}
    with pytest.raises(ValueError, match="leaves nobody: mirror images go together"):
        split_people(np.array([0, 1]), 1, np.array([1, 0]))


def test_without_mirror_images_the_last_people_are_held_out():
    identity, none = np.arange(6), np.full(6, -1)
    for mirror in (None, none):
        np.testing.assert_array_equal(split_people(identity, 2, mirror)[1], [4, 5])


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("identity", np.arange(6) << 32),
        ("identity", np.arange(6) * 0.5),
        ("mirror", np.full(6, 2**31)),
    ],
)
def test_people_numbers_that_do_not_fit_are_refused(records, name, numbers):
    with pytest.raises(ValueError, match=f"{name}: people's numbers must be whole and fit into"):
        dataclasses.replace(records, **{name: numbers})
