"""keras_scnn: one photo to a 3D face that is that person's face."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Imported on first use, so that reading a face model does not start a deep learning framework.
_HOMES = {
    "FaceParameters": "parameters",
    "MorphableModel": "morphable_model",
    "ParameterLayout": "parameters",
    "ParameterSpace": "parameters",
    "Reconstructor": "reconstruction.reconstructor",
    "Whitening": "parameters",
    "build_encoder": "models",
    "build_siamese": "models",
    "fit_landmarks": "fitting",
    "fit_person_landmarks": "fitting",
    "load_face_model": "face_models",
    "load_preset": "models",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'keras_scnn' has no attribute '{name}'")
    return getattr(importlib.import_module(f"keras_scnn.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
