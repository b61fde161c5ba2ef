"""Surfaces to OBJ, PLY and GLB files; ``keras_scnn.meshes`` documents their units and axes."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from keras_scnn.geometry.mesh import smooth_normals
from keras_scnn.io import encode_image
from keras_scnn.meshes.glb import AXES, glb_bytes
from keras_scnn.meshes.options import MESH_FORMATS, UNITS, check_unit
from keras_scnn.meshes.surface import Material, Surface
from keras_scnn.storage import atomic_path, short_name

PLY_FROM_MODEL = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
PLY_AXES = "x to the viewer's right, y away from the viewer, z up: the face looks to -y"
# Unicode categories of characters that end a line of an OBJ file or cannot be encoded as UTF-8.
NO_TEXT = {"Cc", "Cs", "Zl", "Zp"}


def write_mesh(
    path: str | os.PathLike,
    vertices: np.ndarray,
    triangles: np.ndarray | Mapping[str, np.ndarray],
    uv: np.ndarray | None = None,
    texture: np.ndarray | None = None,
    colors: np.ndarray | None = None,
    unit: str = "m",
) -> None:
    """Write a mesh with smooth normals, its files all or none; the suffix is the format.

    A file is in meters unless ``unit`` says otherwise, and imported with default settings a face in
    it is upright and looks at the viewer: GLB and OBJ have y up, PLY has z up
    (``keras_scnn.meshes``). The file states its unit and axes.

    Arrays may be given as lists; those of colors and textures hold whole numbers from 0 to 255.
    Nothing is written if an argument is invalid.

    Args:
        path: .obj (with .mtl and .png beside it), .ply (colored vertices) or .glb (one file).
        vertices: (N, 3), mm, model frame.
        triangles: (T, 3); or several such arrays by part name, over the same vertices.
        uv: (N, 2), v up, [0, 1] is the texture; required for a texture. Without a texture, .obj
            still contains them, for painting, but .glb does not: Khronos's validator would report
            them as unused. .ply never contains them.
        texture: (H, W, 3) uint8 RGB, first row at v = 1.
        colors: (N, 3) uint8 RGB for .ply, which has no texture.
        unit: of .obj and .ply: 'm', 'cm' or 'mm'.

    Raises:
        ValueError: unknown suffix or unit; an array has another shape or dtype, or a value that is
            not finite; an index is out of range; there is no part or no triangle; a part's name is
            not a text of one line; or there is a texture but no ``uv``.
    """
    path = Path(path)
    check_format(path, unit)
    try:
        surface = _checked_surface(vertices, triangles, uv, texture, colors)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    write_surface(path, surface, unit)


def _checked_surface(
    vertices: np.ndarray,
    triangles: np.ndarray | Mapping[str, np.ndarray],
    uv: np.ndarray | None,
    texture: np.ndarray | None,
    colors: np.ndarray | None,
) -> Surface:
    """The arguments of ``write_mesh`` as a surface with smooth normals; errors as there."""
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
    if kind == "uint8" and not isinstance(value, np.ndarray) and _are_bytes(array):
        array = array.astype(np.uint8)
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
    return array if kind == "uint8" else array.astype(np.float64)


def _are_bytes(array: np.ndarray) -> bool:
    is_whole = array.size > 0 and array.dtype.kind in "iu"
    return is_whole and 0 <= array.min() <= array.max() <= 255


def check_format(path: str | os.PathLike, unit: str) -> None:
    """Check a mesh's path before the work.

    Raises:
        FileNotFoundError: its folder does not exist.
        ValueError: the suffix is unknown, or its format does not support the unit.
    """
    suffix = Path(path).suffix.lower()
    if suffix[1:] not in MESH_FORMATS:
        known = ", ".join(f".{name}" for name in MESH_FORMATS)
        raise ValueError(f"{path}: suffix '{suffix}'; a mesh must be one of {known}")
    try:
        check_unit(unit, suffix)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if not (folder := Path(path).parent).is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {folder}; create it first")


def write_surface(path: Path, surface: Surface, unit: str = "m") -> None:
    """Write a surface, as ``write_mesh`` does; a GLB file without morph targets."""
    suffix = path.suffix.lower()
    if suffix == ".obj":
        _write_obj(path, surface, unit)
        return
    content = _ply_bytes(surface, unit) if suffix == ".ply" else glb_bytes(surface)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def mesh_files(path: str | os.PathLike) -> list[Path]:
    """All files that ``write_mesh`` may write for a mesh of that name."""
    path = Path(path)
    if path.suffix.lower() != ".obj":
        return [path]
    word = _word(path.stem)
    return [path, path.with_name(f"{word}.mtl"), path.with_name(f"{word}_texture.png")]


def _word(name: str) -> str:
    """A name without spaces, which would end a file name in OBJ and MTL.

    Names that differ only in replaced characters still get different results.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    if plain == name:
        return short_name(name)
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
    return short_name(f"{plain}-{digest}")


