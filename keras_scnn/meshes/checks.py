"""Validate arrays from any source and make a surface of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

import numpy as np

from keras_scnn.geometry.mesh import smooth_normals
from keras_scnn.meshes.surface import Material, Surface

# Unicode categories of characters that end a line of an OBJ file or cannot be encoded as UTF-8.
NO_TEXT = {"Cc", "Cs", "Zl", "Zp"}


def checked_surface(
    vertices: np.ndarray,
    triangles: np.ndarray | Mapping[str, np.ndarray],
    uv: np.ndarray | None = None,
    texture: np.ndarray | None = None,
    colors: np.ndarray | None = None,
) -> Surface:
    """A surface with smooth normals; arrays may be given as lists.

    Args:
        vertices, triangles, uv, texture, colors: see ``files.write_mesh``.

    Raises:
        ValueError: an array's shape or dtype is not as documented there, or a value is not finite;
            an index is out of range; there is no part or no triangle; a part's name is not a text
            of one line; or there is a texture but no ``uv``.
    """
    parts = _checked_parts(triangles)
    vertices, every = _checked("vertices", vertices, ("N", 3)), np.concatenate([*parts.values()])
    count = len(vertices)
    if not 0 <= every.min() <= every.max() < count:
        raise ValueError(f"triangles must index the {count} vertices")
    uv = None if uv is None else _checked("uv", uv, (count, 2))
    texture = None if texture is None else _checked("texture", texture, ("H", "W", 3), "uint8")
    colors = None if colors is None else _checked("colors", colors, (count, 3), "uint8")
    if texture is not None and uv is None:
        raise ValueError(f"texture of shape {texture.shape} needs uv, ({count}, 2); it is None")
    materials = {name: Material(name) for name in parts}
    normals = smooth_normals(vertices, every)
    return Surface(vertices, normals, parts, materials, uv, texture, colors)


def _checked_parts(triangles: np.ndarray | Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """(T, 3) int64 triangles by part name; a single array becomes the part 'face'."""
    if not isinstance(triangles, Mapping):
        return {"face": _checked_triangles("triangles", triangles)}
    if not triangles:
        raise ValueError("triangles have no part; give at least one, (T, 3) by its name")
    for name in triangles:
        is_text = isinstance(name, str) and not NO_TEXT & set(map(unicodedata.category, name))
        if not is_text or not name.strip():
            raise ValueError(f"part {name!r} is not a valid name; it must be text of one line")
    return {
        name: _checked_triangles(f"triangles of part '{name}'", part)
        for name, part in triangles.items()
    }


def _checked_triangles(label: str, triangles: np.ndarray) -> np.ndarray:
    array = np.asarray(triangles)
    if array.ndim != 2 or array.shape[1] != 3:
        raise ValueError(f"{label} have the shape {array.shape}; expected (T, 3)")
    if not len(array) or array.dtype.kind not in "iu":
        raise ValueError(
            f"{label} are {len(array)} of {array.dtype}; they must be 1 or more, of whole numbers"
        )
    return array.astype(np.int64)


def _checked(
    name: str, value: np.ndarray, shape: tuple[int | str, ...], kind: str = "numbers"
) -> np.ndarray:
    """Check an array's kind, 'numbers' or 'uint8', and shape, where text is any size above 0."""
    array = np.asarray(value)
    fits = array.ndim == len(shape) and all(
        found > 0 if isinstance(wanted, str) else found == wanted
        for found, wanted in zip(array.shape, shape, strict=True)
    )
    if not fits or not (array.dtype == kind if kind == "uint8" else array.dtype.kind in "iuf"):
        wanted = ", ".join(map(str, shape))
        raise ValueError(
            f"{name} of shape {array.shape} and dtype {array.dtype}; expected ({wanted}) {kind}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite numbers")
    return array
