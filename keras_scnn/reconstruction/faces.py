"""3D faces from photos: the results of ``Reconstructor``."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import SupportsIndex, overload

import numpy as np

from keras_scnn.geometry.camera import decompose, euler_from_camera, project
from keras_scnn.meshes.face import FaceLook, write_face_mesh
from keras_scnn.meshes.files import check_format
from keras_scnn.meshes.glb import PhotoCamera
from keras_scnn.meshes.options import MeshOptions
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import FaceParameters
from keras_scnn.photos.cropping import FaceBox
from keras_scnn.reconstruction.quality import photo_quality
from keras_scnn.settings import typed
from keras_scnn.texturing.texture import photo_texture, vertex_colors


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """One face of a photo.

    Attributes:
        model: the face model.
        parameters: pose image_from_model (3, 4), px per mm; identity (K,); expression (L,),
            within the model's bounds.
        box: the square around the face, px, image frame; its last crop was rotated upright.
        features: (F,) float32 of unit length, or None if the preset has no feature head.
        photo_size: width and height of the photo, px; None if unknown.
    """

    model: MorphableModel
    parameters: FaceParameters
    box: FaceBox
    features: np.ndarray | None = None
    photo_size: tuple[int, int] | None = None

    @property
    def vertices(self) -> np.ndarray:
        """(N, 3) float32, mm, model frame."""
        return self.model.vertices(self.parameters.identity, self.parameters.expression)

    @property
    def neutral_vertices(self) -> np.ndarray:
        """(N, 3) float32, mm, model frame: the person without expression."""
        return self.model.vertices(self.parameters.identity)

    @property
    def posed_vertices(self) -> np.ndarray:
        """(N, 3) px and depth, image frame."""
        return project(self.parameters.pose, self.vertices)

    @property
    def landmarks(self) -> np.ndarray:
        """(68, 3) px and depth, image frame, in iBUG order, landmark offsets included."""
        points = self.model.landmarks(self.parameters.identity, self.parameters.expression)
        return project(self.parameters.pose, points)

    @property
    def euler_degrees(self) -> np.ndarray:
        """(3,) pitch, yaw, roll of the head in degrees; see ``geometry.rotations``."""
        return np.degrees(euler_from_camera(self.parameters.pose))

    @property
    def quality(self) -> float:
        """Expected inverse variance of the shape; see ``quality.photo_quality``."""
        yaw = float(self.euler_degrees[1])
        return photo_quality(yaw, self.box.score, self.box.width)

    def texture(
        self, image: np.ndarray, baked: bool = False, hidden: np.ndarray | None = None
    ) -> np.ndarray:
        """Texture map of this face from its photo.

        Args:
            image: the photo, (H, W, 3) uint8 RGB.
            baked: with the photo's lighting; False gives the skin's own colors (albedo).
            hidden: (H, W) bool, True where something hides the face; None estimates it from colors.

        Returns:
            (S, S, 3) uint8 sRGB, first row at v = 1; S is 512, 1024 or 2048, by the face's size.

        Raises:
            ValueError: the face model has no uv, an array has a wrong shape or dtype, or the photo
                has another size than the one in which this face was found.
        """
        self.check_photo(image)
        return photo_texture(self.model, image, self.posed_vertices, baked, hidden)

    def write_mesh(
        self,
        path: str | os.PathLike,
        image: np.ndarray | None = None,
        options: MeshOptions = MeshOptions(),
    ) -> np.ndarray | None:
        """Write the face as a file for Blender, three.js and others; see ``meshes``.

        OBJ and PLY are the face as the photo shows it. GLB is the person without expression, with a
        morph target for each expression of the model and the photo's weights set, eyes that turn,
        and the photo's camera.

        Args:
            path: .obj (with .mtl and .png beside it), .ply (colored vertices) or .glb.
            image: the photo that this face was found in, (H, W, 3) uint8 RGB, for texture and
                camera; None for a plain mesh.
            options: unit, neutral, parts, and whether the texture keeps the photo's lighting.

        Returns:
            (N, 3) uint8 RGB of the vertices; None without a photo or texture coordinates.

        Raises:
            ValueError: unknown suffix, a unit that the format does not support, an unknown part,
                options that are not ``MeshOptions``, or a photo as for ``texture``.
        """
        typed(options, MeshOptions, "options")
        check_format(path, options.unit)  # before the texture is computed
        texture = colors = camera = None
        if image is not None:
            self.check_photo(image)
            camera = PhotoCamera(self.parameters.pose, (image.shape[1], image.shape[0]))
            if self.model.uv is not None:
                texture = self.texture(image, options.baked)
                colors = vertex_colors(self.model, texture)
        p, look = self.parameters, FaceLook(texture, colors)
        write_face_mesh(path, self.model, p.identity, p.expression, look, camera, options)
        return colors

    def check_photo(self, image: np.ndarray) -> None:
        """Raise a ValueError for an image of another size than this face's photo."""
        if not isinstance(image, np.ndarray) or image.ndim != 3:
            raise ValueError("image is not a photo; it must be an array (H, W, 3) of uint8")
        size = image.shape[1], image.shape[0]
        if self.photo_size not in (None, size):
            there, here = (" x ".join(map(str, one)) for one in (self.photo_size, size))
            raise ValueError(f"image is {here} px; this face was found in a photo of {there} px")

    def to_json(self) -> dict:
        """Everything but the mesh, as values that JSON can hold."""
        rotation, scale, translation = decompose(self.parameters.pose)
        return {
            "face_model": self.model.name,
            "box": self.box.as_array().tolist(),
            "score": float(self.box.score),
            "quality": self.quality,
            "landmarks": self.landmarks.tolist(),
            "pose": {
                "image_from_model": self.parameters.pose.tolist(),
                "rotation": rotation.tolist(),
                "euler_degrees": dict(
                    zip(("pitch", "yaw", "roll"), self.euler_degrees.tolist(), strict=True)
                ),
                "scale_px_per_mm": float(scale),
                "translation_px": translation[:2].tolist(),
            },
            "identity": self.parameters.identity.tolist(),
            "expression": dict(
                zip(self.model.expression_names, self.parameters.expression.tolist(), strict=True)
            ),
        }


