"""The parameters that a network regresses: pose (12), identity (K) and expression (L).

The pose is the 3x4 weak-perspective camera ``crop_from_model`` of ``geometry.camera``, row-major,
as in 3DDFA (Zhu et al., "Face Alignment in Full Pose Range", 2019), with this library's frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from keras_scnn.geometry.shapes import shaped
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.settings import whole, wrong_type
from keras_scnn.shape_distance import shape_basis

POSE_SIZE = 12


@dataclass(frozen=True)
class ParameterLayout:
    """The slices of pose, identity and expression in a parameter vector.

    >>> layout = ParameterLayout(n_identity=80, n_expression=52)
    >>> layout.size, layout.identity
    (144, slice(12, 92, None))

    Attributes:
        n_identity: K, the number of identity components.
        n_expression: L, the number of expression components.

    Raises:
        ValueError: one is not a whole number, or is negative.
    """

    n_identity: int
    n_expression: int

    def __post_init__(self) -> None:
        for name in ("n_identity", "n_expression"):
            object.__setattr__(self, name, whole(name, getattr(self, name), 0))

    @property
    def pose(self) -> slice:
        return slice(0, POSE_SIZE)

    @property
    def identity(self) -> slice:
        return slice(POSE_SIZE, POSE_SIZE + self.n_identity)

    @property
    def expression(self) -> slice:
        return slice(POSE_SIZE + self.n_identity, self.size)

    @property
    def size(self) -> int:
        return POSE_SIZE + self.n_identity + self.n_expression


@dataclass(frozen=True, eq=False)
class FaceParameters:
    """Parameters of one face or of a batch.

    Attributes:
        pose: (..., 3, 4), the camera crop_from_model (or image_from_model), px and px per mm.
        identity: (..., K), standard deviations.
        expression: (..., L), weights.
    """

    pose: np.ndarray
    identity: np.ndarray
    expression: np.ndarray

    @property
    def layout(self) -> ParameterLayout:
        return ParameterLayout(self.identity.shape[-1], self.expression.shape[-1])

    def __getitem__(self, rows) -> FaceParameters:
        """Those of some faces of a batch: any index of its leading axes."""
        return FaceParameters(self.pose[rows], self.identity[rows], self.expression[rows])

    def to_vector(self) -> np.ndarray:
        """(..., 12 + K + L), float32: pose row-major, then identity, then expression.

        Raises:
            ValueError: the pose is not (..., 3, 4), or the leading axes differ.
        """
        pose = shaped("pose", self.pose, 3, 4)  # (..., 4, 3) would be reshaped without an error
        lead = pose.shape[:-2]
        for name in ("identity", "expression"):
            shape = np.shape(getattr(self, name))
            if shape[:-1] != lead or not shape:
                raise ValueError(
                    f"{name} has the shape {shape}; for a pose {pose.shape} it must be "
                    f"({', '.join(map(str, (*lead, 'n')))})"
                )
        parts = (pose.reshape(*lead, POSE_SIZE), self.identity, self.expression)
        return np.concatenate(parts, axis=-1, dtype=np.float32)

    @classmethod
    def from_vector(cls, vector: np.ndarray, layout: ParameterLayout) -> FaceParameters:
        """Split (..., 12 + K + L) vectors.

        Raises:
            ValueError: the last axis does not match the layout.
        """
        vector = np.asarray(vector)
        if vector.shape[-1:] != (layout.size,):
            raise ValueError(
                f"vector has the shape {vector.shape}; its last axis must be {layout.size} "
                f"(12 pose, {layout.n_identity} identity, {layout.n_expression} expression)"
            )
        pose = vector[..., layout.pose].reshape(*vector.shape[:-1], 3, 4)
        return cls(pose, vector[..., layout.identity], vector[..., layout.expression])


@dataclass(frozen=True, eq=False)
class Whitening:
    """Scales each parameter to zero mean and unit scale, so that network outputs are comparable.

    >>> whitening = Whitening(mean=np.array([10.0, 0.0]), scale=np.array([2.0, 0.5]))
    >>> whitening.whiten(np.array([12.0, 1.0])).tolist()
    [1.0, 2.0]

    Attributes:
        mean: (P,) float32.
        scale: (P,) float32, above 0.

    Raises:
        ValueError: the shapes differ, a scale is not positive, or a value is not finite.
    """

    mean: np.ndarray
    scale: np.ndarray

    def __post_init__(self) -> None:
        for field in ("mean", "scale"):
            array = np.array(getattr(self, field), np.float32)
            array.setflags(write=False)
            object.__setattr__(self, field, array)
        if self.mean.ndim != 1 or self.mean.shape != self.scale.shape:
            raise ValueError(
                f"mean and scale have the shapes {self.mean.shape} and {self.scale.shape}; "
                "both must be (P,)"
            )
        if not (np.isfinite(self.scale).all() and (self.scale > 0).all()):
            raise ValueError("scale must be finite and above 0 everywhere")
        if not np.isfinite(self.mean).all():
            raise ValueError("mean must be finite everywhere")

    @classmethod
    def from_samples(cls, vectors: np.ndarray, min_scale: float = 1e-3) -> Whitening:
        """The whitening by the mean and standard deviation of samples.

        Args:
            vectors: (M, P) unwhitened, M above 0.
            min_scale: smallest scale, for parameters that hardly vary (the depth translation).
        """
        scale = np.maximum(np.std(vectors, axis=0, dtype=np.float64), min_scale)
        return cls(np.asarray(np.mean(vectors, axis=0, dtype=np.float64)), scale)

    def whiten(self, vector: np.ndarray) -> np.ndarray:
        """(..., P) parameters to (..., P) network outputs.

        Raises:
            ValueError: the last axis is not P.
        """
        return (self._checked(vector) - self.mean) / self.scale

    def unwhiten(self, vector: np.ndarray) -> np.ndarray:
        """(..., P) network outputs to (..., P) parameters.

        Raises:
            ValueError: the last axis is not P.
        """
        return self._checked(vector) * self.scale + self.mean

    def _checked(self, vector: np.ndarray) -> np.ndarray:
        vector, size = np.asarray(vector), len(self.mean)
        if vector.shape[-1:] != (size,):  # an axis of length 1 would be broadcast
            raise ValueError(f"vector has the shape {vector.shape}; its last axis must be {size}")
        return vector


@dataclass(frozen=True, eq=False)
class ParameterSpace:
    """The meaning of a network's output vector: a face model and its parameters' whitening.

    >>> model = MorphableModel.open_face()
    >>> space = ParameterSpace(model, Whitening(np.zeros(144), np.full(144, 0.5)))
    >>> space.parameters(np.ones((2, 144))).identity.shape
    (2, 80)

    Attributes:
        face_model: K identity and L expression components; P = 12 + K + L.
        whitening: of the P parameters.

    Raises:
        ValueError: an attribute has another type, or the whitening does not have P parameters.
    """

    face_model: MorphableModel
    whitening: Whitening

    def __post_init__(self) -> None:
        for name, kind in (("face_model", MorphableModel), ("whitening", Whitening)):
            if not isinstance(value := getattr(self, name), kind):
                raise wrong_type(name, value, f"a {kind.__name__}")
        if len(self.whitening.mean) != self.layout.size:
            raise ValueError(
                f"whitening has {len(self.whitening.mean)} parameters; face model "
                f"'{self.face_model.name}' has {self.layout.size} (12 pose, "
                f"{self.layout.n_identity} identity, {self.layout.n_expression} expression)"
            )

    @classmethod
    def from_samples(cls, face_model: MorphableModel, vectors: np.ndarray) -> ParameterSpace:
        """A space whitened by the mean and standard deviation of (M, P) unwhitened vectors."""
        return cls(face_model, Whitening.from_samples(vectors))

    @property
    def layout(self) -> ParameterLayout:
        return ParameterLayout(self.face_model.n_identity, self.face_model.n_expression)

    @cached_property
    def shape_basis(self) -> np.ndarray:
        """(K, K) float64, mm: ``shape_distance.shape_basis`` of whitened identity coefficients."""
        scale = np.float64(self.whitening.scale[self.layout.identity])
        return scale[:, None] * shape_basis(self.face_model)

    def whiten(self, vectors: np.ndarray) -> np.ndarray:
        """(..., P) parameters to (..., P) network outputs."""
        return self.whitening.whiten(vectors)

    def parameters(self, outputs: np.ndarray) -> FaceParameters:
        """Convert network outputs to parameters.

        Args:
            outputs: (..., P) whitened.

        Returns:
            the unwhitened parameters; the pose is crop_from_model, px.
        """
        return FaceParameters.from_vector(self.whitening.unwhiten(outputs), self.layout)


def check_space(space: object) -> None:
    """Raise a ValueError unless the argument ``space`` is a ``ParameterSpace``."""
    if not isinstance(space, ParameterSpace):
        raise wrong_type("space", space, "a ParameterSpace(face_model, whitening)")
