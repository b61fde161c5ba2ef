import dataclasses

import numpy as np
import pytest

from keras_scnn.data.mixture import Mixture, join_records, open_mixture
from keras_scnn.data.records import (
    FaceRecords,
    load_records,
    save_records,
    split_people,
)
from keras_scnn.data.samplers import PairSampler
from keras_scnn.data.sharded_images import ShardedImages


def make(count: int, seed: int) -> FaceRecords:
    rng = np.random.default_rng(seed)
    return FaceRecords(
        rng.integers(0, 256, (count, 8, 8, 3), np.uint8),
        rng.normal(size=(count, 14)).astype(np.float32),
        rng.normal(size=(count, 68, 3)).astype(np.float32),
        np.arange(count, dtype=np.int32) // 2,
        "open_face",
    )


@pytest.fixture
def one() -> FaceRecords:
    more = {"embedding": np.ones((4, 3), np.float32), "mirror": np.array([1, 1, 0, 0], np.int32)}
    return dataclasses.replace(make(4, 0), **more)


@pytest.fixture
def two() -> FaceRecords:
    weight = np.full((6, 68), 0.5, np.float32)
    mirror = np.array([-1, -1, 2, 2, 1, 1], np.int32)
    return dataclasses.replace(make(6, 1), weight=weight, mirror=mirror)


def test_photos_and_labels_are_concatenated(one, two):
    joined, source = join_records([one, two])
    np.testing.assert_array_equal(source, [0] * 4 + [1] * 6)
    for name in ("images", "parameters", "landmarks"):
        expected = np.concatenate([getattr(one, name), getattr(two, name)])
        np.testing.assert_array_equal(getattr(joined, name), expected)


