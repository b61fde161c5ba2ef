"""A mesh with all the data that its file needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from keras_scnn.geometry.colors import linear_from_srgb

Color = tuple[float, float, float]


@dataclass(frozen=True)
class Material:
    """The appearance of a part: the texture, or a color if ``color`` is given.

    Attributes:
        name: of the material in a file.
        color: red, green, blue, 0 to 1, sRGB; None for the texture (white if there is none).
        roughness: 0 is a mirror, 1 is matte, as in glTF.
    """

    name: str
    color: Color | None = None
    roughness: float = 0.9

    @property
    def linear_color(self) -> list[float]:
        """The color, or white, in linear RGB (IEC 61966-2-1), as renderers and glTF expect."""
        light = linear_from_srgb(np.array(self.color or (1.0, 1.0, 1.0)))
        return light.astype(float).round(6).tolist()


@dataclass(frozen=True, eq=False)
class Surface:
    """Vertices and the parts of a surface that share them.

    Attributes:
        vertices: (N, 3), mm, model frame.
        normals: (N, 3), of unit length, outward.
        parts: by name: (T, 3) triangles, counter-clockwise seen from outside.
        materials: by part.
        uv: (N, 2), v up, [0, 1] is the texture; or None.
        texture: (H, W, 3) uint8 RGB, first row at v = 1; or None.
        colors: (N, 3) uint8 RGB of the vertices, for files without textures; or None.
    """

    vertices: np.ndarray
    normals: np.ndarray
    parts: Mapping[str, np.ndarray]
    materials: Mapping[str, Material]
    uv: np.ndarray | None = None
    texture: np.ndarray | None = None
    colors: np.ndarray | None = None

    @property
    def has_picture(self) -> bool:
        """Whether there is a texture and each vertex has its place on it."""
        return self.uv is not None and self.texture is not None

    def has_texture(self, part: str) -> bool:
        """Whether a part shows the texture."""
        return self.has_picture and self.materials[part].color is None

    def split(self) -> dict[str, Surface]:
        """Each part as its own surface, with all vertices."""
        return {
            name: dataclasses.replace(self, parts={name: part}) for name, part in self.parts.items()
        }

    def used(self) -> np.ndarray:
        """(n,) indices of the vertices that the parts use, ascending."""
        return np.unique(np.concatenate([part.ravel() for part in self.parts.values()]))

    def without_unused(self) -> Surface:
        """A copy without the vertices that no part uses; the surface itself if all are used."""
        used = self.used()
        if len(used) == len(self.vertices):
            return self
        number = np.zeros(len(self.vertices), np.int64)
        number[used] = np.arange(len(used))
        return dataclasses.replace(
            self,
            vertices=self.vertices[used],
            normals=self.normals[used],
            parts={name: number[part] for name, part in self.parts.items()},
            uv=None if self.uv is None else self.uv[used],
            colors=None if self.colors is None else self.colors[used],
        )
