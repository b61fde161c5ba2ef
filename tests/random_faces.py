"""Faces whose pose and shape are known, for tests of the fitting."""

import numpy as np

from keras_scnn.geometry.camera import compose, decompose, project
from keras_scnn.geometry.rotations import rotation_angle, rotation_from_euler


class Faces:
    """Random faces of a model in random poses to 60 degrees of yaw, and their landmarks in px."""

    def __init__(self, model, count: int, seed: int = 0, one_person: bool = False):
        rng = np.random.default_rng(seed)
        self.model = model
        self.identity = rng.normal(size=(count, model.n_identity))
        if one_person:
            self.identity[:] = self.identity[0]
        active = rng.random((count, model.n_expression)) < 0.3
        self.expression = active * rng.uniform(0, 1, (count, model.n_expression))
        euler = np.deg2rad(rng.uniform(-1, 1, (count, 3)) * [25, 60, 25])
        self.rotation = rotation_from_euler(euler)
        shift = rng.uniform(50, 70, (count, 3))
        self.camera = compose(self.rotation, rng.uniform(0.3, 0.8, count), shift)
        self.vertices = model.vertices(self.identity, self.expression)
        self.landmarks = project(self.camera, model.landmarks(self.identity, self.expression))

    def pose_error_degrees(self, fit) -> np.ndarray:
        result = decompose(fit.parameters.pose)[0]
        return np.rad2deg(rotation_angle(result, self.rotation))

    def vertex_error_mm(self, fit) -> np.ndarray:
        result = self.model.vertices(fit.parameters.identity, fit.parameters.expression)
        return np.linalg.norm(result - self.vertices, axis=-1)
