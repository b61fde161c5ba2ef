"""A photo's face as a mesh file, animatable if the format supports it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_scnn.geometry.colors import PLAIN_MOUTH, PLAIN_TEETH
from keras_scnn.geometry.mesh import smooth_normals
from keras_scnn.meshes.animation import Motion
from keras_scnn.meshes.files import check_format, write_surface
from keras_scnn.meshes.glb import PhotoCamera, Rig, glb_bytes
from keras_scnn.meshes.options import MeshOptions
from keras_scnn.meshes.parts import EYES, face_parts
from keras_scnn.meshes.surface import Color, Material, Surface
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.storage import atomic_path

# For a face without a texture.
COLORS: dict[str, Color] = {
    "mouth": PLAIN_MOUTH,
    "teeth": PLAIN_TEETH,
    "tongue": (0.62, 0.31, 0.30),
}
CLAY: Color = (0.84, 0.75, 0.69)  # for skin without a texture
ROUGHNESS = {"eyes": 0.2, "mouth": 0.5, "teeth": 0.35, "tongue": 0.5}
DRY = 0.9
# Morph targets change only normals that turn by more than this; less is invisible and takes space.
LEAST_TURN = np.deg2rad(6.0)


@dataclass(frozen=True, eq=False)
class FaceLook:
    """The colors of a face.

    Attributes:
        texture: (H, W, 3) uint8 RGB, first row at v = 1; or None.
        colors: (N, 3) uint8 RGB of the model's vertices; or None.
    """

    texture: np.ndarray | None = None
    colors: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class FaceSurface:
    """The parts of a face model as one mesh.

    The back has its own vertices, after the model's, because it meets the skin at a sharp edge.

    Attributes:
        model: the face model.
        source: (M,) the model's vertex for each vertex of the mesh; first all N in their order.
        parts: by name: (T, 3) triangles.
    """

    model: MorphableModel
    source: np.ndarray
    parts: dict[str, np.ndarray]

    @classmethod
    def of(cls, model: MorphableModel, options: MeshOptions) -> FaceSurface:
        """The parts selected by the options; raises a ValueError if the model lacks one."""
        parts, source = face_parts(model, options.parts), np.arange(model.n_vertices)
        if "back" in parts:
            rim, number = np.unique(parts["back"], return_inverse=True)
            parts["back"] = number.reshape(-1, 3) + model.n_vertices
            source = np.concatenate([source, rim])
        return cls(model, source, parts)

    def normals(self, vertices: np.ndarray) -> np.ndarray:
        """(M, 3) normals at vertices (M, 3), of the whole face regardless of the selected parts."""
        count, back = self.model.n_vertices, self.parts.get("back")
        front = smooth_normals(vertices[:count], self.model.triangles)
        if back is None:
            return front
        return np.concatenate([front, smooth_normals(vertices[count:], back - count)])

    def surface(self, vertices: np.ndarray, look: FaceLook) -> Surface:
        """The mesh for the model's vertices (N, 3), mm, model frame, with its colors."""
        vertices = np.float64(vertices)[self.source]
        has_texture = self.model.uv is not None and look.texture is not None
        colors = None if look.colors is None else self._vertex_colors(look.colors)
        return Surface(
            vertices,
            self.normals(vertices),
            self.parts,
            self._materials(has_texture, colors),
            None if self.model.uv is None else self.model.uv[self.source],
            look.texture if has_texture else None,
            colors,
        )

    def _materials(self, has_texture: bool, colors: np.ndarray | None) -> Mapping[str, Material]:
        plain: dict[str, Color | None] = {} if has_texture else {**COLORS}
        if colors is not None and "back" in self.parts:
            red, green, blue = (colors[-1] / 255).tolist()
            plain["back"] = (red, green, blue)
        names = {part: "eyes" if part in EYES else part for part in self.parts}
        color_of = {name: plain.get(name, None if has_texture else CLAY) for name in names.values()}
        return {
            part: Material(name, color_of[name], ROUGHNESS.get(name, DRY))
            for part, name in names.items()
        }

    def _vertex_colors(self, colors: np.ndarray) -> np.ndarray:
        """(M, 3) uint8; the back gets the rim's median color."""
        colors = colors[self.source]
        back = slice(self.model.n_vertices, None)
        if "back" in self.parts:
            colors[back] = np.median(colors[back], axis=0)
        return colors

    def rig(self, surface: Surface, weights: np.ndarray) -> Rig:
        """A morph target for each expression of the model."""
        moves = self.model.expression_basis[self.source]
        turns = np.zeros_like(moves)
        for i in range(moves.shape[-1]):
            change = self.normals(surface.vertices + moves[..., i]) - surface.normals
            change[np.linalg.norm(change, axis=1) < LEAST_TURN] = 0
            turns[..., i] = change
        return Rig(self.model.expression_names, moves, turns, weights)


