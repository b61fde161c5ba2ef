"""Find the faces of photos and their 68 landmarks, with two networks that check each other.

FaceMesh works at 192 px; a preset of this library at 120 px, but at any yaw. The error relative to
the hand-made points of 300-W is 2.80 % for FaceMesh, 2.94 % for the preset, and 2.68 % for the mean
of both (``tools/learn_mesh_sites.py AFLW --check 300W``). At yaws of 45 to 60 degrees on AFLW it is
6.7 % for FaceMesh and 5.6 % for the preset, at 75 degrees 15 % and 5 %. The preset's depth is
better.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from keras_scnn.data.labels.mesh_landmarks import landmarks_from_mesh
from keras_scnn.geometry.camera import euler_from_camera
from keras_scnn.models.presets import load_preset
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.photos.blazeface import RawDetections
from keras_scnn.photos.cropping import FaceBox, box_from_detector, box_from_landmarks, second_box
from keras_scnn.photos.detection import FaceDetector
from keras_scnn.photos.facemesh import FaceMesh
from keras_scnn.reconstruction.reconstructor import Reconstructor

LANDMARK_PRESET = "aflw-mobilenet-0.5"
# FaceMesh's weight in the mean up to MESH_YAW degrees; it falls to 0 at MESH_YAW_END.
MESH_SHARE, MESH_YAW, MESH_YAW_END = 0.5, 40.0, 55.0


@dataclass(frozen=True, eq=False)
class FoundFace:
    """One face of a photo.

    Attributes:
        box: (4,) px, BlazeFace's half-open box.
        landmarks: (68, 3) float64 px and depth, image frame, at the sites of the face model's
            landmarks.
        mesh: (468, 3) float64 px and depth, image frame: FaceMesh's points.
        mesh_score: FaceMesh's, 0 to 1.
        yaw_degrees: predicted by the preset.
        disagreement: mean distance of the two networks' landmarks, percent of the standard crop's
            side.
    """

    box: np.ndarray
    landmarks: np.ndarray
    mesh: np.ndarray
    mesh_score: float
    yaw_degrees: float
    disagreement: float


class Landmarker:
    """The face detector, FaceMesh and the preset ``LANDMARK_PRESET``, combined.

    Raises:
        FileNotFoundError, ValueError: see ``FaceDetector``, ``FaceMesh`` and ``load_preset``.
    """

    def __init__(self):
        self._reconstructor = Reconstructor(load_preset(LANDMARK_PRESET))
        self._detector, self._mesh = FaceDetector(tiles=False), FaceMesh()

    @property
    def face_model(self) -> MorphableModel:
        """The preset's face model, whose landmark offsets fit these landmarks."""
        return self._reconstructor.preset.face_model

    def __call__(self, images: list[np.ndarray]) -> list[list[FoundFace]]:
        """The faces of each photo, highest score first.

        Args:
            images: (H, W, 3) uint8 RGB each. All of their faces are one batch for the preset.

        Raises:
            ValueError: an image is not a uint8 color image.
        """
        detections = [self._detector.detect_raw(image) for image in images]
        rows = [(i, raw[j]) for i, raw in enumerate(detections) for j in range(len(raw.scores))]
        predicted = self._predict([images[i] for i, _ in rows], [face for _, face in rows])
        faces: list[list[FoundFace]] = [[] for _ in images]
        for (i, raw), (landmarks, yaw) in zip(rows, predicted, strict=True):
            faces[i].append(self._combined(images[i], raw, landmarks, yaw))
        return faces

    def _combined(self, image, raw: RawDetections, landmarks, yaw: float) -> FoundFace:
        mesh = self._mesh(image, raw)
        apart = (landmarks_from_mesh(mesh.points, self.face_model) - landmarks)[:, :2]
        merged = landmarks.copy()
        merged[:, :2] += mesh_share(yaw) * apart
        distance = np.linalg.norm(apart, axis=1).mean() / box_from_landmarks(landmarks).width
        return FoundFace(raw.boxes, merged, mesh.points, mesh.score, yaw, float(100 * distance))

    def _predict(self, images, rows: list[RawDetections]) -> list[tuple[np.ndarray, float]]:
        """The preset's landmarks (68, 3), and the yaw in degrees, in two passes."""
        if not rows:
            return []
        boxes = [box_from_detector(row.boxes, keypoints=row.keypoints) for row in rows]
        first = self._pass(images, boxes)
        pairs = zip(first, boxes, strict=True)
        boxes = [replace(second_box(points, box), angle=box.angle) for (points, _), box in pairs]
        return self._pass(images, boxes)

    def _pass(self, images, boxes: list[FaceBox]) -> list[tuple[np.ndarray, float]]:
        faces = self._reconstructor.reconstruct_many(images, boxes, passes=1)
        yaw = np.degrees(euler_from_camera(faces.parameters.pose)[..., 1])
        return list(zip(np.float64(faces.landmarks), yaw.tolist(), strict=True))


def mesh_share(yaw_degrees: float) -> float:
    """The weight of FaceMesh in the mean of both, 0 to 0.5, which decreases with the yaw."""
    ramp = (MESH_YAW_END - abs(yaw_degrees)) / (MESH_YAW_END - MESH_YAW)
    return MESH_SHARE * float(np.clip(ramp, 0, 1))
