"""Train a tiny network, in a process of its own: python group_run.py SETTINGS.json [CPUS]

The file has a list of settings of ``TrainConfig``, each also with ``weights``, a file for the
final weights, and ``disk``: 'full' simulates a full disk. Nothing is measured.
If TensorFlow is Keras's backend, it gets CPUS logical CPUs.
"""

import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from keras_scnn.settings import command
from keras_scnn.training.config import TrainConfig

STEPS_PER_EPOCH = 2
TINY = dict(
    start="", people=8, photos=4, held_out=4, crop_size=32, feature_size=8, warmup=1,
    minutes=0.0, tensorboard=False, optimizer="sgd", learning_rate=0.001, augmentation=1.0,
    join_seconds=200.0,
)  # fmt: skip
PAIRS = dict(batch_size=8, fresh=False)
GROUPS = dict(batches="groups", group_people=4, group_photos=2, single_photos=0, fresh=False)
GROUPS |= dict(augment_on="host")


def divide_cpu(count):
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    each = tf.config.LogicalDeviceConfiguration()
    tf.config.set_logical_device_configuration(cpu, [each] * count)


def full_disk(path):
    path.write_bytes(b"half")
    raise OSError(28, "No space left on device")


@command
def main(arguments=None):
    from pathlib import Path
    from unittest import mock

    import numpy as np
    from tiny_encoder import known_encoder

    from keras_scnn.training import run

    if sys.argv[2:]:
        divide_cpu(int(sys.argv[2]))
    for settings in json.loads(Path(sys.argv[1]).read_text()):
        weights, disk = settings.pop("weights", ""), settings.pop("disk", "")
        with (
            known_encoder() as encoder,
            mock.patch.object(run, "STEPS_PER_EPOCH", STEPS_PER_EPOCH),
            mock.patch.object(run, "measure_before"),
        ):
            config = TrainConfig(**{**TINY, "encoder": encoder, **settings})
            with run.join_group(config) as group:
                trained = run.set_up(config, group)
                if disk == "full":
                    trained.network.save_weights = full_disk
                run.fit(trained, group)
        if group.is_first and weights:
            np.savez(weights, *(np.asarray(w) for w in trained.network.weights))


if __name__ == "__main__":
    sys.exit(main())
