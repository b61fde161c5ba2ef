"""SavedModel for servers, with three signatures.

- ``reconstruct``: ``image`` (1, S, S, 3) uint8 RGB, one crop.
- ``reconstruct_batch``: ``image`` (B, S, S, 3). Also the default, ``serving_default``.
- ``reconstruct_jpeg``: ``photo`` (B,) encoded photos and ``box`` (B, 4) float32, px; crops are made
  as in ``keras_scnn.photos.cropping``, and outputs are in pixels of the photo.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from keras_scnn.export.exported_model import build_exported_model, check_backend, save_module
from keras_scnn.export.metadata import build_metadata
from keras_scnn.export.tf_cropping import crop_bytes
from keras_scnn.models import Preset
from keras_scnn.parameters import POSE_SIZE
from keras_scnn.storage.atomic import staged_folder
from keras_scnn.storage.text import json_text, printable

if TYPE_CHECKING:
    import tensorflow as tf

METADATA = "keras_scnn.json"


def write_saved_model(
    folder: str | os.PathLike,
    preset: Preset,
    vertices: bool = True,
    name: str = "preset",
    card: str = "",
) -> None:
    """Write a preset's network as a SavedModel, atomically.

    Args:
        folder: to create; it must not exist.
        preset: the trained network.
        vertices: also output all vertices.
        name, card: of the preset, for the metadata in ``assets.extra/keras_scnn.json``.

    Raises:
        ValueError: the folder exists, or its path is not UTF-8, or Keras does not run on
            TensorFlow.
        OSError: it cannot be written.
    """
    check_backend()
    import tensorflow as tf

    folder = Path(folder)
    path = str(folder.absolute())
    if printable(path) != path:
        why = "TensorFlow needs a path in UTF-8; rename the preset's or the output folder"
        raise ValueError(f"{printable(folder.name)}: {why}")
    if folder.exists():
        raise ValueError(f"{folder}: already exists; a SavedModel needs a new folder")
    model = build_exported_model(preset, vertices)
    module = tf.Module()
    module.model = model
    signatures = _signatures(model, preset.input_size)
    with staged_folder(folder.parent) as aside:
        temporary = aside / folder.name
        save_module(module, temporary, signatures)
        extra = temporary / "assets.extra"
        extra.mkdir()
        metadata = build_metadata(preset, name, "float32", vertices, card)
        (extra / METADATA).write_text(json_text(metadata))
        temporary.rename(folder)


def _signatures(model, size: int) -> dict:
    import tensorflow as tf

    def run(image):
        return model(image, training=False)

    def run_jpeg(photo, box):
        cut = tf.map_fn(
            lambda one: crop_bytes(*one, size),
            (photo, box),
            fn_output_signature=tf.TensorSpec((size, size, 3), tf.uint8),
        )
        return in_photo(model(cut, training=False), box, size)

    one, many = (tf.TensorSpec((n, size, size, 3), tf.uint8, name="image") for n in (1, None))
    photo = tf.TensorSpec((None,), tf.string, name="photo")
    box = tf.TensorSpec((None, 4), tf.float32, name="box")
    batch = tf.function(run, input_signature=[many], autograph=False)
    return {
        "serving_default": batch,
        "reconstruct": tf.function(run, input_signature=[one], autograph=False),
        "reconstruct_batch": batch,
        "reconstruct_jpeg": tf.function(run_jpeg, input_signature=[photo, box], autograph=False),
    }


def in_photo(outputs: dict[str, tf.Tensor], box: tf.Tensor, size: int) -> dict[str, tf.Tensor]:
    """Convert outputs from px of the crops to px of the photos, given the (B, 4) crop boxes."""
    import tensorflow as tf

    grow = (box[:, 2:] - box[:, :2]) / size
    grow = tf.concat([grow, tf.sqrt(tf.reduce_prod(grow, axis=1, keepdims=True))], axis=1)
    shift = tf.pad(box[:, :2] + 0.5 * grow[:, :2] - 0.5, [[0, 0], [0, 1]])
    pose = tf.reshape(outputs["parameters"][:, :POSE_SIZE], (-1, 3, 4)) * grow[:, :, None]
    translation = pose[:, :, 3] + shift
    pose = tf.concat([pose[:, :, :3], translation[:, :, None]], axis=2)
    parts = [tf.reshape(pose, (-1, POSE_SIZE)), outputs["parameters"][:, POSE_SIZE:]]
    return outputs | {
        "parameters": tf.concat(parts, axis=1),
        "scale": tf.reduce_mean(tf.norm(pose[:, :2, :3], axis=-1), axis=1),
        "translation": translation,
        "landmarks": outputs["landmarks"] * grow[:, None] + shift[:, None],
    }
