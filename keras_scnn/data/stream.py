"""Batches for ``model.fit``: as a ``tf.data.Dataset``, or through grain without TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from keras_scnn.data.augment import GroupAugmenter
from keras_scnn.data.records import FaceRecords
from keras_scnn.data.samplers import (
    WHOLE,
    GroupBatch,
    GroupSampler,
    JoinedSampler,
    PairBatch,
    PairSampler,
    Shard,
)
from keras_scnn.data.synthesis.fresh_people import EachPhotoOnce, fresh_photos
from keras_scnn.data.synthesis.rendered_people import SyntheticConfig
from keras_scnn.parameters import Whitening

if TYPE_CHECKING:
    import tensorflow as tf

READERS = 2  # the photos are memory-mapped: a batch costs less than a millisecond when cached
_failures: list[Exception] = []  # of making batches, since ``original_errors`` was entered
Batch = tuple[np.ndarray | dict[str, np.ndarray], dict[str, np.ndarray]]


def pair_dataset(
    records: FaceRecords,
    whitening: Whitening,
    sampler: PairSampler,
    batch_size: int = 32,
    first_step: int = 0,
    input_names: Iterable[str] | None = None,
    shard: Shard = WHOLE,
) -> tf.data.Dataset:
    """An endless, ordered stream of batches; the same arguments give the same stream.

    Args:
        records: the photos, their parameters and landmarks.
        whitening: of the parameters.
        sampler: of the records' identities.
        batch_size: pairs in a batch of all processes, B.
        first_step: where in the sampler's stream to begin, for a resumed run.
        input_names: for a network of ``losses.add_loss_layers``, whose labels are inputs too, the
            names of its inputs: ``network.input``.
        shard: the rows of each batch that are wanted.

    Returns:
        a data set of ``(inputs, targets)``, the dictionaries of ``pair_batch``; or, with
        ``input_names``, of one dictionary, see ``join_labels``.

    Raises:
        ValueError: as ``pair_batch`` and ``join_labels``.
    """
    make = partial(pair_batch, records, whitening, sampler, batch_size=batch_size, shard=shard)
    pairs = as_dataset(make, first_step)
    return pairs if input_names is None else pairs.map(partial(join_labels, names=[*input_names]))


def join_labels(inputs: dict, targets: dict, names: Iterable[str]) -> dict:
    """A batch of ``pair_batch`` as inputs alone, for a network whose losses are layers.

    Args:
        inputs: of ``pair_batch``.
        targets: of ``pair_batch``.
        names: of the arrays: images; ``same``; and other targets as ``<name>_label``.

    Returns:
        the arrays of these names.

    Raises:
        ValueError: there is no array of a name.
    """
    labels = {f"{name}_label": value for name, value in targets.items()}
    known = {**inputs, **labels, "same": targets["parameter_distance"]}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(
            f"no array of a batch is named '{unknown[0]}'; there are {', '.join(known)}: name the "
            "inputs for labels like these, or map the stream"
        )
    return {name: known[name] for name in names}


def fresh_pair_dataset(
    people: SyntheticConfig,
    whitening: Whitening,
    p_same: float = 0.4,
    first_step: int = 0,
    shard: Shard = WHOLE,
) -> tf.data.Dataset:
    """As ``pair_dataset``, of people who are rendered for one batch alone, each photo in one pair.

    Args:
        people: of one step, with two photos each.
        whitening: of the parameters.
        p_same: probability that a pair shows one person.
        first_step, shard: as ``pair_dataset``.
    """
    sampler = EachPhotoOnce(p_same, people.seed)

    def make(step: int) -> Batch:
        rows = shard.rows(people.people)
        first, second, same = (x[rows] for x in sampler.batch(step, people.people))
        records, (first, second) = fresh_photos(people, step, first, second)
        return _pairs(records, whitening, PairBatch(first, second, same))

    return as_dataset(make, first_step)


def group_dataset(
    records: FaceRecords,
    whitening: Whitening,
    sampler: GroupSampler | JoinedSampler,
    first_step: int = 0,
    augmenter: GroupAugmenter | None = None,
    shard: Shard = WHOLE,
) -> tf.data.Dataset:
    """An endless, ordered stream of the batches of ``group_batch``, from ``first_step`` on."""
    make = partial(group_batch, records, whitening, sampler, augmenter=augmenter, shard=shard)
    return as_dataset(make, first_step)


def fresh_group_dataset(
    people: SyntheticConfig, whitening: Whitening, first_step: int = 0, shard: Shard = WHOLE
) -> tf.data.Dataset:
    """As ``group_dataset``, of people who are rendered for one batch alone, all photos of each."""
    rows = shard.rows(people.people * people.photos)

    def make(step: int) -> Batch:
        identity = np.repeat(np.arange(people.people), people.photos)
        sampler = GroupSampler(identity, people.people, people.photos, seed=people.seed)
        photo = sampler.batch(step).photo[rows]
        records, (photo,) = fresh_photos(people, step, photo)
        return _group(records, whitening, GroupBatch(photo, records.identity[photo]))

    return as_dataset(make, first_step)


def pair_batch(
    records: FaceRecords,
    whitening: Whitening,
    sampler: PairSampler | EachPhotoOnce,
    step: int,
    batch_size: int,
    shard: Shard = WHOLE,
) -> Batch:
    """One batch, or a shard of it, in the names of ``build_siamese``.

    Returns:
        inputs: ``image_a``, ``image_b`` (B, S, S, 3) uint8 RGB.
        targets, float32: ``parameters_a``, ``parameters_b`` (B, P) whitened; ``landmarks_a``,
        ``landmarks_b`` (B, 68, 3): x, y in crop px, and a weight; ``parameter_distance`` and
        ``feature_similarity`` (B,): 1 where both photos show one person, else 0.

    Raises:
        ValueError: the sampler draws no pairs, or of other photos than the records, the whitening
            is of another number of parameters, or the shard as ``Shard.rows``.
    """
    if isinstance(sampler, GroupSampler | JoinedSampler):
        raise ValueError(f"sampler is a {type(sampler).__name__}; pairs need a PairSampler")
    _check_fit(records, whitening, sampler)
    rows = shard.rows(batch_size)
    return _pairs(
        records, whitening, PairBatch(*(x[rows] for x in sampler.batch(step, batch_size)))
    )


def _check_fit(records: FaceRecords, whitening: Whitening, sampler) -> None:
    """Raise a ValueError where a sampler or a whitening is not of these records."""
    total = getattr(sampler, "total", len(records))  # one of a user's own need not say
    if total != len(records):
        raise ValueError(
            f"the sampler is of {total} photos, the records have {len(records)}; make it of "
            "all of records.identity, and give among= to draw from some"
        )
    if len(whitening.mean) != records.parameters.shape[1]:
        raise ValueError(
            f"the whitening is of {len(whitening.mean)} parameters, the records have "
            f"{records.parameters.shape[1]}"
        )


def _pairs(records: FaceRecords, whitening: Whitening, pairs: PairBatch) -> Batch:
    inputs, targets = {}, {}
    for side, index in (("a", pairs.first), ("b", pairs.second)):
        inputs[f"image_{side}"] = np.asarray(records.images[index])
        targets[f"parameters_{side}"], targets[f"landmarks_{side}"] = _labels(
            records, whitening, index
        )
    same = pairs.same.astype(np.float32)
    return inputs, {**targets, "parameter_distance": same, "feature_similarity": same.copy()}


def group_batch(
    records: FaceRecords,
    whitening: Whitening,
    sampler: GroupSampler | JoinedSampler,
    step: int,
    augmenter: GroupAugmenter | None = None,
    shard: Shard = WHOLE,
) -> Batch:
    """One batch of P times K photos, or a shard of it.

    Returns:
        inputs: (B, S, S, 3) uint8 RGB.
        labels, of which ``training.objectives.targets_of`` gives each output of ``build_group`` its
        own: ``parameters`` (B, P) float32, whitened; ``landmarks`` (B, 68, 4) float32: x, y in crop
        px, depth, and a weight; ``person`` (B,) int32, equal for photos of one; and if the records
        have embeddings, ``embedding`` (B, E) float32, NaN where unknown.

    Raises:
        ValueError: as ``pair_batch``.
    """
    if isinstance(sampler, PairSampler):
        raise ValueError("sampler is a PairSampler; groups need a GroupSampler or JoinedSampler")
    _check_fit(records, whitening, sampler)
    batch = sampler.batch(step)
    rows = shard.rows(len(batch.photo))
    moved = None if augmenter is None else partial(augmenter, step, rows.start)
    return _group(records, whitening, GroupBatch(*(x[rows] for x in batch)), moved)


def _group(
    records: FaceRecords,
    whitening: Whitening,
    batch: GroupBatch,
    moved: Callable | None = None,
) -> Batch:
    photo, person = batch
    images, vectors = np.asarray(records.images[photo]), records.parameters[photo]
    weight = np.ones((len(photo), 68)) if records.weight is None else records.weight[photo]
    points = np.concatenate([records.landmarks[photo], weight[..., None]], axis=-1)
    if moved is not None:
        images, points, vectors = moved(photo, person, images, points, vectors)
    labels = {
        "parameters": whitening.whiten(vectors).astype(np.float32),
        "landmarks": points.astype(np.float32),
        "person": person.astype(np.int32),
    }
    if records.embedding is not None:
        labels["embedding"] = records.embedding[photo].astype(np.float32)
    return images, labels


def _labels(records: FaceRecords, whitening: Whitening, index) -> tuple[np.ndarray, np.ndarray]:
    vector = whitening.whiten(records.parameters[index]).astype(np.float32)
    landmarks = np.array(records.landmarks[index], np.float32)
    landmarks[..., 2] = 1 if records.weight is None else records.weight[index]
    return vector, landmarks


def as_dataset(make: Callable[..., Batch], first_step: int = 0) -> tf.data.Dataset:
    """``make(step=first_step)``, ``make(step=first_step + 1)``, ... as an endless data set.

    Args:
        make: a pure function of ``step``; all its batches have the same shapes.
        first_step: the first step.
    """
    import tensorflow as tf

    probe = make(step=first_step)
    arrays = tf.nest.flatten(probe)

    def load(step):
        flat = partial(_flat_batch, make)
        tensors = tf.numpy_function(flat, [step], [a.dtype for a in arrays], stateful=False)
        for tensor, array in zip(tensors, arrays, strict=True):
            tensor.set_shape(array.shape)
        return tf.nest.pack_sequence_as(probe, tensors)

    steps = tf.data.Dataset.counter(first_step)
    return steps.map(load, num_parallel_calls=READERS, deterministic=True).prefetch(2 * READERS)


def _flat_batch(make: Callable[..., Batch], step) -> list[np.ndarray]:
    import tensorflow as tf

    try:
        return tf.nest.flatten(make(step=int(step)))
    except Exception as error:
        _failures.append(error)
        raise


@contextmanager
def original_errors() -> Iterator[None]:
    """While this is open, an error of making a batch is raised as it was.

    TensorFlow keeps only the text of an error that a Python function of a data set raises, in an
    error of its own.
    """
    _failures.clear()
    try:
        yield
    except Exception as error:
        if _failures and type(error).__module__.startswith("tensorflow"):
            raise _failures[0] from error
        raise
    finally:
        _failures.clear()


def as_iterator(make: Callable[..., Batch], first_step: int = 0) -> Generator[Batch]:
    """The same stream as ``as_dataset``'s, without TensorFlow: for the other backends.

    Batches are made ahead, in threads, by grain. It has no end and is shuffled: ``model.fit`` takes
    it with ``steps_per_epoch=...`` and ``shuffle=False``.

    Raises:
        ImportError: the extra is not installed.
    """
    try:
        import grain
    except ImportError as error:
        raise ImportError("pip install '.[grain]' brings what this needs") from error

    steps = grain.MapDataset.source(range(first_step, 2**62)).map(lambda step: make(step=step))
    # ``fit`` takes generators, not iterators of other kinds.
    return (batch for batch in steps.to_iter_dataset(grain.ReadOptions(READERS, 2 * READERS)))