@dataclass(frozen=True, eq=False)
class Faces:
    """M faces as arrays, of one photo or of many.

    An integer index gives a ``Reconstruction``, a slice gives ``Faces``.

    Attributes:
        model: the face model.
        parameters: pose image_from_model (M, 3, 4), px per mm; identity (M, K); expression (M, L),
            within the model's bounds.
        boxes: M squares around the faces, px, image frame.
        features: (M, F) float32 of unit length, or None if the preset has no feature head.
        photo_sizes: width and height of each face's photo, px; None if unknown.
    """

    model: MorphableModel
    parameters: FaceParameters
    boxes: tuple[FaceBox, ...]
    features: np.ndarray | None = None
    photo_sizes: tuple[tuple[int, int], ...] | None = None

    @property
    def landmarks(self) -> np.ndarray:
        """(M, 68, 3) px and depth, image frame, in iBUG order, landmark offsets included."""
        points = self.model.landmarks(self.parameters.identity, self.parameters.expression)
        return project(self.parameters.pose, points)

    def __len__(self) -> int:
        return len(self.boxes)

    def __iter__(self) -> Iterator[Reconstruction]:
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, i: SupportsIndex) -> Reconstruction: ...

    @overload
    def __getitem__(self, i: slice) -> Faces: ...

    def __getitem__(self, i):
        i = i if isinstance(i, slice) else operator.index(i)
        features = None if self.features is None else self.features[i]
        sizes = None if self.photo_sizes is None else self.photo_sizes[i]
        kind = Faces if isinstance(i, slice) else Reconstruction
        return kind(self.model, self.parameters[i], self.boxes[i], features, sizes)


def features_of(faces: Sequence[Reconstruction]) -> np.ndarray | None:
    """(n, F) features of n faces of one preset; None if it has no feature head."""
    features = [face.features for face in faces if face.features is not None]
    return np.stack(features) if features and len(features) == len(faces) else None
