"""Where an annotation puts its landmarks: offsets that make the mean faces agree."""

from __future__ import annotations

import numpy as np

from keras_scnn.data.bfm_full import MICROMETER
from keras_scnn.data.bfm_landmarks import BfmLandmarks
from keras_scnn.geometry.alignment import apply_similarity, similarity_alignment
from keras_scnn.morphable_model import MorphableModel


def with_annotated_mean(model: MorphableModel, basis: BfmLandmarks) -> MorphableModel:
    """The face model with landmark offsets that put its mean face's landmarks where BFM's are.

    Offsets learned from photos alone can take up what is a mean expression, or a mean shape; then
    neutral shapes are wrong by as much. The annotation's own mean face has neither.

    Args:
        model: any face model; its present offsets are not looked at.
        basis: of the annotation; its mean face is brought to the model's by a similarity.
    """
    bare = model.replace(landmark_offsets=np.zeros((68, 3), np.float32))
    own = bare.landmarks().astype(np.float64)
    mean = basis.mean * MICROMETER
    aligned = apply_similarity(*similarity_alignment(mean, own), mean)
    return model.replace(landmark_offsets=(aligned - own).astype(np.float32))
