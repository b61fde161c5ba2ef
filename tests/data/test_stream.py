import dataclasses
import sys
from functools import partial

import keras
import numpy as np
import pytest

from keras_scnn.data.augment import GroupAugmenter
from keras_scnn.data.records import FaceRecords
from keras_scnn.data.samplers import GroupSampler, JoinedSampler, PairSampler, Shard
from keras_scnn.data.stream import (
    as_dataset,
    as_iterator,
    fresh_group_dataset,
    fresh_pair_dataset,
    group_batch,
    group_dataset,
    original_errors,
    pair_batch,
    pair_dataset,
)
from keras_scnn.data.synthesis.rendered_people import SyntheticConfig, render_people
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import ParameterLayout, ParameterSpace, Whitening

tf = pytest.importorskip("tensorflow")


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


def test_a_sampler_of_other_photos_is_refused(records, tiny_whitening):
    """Its positions would mean other photos, and so other people than those that it compares."""
    message = "sampler has 9 photos, but the records have 12; make it from all of records.identity"
    some = records.identity[3:]
    with pytest.raises(ValueError, match=message):
        pair_dataset(records, tiny_whitening, PairSampler(some), 4)
    groups = GroupSampler(some, 2, 2)
    for sampler in (groups, JoinedSampler([groups, groups])):
        with pytest.raises(ValueError, match=message):
            group_dataset(records, tiny_whitening, sampler)
    among = PairSampler(records.identity, among=np.arange(3, 12))
    assert pair_batch(records, tiny_whitening, among, 0, 4)


def test_a_sampler_of_the_other_kind_of_batch_is_refused(records, tiny_whitening, sampler):
    groups = GroupSampler(records.identity, 2, 2)
    for wrong in (groups, JoinedSampler([groups])):
        with pytest.raises(ValueError, match=f"a {type(wrong).__name__}; pairs need a PairSampler"):
            pair_dataset(records, tiny_whitening, wrong, 4)
    with pytest.raises(ValueError, match="sampler is a PairSampler; groups need a GroupSampler"):
        group_dataset(records, tiny_whitening, sampler)


def test_a_whitening_of_other_parameters_is_refused(records, sampler):
    size = records.parameters.shape[1]
    message = f"the whitening has 5 parameters, but the records have {size}"
    with pytest.raises(ValueError, match=message):
        pair_dataset(records, Whitening(np.zeros(5), np.ones(5)), sampler, 4)


@pytest.mark.parametrize("size", [0, -1, 2.5])
def test_a_batch_size_that_is_no_number_of_pairs_is_refused(records, sampler, tiny_whitening, size):
    with pytest.raises(ValueError, match=f"batch_size is {size}; it must be"):
        pair_dataset(records, tiny_whitening, sampler, batch_size=size)


@pytest.mark.parametrize("step", [-1, 1.5])
@pytest.mark.parametrize("stream", [as_dataset, as_iterator])
def test_a_first_step_that_is_no_step_is_refused(stream, step):
    with pytest.raises(ValueError, match=f"first_step is {step}; it must be"):
        stream(lambda step: None, step)


def test_an_unknown_input_is_named(records, sampler, tiny_whitening):
    names = ["image_a", "image_b", "points"]
    with pytest.raises(ValueError, match="no array of a batch is named 'points'; there are im"):
        pair_dataset(records, tiny_whitening, sampler, 4, input_names=names)


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


def test_a_resumed_stream_continues_where_it_stopped(records, sampler, tiny_whitening):
    whole = list(pair_dataset(records, tiny_whitening, sampler, 4).take(6).as_numpy_iterator())
    rest = pair_dataset(records, tiny_whitening, sampler, 4, first_step=4).take(2)
    for (inputs, _), (expected, _) in zip(rest.as_numpy_iterator(), whole[4:], strict=True):
        np.testing.assert_array_equal(inputs["image_b"], expected["image_b"])


def test_shapes_are_known_before_the_first_batch(records, sampler, tiny_whitening):
    inputs, targets = pair_dataset(records, tiny_whitening, sampler, 4).element_spec
    assert inputs["image_a"].shape == (4, 8, 8, 3)
    assert targets["landmarks_b"].shape == (4, 68, 3)
    assert targets["parameter_distance"].shape == (4,)


def test_the_weight_of_a_landmark_is_that_of_the_records(records, sampler, tiny_whitening):
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
    one_person = targets["person"][:, None] == targets["person"]
    owner = records.identity[number]
    np.testing.assert_array_equal(one_person, owner[:, None] == owner)


