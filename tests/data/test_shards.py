import copy

import numpy as np
import pytest

from keras_scnn.data.sharded_images import ShardedImages


@pytest.fixture
def whole() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (11, 4, 4, 3), np.uint8)


@pytest.fixture
def sharded(tmp_path, whole) -> ShardedImages:
    paths = []
    for number, part in enumerate(np.split(whole, [5, 6])):
        paths.append(tmp_path / f"{number}.npy")
        np.save(paths[-1], part)
    return ShardedImages(paths)


@pytest.mark.parametrize(
    "index",
    [0, -1, 7, slice(None), slice(4, 9), slice(None, None, -3), [10, 0, 5, 5], [[1, 2], [6, 7]]]
    + [np.arange(11) % 2 == 0, np.array([], int)],
    ids=str,
)
def test_it_indexes_as_an_array_does(sharded, whole, index):
    np.testing.assert_array_equal(sharded[index], whole[index])


def test_it_has_the_attributes_of_an_array(sharded, whole):
    assert (sharded.shape, sharded.ndim, sharded.dtype) == (whole.shape, 4, np.uint8)
    assert len(sharded) == 11
    np.testing.assert_array_equal(np.asarray(sharded), whole)
    np.testing.assert_array_equal(copy.deepcopy(sharded)[3:8], whole[3:8])
    twice = ShardedImages.joined([sharded, sharded])
    np.testing.assert_array_equal(twice[[10, 11]], whole[[10, 0]])


def test_beyond_the_end_is_an_error(sharded):
    with pytest.raises(IndexError):
        sharded[11]
    with pytest.raises(IndexError):
        sharded[[0, -12]]


def test_photos_of_another_size_are_refused(sharded, tmp_path):
    np.save(tmp_path / "9.npy", np.zeros((2, 5, 5, 3), np.uint8))
    with pytest.raises(ValueError, match="the shards' photos differ"):
        ShardedImages([tmp_path / "0.npy", tmp_path / "9.npy"])


@pytest.mark.parametrize("maps", [0, 1, 9])
def test_files_that_do_not_stay_open_are_read_the_same_way(sharded, whole, monkeypatch, maps):
    monkeypatch.setattr("keras_scnn.data.sharded_images.MAPS", maps)
    again = ShardedImages(sharded._files)
    np.testing.assert_array_equal(again[[10, 0, 5, 5]], whole[[10, 0, 5, 5]])
    twice = ShardedImages.joined([again, sharded, again])
    np.testing.assert_array_equal(np.asarray(twice), np.concatenate([whole] * 3))
    assert len(twice._maps) <= maps


def test_a_file_that_is_replaced_stays_as_it_was_or_is_an_error(sharded, whole, monkeypatch):
    monkeypatch.setattr("keras_scnn.data.sharded_images.MAPS", 1)
    images = ShardedImages(sharded._files)
    for path in sharded._files:
        np.save(path.with_suffix(".new.npy"), np.zeros_like(np.load(path, allow_pickle=False)))
        path.with_suffix(".new.npy").replace(path)
    np.testing.assert_array_equal(images[:5], whole[:5])
    with pytest.raises(ValueError, match="1.npy: changed since it was opened"):
        images[5]
