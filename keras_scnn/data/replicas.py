"""A batch on several devices of one TensorFlow process: its rows are divided among replicas.

In a step of ``MirroredStrategy`` each replica runs the same code on its own device. Elsewhere, such
as when Keras only infers shapes, these functions return their arguments unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    import tensorflow as tf


def device_names() -> list[str]:
    """Names of this process's TensorFlow devices: its GPUs, or if there are none, its CPUs."""
    import tensorflow as tf

    devices = tf.config.list_logical_devices
    return [one.name for one in devices("GPU") or devices("CPU")]


def mirrored_strategy(names: Sequence[str]) -> tf.distribute.MirroredStrategy:
    """A strategy with one replica on each device; names as returned by ``device_names``."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(list(names))


def replica_count() -> int:
    """The number of replicas of the current strategy; 1 without one."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def _replica() -> Any:
    """The ``ReplicaContext`` within a step; None elsewhere."""
    if replica_count() == 1:
        return None
    import tensorflow as tf

    return tf.distribute.get_replica_context()


def all_rows(arrays: Any) -> Any:
    """The rows of all replicas, in their order, for each array (rows, ...) of a structure.

    uint8 becomes float32, as networks take it: TensorFlow cannot gather uint8.
    """
    replica = _replica()
    if not replica:
        return arrays
    import tensorflow as tf

    def gathered(array):
        number = tf.cast(array, tf.float32) if array.dtype == tf.uint8 else array
        # One by one: the gradient of gathering several together requires equal shapes.
        return tf.ensure_shape(replica.all_gather(number, axis=0), [None, *array.shape[1:]])

    return tf.nest.map_structure(gathered, arrays)


def own_rows(array: Any) -> Any:
    """This replica's rows of an array (B, ...) that all share; B must be divisible among them."""
    replica = _replica()
    if not replica:
        return array
    import tensorflow as tf

    count = tf.shape(array)[0] // replica.num_replicas_in_sync
    return array[replica.replica_id_in_sync_group * count :][:count]


def mean_over_replicas(arrays: Sequence[Any]) -> Sequence[Any]:
    """The mean over replicas of each array; None stays None."""
    replica = _replica()
    if not replica:
        return arrays
    import tensorflow as tf

    given = [array for array in arrays if array is not None]
    means = iter(replica.all_reduce(tf.distribute.ReduceOp.MEAN, given))
    return [None if array is None else next(means) for array in arrays]
