"""Starting Keras without the notices of its backend."""

from __future__ import annotations

import os
import sys

from keras_scnn.storage.quiet import without_native_lines


def start_keras() -> None:
    """Import Keras and its backend; of no effect where that is done.

    TensorFlow writes about oneDNN, CUDA and its own log before it has read any setting.
    """
    if "keras" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with without_native_lines():
        import keras  # noqa: F401
