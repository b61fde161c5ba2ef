"""Batches for ``model.fit``: as a ``tf.data.Dataset``, or from grain without TensorFlow."""

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
from keras_scnn.settings import whole

if TYPE_CHECKING:
    import tensorflow as tf

READERS = 2  # the photos are memory-mapped: a batch costs less than a millisecond when cached
_failures: list[Exception] = []  # errors while making batches since ``original_errors`` was entered
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
        sampler: over the records' identities.
        batch_size: B, pairs in the batch of all processes.
        first_step: step at which to begin, for a resumed run.
        input_names: the names of the network's inputs, ``network.input``, if it was made by
            ``losses.add_loss_layers``, so that labels are inputs too.
        shard: the rows of each batch to return.

    Returns:
        a data set of ``(inputs, targets)``, the dictionaries of ``pair_batch``; or, with
        ``input_names``, of one dictionary, see ``join_labels``.

    Raises:
        ValueError: see ``pair_batch`` and ``join_labels``.
    """
    make = partial(pair_batch, records, whitening, sampler, batch_size=batch_size, shard=shard)
    pairs = as_dataset(make, first_step)
    return pairs if input_names is None else pairs.map(partial(join_labels, names=[*input_names]))


def join_labels(inputs: dict, targets: dict, names: Iterable[str]) -> dict:
    """A batch of ``pair_batch`` as one dictionary of inputs, for a network whose losses are layers.

    Args:
        inputs: of ``pair_batch``.
        targets: of ``pair_batch``.
        names: of the arrays: images; ``same``; and other targets as ``<name>_label``.

    Returns:
        the arrays of these names.

    Raises:
        ValueError: a name is unknown.
    """
    labels = {f"{name}_label": value for name, value in targets.items()}
    known = {**inputs, **labels, "same": targets["parameter_distance"]}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(
            f"no array of a batch is named '{unknown[0]}'; there are {', '.join(known)}: give the "
            "network's label inputs such names, or map the data set"
        )
    return {name: known[name] for name in names}


def fresh_pair_dataset(
    people: SyntheticConfig,
    whitening: Whitening,
    p_same: float = 0.4,
    first_step: int = 0,
    shard: Shard = WHOLE,
) -> tf.data.Dataset:
    """Like ``pair_dataset``, but with new rendered people for each batch, each photo in one pair.

    Args:
        people: of one step, with two photos each.
        whitening: of the parameters.
        p_same: probability that a pair shows one person.
        first_step, shard: as in ``pair_dataset``.

    Raises:
        ValueError: the people have another number of photos, or ``p_same`` is out of range.
    """
    if people.photos != 2:
        raise ValueError(f"photos is {people.photos}; fresh pairs are of people with 2 photos each")
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
    """An endless, ordered stream of batches of ``group_batch``, starting at ``first_step``."""
    make = partial(group_batch, records, whitening, sampler, augmenter=augmenter, shard=shard)
    return as_dataset(make, first_step)


def fresh_group_dataset(
    people: SyntheticConfig, whitening: Whitening, first_step: int = 0, shard: Shard = WHOLE
) -> tf.data.Dataset:
    """Like ``group_dataset``, but with new rendered people for each batch and all their photos."""
    identity = np.repeat(np.arange(people.people), people.photos)
    sampler = GroupSampler(identity, people.people, people.photos, seed=people.seed)
    rows = shard.rows(len(identity))

    def make(step: int) -> Batch:
        records, (photo,) = fresh_photos(people, step, sampler.batch(step).photo[rows])
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
    """One batch, or a shard of it, with the names of ``build_siamese``.

    Returns:
        inputs: ``image_a``, ``image_b`` (B, S, S, 3) uint8 RGB.
        targets, float32: ``parameters_a``, ``parameters_b`` (B, P) whitened; ``landmarks_a``,
        ``landmarks_b`` (B, 68, 3): x, y in crop px, and a weight; ``parameter_distance`` and
        ``feature_similarity`` (B,): 1 if both photos show one person, else 0.

    Raises:
        ValueError: the sampler is not one of pairs, or is not over the records' photos, the
            whitening has another number of parameters, ``batch_size`` is not a whole number above
            0, or the shard is invalid (``Shard.rows``).
    """
    if isinstance(sampler, GroupSampler | JoinedSampler):
        raise ValueError(f"sampler is a {type(sampler).__name__}; pairs need a PairSampler")
    _check_fit(records, whitening, sampler)
    rows = shard.rows(whole("batch_size", batch_size))
    return _pairs(
        records, whitening, PairBatch(*(x[rows] for x in sampler.batch(step, batch_size)))
    )


def _check_fit(records: FaceRecords, whitening: Whitening, sampler) -> None:
    """Raise a ValueError if a sampler or a whitening does not match the records."""
    total = getattr(sampler, "total", len(records))  # a user's own sampler may lack it
    if total != len(records):
        raise ValueError(
            f"the sampler has {total} photos, but the records have {len(records)}; make it from "
            "all of records.identity, and give among= to draw from some"
        )
    if len(whitening.mean) != records.parameters.shape[1]:
        raise ValueError(
            f"the whitening has {len(whitening.mean)} parameters, but the records have "
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
    """One batch of photos of people, or a shard of it.

    Returns:
        inputs: (B, S, S, 3) uint8 RGB.
        labels, which ``training.objectives.targets_of`` assigns to the outputs of ``build_group``:
        ``parameters`` (B, P) float32, whitened; ``landmarks`` (B, 68, 4) float32: x, y in crop px,
        depth, and a weight; ``person`` (B,) int32, equal for photos of one person; and if the
        records have embeddings, ``embedding`` (B, E) float32, NaN if unknown.

    Raises:
        ValueError: see ``pair_batch``.
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
    points = np.concatenate([records.landmarks[photo], records.weights(photo)[..., None]], axis=-1)
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
    landmarks[..., 2] = records.weights(index)
    return vector, landmarks


def as_dataset(make: Callable[..., Batch], first_step: int = 0) -> tf.data.Dataset:
    """``make(step=first_step)``, ``make(step=first_step + 1)``, ... as an endless data set.

    Args:
        make: a pure function of ``step``; all its batches have the same shapes.
        first_step: the first step, a whole number of at least 0.

    Raises:
        ValueError: ``first_step`` is something else.
    """
    import tensorflow as tf

    first_step = whole("first_step", first_step, 0)
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
    """Within this context, an error raised while making a batch is raised in its original type.

    If a Python function of a data set raises an error, TensorFlow keeps only its text, in an error
    of TensorFlow's own.
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
    """The stream of ``as_dataset`` without TensorFlow, for the other backends.

    Batches are prefetched in threads by grain. The stream is endless and already shuffled: call
    ``model.fit`` with ``steps_per_epoch=...`` and ``shuffle=False``.

    Raises:
        ImportError: the extra 'grain' is not installed.
        ValueError: ``first_step`` is not a whole number of at least 0.
    """
    first_step = whole("first_step", first_step, 0)
    try:
        import grain
    except ImportError as error:
        raise ImportError("pip install '.[grain]' brings what this needs") from error

    steps = grain.MapDataset.source(range(first_step, 2**62)).map(lambda step: make(step=step))
    # ``fit`` takes generators, not iterators of other kinds.
    return (batch for batch in steps.to_iter_dataset(grain.ReadOptions(READERS, 2 * READERS)))
