"""Batches of pairs for ``model.fit`` of the Siamese network, as a ``tf.data.Dataset``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from keras_scnn.data.pairs import PairSampler
from keras_scnn.data.records import FaceRecords
from keras_scnn.parameters import Whitening

if TYPE_CHECKING:
    import tensorflow as tf

READERS = 2  # the photos are memory-mapped: a batch costs less than a millisecond when cached


def pair_dataset(
    records: FaceRecords,
    whitening: Whitening,
    sampler: PairSampler,
    batch_size: int = 32,
    first_step: int = 0,
) -> tf.data.Dataset:
    """An endless, ordered stream of batches; the same arguments give the same stream.

    Args:
        records: the photos, their parameters and landmarks.
        whitening: of the parameters.
        sampler: of the records' identities.
        batch_size: pairs in a batch, B.
        first_step: where in the sampler's stream to begin, for a resumed run.

    Returns:
        a data set of ``(inputs, targets)``, the dictionaries of ``pair_batch``.
    """
    import tensorflow as tf

    probe = pair_batch(records, whitening, sampler, 0, batch_size)
    names = [sorted(part) for part in probe]
    arrays = [part[name] for part, keys in zip(probe, names, strict=True) for name in keys]

    def make(step):
        parts = pair_batch(records, whitening, sampler, int(step), batch_size)
        return [part[name] for part, keys in zip(parts, names, strict=True) for name in keys]

    def load(step):
        flat = tf.numpy_function(make, [step], [array.dtype for array in arrays], stateful=False)
        for tensor, array in zip(flat, arrays, strict=True):
            tensor.set_shape(array.shape)
        inputs = dict(zip(names[0], flat[: len(names[0])], strict=True))
        return inputs, dict(zip(names[1], flat[len(names[0]) :], strict=True))

    steps = tf.data.Dataset.counter(first_step)
    return steps.map(load, num_parallel_calls=READERS, deterministic=True).prefetch(2 * READERS)


def pair_batch(
    records: FaceRecords, whitening: Whitening, sampler: PairSampler, step: int, batch_size: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """One batch, in the names of ``build_siamese``.

    Returns:
        inputs: ``image_a``, ``image_b`` (B, S, S, 3) uint8 RGB.
        targets, float32: ``parameters_a``, ``parameters_b`` (B, P) whitened; ``landmarks_a``,
        ``landmarks_b`` (B, 68, 3): x, y in crop px, and the weight 1; ``parameter_distance`` and
        ``feature_similarity`` (B,): 1 where both photos show one person, else 0.
    """
    pairs = sampler.batch(step, batch_size)
    inputs, targets = {}, {}
    for side, index in (("a", pairs.first), ("b", pairs.second)):
        inputs[f"image_{side}"] = np.asarray(records.images[index])
        vector = whitening.whiten(records.parameters[index])
        targets[f"parameters_{side}"] = vector.astype(np.float32)
        landmarks = np.array(records.landmarks[index], np.float32)
        landmarks[..., 2] = 1
        targets[f"landmarks_{side}"] = landmarks
    same = pairs.same.astype(np.float32)
    return inputs, {**targets, "parameter_distance": same, "feature_similarity": same.copy()}