@pytest.mark.parametrize("dtype", [">f4", "<f8"])
def test_embeddings_are_float32_however_they_were_stored(records, tiny_whitening, dtype):
    """TensorFlow ignores a foreign byte order."""
    embedding = np.random.default_rng(0).normal(size=(12, 5))
    records = dataclasses.replace(records, embedding=embedding.astype(dtype))
    sampler = GroupSampler(records.identity, people=3, photos=2)
    _, labels = next(iter(group_dataset(records, tiny_whitening, sampler)))
    assert labels["embedding"].dtype == "float32"
    np.testing.assert_allclose(labels["embedding"], embedding[sampler.batch(0).photo], rtol=1e-6)


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


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["pairs", "groups"])
def test_fit_takes_the_stream_of_grain(records, sampler, tiny_whitening, kind):
    pytest.importorskip("grain")
    make = partial(pair_batch, records, tiny_whitening, sampler, batch_size=4)
    if kind == "groups":
        groups = GroupSampler(records.identity, people=2, photos=2)
        make = partial(group_batch, records, tiny_whitening, groups)
    inputs, targets = make(step=0)
    images = (
        {name: keras.Input(array.shape[1:], name=name) for name, array in inputs.items()}
        if kind == "pairs"
        else keras.Input(inputs.shape[1:])
    )
    flat = keras.layers.Flatten()(keras.tree.flatten(images)[0])
    outputs = {}
    for name, array in targets.items():
        dense = keras.layers.Dense(int(np.prod(array.shape[1:])))(flat)
        outputs[name] = keras.layers.Reshape(array.shape[1:])(dense)
    model = keras.Model(images, outputs)
    model.compile("sgd", {name: "mse" for name in targets})
    options = {"steps_per_epoch": 2, "epochs": 2, "shuffle": False, "verbose": 0}
    assert len(model.fit(as_iterator(make), **options).history["loss"]) == 2