def test_people_are_numbered_apart_and_keep_their_mirror_images(one, two):
    joined, _ = join_records([one, two])
    np.testing.assert_array_equal(joined.identity, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    np.testing.assert_array_equal(joined.mirror, [1, 1, 0, 0, -1, -1, 4, 4, 3, 3])


def test_labels_that_only_some_records_have_are_filled_up(one, two):
    joined, _ = join_records([one, two])
    np.testing.assert_array_equal(joined.weight, np.repeat([1, 0.5], [4, 6])[:, None] * [[1] * 68])
    np.testing.assert_array_equal(np.isnan(joined.embedding).all(axis=1), [False] * 4 + [True] * 6)
    assert joined.name is None
    alone, _ = join_records([one, dataclasses.replace(two, mirror=None)])
    np.testing.assert_array_equal(alone.mirror, [1, 1, 0, 0, *[-1] * 6])


def test_a_person_of_number_minus_one_is_nobodys_mirror_image():
    """-1 among the mirror images means that there is none."""
    identity, mirror = (np.array(n, np.int32) for n in ([-1, 4, 5, 6], [-1, -1, 6, 5]))
    records = dataclasses.replace(make(4, 0), identity=identity, mirror=mirror)
    np.testing.assert_array_equal(records.either_side(), [-1, 4, 5, 5])


def test_photos_on_disk_are_not_loaded(tmp_path, one, two):
    for name, records in (("one", one), ("two", two)):
        save_records(tmp_path / name, records)
    joined, _ = join_records([load_records(tmp_path / name) for name in ("two", "one")])
    assert isinstance(joined.images, ShardedImages)
    np.testing.assert_array_equal(joined.images[[0, 6]], [two.images[0], one.images[0]])


def test_folders_are_opened_by_name_and_weight(tmp_path, one, two, open_face):
    open_face = open_face.truncated(2, 0)  # 14 parameters
    offsets = np.full((68, 3), 0.5)
    for name, records in (("one", one), ("two", two)):
        config = {"landmark_offsets": offsets.tolist(), "command": name}
        save_records(tmp_path / name, dataclasses.replace(records, config=config))
    mixture = open_mixture(f"{tmp_path / 'one'}, {tmp_path / 'two'}", "2,1")
    assert len(mixture.records) == 10
    np.testing.assert_array_equal(mixture.weights, [2, 1])
    np.testing.assert_array_equal(mixture.annotated(open_face).landmark_offsets, 0.5)
    sampler = PairSampler(mixture.records.identity, **mixture.sampling())
    first, second, same = sampler.batch(0, 64)
    np.testing.assert_array_equal(mixture.source[first], mixture.source[second])
    # A part without any photo of one folder is drawn from all the same.
    part = np.arange(4, 10)
    only = PairSampler(mixture.records.identity, 1.0, among=part, **mixture.sampling())
    assert only.batch(0, 64).first.min() >= 4


def test_another_face_model_is_refused(tmp_path, one, tiny_face_model):
    save_records(tmp_path / "one", one)
    message = "'tiny' with 23 parameters, but the records are for 'open_face'"
    with pytest.raises(ValueError, match=message):
        open_mixture(str(tmp_path / "one")).annotated(tiny_face_model)


def test_another_face_model_of_the_same_name_is_refused(one, two, open_face):
    """Such as two editions of FLAME. Records of 0.2 do not record which one they were made with."""
    model = open_face.truncated(2, 0)  # 14 parameters
    longer = model.replace(identity_basis=2 * model.identity_basis)
    kept = {"face_model_digest": model.digest}
    other = dataclasses.replace(two, config={"face_model_digest": longer.digest})
    one = dataclasses.replace(one, config=kept)
    for records in (one, join_records([one, two])[0]):
        mixture = Mixture(records, np.zeros(len(records), int))
        assert mixture.annotated(model).name == "open_face"
        with pytest.raises(ValueError, match="not the one of this name that the records were made"):
            mixture.annotated(longer)
    with pytest.raises(ValueError, match="records of different face models of one name"):
        join_records([one, other])


@pytest.mark.parametrize(
    ("weights", "message"), [("1", "1 weights for 2 folders"), ("1,much", "must be numbers")]
)
def test_wrong_weights_are_named(tmp_path, one, weights, message):
    save_records(tmp_path / "one", one)
    with pytest.raises(ValueError, match=message):
        open_mixture(f"{tmp_path / 'one'},{tmp_path / 'one'}", weights)


@pytest.mark.parametrize("again", ["one", "./one", "../{home}/one/", "linked", "file://{path}/one"])
def test_a_folder_given_twice_is_refused(tmp_path, one, two, monkeypatch, again):
    for name, records in (("one", one), ("two", two)):
        save_records(tmp_path / name, records)
    (tmp_path / "linked").symlink_to("one")
    monkeypatch.chdir(tmp_path)
    again = again.format(home=tmp_path.name, path=tmp_path)
    with pytest.raises(ValueError, match=f"{again}: the same face records as one; give them once"):
        open_mixture(f"one, two, {again}")


def test_a_url_given_twice_is_refused_before_anything_is_fetched(tmp_path):
    with pytest.raises(ValueError, match="S3://b/./rec/: the same face records as s3://b/rec"):
        open_mixture("s3://b/rec,S3://b/./rec/", cache=tmp_path)
    with pytest.raises(ValueError, match="no folder of face records is given"):
        open_mixture(" ,")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": {"landmark_offsets": [[0]]}}, "landmark offsets"),
        ({"face_model": "flame"}, "face models"),
        ({"images": np.zeros((6, 9, 9, 3), np.uint8)}, "crop sizes"),
        ({"parameters": np.zeros((6, 15), np.float32)}, "numbers of parameters"),
        ({"embedding": np.zeros((6, 5), np.float32)}, "embedding of different sizes"),
    ],
)
def test_records_that_do_not_fit_are_refused(one, two, change, message):
    with pytest.raises(ValueError, match=message):
        join_records([one, dataclasses.replace(two, **change)])


def test_folders_prepared_with_other_offsets_are_named(tmp_path, one, two):
    """Before, the message was two rows of raw offsets."""
    for name, records, offset in (("a", one, 0), ("b", one, 0), ("c", two, 1)):
        config = {"landmark_offsets": [[offset] * 3] * 68}
        save_records(tmp_path / name, dataclasses.replace(records, config=config))
    folders = [str(tmp_path / name) for name in "abc"]
    with pytest.raises(ValueError, match="landmark offsets") as caught:
        open_mixture(",".join(folders))
    message = "records of different landmark offsets cannot be joined; prepare both with the same"
    assert str(caught.value) == f"{folders[0]} and {folders[2]}: {message} --offsets"


