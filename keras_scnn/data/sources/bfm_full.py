"""The Basel Face Model 2009 from the user's own files, in the convention of 300W-LP's annotation.

Shape_Para and Exp_Para are coefficients of the files' unscaled components; the library's face model
has coefficients in standard deviations.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from keras_scnn.data.sources.bfm_landmarks import BfmLandmarks, image_from_bfm
from keras_scnn.data.sources.mat_files import BfmAnnotation
from keras_scnn.face_models.bfm import MICROMETER, read_bfm2009
from keras_scnn.geometry.camera import project
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import FaceParameters
from keras_scnn.storage.matlab import read_mat_arrays

FILES = (
    "the annotation is of the Basel Face Model 2009 with 3DDFA's expressions: give "
    "01_MorphableModel.mat, Model_Expression.mat (--bfm-expression) and model_info.mat (--bfm-info)"
)


@dataclass(frozen=True, eq=False)
class FullBfm:
    """The face model and the standard deviations of its annotated parameters.

    Attributes:
        model: 3DDFA's trimmed mesh, 199 identity and 29 expression components as published.
        identity_deviations: (K,) float64 standard deviations, in units of Shape_Para.
        expression_deviations: (L,) float64 standard deviations, in units of Exp_Para.
    """

    model: MorphableModel
    identity_deviations: np.ndarray
    expression_deviations: np.ndarray

    @classmethod
    def read(
        cls,
        path: str | os.PathLike,
        expression: str | os.PathLike | None,
        model_info: str | os.PathLike | None,
    ) -> FullBfm:
        """Read the three files.

        Args:
            path: 01_MorphableModel.mat of the Basel Face Model 2009.
            expression: Model_Expression.mat of 3DDFA.
            model_info: model_info.mat of 3DDFA, with the landmarks' vertices.

        Raises:
            FileNotFoundError, ValueError: see ``face_models.read_bfm2009``; or a file is not
                given, or a standard deviation is not above 0.
        """
        if expression is None or model_info is None:
            raise ValueError(f"{path}: {FILES}")
        model = read_bfm2009(path, expression, model_info)
        return cls(model, _deviations(path, "shapeEV"), _deviations(expression, "sigma_exp"))

    def landmarks(self) -> BfmLandmarks:
        """The 68 landmarks of the whole model, in the annotation's units."""
        vertices = self.model.landmark_indices
        identity = self.model.identity_basis[vertices] / self.identity_deviations
        expressions = self.model.expression_basis[vertices] / self.expression_deviations
        parts = self.model.mean[vertices], identity, expressions
        return BfmLandmarks(*(np.float64(part) / MICROMETER for part in parts))

    def parameters(
        self, annotation: BfmAnnotation, n_identity: int, n_expression: int
    ) -> FaceParameters:
        """The annotated face as parameters of ``model.truncated(n_identity, n_expression)``.

        Returns:
            pose (3, 4) image_from_model, px per mm, and the leading coefficients, in standard
            deviations.

        Raises:
            ValueError: the annotation has other numbers of components.
        """
        for name, given, deviations in (
            ("Shape_Para", annotation.shape, self.identity_deviations),
            ("Exp_Para", annotation.expression, self.expression_deviations),
        ):
            if given.shape != deviations.shape:
                raise ValueError(f"{name} has {given.size} numbers; the model {deviations.size}")
        pose = image_from_bfm(annotation.pose)
        pose[:, :3] /= MICROMETER
        return FaceParameters(
            pose,
            (annotation.shape / self.identity_deviations)[:n_identity],
            (annotation.expression / self.expression_deviations)[:n_expression],
        )

    def vertices_in_photo(self, annotation: BfmAnnotation) -> np.ndarray:
        """(N, 3) float64 all vertices of the annotated face, px of the photo, and depth in px."""
        face = self.parameters(annotation, self.model.n_identity, self.model.n_expression)
        return project(face.pose, self.model.vertices(face.identity, face.expression))


def _deviations(path: str | os.PathLike, name: str) -> np.ndarray:
    """Standard deviations (K,) of the components, in the file's unit."""
    deviations = read_mat_arrays(path, [name])[name].reshape(-1)
    if not (deviations > 0).all():
        raise ValueError(f"{path}: {name} must hold standard deviations larger than 0")
    return deviations.astype(np.float64)