def test_without_grain_its_extra_is_named(records, sampler, tiny_whitening, monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(ImportError, match=r"\.\[grain\]"):
        as_iterator(partial(pair_batch, records, tiny_whitening, sampler, batch_size=4))


@pytest.fixture(scope="module")
def fresh() -> SyntheticConfig:
    return SyntheticConfig(people=4, photos=2, size=32)


@pytest.fixture(scope="module")
def face_whitening(open_face, fresh):
    return ParameterSpace.from_samples(open_face, render_people(fresh).parameters).whitening


def test_fresh_pairs_are_of_new_people_in_each_batch(fresh, face_whitening):
    seen = []
    for inputs, targets in fresh_pair_dataset(fresh, face_whitening).take(3).as_numpy_iterator():
        assert inputs["image_a"].shape == inputs["image_b"].shape == (4, 32, 32, 3)
        parameters = [targets[f"parameters_{side}"][:, 12:92] for side in "ab"]
        is_same = (parameters[0] == parameters[1]).all(axis=1)
        np.testing.assert_array_equal(is_same, targets["feature_similarity"] == 1)
        seen.append(parameters[0])
    people = np.unique(np.concatenate(seen), axis=0)
    assert len(people) == 12  # each person's first photo is side a of one pair


def test_fresh_pairs_need_two_photos_of_each_person(fresh, face_whitening):
    """With others, pairs marked as two people showed one, and the other way around."""
    with pytest.raises(ValueError, match="photos is 3; fresh pairs are of people with 2 photos"):
        fresh_pair_dataset(dataclasses.replace(fresh, photos=3), face_whitening)


def test_a_resumed_stream_of_fresh_people_continues_where_it_stopped(fresh, face_whitening):
    # Batches are made on several threads: the stream does not depend on which comes first.
    whole = list(fresh_pair_dataset(fresh, face_whitening).take(6).as_numpy_iterator())
    rest = fresh_pair_dataset(fresh, face_whitening, first_step=4).take(2).as_numpy_iterator()
    for batch, expected in zip(rest, whole[4:], strict=True):
        for part, expected_part in zip(batch, expected, strict=True):
            for name, array in part.items():
                np.testing.assert_array_equal(array, expected_part[name])


def test_a_stream_of_fresh_people_can_be_left_at_any_time(fresh, face_whitening):
    for _ in range(3):
        stream = fresh_pair_dataset(fresh, face_whitening).as_numpy_iterator()
        next(stream)
        del stream  # its threads are at work on the next batches


def test_fresh_groups_hold_all_photos_of_each_person(fresh, face_whitening):
    people = dataclasses.replace(fresh, photos=3, first_person=8)
    stream = fresh_group_dataset(people, face_whitening).take(2).as_numpy_iterator()
    for step, (inputs, targets) in enumerate(stream):
        first = 8 + 4 * step
        numbers, counts = np.unique(targets["person"], return_counts=True)
        np.testing.assert_array_equal(numbers, range(first, first + 4))
        assert (counts == 3).all()
        assert len(np.unique(inputs, axis=0)) == 12


def shards_of(kind, records, model, whitening, world_size):
    """The batch of step 3 of a stream, made by a number of processes, one after the other."""
    groups = JoinedSampler(
        [GroupSampler(records.identity, 2, 2), GroupSampler(records.identity, 4, 1)]
    )
    augmenter = GroupAugmenter(model, np.arange(len(records)) % 2 == 0, seed=1)
    people = SyntheticConfig(people=4, photos=2, size=32)
    streams = {
        "pairs": lambda **k: pair_dataset(
            records, whitening, PairSampler(records.identity), 8, **k
        ),
        "groups": lambda **k: group_dataset(records, whitening, groups, augmenter=augmenter, **k),
        "fresh pairs": lambda **k: fresh_pair_dataset(people, whitening, **k),
        "fresh groups": lambda **k: fresh_group_dataset(people, whitening, **k),
    }
    parts = [
        next(iter(streams[kind](first_step=3, shard=Shard(rank, world_size)).take(1)))
        for rank in range(world_size)
    ]
    return keras.tree.map_structure(
        lambda *rows: np.concatenate([np.asarray(r) for r in rows]), *parts
    )


@pytest.mark.parametrize("kind", ["pairs", "groups", "fresh pairs", "fresh groups"])
def test_any_number_of_processes_makes_the_same_batch(records, kind):
    """Pixels and labels bit by bit, the random changes of the host's augmentation included."""
    model = MorphableModel.open_face()
    size = ParameterLayout(model.n_identity, model.n_expression).size
    records = dataclasses.replace(
        records,
        images=np.random.default_rng(0).integers(0, 255, (12, 32, 32, 3), np.uint8),
        parameters=np.random.default_rng(1).normal(size=(12, size)).astype(np.float32),
    )
    whitening = Whitening(np.zeros(size), np.ones(size))
    whole, *others = (shards_of(kind, records, model, whitening, n) for n in (1, 2, 4))
    for other in others:
        keras.tree.map_structure(np.testing.assert_array_equal, whole, other)


class Vanishing:
    """Batches whose photos are gone from the fourth on."""

    error = FileNotFoundError(2, "No such file or directory", "00000.images.npy")

    def __call__(self, step):
        if step > 2:
            raise self.error
        return np.full((2, 3), step, np.float32), {"label": np.zeros(2, np.float32)}


def test_an_error_of_a_batch_is_raised_as_it_was():
    steps = []
    with pytest.raises(FileNotFoundError) as caught, original_errors():
        steps.extend(int(inputs[0, 0]) for inputs, _ in as_dataset(Vanishing()))
    assert caught.value is Vanishing.error and steps == [0, 1, 2]


def test_an_error_of_a_batch_ends_training_as_it_was():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="label")])
    model.compile("sgd", "mse", run_eagerly=True)
    batches = as_dataset(Vanishing()).map(lambda inputs, labels: (inputs, labels["label"]))
    with pytest.raises(FileNotFoundError) as caught, original_errors():
        model.fit(batches, steps_per_epoch=9, shuffle=False, verbose=0)
    assert caught.value is Vanishing.error


def test_without_that_the_error_is_tensorflows():
    with pytest.raises(tf.errors.OpError, match=r"00000\.images\.npy"):
        list(as_dataset(Vanishing()))


@pytest.mark.parametrize(
    "error", [OSError("the disk is full"), tf.errors.InternalError(None, None, "of TensorFlow's")]
)
def test_errors_outside_of_batches_are_unchanged(error):
    with pytest.raises(FileNotFoundError), original_errors():
        list(as_dataset(Vanishing()))  # must not affect the next block
    with pytest.raises(type(error)) as caught, original_errors():
        raise error
    assert caught.value is error