def test_the_authors_pair_a_person_with_the_mirror_image_but_hold_both_out(tmp_path):
    """Twenty people and the mirror image of each, four photos a person, beside other people."""
    person = np.repeat(np.arange(40), 4)
    records = dataclasses.replace(
        make(160, 0), identity=person.astype(np.int32), mirror=((person + 20) % 40).astype(np.int32)
    )
    for name in ("plain", "other"):
        save_records(tmp_path / name, records)
    save_records(
        tmp_path / "authors", dataclasses.replace(records, config={"authors_identity": True})
    )
    met = {}
    for name in ("plain", "authors"):
        mixture = open_mixture(f"{tmp_path}/{name},{tmp_path}/other")
        identity, mirror = mixture.records.identity, mixture.records.mirror
        seen, unseen = split_people(identity, 20, mirror)
        assert not set(mirror[unseen]) & set(identity[seen])
        pairs = PairSampler(identity, 0.0, among=seen, **mixture.sampling()).batch(0, 5000)
        twins = mirror[pairs.first] == identity[pairs.second]
        met[name] = twins[mixture.source[pairs.first] == 0].sum()
        assert not twins[mixture.source[pairs.first] == 1].any()
    assert met["plain"] == 0 < met["authors"]


def test_blends_are_no_photos(tmp_path, one, two):
    blended = dataclasses.replace(two, config={"source": "blends"})
    for name, records in (("one", one), ("two", blended)):
        save_records(tmp_path / name, records)
    mixture = open_mixture(f"{tmp_path}/one,{tmp_path}/two")
    np.testing.assert_array_equal(mixture.photographed(), [True] * 4 + [False] * 6)
    assert not open_mixture(str(tmp_path / "two")).photographed().any()
    assert open_mixture(str(tmp_path / "one")).photographed().all()


def test_mirror_images_of_people_in_the_mixture_are_left_out(one, two):
    mixture = Mixture(*join_records([one, two]), np.array([2.0, 1.0]))
    kept, rows = mixture.without_mirror_images(), [0, 1, 4, 5, 6, 7]
    np.testing.assert_array_equal(kept.records.identity, [0, 0, 2, 2, 3, 3])
    for name in ("images", "landmarks", "weight"):
        expected = getattr(mixture.records, name)[rows]
        np.testing.assert_array_equal(getattr(kept.records, name), expected)
    np.testing.assert_array_equal(kept.source, [0, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(kept.weights, mixture.weights)
    assert kept.records.config == mixture.records.config
    assert kept.without_mirror_images() is kept, "all that is left are themselves"


def test_a_mirror_image_of_an_absent_person_is_kept(two):
    alone = dataclasses.replace(two, mirror=np.array([5, 5, 6, 6, 7, 7], np.int32))
    mixture = Mixture(alone, np.zeros(6, int))
    assert mixture.without_mirror_images() is mixture


LAST = np.iinfo(np.int32).max


@pytest.mark.parametrize(
    "people", [[LAST, LAST, 0, 0], [-7, -7, 3, 3], [LAST, -LAST - 1, -1, 0], [0, 0, 1, 1]]
)
def test_any_numbers_of_people_stay_different_people_when_joined(one, two, people):
    people = np.array(people, np.int32)
    parts = [dataclasses.replace(one, identity=people, mirror=None)] * 2
    joined, source = join_records([*parts, two])
    assert joined.identity.dtype == np.int32 and joined.identity.min() >= 0
    owners = list(zip(source, np.concatenate([people, people, two.identity]), strict=True))
    for i, owner in enumerate(owners):
        expected = [other == owner for other in owners]
        np.testing.assert_array_equal(joined.identity == joined.identity[i], expected)


def test_mirror_images_are_renumbered_with_their_people(one, two):
    """The mirrored person of the last photo, 12, is absent."""
    numbers = {"identity": [LAST, LAST, 9, 11], "mirror": [9, 9, LAST, 12]}
    first = {name: np.array(row, np.int32) for name, row in numbers.items()}
    joined, _ = join_records([dataclasses.replace(one, **first), two])
    np.testing.assert_array_equal(joined.mirror, [0, 0, 2, -1, -1, -1, 5, 5, 4, 4])
    np.testing.assert_array_equal(joined.identity, [2, 2, 0, 1, 3, 3, 4, 4, 5, 5])


def test_a_mirror_number_of_no_person_becomes_none_in_joined_records(one, two):
    far = dataclasses.replace(one, mirror=np.array([1, 1, 7, 7], np.int32))  # people are 0 and 1
    joined, _ = join_records([far, two])
    np.testing.assert_array_equal(joined.mirror[:4], [1, 1, -1, -1])
