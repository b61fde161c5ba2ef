"""The landmark basis of 300W-LP from a user's own copy of the Basel Face Model."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import scipy.io

from keras_scnn.data.bfm_landmarks import BfmLandmarks
from keras_scnn.face_models.bfm import MICROMETER, read_bfm2009


def bfm2009_landmarks(
    path: str | os.PathLike, expression: str | os.PathLike, model_info: str | os.PathLike
) -> BfmLandmarks:
    """The 68 landmarks of the whole model, as the annotation of 300W-LP means its parameters.

    Shape_Para and Exp_Para weigh the files' directions as they are, where the library's own model
    weighs them in standard deviations.

    Args:
        path: 01_MorphableModel.mat of the Basel Face Model 2009.
        expression: Model_Expression.mat of 3DDFA.
        model_info: model_info.mat of 3DDFA, which says which vertices the landmarks are.

    Raises:
        FileNotFoundError, ValueError: see ``face_models.read_bfm2009``; or a standard deviation
            is 0.
    """
    model = read_bfm2009(path, expression, model_info)
    vertices = model.landmark_indices
    identity = model.identity_basis[vertices] / _deviations(path, "shapeEV")
    expressions = model.expression_basis[vertices] / _deviations(expression, "sigma_exp")
    parts = model.mean[vertices], identity, expressions
    return BfmLandmarks(*(np.float64(part) / MICROMETER for part in parts))


def _deviations(path: str | os.PathLike, name: str) -> np.ndarray:
    """Standard deviations (K,) of the directions, in the file's unit."""
    deviations = scipy.io.loadmat(Path(path), variable_names=[name])[name].reshape(-1)
    if not (deviations > 0).all():
        raise ValueError(f"{path}: {name} must hold standard deviations larger than 0")
    return deviations.astype(np.float64)
