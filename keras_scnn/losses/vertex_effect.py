"""How far each parameter moves the vertices, in closed form, and its form in a saved model."""

from __future__ import annotations

import base64

import numpy as np
from keras import ops

from keras_scnn.parameters import POSE_SIZE, ParameterSpace, Whitening, check_space


class VertexEffect:
    """How far each whitened parameter moves the vertices, for any parameter space.

    All follow in closed form from 3x3 moments of the bases: coefficient i moves the vertices by
    the norm of ``A B_i`` for the camera's linear part A; entry (r, c) of the camera by the norm
    of coordinate c of the face.

    Args:
        moments: (K + L, 3, 3), ``B_i^T B_i`` of each component, summed over the vertices, mm².
        squares: (3, 1 + K + L, 1 + K + L), for each coordinate the products of the mean and the
            components, summed over the vertices, mm².
        whitening: of the P = 12 + K + L parameters.
        n_vertices: N.
        n_identity: K.
    """

    def __init__(self, moments, squares, whitening: Whitening, n_vertices: int, n_identity: int):
        self._moments, self._squares = np.float32(moments), np.float32(squares)
        self._whitening = whitening
        self._n_vertices, self._n_identity = n_vertices, n_identity

    @classmethod
    def of(cls, space: ParameterSpace | VertexEffect) -> VertexEffect:
        """The effect for a parameter space; a ``VertexEffect`` is returned unchanged."""
        if isinstance(space, VertexEffect):
            return space
        check_space(space)
        model = space.face_model
        bases = np.concatenate([model.identity_basis, model.expression_basis], axis=-1)
        bases = bases.astype(np.float64)
        full = np.concatenate([model.mean[..., None], bases], axis=-1)
        moments = np.einsum("njk,nlk->kjl", bases, bases)
        squares = np.einsum("nck,ncl->ckl", full, full)
        return cls(moments, squares, space.whitening, model.n_vertices, model.n_identity)

    @property
    def identity(self) -> slice:
        """Slice of the identity in the parameters."""
        return slice(POSE_SIZE, POSE_SIZE + self._n_identity)

    @property
    def identity_gram(self) -> np.ndarray:
        """(K, K) float32, mm²: ``d @ gram @ d`` is the squared RMS distance of two neutral shapes.

        d (K,) is the difference of their whitened identity coefficients.
        """
        rows = slice(1, 1 + self._n_identity)  # row 0 is the mean face
        scale = self._whitening.scale[self.identity]
        gram = self._squares[:, rows, rows].sum(axis=0, dtype=np.float64) / self._n_vertices
        return np.float32(scale[:, None] * gram * scale)

    def __call__(self, target):
        """(B, P) whitened targets to (B, P) displacements: root of the sum of squares, px.

        Raises:
            ValueError: the targets have another number of parameters than the space.
        """
        scale, count = self._whitening.scale, target.shape[-1]
        if count != len(scale):
            raise ValueError(f"labels have {count} parameters; the space has {len(scale)}")
        vector = ops.cast(target, "float32") * scale + self._whitening.mean
        camera = ops.reshape(vector[:, :POSE_SIZE], (-1, 3, 4))[:, :, :3]
        gram = ops.matmul(ops.transpose(camera, (0, 2, 1)), camera)
        shape = ops.sqrt(ops.maximum(ops.einsum("bjl,kjl->bk", gram, self._moments), 0.0))
        one = ops.ones_like(vector[:, :1])
        weights = ops.concatenate([one, vector[:, POSE_SIZE:]], axis=-1)
        square = ops.einsum("bk,ckl,bl->bc", weights, self._squares, weights)
        row = ops.concatenate([square, one * float(self._n_vertices)], axis=-1)
        pose = ops.tile(ops.sqrt(ops.maximum(row, 0.0)), (1, 3))
        return ops.concatenate([pose, shape], axis=-1) * scale

    def get_config(self) -> dict:
        """For a saved model: the arrays as text, base64 of little-endian float32."""
        return {
            "moments": _to_text(self._moments),
            "squares": _to_text(self._squares),
            **whitening_config(self._whitening),
            "n_vertices": self._n_vertices,
            "n_identity": self._n_identity,
        }

    @classmethod
    def from_config(cls, config: dict) -> VertexEffect:
        whitening = whitening_of(config)
        k = len(whitening.mean) - POSE_SIZE
        moments = _from_text(config["moments"]).reshape(k, 3, 3)
        squares = _from_text(config["squares"]).reshape(3, 1 + k, 1 + k)
        return cls(moments, squares, whitening, config["n_vertices"], config["n_identity"])


def _to_text(array: np.ndarray) -> str:
    return base64.b64encode(np.asarray(array, "<f4").tobytes()).decode()


def _from_text(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4")


def whitening_config(whitening: Whitening) -> dict[str, str]:
    """For a saved model: ``mean`` and ``scale`` as text, base64 of little-endian float32."""
    return {"mean": _to_text(whitening.mean), "scale": _to_text(whitening.scale)}


def whitening_of(config: dict) -> Whitening:
    """The whitening of ``whitening_config``."""
    return Whitening(_from_text(config["mean"]), _from_text(config["scale"]))
