"""Photos in, pictures and meshes out."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import trimesh
from trimesh.exchange.obj import export_obj

from keras_scnn.storage import atomic_path

MESH_SUFFIXES = (".obj", ".ply", ".glb")


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read a photo upright, as 8-bit RGB.

    The EXIF orientation is applied, gray becomes RGB, 16 bits become 8, and transparent pixels are
    laid over white.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a readable image.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such photo")
    try:
        with PIL.Image.open(path) as file:
            image = PIL.ImageOps.exif_transpose(file)
            if image.mode.startswith("I") or image.mode == "F":
                return np.repeat(_to_8_bit(np.asarray(image))[..., None], 3, axis=-1)
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                image = image.convert("RGBA")
                white = PIL.Image.new("RGBA", image.size, "white")
                image = PIL.Image.alpha_composite(white, image)
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not a readable image ({error})") from error


def _to_8_bit(image: np.ndarray) -> np.ndarray:
    """16-bit and wider gray values, which PIL would clip, scaled to 0 to 255."""
    top = 65535 if image.max() > 255 else 255
    return np.clip(image.astype(np.float64) * 255 / top, 0, 255).round().astype(np.uint8)


def write_image(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB; the suffix chooses the format."""
    with atomic_path(path) as temporary:
        if not cv2.imwrite(str(temporary), np.ascontiguousarray(image[..., ::-1])):
            raise ValueError(f"{path}: could not be written; use .png or .jpg")


def write_mesh(
    path: str | os.PathLike,
    vertices: np.ndarray,
    triangles: np.ndarray,
    uv: np.ndarray | None = None,
    texture: np.ndarray | None = None,
    colors: np.ndarray | None = None,
) -> None:
    """Write a mesh; the suffix chooses the format.

    Args:
        path: .obj (with .mtl and .png beside it), .ply (colored vertices) or .glb (one file).
        vertices: (N, 3), mm, model frame. GLB's unit is the meter, so it gets them in meters.
        triangles: (T, 3).
        uv: (N, 2) in [0, 1], v up, with a texture.
        texture: (H, W, 3) uint8 RGB, first row at v = 1.
        colors: (N, 3) uint8 RGB for .ply, which knows no texture.

    Raises:
        ValueError: unknown suffix.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in MESH_SUFFIXES:
        raise ValueError(f"{path}: suffix '{suffix}'; a mesh is one of {', '.join(MESH_SUFFIXES)}")
    scale = 0.001 if suffix == ".glb" else 1.0
    mesh = trimesh.Trimesh(np.asarray(vertices) * scale, triangles, process=False)
    if suffix == ".ply":
        if colors is not None:
            mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=colors)
    elif uv is not None and texture is not None:
        mesh.visual = _textured(uv, texture, path.stem)
    if suffix == ".obj":
        _write_obj(path, mesh)
    else:
        with atomic_path(path) as temporary:
            temporary.write_bytes(mesh.export(file_type=suffix[1:]))


def _textured(uv, texture, name: str) -> trimesh.visual.TextureVisuals:
    material = trimesh.visual.material.PBRMaterial(
        name=name,
        baseColorTexture=PIL.Image.fromarray(texture),
        metallicFactor=0.0,
        roughnessFactor=0.9,
    )
    return trimesh.visual.TextureVisuals(uv=uv, material=material)


def _write_obj(path: Path, mesh: trimesh.Trimesh) -> None:
    if isinstance(mesh.visual, trimesh.visual.TextureVisuals):
        mesh.visual.material = mesh.visual.material.to_simple()
        mesh.visual.material.name = path.stem
    text, beside = export_obj(mesh, return_texture=True, mtl_name=f"{path.stem}.mtl")
    for name, content in beside.items():
        with atomic_path(path.with_name(name)) as temporary:
            temporary.write_bytes(content)
    with atomic_path(path) as temporary:
        temporary.write_text(text)
