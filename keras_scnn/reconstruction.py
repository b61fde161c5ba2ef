"""``Reconstructor``: photos, boxes and crops to 3D faces."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from keras_scnn.cropping import FaceBox, FaceCrop, box_from_landmarks, crop_face
from keras_scnn.detection import FaceDetector
from keras_scnn.geometry.camera import decompose, project, transform_camera
from keras_scnn.geometry.crops import invert_affine
from keras_scnn.geometry.rotations import euler_from_rotation
from keras_scnn.io import write_mesh
from keras_scnn.models.presets import Preset, load_preset
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import FaceParameters
from keras_scnn.texture import photo_texture, vertex_colors

DEFAULT_PRESET = "aflw-mobilenet-0.5"
PASSES = 2  # the second crop is cut by the first pass's landmarks
MOST_RESIZE = 3.0  # a second crop that differs more from the first one comes from a failure

Network = Callable[[np.ndarray], dict[str, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """One face of a photo.

    Attributes:
        model: the face model.
        parameters: pose image_from_model (3, 4), px per mm; identity (K,); expression (L,),
            within the model's bounds.
        box: the square that the network saw, px, image frame.
        features: (F,) float32 of unit length, or None where the preset has no feature head.
    """

    model: MorphableModel
    parameters: FaceParameters
    box: FaceBox
    features: np.ndarray | None = None

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
        rotation = decompose(self.parameters.pose)[0]
        return np.degrees(euler_from_rotation(rotation))

    def texture(self, image: np.ndarray) -> np.ndarray:
        """(512, 512, 3) uint8 RGB from the photo that this face was found in."""
        return photo_texture(self.model, image, self.posed_vertices)

    def to_json(self) -> dict:
        """Everything but the mesh, as numbers that JSON knows."""
        rotation, scale, translation = decompose(self.parameters.pose)
        return {
            "face_model": self.model.name,
            "box": self.box.as_array().tolist(),
            "score": self.box.score,
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
    """M faces as arrays, of one photo or of many; a number as index gives a ``Reconstruction``.

    Attributes:
        model: the face model.
        parameters: pose image_from_model (M, 3, 4), px per mm; identity (M, K); expression (M, L),
            within the model's bounds.
        boxes: M squares that the network saw, px, image frame.
        features: (M, F) float32 of unit length, or None where the preset has no feature head.
    """

    model: MorphableModel
    parameters: FaceParameters
    boxes: tuple[FaceBox, ...]
    features: np.ndarray | None = None

    @property
    def landmarks(self) -> np.ndarray:
        """(M, 68, 3) px and depth, image frame, in iBUG order, landmark offsets included."""
        points = self.model.landmarks(self.parameters.identity, self.parameters.expression)
        return project(self.parameters.pose, points)

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, i: int) -> Reconstruction:
        told = self.parameters
        parameters = FaceParameters(told.pose[i], told.identity[i], told.expression[i])
        features = None if self.features is None else self.features[i]
        return Reconstruction(self.model, parameters, self.boxes[i], features)


class Reconstructor:
    """Finds every face of a photo and reconstructs it.

    Args:
        preset: the trained network.
        detector: finds the faces; None makes a ``FaceDetector`` when the first photo comes.
        network: runs the preset's branch on (M, S, S, 3) uint8 crops, e.g. a
            ``BatchedNetwork``; None calls the branch as it is.
    """

    def __init__(
        self,
        preset: Preset,
        detector: FaceDetector | None = None,
        network: Network | None = None,
    ):
        self.preset, self._detector = preset, detector
        self._network = network or self._call_branch

    @classmethod
    def from_preset(cls, name_or_path: str | os.PathLike = DEFAULT_PRESET) -> Reconstructor:
        """Load a preset that comes with the package, or a preset or run folder."""
        return cls(load_preset(name_or_path))

    def __call__(self, image: np.ndarray) -> list[Reconstruction]:
        """The faces of an (H, W, 3) uint8 RGB photo, the surest first; [] where there is none."""
        boxes = self.detect(image)
        return self.reconstruct_boxes(image, boxes) if boxes else []

    def detect(self, image: np.ndarray) -> list[FaceBox]:
        """The standard crops of the faces of an (H, W, 3) uint8 RGB photo, the surest first."""
        if self._detector is None:
            self._detector = FaceDetector()
        return self._detector.detect(image)

    def reconstruct_boxes(
        self, image: np.ndarray, boxes: list[FaceBox], passes: int = PASSES
    ) -> list[Reconstruction]:
        """Faces in given boxes, one for each; ``passes=1`` keeps the boxes as they are."""
        return list(self.reconstruct_many([image] * len(boxes), boxes, passes))

    def reconstruct_many(
        self, images: Sequence[np.ndarray], boxes: Sequence[FaceBox], passes: int = PASSES
    ) -> Faces:
        """Faces of many photos at once.

        Args:
            images: M photos, (H, W, 3) uint8 RGB; one with several faces comes several times.
            boxes: M square boxes, px of these photos.
            passes: 1 keeps the boxes as they are; 2 cuts the crops again by the landmarks found.

        Raises:
            ValueError: no box, one that is not square, or an image that is no photo.
        """
        if not boxes:
            raise ValueError("there is no box; give one at least")
        for turn in range(passes):
            pairs = zip(images, boxes, strict=True)
            crops = [crop_face(image, box, self.preset.input_size) for image, box in pairs]
            faces = self._predict(crops, boxes)
            if turn + 1 < passes:
                found = zip(faces.landmarks, boxes, strict=True)
                boxes = [_second_box(landmarks, box) for landmarks, box in found]
        return faces

    def _predict(self, crops: list[FaceCrop], boxes: Sequence[FaceBox]) -> Faces:
        model = self.preset.face_model
        outputs = self._network(np.stack([crop.image for crop in crops]))
        vectors = self.preset.whitening.unwhiten(outputs["parameters"])
        told = FaceParameters.from_vector(vectors, self.preset.layout)
        image_from_crop = invert_affine(np.stack([crop.crop_from_image for crop in crops]))
        pose = transform_camera(image_from_crop, told.pose)
        expression = model.clip_expression(told.expression)
        parameters = FaceParameters(pose, told.identity, expression)
        return Faces(model, parameters, tuple(boxes), outputs.get("features"))

    def _call_branch(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        outputs = self.preset.branch(crops.astype(np.float32), training=False)
        return {key: np.asarray(value) for key, value in outputs.items()}


def write_textured_mesh(
    face: Reconstruction, image: np.ndarray, path: os.PathLike
) -> np.ndarray | None:
    """Write a face's mesh with the photo's texture, as ``io.write_mesh`` does.

    Args:
        face: found in the photo.
        image: the photo, (H, W, 3) uint8 RGB.
        path: its suffix chooses the format.

    Returns:
        (N, 3) uint8 RGB of the vertices; None where the face model has no texture coordinates.
    """
    texture = face.texture(image) if face.model.uv is not None else None
    colors = None if texture is None else vertex_colors(face.model, texture)
    write_mesh(path, face.vertices, face.model.triangles, face.model.uv, texture, colors)
    return colors


def _second_box(landmarks: np.ndarray, first: FaceBox) -> FaceBox:
    """The box of the landmarks; the first one where the landmarks make no sense."""
    try:
        box = box_from_landmarks(landmarks, first.score)
    except ValueError:
        return first
    return box if 1 / MOST_RESIZE < box.width / first.width < MOST_RESIZE else first
