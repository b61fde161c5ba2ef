"""The batched Levenberg-Marquardt solver behind ``fitting``.

Each photo has its own rotation, scale, translation and expression; photos of one group share an
identity. Every step is the exact minimum, within the bounds, of the cost's quadratic model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from keras_scnn.fitting.bounded_steps import NormalEquations, sum_by_group
from keras_scnn.geometry.alignment import affine_alignment
from keras_scnn.geometry.camera import FLIP
from keras_scnn.geometry.rotations import nearest_rotation
from keras_scnn.morphable_model import MorphableModel

FIRST_DAMPING, MIN_DAMPING, MAX_DAMPING = 1e-3, 1e-10, 1e6
N_ROTATION, SCALE, SHIFT = 3, 3, 4  # columns of the pose: rotation (3), log scale, shift (2 or 3)


@dataclass(eq=False)
class State:
    """The unknowns of B photos in G groups.

    Attributes:
        rotation: (B, 3, 3). scale: (B,) px per mm. shift: (B, D) px, D of the landmarks.
        expression: (B, L). identity: (G, K).
    """

    rotation: np.ndarray
    scale: np.ndarray
    shift: np.ndarray
    expression: np.ndarray
    identity: np.ndarray


class LandmarkSolver:
    """Minimizes the cost over States for landmarks (B, M, D), D = 2 or 3.

    Args:
        model: the face model, whose ``landmark_basis`` has M rows (68).
        landmarks: (B, M, D) px, image frame.
        weights: (B, M, D) square roots of the residuals' weights, for residuals in mm.
        group: (B,) group of each photo, 0 to G - 1.
        prior_sd: prior standard deviations of identity and expression.
    """

    def __init__(
        self,
        model: MorphableModel,
        landmarks: np.ndarray,
        weights: np.ndarray,
        group: np.ndarray,
        prior_sd: tuple[float, float],
    ):
        basis = model.landmark_basis()
        self._mean, self._identity, self._expression = (np.float64(part) for part in basis)
        self._target, self._weights, self._group = landmarks, weights, group
        self._groups, self._depth = int(group.max()) + 1, landmarks.shape[-1]
        self._precision = np.square(np.reciprocal(prior_sd))
        self._bounds = np.float64(model.expression_bounds).T

    def solve(self, iterations: int, tolerance: float) -> State:
        """The minimum, starting from the mean face.

        Args:
            iterations: maximum number of steps.
            tolerance: a group stops when a step reduces its cost by less than this share.
        """
        state = self._start()
        self._unit = self._weights / state.scale[:, None, None]  # residuals in mm from here on
        damping = np.full(self._groups, FIRST_DAMPING)
        cost, stopped = self._cost(state), np.zeros(self._groups, bool)
        for _ in range(iterations):
            trial = self._step(state, damping)
            fresh = self._cost(trial)
            better = (fresh < cost) & ~stopped
            damping = np.where(better, damping / 10, damping * 10)
            damping = np.clip(damping, MIN_DAMPING, MAX_DAMPING)
            gain = np.where(better, cost - fresh, 0) / np.maximum(cost, 1e-30)
            state = self._choose(better, trial, state)
            cost = np.where(better, fresh, cost)
            stopped |= (better & (gain < tolerance)) | (damping >= MAX_DAMPING)
            if stopped.all():
                break
        return state

    def shapes(self, state: State) -> np.ndarray:
        """(B, M, 3) mm: the landmarks of the state's faces."""
        identity = state.identity @ self._identity.reshape(self._mean.size, -1).T
        expression = state.expression @ self._expression.reshape(self._mean.size, -1).T
        return self._mean + (identity[self._group] + expression).reshape(-1, *self._mean.shape)

    def _start(self) -> State:
        """The mean face under the nearest scaled rotation of the best affine camera."""
        count, visible = len(self._target), self._weights[..., 0] ** 2
        affine = affine_alignment(self._mean, self._target[..., :2], visible)
        first, second = affine[..., 0, :3], -affine[..., 1, :3]
        lengths = np.linalg.norm(first, axis=-1), np.linalg.norm(second, axis=-1)
        rows = np.stack([first, second, np.cross(first, second) / lengths[0][:, None]], axis=-2)
        rotation, scale = nearest_rotation(rows), (lengths[0] + lengths[1]) / 2
        placed = self._project(
            rotation, scale, np.broadcast_to(self._mean, (count, *self._mean.shape))
        )
        share = self._weights**2 / (self._weights**2).sum(axis=1, keepdims=True)
        shift = (share * (self._target - placed)).sum(axis=1)
        expression = np.clip(np.zeros((count, self._bounds.shape[1])), *self._bounds)
        identity = np.zeros((self._groups, self._identity.shape[-1]))
        return State(rotation, scale, shift, expression, identity)

    def _project(self, rotation, scale, shapes) -> np.ndarray:
        camera = (scale[:, None, None] * (FLIP @ rotation))[:, : self._depth]
        return shapes @ np.swapaxes(camera, 1, 2)

    def _residuals(self, state: State) -> np.ndarray:
        placed = self._project(state.rotation, state.scale, self.shapes(state))
        return self._unit * (placed + state.shift[:, None] - self._target)

    def _cost(self, state: State) -> np.ndarray:
        """(G,) sum of squares, priors included."""
        own = (self._residuals(state) ** 2).sum(axis=(1, 2))
        own += self._precision[1] * (state.expression**2).sum(axis=1)
        shared = self._precision[0] * (state.identity**2).sum(axis=1)
        return shared + np.bincount(self._group, own, self._groups)

    def _jacobians(self, state: State) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of the weighted residuals: (B, M D, own) and (B, M D, K)."""
        count = len(self._target)
        camera = (state.scale[:, None, None] * (FLIP @ state.rotation))[:, : self._depth]
        turned = self.shapes(state) @ np.swapaxes(state.rotation, 1, 2)
        flip = (state.scale[:, None, None] * FLIP)[:, None, : self._depth]
        turn = -flip @ _cross_matrix(turned)
        size = self._project(state.rotation, state.scale, self.shapes(state))[..., None]
        shift = np.broadcast_to(np.eye(self._depth), (*self._target.shape, self._depth))
        expression, identity = (
            np.matmul(camera[:, None], basis) for basis in (self._expression, self._identity)
        )
        own = np.concatenate([turn, size, shift, expression], axis=-1)
        return tuple(
            (self._unit[..., None] * part).reshape(count, self._target[0].size, -1)
            for part in (own, identity)
        )

    def _step(self, state: State, damping: np.ndarray) -> State:
        """The minimum, within the bounds, of the cost's damped quadratic model."""
        own, shared = self._jacobians(state)
        residuals = self._residuals(state).reshape(len(own), -1)
        own_t, shared_t = np.swapaxes(own, 1, 2), np.swapaxes(shared, 1, 2)
        first, k = SHIFT + self._depth, state.identity.shape[1]
        groups = self._group, self._groups
        equations = NormalEquations(
            own=own_t @ own,
            own_slope=np.einsum("bip,bi->bp", own, residuals),
            coupling=own_t @ shared,
            shared=sum_by_group(shared_t @ shared, *groups) + self._precision[0] * np.eye(k),
            shared_slope=sum_by_group(np.einsum("bik,bi->bk", shared, residuals), *groups),
            group=self._group,
        )
        index = np.arange(first, own.shape[-1])
        equations.own[:, index, index] += self._precision[1]
        equations.own_slope[:, first:] += self._precision[1] * state.expression
        equations.shared_slope += self._precision[0] * state.identity
        _damp(equations.own, damping[self._group])
        _damp(equations.shared, damping)
        low, high = np.full((2, *own.shape[::2]), [[[-np.inf]], [[np.inf]]])
        low[:, first:], high[:, first:] = self._bounds[:, None] - state.expression
        return self._moved(state, *equations.solve(low, high))

    def _moved(self, state: State, own: np.ndarray, shared: np.ndarray) -> State:
        turn = Rotation.from_rotvec(own[:, :N_ROTATION]).as_matrix()
        return State(
            turn @ state.rotation,
            state.scale * np.exp(np.clip(own[:, SCALE], -1, 1)),
            state.shift + own[:, SHIFT : SHIFT + self._depth],
            np.clip(state.expression + own[:, SHIFT + self._depth :], *self._bounds),
            state.identity + shared,
        )

    def _choose(self, better: np.ndarray, trial: State, state: State) -> State:
        fields = {}
        for name, new in vars(trial).items():
            mask = better if name == "identity" else better[self._group]
            fields[name] = np.where(mask.reshape(-1, *[1] * (new.ndim - 1)), new, vars(state)[name])
        return State(**fields)


def _damp(matrix: np.ndarray, damping: np.ndarray) -> None:
    """Marquardt's scaling, in place: diagonal entries are multiplied by 1 + damping."""
    index = np.arange(matrix.shape[-1])
    matrix[:, index, index] *= 1 + damping[:, None]
    matrix[:, index, index] += 1e-12


def _cross_matrix(vectors: np.ndarray) -> np.ndarray:
    """(..., 3) to (..., 3, 3): the matrix of ``cross(vector, .)``."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    rows = [zero, -z, y, z, zero, -x, -y, x, zero]
    return np.stack(rows, axis=-1).reshape(*vectors.shape[:-1], 3, 3)
