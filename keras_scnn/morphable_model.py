"""The 3D morphable model: a mean face, an identity basis and an expression basis.

A face is ``mean + identity_basis @ identity + expression_basis @ expression`` (Blanz and Vetter,
"A Morphable Model for the Synthesis of 3D Faces", 1999; expressions as a second linear basis after
Cao et al., "FaceWarehouse", 2014). All arrays are in the model frame of ``geometry.camera``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from keras_scnn.geometry.mesh import vertex_normals
from keras_scnn.settings import whole
from keras_scnn.storage import read_npz, write_npz
from keras_scnn.storage.guard import reading

FILE_FORMAT = "keras_scnn.morphable_model"
FILE_VERSION = 1
REGIONS = ("skin", "mouth", "teeth", "eye_left", "eye_right")
"""The parts of a face by their numbers in ``MorphableModel.regions``."""
ASSET = Path(__file__).parent / "assets" / "open_face" / "open_face.npz"

_SHAPES = dict(
    mean=("N", 3), identity_basis=("N", 3, "K"), expression_basis=("N", 3, "L"),
    triangles=("T", 3), landmark_indices=(68,), expression_bounds=("L", 2),
    landmark_offsets=(68, 3), uv=("N", 2), mediapipe_indices=(468,), regions=("N",), mirror=("N",),
)  # fmt: skip
_INDEX_FIELDS = ("triangles", "landmark_indices", "mediapipe_indices", "mirror")
_DTYPES = {**dict.fromkeys(_INDEX_FIELDS, np.int32), "regions": np.uint8}
_UV_ROUNDING = 1e-3  # files round coordinates, so those at an edge may lie a little outside
_GEOMETRY = (
    "mean", "identity_basis", "expression_basis", "triangles", "landmark_indices",
    "expression_bounds",
)  # fmt: skip
_OPTIONAL = ("landmark_offsets", "uv", "mediapipe_indices", "regions", "mirror")


@dataclass(frozen=True, eq=False)
class MorphableModel:
    """An immutable 3D morphable face model; every array is read-only.

    Attributes:
        name: short identifier, stored with everything made from the model.
        mean: (N, 3) float32, mm, model frame. The neutral mean face.
        identity_basis: (N, 3, K) float32, mm per standard deviation of each component.
        expression_basis: (N, 3, L) float32, mm at weight 1.
        triangles: (T, 3) int32, counter-clockwise seen from outside.
        landmark_indices: (68,) int32, vertices of the iBUG 68 landmarks.
        expression_names: L names.
        expression_bounds: (L, 2) float32, smallest and largest weight; infinite where unbounded.
        landmark_offsets: (68, 3) float32, mm, model frame. Added to the landmark vertices by
            ``landmarks``, for comparison with points annotated at another model's landmarks.
        uv: (N, 2) float32 in [0, 1], u to the right, v up; or None.
        mediapipe_indices: (468,) int32, vertices nearest to MediaPipe's FaceMesh points; or None.
        regions: (N,) uint8, 0 skin, 1 mouth interior, 2 teeth, 3 left eye, 4 right eye
            (the subject's left, x > 0); or None.
        mirror: (N,) int32, the vertex that each vertex changes places with in a mirror image; or
            None.
        license: license terms of the model's data.

    Raises:
        ValueError: an array's shape does not match the others, an index or region is not a whole
            number or is out of range, ``uv`` lies outside of 0 to 1, two expressions have the same
            name, an expression's bounds admit no weight, or ``mirror`` is not its own inverse.
    """

    name: str
    mean: np.ndarray
    identity_basis: np.ndarray
    expression_basis: np.ndarray
    triangles: np.ndarray
    landmark_indices: np.ndarray
    expression_names: tuple[str, ...]
    expression_bounds: np.ndarray
    landmark_offsets: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((68, 3)))
    uv: np.ndarray | None = None
    mediapipe_indices: np.ndarray | None = None
    regions: np.ndarray | None = None
    mirror: np.ndarray | None = None
    license: str = ""

    def __repr__(self) -> str:
        sizes = f"{self.n_vertices} vertices, {self.n_identity} + {self.n_expression} components"
        return f"<MorphableModel '{self.name}': {sizes}>"

    def __post_init__(self) -> None:
        if self.landmark_offsets is None:
            object.__setattr__(self, "landmark_offsets", np.zeros((68, 3)))
        object.__setattr__(self, "expression_names", tuple(map(str, self.expression_names)))
        sizes: dict[str, int] = {}
        for field, shape in _SHAPES.items():
            if (value := getattr(self, field)) is None and field in _OPTIONAL:
                continue
            given = _numbers(field, value)
            _check_shape(field, given, shape, sizes)
            if field in _DTYPES:
                self._check_whole(field, given, sizes["N"] - 1)
            array = given.astype(_DTYPES.get(field, np.float32))
            _check_finite(field, array)
            array.setflags(write=False)
            object.__setattr__(self, field, array)
        self._check_expressions()
        self._check_uv()
        mirror = np.arange(self.n_vertices) if self.mirror is None else self.mirror
        if (mirror[mirror] != np.arange(self.n_vertices)).any():
            raise ValueError(
                f"mirror of face model '{self.name}' is not its own inverse: the partner of a "
                "vertex's partner must be the vertex itself"
            )

    def _check_whole(self, field: str, given: np.ndarray, most: int) -> None:
        """Check before the cast, which truncates fractions and wraps large values around."""
        most = len(REGIONS) - 1 if field == "regions" else most
        with np.errstate(invalid="ignore"):
            is_whole = given % 1 == 0
        if not is_whole.all():
            raise ValueError(f"{field} of face model '{self.name}' must be whole numbers")
        if not ((given >= 0) & (given <= most)).all():
            raise ValueError(
                f"{field} of face model '{self.name}' is out of range: it must lie in 0 to {most}"
            )

    def _check_expressions(self) -> None:
        names = self.expression_names
        if len(names) != self.n_expression:
            raise ValueError(
                f"expression_names of face model '{self.name}' has {len(names)} "
                f"names for {self.n_expression} expression components"
            )
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(
                f"expression_names of face model '{self.name}' has '{twice[0]}' more than once"
            )
        low, high = self.expression_bounds.T
        for i in np.flatnonzero(~((low <= high) & (low < np.inf) & (high > -np.inf)))[:1]:
            raise ValueError(
                f"expression_bounds of face model '{self.name}' has no weight for '{names[i]}': "
                f"{low[i]:g} to {high[i]:g}; the lower bound must not exceed the upper"
            )

    def _check_uv(self) -> None:
        """Refuse coordinates outside of 0 to 1, such as texels: a texture has no such places."""
        if self.uv is None or not self.uv.size:
            return
        low, high = self.uv.min(), self.uv.max()
        if low < -_UV_ROUNDING or high > 1 + _UV_ROUNDING:
            raise ValueError(
                f"uv of face model '{self.name}' is out of range: {low:g} to {high:g}; it must lie "
                "in 0 to 1, u to the right and v up"
            )

    @property
    def n_vertices(self) -> int:
        return len(self.mean)

    @property
    def n_identity(self) -> int:
        return self.identity_basis.shape[-1]

    @property
    def n_expression(self) -> int:
        return self.expression_basis.shape[-1]

    @property
    def vertex_regions(self) -> np.ndarray:
        """(N,) uint8, as ``regions``; all skin if the model has none."""
        return np.zeros(self.n_vertices, np.uint8) if self.regions is None else self.regions

    @property
    def identity_weights_mm(self) -> np.ndarray:
        """(K,) float32, mm: RMS vertex displacement by one standard deviation of each component."""
        return np.sqrt((self.identity_basis**2).sum(axis=1).mean(axis=0))

    @cached_property
    def digest(self) -> str:
        """64 hexadecimal digits, equal only for models whose coefficients mean the same.

        SHA-256 of the mean, the bases, triangles, landmark indices, and the names and bounds of
        the expressions; all other attributes, such as name and license, are not included. Saving
        and loading does not change it.

        >>> model = MorphableModel.open_face()
        >>> model.digest == model.replace(name="mine").digest
        True
        """
        content = hashlib.sha256("\n".join(self.expression_names).encode())
        for field in _GEOMETRY:
            array = np.ascontiguousarray(getattr(self, field))
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            content.update(f"{field} {array.shape}".encode() + little.tobytes())
        return content.hexdigest()

    @property
    def arkit_names(self) -> tuple[str, ...]:
        """L names of the expressions, sides spelled as in ARKit.

        ICT-FaceKit's 'eyeBlink_L' is 'eyeBlinkLeft'; names without such a side do not change.
        """
        sides = {"_L": "Left", "_R": "Right"}
        return tuple(name[:-2] + sides.get(name[-2:], name[-2:]) for name in self.expression_names)

    def vertices(
        self, identity: np.ndarray | None = None, expression: np.ndarray | None = None
    ) -> np.ndarray:
        """Vertices of one face or of a batch.

        Args:
            identity: (..., K) coefficients, standard deviations; None is the mean person.
            expression: (..., L) weights; None is neutral.

        Returns:
            (..., N, 3) float32, mm, model frame.

        Raises:
            ValueError: the last axis of ``identity`` is not K, or that of ``expression`` not L.

        >>> model = MorphableModel.open_face()
        >>> model.vertices(identity=np.zeros((2, 80)), expression=np.zeros(52)).shape
        (2, 3716, 3)
        """
        return _combine(self.mean, self.identity_basis, self.expression_basis, identity, expression)

    def landmarks(
        self,
        identity: np.ndarray | None = None,
        expression: np.ndarray | None = None,
        with_offsets: bool = True,
    ) -> np.ndarray:
        """The 68 iBUG landmarks: (..., 68, 3) float32, mm, model frame.

        Args:
            identity: (..., K) coefficients, standard deviations; None is the mean person.
            expression: (..., L) weights; None is neutral.
            with_offsets: add ``landmark_offsets``; False returns the vertices themselves.

        Raises:
            ValueError: the last axis of ``identity`` is not K, or that of ``expression`` not L.
        """
        mean, identity_basis, expression_basis = self.landmark_basis(with_offsets)
        return _combine(mean, identity_basis, expression_basis, identity, expression)

    def landmark_basis(
        self, with_offsets: bool = True
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean (68, 3), identity (68, 3, K) and expression (68, 3, L) rows of the landmarks, mm."""
        index = self.landmark_indices
        mean = self.mean[index] + (self.landmark_offsets if with_offsets else 0)
        return mean, self.identity_basis[index], self.expression_basis[index]

    def normals(self, vertices: np.ndarray) -> np.ndarray:
        """Unit outward normals at vertices.

        Args:
            vertices: (..., N, 3), mm, model frame.

        Returns:
            (..., N, 3) of unit length.
        """
        return vertex_normals(vertices, self.triangles)

    def clip_expression(self, expression: np.ndarray) -> np.ndarray:
        """(..., L) weights clipped to ``expression_bounds``."""
        return np.clip(expression, self.expression_bounds[:, 0], self.expression_bounds[:, 1])

    def replace(self, **changes) -> MorphableModel:
        """A copy with some attributes changed."""
        return dataclasses.replace(self, **changes)

    def truncated(self, n_identity: int, n_expression: int) -> MorphableModel:
        """A copy with only the leading components.

        Args:
            n_identity: identity components to keep, 0 to K.
            n_expression: expression components to keep, 0 to L.

        Raises:
            ValueError: a number is negative or not whole, or the model has fewer components.
        """
        for name, wanted, available in (
            ("n_identity", n_identity, self.n_identity),
            ("n_expression", n_expression, self.n_expression),
        ):
            if whole(name, wanted, low=0) > available:
                raise ValueError(f"{name} is {wanted}; face model '{self.name}' has {available}")
        return self.replace(
            identity_basis=self.identity_basis[..., :n_identity],
            expression_basis=self.expression_basis[..., :n_expression],
            expression_names=self.expression_names[:n_expression],
            expression_bounds=self.expression_bounds[:n_expression],
        )

    def save(self, path: str | os.PathLike) -> None:
        """Write the model to an .npz file, atomically.

        Raises:
            ValueError: the name does not end in .npz, by which ``load_face_model`` recognizes it.
        """
        if Path(path).suffix.lower() != ".npz":
            name = f"{Path(path).name}.npz"
            raise ValueError(f"{path}: a face model's file name must end in .npz; use '{name}'")
        arrays = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        arrays = {key: np.asarray(value) for key, value in arrays.items() if value is not None}
        write_npz(path, FILE_FORMAT, FILE_VERSION, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike) -> MorphableModel:
        """Read a model written by ``save``, or the embedded one, whose bases are quantized.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is not a face model of this format and version, or is damaged.
        """
        arrays: dict[str, Any] = {**read_npz(path, FILE_FORMAT, FILE_VERSION)}
        if missing := _SHAPES.keys() - arrays.keys() - set(_OPTIONAL):
            raise ValueError(f"{path}: a face model needs the arrays {', '.join(sorted(missing))}")
        known = {field.name for field in dataclasses.fields(cls)}
        with reading(path, "a face model"):
            for basis in ("identity_basis", "expression_basis"):
                arrays[basis] = arrays[basis] * arrays.pop(f"{basis}_scale", np.float32(1))
            arrays["expression_names"] = tuple(arrays["expression_names"].tolist())
            arrays |= {key: str(arrays.get(key, "")) for key in ("name", "license")}
            return cls(**{key: arrays[key] for key in known & arrays.keys()})

    @classmethod
    def open_face(cls) -> MorphableModel:
        """The embedded CC0 face model: 80 identity components and 52 ARKit expressions."""
        return cls.load(ASSET)


def _numbers(field: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{field} is not an array: {error}") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{field} has the dtype {array.dtype}; it must be numeric")
    return array


def _check_shape(field: str, array: np.ndarray, shape: tuple, sizes: dict[str, int]) -> None:
    expected = tuple(
        sizes.setdefault(n, array.shape[i] if i < array.ndim else -1) if isinstance(n, str) else n
        for i, n in enumerate(shape)
    )
    if array.shape != expected:
        raise ValueError(f"{field} has the shape {array.shape}; it must be {expected}")


def _check_finite(field: str, array: np.ndarray) -> None:
    if field != "expression_bounds" and not np.isfinite(array).all():
        raise ValueError(f"{field} has values that are not finite")


def _combine(mean, identity_basis, expression_basis, identity, expression) -> np.ndarray:
    result = mean
    for name, basis, weights in (
        ("identity", identity_basis, identity),
        ("expression", expression_basis, expression),
    ):
        if weights is None:
            continue
        weights = np.asarray(weights, np.float32)
        if weights.shape[-1:] != basis.shape[-1:]:
            raise ValueError(
                f"{name} has the shape {weights.shape}; its last axis must be {basis.shape[-1]}"
            )
        flat = weights @ basis.reshape(mean.size, basis.shape[-1]).T
        result = result + flat.reshape(*weights.shape[:-1], *mean.shape)
    return result.copy() if result is mean else result


def mirror_matrices(model: MorphableModel) -> tuple[np.ndarray, np.ndarray]:
    """The linear maps of identity and expression coefficients under mirroring.

    Mirrored vertices are ``vertices[mirror] * [-1, 1, 1]``. In a symmetric model the mirrored bases
    span the same faces, so the coefficients follow by least squares: for the open face model each
    identity component keeps or changes its sign, and left and right expressions swap.

    Args:
        model: with mirror partners.

    Returns:
        (K, K) and (L, L) float32 matrices, which multiply column vectors of coefficients.

    Raises:
        ValueError: the model has no mirror partners.
    """
    if model.mirror is None:
        raise ValueError(f"face model '{model.name}' has no mirror partners")
    identity, expression = model.identity_basis, model.expression_basis
    return _matrix(identity, model.mirror), _matrix(expression, model.mirror)


def _matrix(basis: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    flat = np.float64(basis).reshape(3 * len(basis), basis.shape[-1])
    mirrored = (basis[mirror] * np.array([-1, 1, 1])[:, None]).reshape(flat.shape)
    return np.linalg.lstsq(flat, mirrored, rcond=None)[0].astype(np.float32)
