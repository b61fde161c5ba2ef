"""Photos in, pictures and meshes out."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import PIL.Image

from keras_scnn.storage import atomic_path, short_name
from keras_scnn.storage.guard import reading
from keras_scnn.storage.images import decode_image, image_size, reduction

if TYPE_CHECKING:
    import trimesh

MESH_SUFFIXES = (".obj", ".ply", ".glb")


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read a photo upright, as 8-bit RGB.

    The EXIF orientation is applied, gray becomes RGB, 16 bits become 8, and transparent pixels are
    composited over white. A photo of more than 89 million pixels is read at 1/2, and a JPEG of more
    than 357 million at 1/4 or 1/8, of its width and height (``photo_reduction``): coordinates are
    those of the array that is returned.

    Args:
        path: a JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF, JPEG 2000 or PPM file, or HEIC with the extra
            'heif', whatever its name ends in; the first picture where it holds several.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        FileNotFoundError: there is no such file.
        IsADirectoryError: it is a folder.
        ValueError: the file is not a readable image.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: a folder; expected a photo")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such photo")
    with reading(path, "a readable image"):
        return decode_image(path.read_bytes())


def photo_reduction(path: str | os.PathLike) -> int:
    """By how much ``read_image`` reduces width and height of a photo: 1, or 2, 4, 8 for large ones.

    Raises:
        OSError, ValueError: as ``read_image``.
    """
    with reading(path, "a readable image"):
        return reduction(image_size(Path(path).read_bytes()))


def write_image(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write an image, whole or not at all.

    Args:
        path: the suffix chooses the format, e.g. .png or .jpg.
        image: (H, W, 3) uint8 RGB.

    Raises:
        ValueError: unknown suffix, or an image that the format cannot hold.
        OSError: the file could not be written.
    """
    suffix = Path(path).suffix
    # OpenCV gets no file names: it ends the process at one that is not UTF-8.
    if not suffix.isascii() or not cv2.haveImageWriter(f"name{suffix}"):
        raise ValueError(f"{path}: unknown kind of image '{suffix}'; use .png or .jpg")
    try:
        encoded = cv2.imencode(suffix, np.ascontiguousarray(image[..., ::-1]))[1]
    except cv2.error as error:  # too large for the format
        raise ValueError(f"{path}: could not be written ({error.err})") from error
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


def write_mesh(
    path: str | os.PathLike,
    vertices: np.ndarray,
    triangles: np.ndarray,
    uv: np.ndarray | None = None,
    texture: np.ndarray | None = None,
    colors: np.ndarray | None = None,
) -> None:
    """Write a mesh, each file whole or not at all; the suffix chooses the format.

    Args:
        path: .obj (with .mtl and .png beside it), .ply (colored vertices) or .glb (one file).
        vertices: (N, 3), mm, model frame. GLB's unit is the meter, so it gets them in meters.
        triangles: (T, 3).
        uv: (N, 2) in [0, 1], v up, with a texture.
        texture: (H, W, 3) uint8 RGB, first row at v = 1.
        colors: (N, 3) uint8 RGB for .ply, which has no texture.

    Raises:
        ValueError: unknown suffix, vertices that are not finite, or an index out of range.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in MESH_SUFFIXES:
        raise ValueError(f"{path}: suffix '{suffix}'; a mesh is one of {', '.join(MESH_SUFFIXES)}")
    if not np.isfinite(vertices).all():
        raise ValueError(f"{path}: the vertices must be finite numbers")
    if not 0 <= np.min(triangles) <= np.max(triangles) < len(vertices):
        raise ValueError(f"{path}: the triangles must index the {len(vertices)} vertices")
    import trimesh  # slow to import

    scale = 0.001 if suffix == ".glb" else 1.0
    mesh = trimesh.Trimesh(np.asarray(vertices) * scale, triangles, process=False)
    if suffix == ".ply":
        if colors is not None:
            mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=colors)
    elif uv is not None and texture is not None:
        mesh.visual = _textured(uv, texture, path)
    if suffix == ".obj":
        _write_obj(path, mesh)
    else:
        with atomic_path(path) as temporary:
            mesh.export(temporary, file_type=suffix[1:])


def mesh_files(path: str | os.PathLike) -> list[Path]:
    """All files that ``write_mesh`` may write for a mesh of that name."""
    path = Path(path)
    if path.suffix.lower() != ".obj":
        return [path]
    word = _word(path.stem)
    return [path, path.with_name(f"{word}.mtl"), path.with_name(f"{word}_texture.png")]


def _textured(uv, texture, path: Path) -> trimesh.visual.TextureVisuals:
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import Material, PBRMaterial, SimpleMaterial

    image = PIL.Image.fromarray(texture)
    material: Material
    if path.suffix.lower() == ".obj":
        white, black = [255, 255, 255, 255], [0, 0, 0, 255]
        # A name of its own: a texture called after the mesh could overwrite the photo of that name.
        material = SimpleMaterial(
            image, diffuse=white, ambient=white, specular=black, name=f"{_word(path.stem)}_texture"
        )
    else:
        material = PBRMaterial(
            name=_word(path.stem), baseColorTexture=image, metallicFactor=0.0, roughnessFactor=0.9
        )
    return TextureVisuals(uv=uv, material=material)


def _word(name: str) -> str:
    """A name for the files beside an OBJ: its readers take a space for the name's end.

    Names that differ only in what is replaced get different ones.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    if plain == name:
        return short_name(name)
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
    return short_name(f"{plain}-{digest}")


def _write_obj(path: Path, mesh: trimesh.Trimesh) -> None:
    from trimesh.exchange.obj import export_obj

    text, beside = export_obj(mesh, return_texture=True, mtl_name=f"{_word(path.stem)}.mtl")
    for name, content in beside.items():
        with atomic_path(path.with_name(name)) as temporary:
            temporary.write_bytes(content)
    with atomic_path(path) as temporary:
        temporary.write_text(text)
