"""Landmarks of face records, completed where they have no label."""

from __future__ import annotations

import numpy as np

from keras_scnn.data.records import FaceRecords
from keras_scnn.geometry.camera import project
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import FaceParameters, ParameterLayout


def known_landmarks(records: FaceRecords, model: MorphableModel) -> np.ndarray:
    """(n, 68, 3) crop px and depth: the records' landmarks, as ``prepare`` completes them.

    Those without a label (weight 0), which may be NaN, are from the records' parameters.
    """
    if records.weight is None or (records.weight > 0).all():
        return records.landmarks
    layout = ParameterLayout(model.n_identity, model.n_expression)
    faces = FaceParameters.from_vector(records.parameters, layout)
    fitted = project(faces.pose, model.landmarks(faces.identity, faces.expression))
    return np.where(records.weight[..., None] > 0, records.landmarks, fitted)
