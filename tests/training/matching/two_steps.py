"""Trains by matching on JAX, whole and interrupted; ``test_matching`` runs it in a process.

    KERAS_BACKEND=jax python two_steps.py FOLDER

FOLDER has recognizer.dat; the results are FOLDER/whole and FOLDER/resumed.
"""

import sys
from functools import partial
from pathlib import Path

import keras

from keras_scnn.models.encoder_table import ENCODERS, Encoder
from keras_scnn.training import run
from keras_scnn.training.config import TrainConfig
from keras_scnn.training.run_folder import Checkpoints

SETTINGS = dict(
    batches="matching",
    people=13,
    photos=10,
    crop_size=32,
    held_out=2,
    feature_size=8,
    group_people=2,
    group_photos=2,
    single_photos=3,
    group_share=0.55,
    group_landmarks=0.4,
    depth_weight=1.0,
    embedding_weight=1.2,
    likeness_weight=0.6,
    optimizer="adamw",
    weight_average=0.5,
    start="",
    warmup=2,
    minutes=0.0,
    steps=4,
    tensorboard=False,
)


class Interrupted(Checkpoints):
    """Stops the run after its first checkpoint."""

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        raise KeyboardInterrupt


def small(input_tensor, **_) -> keras.Model:
    """An encoder that compiles fast."""
    x = keras.layers.Conv2D(8, 5, 4, use_bias=False, name="conv1")(input_tensor)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9, name="norm1")(x))
    inputs = keras.utils.get_source_inputs(input_tensor)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))


def main(folder: Path) -> None:
    assert keras.backend.backend() == "jax"
    run.STEPS_PER_EPOCH = 2
    run.evaluate_records = partial(run.evaluate_records, resamples=0)
    ENCODERS["mobilenet_0.5"] = Encoder(small)

    def config(name: str) -> TrainConfig:
        places = {"run": str(folder / name), "cache": str(folder / "cache")}
        return TrainConfig(recognizer=str(folder / "recognizer.dat"), **places, **SETTINGS)

    run.train(config("whole"))
    run.Checkpoints = Interrupted
    try:
        run.train(config("resumed"))
    except KeyboardInterrupt:
        run.Checkpoints = Checkpoints
        run.train(config("resumed"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
