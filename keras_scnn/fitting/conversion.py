"""Conversion of faces to the coefficients of another face model.

Identity and expression of the target are the most probable ones (maximum a posteriori: a ridge)
given the source's surface at corresponding points. The similarity between the two models' frames is
estimated jointly: its seven directions at the current pose are projected out of each linear solve,
and it is then solved in closed form (variable projection; Golub and Pereyra, 1973). The ridge is
the variance of the misfit (MacKay, "Bayesian Interpolation", 1992): 0 if the target can represent
the face exactly, and larger the less it can.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from keras_scnn.face_models.correspondence import Correspondence, make_correspondence
from keras_scnn.fitting.bounded_steps import NormalEquations
from keras_scnn.geometry.alignment import apply_similarity, similarity_alignment
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import FaceParameters, ParameterLayout
from keras_scnn.settings import typed

ITERATIONS = 40
START_MISFIT = 1.0  # mm
LEAST_RIDGE = 1e-10  # of the largest eigenvalue: for bases with components without effect
TOLERANCE = 1e-6  # relative change of the misfit between two iterations
Similarity: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]  # scale, rotation, translation
ONE = np.zeros(1, int)  # the groups of a single photo


def convert_parameters(
    source_model: MorphableModel,
    target_model: MorphableModel,
    parameters: FaceParameters,
    correspondence: Correspondence | str | os.PathLike | None = None,
    with_scale: bool = True,
) -> tuple[FaceParameters, np.ndarray]:
    """Shape, expression and pose of faces as parameters of another face model.

    Args:
        source_model: the face model of ``parameters``.
        target_model: such as FLAME, ICT, BFM or GNM of ``load_face_model``.
        parameters: pose (..., 3, 4), identity (..., K), expression (..., L) of the source.
        correspondence: of the models, or its file; None makes one with ``make_correspondence``,
            which for many faces is better called once beforehand.
        with_scale: False keeps the size in mm; True moves differences in size into the pose's
            scale, since a photo does not determine the size.

    Returns:
        the target's parameters, float32, with the expression within its bounds and the pose such
        that both models project to the same place; and the residual (...) float64: root mean square
        distance of corresponding points, mm in the source's frame.

    Raises:
        FileNotFoundError: there is no such correspondence file.
        ValueError: parameters do not fit the source, the correspondence does not fit the models,
            a value is not finite, or (without a correspondence) landmarks lie in one plane.

    >>> model = MorphableModel.open_face()
    >>> face = FaceParameters(np.eye(3, 4), np.zeros(80), np.zeros(52))
    >>> same, residual_mm = convert_parameters(model, model, face)
    >>> bool(residual_mm < 1e-3)
    True
    """
    typed(with_scale, bool, "with_scale")
    parameters = _checked(source_model, parameters)
    if correspondence is None:
        correspondence = make_correspondence(source_model, target_model)
    elif not isinstance(correspondence, Correspondence):
        correspondence = Correspondence.load(correspondence)
    correspondence.check_models(source_model, target_model)
    solver = _Solver.of(target_model, correspondence.target_vertices, with_scale)
    lead = parameters.identity.shape[:-1]
    layout = ParameterLayout(target_model.n_identity, target_model.n_expression)
    vectors, residuals = np.empty((*lead, layout.size), np.float32), np.empty(lead)
    for row in np.ndindex(lead):
        mesh = source_model.vertices(parameters.identity[row], parameters.expression[row])
        fit = solver.solve(correspondence.source_sites(mesh))
        pose = _moved_pose(parameters.pose[row], fit.similarity)
        vectors[row] = np.concatenate([pose.ravel(), fit.coefficients])
        residuals[row] = fit.residual
    return FaceParameters.from_vector(vectors, layout), residuals[()]


def _checked(model: MorphableModel, parameters: FaceParameters) -> FaceParameters:
    """The parameters, which may be lists, as float64 arrays."""
    lead = np.shape(parameters.identity)[:-1]
    expected = dict(pose=(3, 4), identity=(model.n_identity,), expression=(model.n_expression,))
    arrays = {name: np.asarray(getattr(parameters, name), np.float64) for name in expected}
    for name, shape in expected.items():
        array = arrays[name]
        if array.shape != lead + shape:
            raise ValueError(
                f"{name} has the shape {array.shape}; face model '{model.name}' needs "
                f"{lead + shape}"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has values that are not finite")
    return FaceParameters(**arrays)


def _moved_pose(pose: np.ndarray, similarity: Similarity) -> np.ndarray:
    """image_from_target (3, 4): image_from_source after source_from_target."""
    scale, rotation, translation = similarity
    linear, shift = pose[:, :3], pose[:, 3]
    return np.column_stack([linear @ (scale * rotation), shift + linear @ translation])


@dataclass(frozen=True, eq=False)
class _Fit:
    coefficients: np.ndarray  # (P,) identity, then expression
    similarity: Similarity  # source_from_target
    residual: float  # mm


@dataclass(frozen=True, eq=False)
class _Solver:
    """The target at the corresponding vertices: data that is the same for all faces."""

    mean: np.ndarray  # (M, 3) float64
    basis: np.ndarray  # (3M, P)
    gram: np.ndarray  # (P, P) basis.T @ basis
    bounds: np.ndarray  # (L, 2) of the expression
    with_scale: bool

    @classmethod
    def of(cls, model: MorphableModel, vertices: np.ndarray, with_scale: bool) -> _Solver:
        bases = model.identity_basis[vertices], model.expression_basis[vertices]
        basis = np.float64(np.concatenate(bases, axis=-1)).reshape(3 * len(vertices), -1)
        mean, bounds = np.float64(model.mean[vertices]), np.float64(model.expression_bounds)
        return cls(mean, basis, basis.T @ basis, bounds, with_scale)

    def solve(self, points: np.ndarray) -> _Fit:
        """The target's face nearest to the source's points (M, 3), mm."""
        similarity = self._aligned(self.mean, points)
        ridge, last = float(START_MISFIT / similarity[0]) ** 2, np.inf
        for _ in range(ITERATIONS):
            coefficients, freedom = self._coefficients(similarity, points, ridge)
            shape = self.mean + (self.basis @ coefficients).reshape(-1, 3)
            similarity = self._aligned(shape, points)
            squares = ((apply_similarity(*similarity, shape) - points) ** 2).sum()
            ridge = float(squares / similarity[0] ** 2) / max(points.size - freedom, 1)
            residual = np.sqrt(squares / len(points))
            if abs(last - residual) <= TOLERANCE * residual + 1e-9:
                break
            last = residual
        return _Fit(coefficients, similarity, float(residual))

    def _aligned(self, shape: np.ndarray, points: np.ndarray) -> Similarity:
        return similarity_alignment(shape, points, with_scale=self.with_scale)

    def _coefficients(
        self, similarity: Similarity, points: np.ndarray, ridge: float
    ) -> tuple[np.ndarray, float]:
        """(P,) the ridge solution within the bounds, and the effective number of parameters."""
        scale, rotation, translation = similarity
        there = (points - translation) @ rotation / scale  # in the target's frame
        moves = np.linalg.qr(_tangents(there, self.with_scale))[0]
        inner = moves.T @ self.basis
        offset = (there - self.mean).ravel()
        gram = self.gram - inner.T @ inner
        right = self.basis.T @ offset - inner.T @ (moves.T @ offset)
        values = np.linalg.eigvalsh(gram).clip(0)
        ridge = max(ridge, LEAST_RIDGE * values.max(initial=0), np.finfo(float).tiny)
        freedom = (values / (values + ridge)).sum() + moves.shape[1]
        return self._minimum(gram + ridge * np.eye(len(gram)), right), freedom

    def _minimum(self, matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
        """(P,) minimum of the quadratic with the expression within its bounds."""
        k = len(right) - len(self.bounds)
        shared, own = matrix[:k, :k], matrix[k:, k:]
        equations = NormalEquations(
            own[None], -right[None, k:], matrix[None, k:, :k], shared[None], -right[None, :k], ONE
        )
        low, high = self.bounds.T
        expression, identity = equations.solve(low[None], high[None])
        return np.concatenate([identity[0], expression[0]])


def _tangents(points: np.ndarray, with_scale: bool) -> np.ndarray:
    """(3M, 7 or 6) how points (M, 3) move under a small similarity about their center."""
    centered = points - points.mean(axis=0)
    turns = [np.cross(axis, centered).ravel() for axis in np.eye(3)]
    shifts = [np.tile(axis, len(points)) for axis in np.eye(3)]
    return np.column_stack([*turns, *shifts, *([centered.ravel()] if with_scale else [])])
