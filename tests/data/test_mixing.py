import dataclasses

import numpy as np
import pytest

from keras_scnn.data.mixing import join_records
from keras_scnn.data.records import FaceRecords, load_records, save_records
from keras_scnn.data.shards import ShardedImages


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


def test_photos_and_labels_stand_one_after_the_other(one, two):
    joined, source = join_records([one, two])
    np.testing.assert_array_equal(source, [0] * 4 + [1] * 6)
    for name in ("images", "parameters", "landmarks"):
        expected = np.concatenate([getattr(one, name), getattr(two, name)])
        np.testing.assert_array_equal(getattr(joined, name), expected)


def test_people_are_numbered_apart_and_keep_their_mirror_images(one, two):
    joined, _ = join_records([one, two])
    np.testing.assert_array_equal(joined.identity, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    np.testing.assert_array_equal(joined.mirror, [1, 1, 0, 0, -1, -1, 4, 4, 3, 3])


def test_what_only_some_have_is_filled_up(one, two):
    joined, _ = join_records([one, two])
    np.testing.assert_array_equal(joined.weight, np.repeat([1, 0.5], [4, 6])[:, None] * [[1] * 68])
    np.testing.assert_array_equal(np.isnan(joined.embedding).all(axis=1), [False] * 4 + [True] * 6)
    assert joined.name is None


def test_photos_on_disk_stay_there(tmp_path, one, two):
    for name, records in (("one", one), ("two", two)):
        save_records(tmp_path / name, records)
    joined, _ = join_records([load_records(tmp_path / name) for name in ("two", "one")])
    assert isinstance(joined.images, ShardedImages)
    np.testing.assert_array_equal(joined.images[[0, 6]], [two.images[0], one.images[0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"face_model": "flame"}, "face models"),
        ({"images": np.zeros((6, 9, 9, 3), np.uint8)}, "crop sizes"),
        ({"parameters": np.zeros((6, 15), np.float32)}, "numbers of parameters"),
        ({"embedding": np.zeros((6, 5), np.float32)}, "embedding of different sizes"),
    ],
)
def test_records_that_do_not_fit_are_refused(one, two, change, message):
    with pytest.raises(ValueError, match=message):
        join_records([one, dataclasses.replace(two, **change)])
