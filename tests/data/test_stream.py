import dataclasses
import sys
from functools import partial

import numpy as np
import pytest

from keras_scnn.data.records import FaceRecords
from keras_scnn.data.samplers import GroupSampler, PairSampler
from keras_scnn.data.stream import (
    as_iterator,
    group_batch,
    group_dataset,
    pair_batch,
    pair_dataset,
)

pytest.importorskip("tensorflow")


@pytest.fixture
def records(tiny_whitening) -> FaceRecords:
    """12 photos of 4 people; the first pixel of each photo is its number."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 255, (12, 8, 8, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(12)
    size = tiny_whitening.mean.size
    return FaceRecords(
        images,
        rng.normal(size=(12, size)).astype(np.float32),
        rng.uniform(0, 8, (12, 68, 3)).astype(np.float32),
        np.repeat(np.arange(4, dtype=np.int32), 3),
        "tiny",
    )


@pytest.fixture
def sampler(records) -> PairSampler:
    return PairSampler(records.identity, seed=2)


def test_each_side_has_its_own_photo_with_that_photos_labels(records, sampler, tiny_whitening):
    inputs, targets = pair_batch(records, tiny_whitening, sampler, 0, 16)
    for side in "ab":
        number = inputs[f"image_{side}"][:, 0, 0, 0]
        np.testing.assert_array_equal(inputs[f"image_{side}"], records.images[number])
        back = tiny_whitening.unwhiten(targets[f"parameters_{side}"])
        np.testing.assert_allclose(back, records.parameters[number], atol=1e-5)
        landmarks = targets[f"landmarks_{side}"]
        np.testing.assert_array_equal(landmarks[..., :2], records.landmarks[number, :, :2])
        np.testing.assert_array_equal(landmarks[..., 2], 1)


def test_same_is_1_where_both_photos_are_of_one_person(records, sampler, tiny_whitening):
    inputs, targets = pair_batch(records, tiny_whitening, sampler, 0, 64)
    person = [records.identity[inputs[f"image_{side}"][:, 0, 0, 0]] for side in "ab"]
    for name in ("parameter_distance", "feature_similarity"):
        np.testing.assert_array_equal(targets[name], person[0] == person[1])
        assert 0 < targets[name].mean() < 1


def test_the_data_set_yields_the_batches_in_order(records, sampler, tiny_whitening):
    stream = pair_dataset(records, tiny_whitening, sampler, batch_size=4)
    for step, (inputs, targets) in enumerate(stream.take(5).as_numpy_iterator()):
        expected_inputs, expected_targets = pair_batch(records, tiny_whitening, sampler, step, 4)
        assert inputs.keys() == expected_inputs.keys()
        assert targets.keys() == expected_targets.keys()
        for name, array in {**expected_inputs, **expected_targets}.items():
            result = {**inputs, **targets}[name]
            assert result.dtype == array.dtype
            np.testing.assert_array_equal(result, array)


def test_a_resumed_stream_goes_on_where_it_was(records, sampler, tiny_whitening):
    whole = list(pair_dataset(records, tiny_whitening, sampler, 4).take(6).as_numpy_iterator())
    rest = pair_dataset(records, tiny_whitening, sampler, 4, first_step=4).take(2)
    for (inputs, _), (expected, _) in zip(rest.as_numpy_iterator(), whole[4:], strict=True):
        np.testing.assert_array_equal(inputs["image_b"], expected["image_b"])


def test_shapes_are_known_before_the_first_batch(records, sampler, tiny_whitening):
    inputs, targets = pair_dataset(records, tiny_whitening, sampler, 4).element_spec
    assert inputs["image_a"].shape == (4, 8, 8, 3)
    assert targets["landmarks_b"].shape == (4, 68, 3)
    assert targets["parameter_distance"].shape == (4,)


def test_trust_in_a_landmark_is_its_weight(records, sampler, tiny_whitening):
    weight = np.random.default_rng(0).random((12, 68)).astype(np.float32)
    records = dataclasses.replace(records, weight=weight)
    inputs, targets = pair_batch(records, tiny_whitening, sampler, 0, 16)
    for side in "ab":
        number = inputs[f"image_{side}"][:, 0, 0, 0]
        np.testing.assert_array_equal(targets[f"landmarks_{side}"][..., 2], weight[number])


def test_a_group_batch_carries_the_labels_of_its_photos(records, tiny_whitening):
    embedding = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    records = dataclasses.replace(records, embedding=embedding)
    sampler = GroupSampler(records.identity, people=3, photos=2)
    inputs, targets = group_batch(records, tiny_whitening, sampler, 4)
    number = inputs[:, 0, 0, 0].astype(int)
    np.testing.assert_array_equal(inputs, records.images[number])
    np.testing.assert_array_equal(targets["embedding"], embedding[number])
    np.testing.assert_array_equal(targets["landmarks"][..., :2], records.landmarks[number, :, :2])
    one_person = targets["shape"][:, None] == targets["features"]
    owner = records.identity[number]
    np.testing.assert_array_equal(one_person, owner[:, None] == owner)


def test_group_batches_come_in_order(records, tiny_whitening):
    sampler = GroupSampler(records.identity, people=2, photos=3)
    stream = group_dataset(records, tiny_whitening, sampler, first_step=3).take(3)
    for step, (inputs, targets) in enumerate(stream.as_numpy_iterator(), start=3):
        expected_inputs, expected_targets = group_batch(records, tiny_whitening, sampler, step)
        np.testing.assert_array_equal(inputs, expected_inputs)
        for name, array in expected_targets.items():
            np.testing.assert_array_equal(targets[name], array)


def test_grain_gives_the_same_stream(records, sampler, tiny_whitening):
    pytest.importorskip("grain")
    make = partial(pair_batch, records, tiny_whitening, sampler, batch_size=4)
    stream = as_iterator(make, first_step=2)
    for step in range(2, 8):
        for result, expected in zip(next(stream), make(step=step), strict=True):
            assert result.keys() == expected.keys()
            for name in result:
                np.testing.assert_array_equal(result[name], expected[name])


def test_without_grain_its_extra_is_named(records, sampler, tiny_whitening, monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(ImportError, match=r"keras_scnn\[grain\]"):
        as_iterator(partial(pair_batch, records, tiny_whitening, sampler, batch_size=4))
