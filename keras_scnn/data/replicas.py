"""A batch over the devices of one process, on TensorFlow: its rows divided among replicas.

In a step each replica runs the same code on a device of its own. Elsewhere, as where Keras only looks
at shapes, the functions hand on what they are given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    import tensorflow as tf


def device_names() -> list[str]:
    """TensorFlow's devices of this process: its accelerators, or where there are none, its CPUs."""
    import tensorflow as tf

    devices = tf.config.list_logical_devices
    return [one.name for one in devices("GPU") or devices("CPU")]


def mirrored(names: list[str]) -> tf.distribute.MirroredStrategy:
    """One replica on each of some devices of ``device_names``."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(names)


def replica_count() -> int:
    """How many replicas the strategy has in whose scope this is called; 1 without."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def all_rows(arrays: Any) -> Any:
    """The rows of all replicas, in their order, of each array (rows, ...) of a structure.

    Bytes become float32, as networks take them: TensorFlow gathers none.
    """
    import tensorflow as tf

    replica = tf.distribute.get_replica_context()

    def gathered(array):
        number = tf.cast(array, tf.float32) if array.dtype == tf.uint8 else array
        # One by one: the gradient of several together wants them of one shape.
        return tf.ensure_shape(replica.all_gather(number, axis=0), [None, *array.shape[1:]])

    return tf.nest.map_structure(gathered, arrays) if replica else arrays


def own_rows(array: Any) -> Any:
    """This replica's rows of an array (B, ...) that all have."""
    import tensorflow as tf

    replica = tf.distribute.get_replica_context()
    if not replica:
        return array
    count = tf.shape(array)[0] // replica.num_replicas_in_sync
    return array[replica.replica_id_in_sync_group * count :][:count]


def mean_over_replicas(arrays: list) -> list:
    """The mean over replicas of each array of a list; a None stays."""
    if replica_count() == 1:
        return arrays
    import tensorflow as tf

    replica = tf.distribute.get_replica_context()
    given = [array for array in arrays if array is not None]
    means = iter(replica.all_reduce(tf.distribute.ReduceOp.MEAN, given))
    return [None if array is None else next(means) for array in arrays]