def write_face_mesh(
    path: str | os.PathLike,
    model: MorphableModel,
    identity: np.ndarray,
    expression: np.ndarray,
    look: FaceLook = FaceLook(),
    camera: PhotoCamera | None = None,
    options: MeshOptions = MeshOptions(),
) -> None:
    """Write a face; the suffix is the format, and ``keras_scnn.meshes`` documents unit and axes.

    OBJ and PLY contain the face with the photo's expression, or neutral; unless parts are selected,
    the model's vertices come first, all in their order. GLB contains the neutral face with a morph
    target for each expression of the model, with the photo's weights, or zero: see
    ``glb.glb_bytes``.

    Args:
        path: .obj, .ply or .glb.
        model: the face model.
        identity: (K,) coefficients.
        expression: (L,) weights.
        look: its colors.
        camera: of the photo, for a camera node in GLB.
        options: unit, neutral, and parts.

    Raises:
        ValueError: unknown suffix, a unit that the format does not support, a part that the model
            does not have, or coefficients or weights that are not K, or L, finite numbers.
    """
    path = Path(path)
    check_format(path, options.unit)
    _check_numbers(path, "identity", identity, (model.n_identity,))
    _check_numbers(path, "expression", expression, (model.n_expression,))
    is_glb, mesh = path.suffix.lower() == ".glb", FaceSurface.of(model, options)
    shown = None if options.neutral or is_glb else expression
    surface = mesh.surface(model.vertices(identity, shown), look)
    if not is_glb:
        written = surface if options.parts is None else surface.without_unused()
        write_surface(path, written, options.unit)
        return
    rig = mesh.rig(surface, np.zeros_like(expression) if options.neutral else expression)
    about = {"face_model": model.name, "face_model_license": model.license}
    with atomic_path(path) as temporary:
        temporary.write_bytes(glb_bytes(surface, rig, camera, about))


def _check_numbers(path: Path, name: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
    if np.shape(values) != shape or not np.isfinite(values).all():
        must = " x ".join(map(str, shape))
        raise ValueError(
            f"{path}: {name} of shape {np.shape(values)}; it must be {must} finite numbers"
        )


def write_face_animation(
    path: str | os.PathLike,
    model: MorphableModel,
    identity: np.ndarray,
    motion: Motion,
    look: FaceLook = FaceLook(),
    options: MeshOptions = MeshOptions(),
) -> None:
    """Write a moving face as GLB: the neutral face and its animation.

    Args:
        path: .glb.
        model: the face model.
        identity: (K,) coefficients.
        motion: with the weights of the model's expressions.
        look: its colors.
        options: parts.

    Raises:
        ValueError: a part that the model does not have, or coefficients or weights of another
            shape or not finite.
    """
    path, n = Path(path), len(motion.seconds)
    _check_numbers(path, "identity", identity, (model.n_identity,))
    _check_numbers(path, "weights", motion.weights, (n, model.n_expression))
    mesh = FaceSurface.of(model, options)
    surface = mesh.surface(model.vertices(identity), look)
    rig = mesh.rig(surface, motion.weights[0])
    about = {"face_model": model.name, "face_model_license": model.license}
    about["focal_px"] = f"{motion.focal_px:g}, assumed"
    with atomic_path(path) as temporary:
        temporary.write_bytes(glb_bytes(surface, rig, None, about, motion))
