"""Face models: the embedded one, and readers for those that users own."""

from __future__ import annotations

import os

from keras_scnn.morphable_model import MorphableModel


def load_face_model(name_or_path: str | os.PathLike) -> MorphableModel:
    """The embedded model by its name, 'open_face', or a file written by MorphableModel.save."""
    if str(name_or_path) == "open_face":
        return MorphableModel.open_face()
    return MorphableModel.load(name_or_path)
