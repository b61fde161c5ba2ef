"""Photos in, pictures and meshes out."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps

from keras_scnn.storage import atomic_path

if TYPE_CHECKING:
    import trimesh

START, END = b"\xff\xd8", b"\xff\xd9"
# Segments up to the frame that PIL has nothing to do with: JFIF, ICC, comments, tables.
HARMLESS = {0xE0, 0xE2, 0xFE, 0xDB, 0xC4, 0xDD}
FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive; Huffman codes
MAX_PIXELS = 50_000_000


def decode_plain_jpeg(data: bytes) -> np.ndarray | None:
    """Decode a gray or YCbCr JPEG without metadata; the pixels are those that PIL gives.

    Both use libjpeg-turbo. The time is saved around it: what PIL takes for the headers and for
    copies is more than the decoding of a face crop.

    Args:
        data: the file.

    Returns:
        (H, W, 3) uint8 RGB; None where the file is of another kind, incomplete or damaged, or has
        EXIF or XMP data, which may turn the photo: PIL's then.
    """
    if data[:2] != START or data[-2:] != END or not _is_plain(data):
        return None
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def _is_plain(data: bytes) -> bool:
    """Walk over the segments to the frame header (ITU-T T.81, B.2.2)."""
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in FRAMES:
            height = int.from_bytes(data[at + 5 : at + 7], "big")
            width = int.from_bytes(data[at + 7 : at + 9], "big")
            return data[at + 4] == 8 and data[at + 9] in (1, 3) and height * width <= MAX_PIXELS
        if marker not in HARMLESS:
            return False
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False


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
    try:
        return decode_image(path.read_bytes())
    except (FileNotFoundError, IsADirectoryError) as error:
        raise FileNotFoundError(f"{path}: no such photo") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not a readable image ({error})") from error


def decode_image(data: bytes) -> np.ndarray:
    """Decode the bytes of a photo's file, as ``read_image`` does.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: they are not those of a readable image.
    """
    plain = decode_plain_jpeg(data)
    if plain is not None:
        return plain
    try:
        with PIL.Image.open(io.BytesIO(data)) as file:
            PIL.ImageOps.exif_transpose(file, in_place=True)
            return _to_rgb(file)
    except PIL.UnidentifiedImageError as error:
        raise ValueError("of no known format, or damaged") from error
    except (OSError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error


def _to_rgb(image: PIL.Image.Image) -> np.ndarray:
    if image.mode == "F":
        raise ValueError("floating-point pixels; save it with 8 or 16 bits a channel")
    if image.mode.startswith("I"):
        return np.repeat(_to_8_bit(np.asarray(image))[..., None], 3, axis=-1)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = PIL.Image.new("RGBA", image.size, "white")
        image = PIL.Image.alpha_composite(white, image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _to_8_bit(image: np.ndarray) -> np.ndarray:
    """16-bit gray values, which PIL would clip, scaled to 0 to 255."""
    return np.clip(image.astype(np.float64) / 257, 0, 255).round().astype(np.uint8)


def write_image(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB; the suffix chooses the format."""
    if not cv2.haveImageWriter(str(path)):
        raise ValueError(f"{path}: unknown kind of image '{Path(path).suffix}'; use .png or .jpg")
    with atomic_path(path) as temporary:
        if not cv2.imwrite(str(temporary), np.ascontiguousarray(image[..., ::-1])):
            raise ValueError(f"{path}: could not be written")


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
        mesh.visual = _textured(uv, texture, path.stem)
    if suffix == ".obj":
        _write_obj(path, mesh)
    else:
        with atomic_path(path) as temporary:
            temporary.write_bytes(mesh.export(file_type=suffix[1:]))


def _textured(uv, texture, name: str) -> trimesh.visual.TextureVisuals:
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import PBRMaterial

    material = PBRMaterial(
        name=name,
        baseColorTexture=PIL.Image.fromarray(texture),
        metallicFactor=0.0,
        roughnessFactor=0.9,
    )
    return TextureVisuals(uv=uv, material=material)


def _write_obj(path: Path, mesh: trimesh.Trimesh) -> None:
    from trimesh.exchange.obj import export_obj
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import SimpleMaterial

    if isinstance(mesh.visual, TextureVisuals):
        # A name of its own: a texture called after the mesh could overwrite the photo of that name.
        mesh.visual.material = SimpleMaterial(
            image=mesh.visual.material.baseColorTexture,
            diffuse=[255, 255, 255, 255],
            ambient=[255, 255, 255, 255],
            specular=[0, 0, 0, 255],
            name=f"{path.stem}_texture",
        )
    text, beside = export_obj(mesh, return_texture=True, mtl_name=f"{path.stem}.mtl")
    for name, content in beside.items():
        with atomic_path(path.with_name(name)) as temporary:
            temporary.write_bytes(content)
    with atomic_path(path) as temporary:
        temporary.write_text(text)
