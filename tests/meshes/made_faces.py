"""Faces in photos, as a network might predict them."""

import numpy as np

from keras_scnn.geometry.camera import compose
from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import FaceParameters
from keras_scnn.photos.cropping import FaceBox
from keras_scnn.reconstruction.faces import Reconstruction


def face_of(model: MorphableModel, seed: int = 3) -> Reconstruction:
    """A random person with some expression, turned, in a photo of 400 x 300 px."""
    rng = np.random.default_rng(seed)
    rotation = rotation_from_euler(np.deg2rad([8, -20, 4]))
    pose = compose(rotation, 0.9, np.array([190.0, 130.0, 0.0]))
    expression = rng.uniform(0, 0.6, model.n_expression)
    parameters = FaceParameters(pose, rng.normal(0, 1, model.n_identity), expression)
    return Reconstruction(model, parameters, FaceBox(100, 50, 260, 210))
