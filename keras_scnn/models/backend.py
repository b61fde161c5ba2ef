"""Importing Keras without its backend's startup messages."""

from __future__ import annotations

import os
import sys

from keras_scnn.storage.quiet import without_native_lines


def check_data_format() -> None:
    """Raise a ValueError if Keras is set to channels first, which no network here supports.

    Keras's own errors would be about weights or shapes of the preset.
    """
    start_keras()
    import keras

    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "Keras is set to image_data_format 'channels_first', in ~/.keras/keras.json or by "
            "keras.config.set_image_data_format; set it to 'channels_last'"
        )


def start_keras() -> None:
    """Import Keras and its backend without their messages; no effect if already imported.

    TensorFlow prints lines on oneDNN, CUDA and logging before it reads any setting.
    """
    if "keras" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with without_native_lines():
        import keras  # noqa: F401