def _write_obj(path: Path, surface: Surface, unit: str) -> None:
    """Written here and not by trimesh, whose parts cannot share vertices.

    The texture is not named like the mesh, so that it cannot overwrite a photo of that name. The
    files are put in place together once all are written, so a full disk changes nothing; the OBJ is
    the last one, so that nobody reads it without its texture.
    """
    _, mtl, picture = mesh_files(path)
    looks = {m.name: (m, surface.has_texture(part)) for part, m in surface.materials.items()}
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(atomic_path(path))  # the stack puts it in place last
        with temporary.open("w", encoding="utf-8") as file:
            file.write(f"# unit: {unit}\n# axes: {AXES}\n")
            _write_obj_rows(file, surface, UNITS[unit], mtl.name)
        if surface.has_picture:
            lines = [_mtl(*look, picture.name) for look in looks.values()]
            temporary = stack.enter_context(atomic_path(mtl))
            temporary.write_text("".join(lines), encoding="utf-8")
        if surface.texture is not None and any(is_textured for _, is_textured in looks.values()):
            temporary = stack.enter_context(atomic_path(picture))
            temporary.write_bytes(encode_image(".png", surface.texture))


def _mtl(material: Material, is_textured: bool, picture: str) -> str:
    """Colors are linear, as Blender expects; no highlights: in old shaders skin would look wet."""
    red, green, blue = material.linear_color
    lines = [f"newmtl {material.name}", f"Kd {red} {green} {blue}", "Ks 0 0 0", "d 1", "illum 1"]
    lines += [f"map_Kd {picture}"] if is_textured else []
    return "\n".join(lines) + "\n\n"


def _write_obj_rows(file: io.TextIOBase, surface: Surface, scale: float, mtl: str) -> None:
    np.savetxt(file, surface.vertices * scale, fmt="v %.8g %.8g %.8g")
    if surface.uv is not None:
        np.savetxt(file, surface.uv, fmt="vt %.6f %.6f")
    if surface.has_picture:
        file.write(f"mtllib {mtl}\n")
    np.savetxt(file, surface.normals, fmt="vn %.5f %.5f %.5f")
    corner = "{0}//{0}" if surface.uv is None else "{0}/{0}/{0}"
    corners = np.array([corner.format(i + 1) for i in range(len(surface.vertices))])
    for name, triangles in surface.parts.items():
        file.write(f"g {name}\n")
        if surface.has_picture:
            file.write(f"usemtl {surface.materials[name].name}\n")
        np.savetxt(file, corners[triangles], fmt="f %s %s %s")


def _ply_bytes(surface: Surface, unit: str) -> bytes:
    import trimesh  # slow to import
    from trimesh.exchange.ply import export_ply

    mesh = trimesh.Trimesh(
        surface.vertices @ PLY_FROM_MODEL.T * UNITS[unit],
        np.concatenate(list(surface.parts.values())),
        vertex_normals=surface.normals @ PLY_FROM_MODEL.T,
        vertex_colors=surface.colors,
        process=False,
    )
    content = export_ply(mesh, vertex_normal=True)
    format_line, rest = content.split(b"\n", 2)[1:]
    comments = f"comment unit: {unit}\ncomment axes: {PLY_AXES}"
    return b"\n".join([b"ply", format_line, comments.encode(), rest])
