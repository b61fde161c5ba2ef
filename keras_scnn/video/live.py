"""Causal smoothing of one face, frame by frame, for live video from a camera."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.spatial.transform import Rotation

from keras_scnn.geometry.camera import compose, decompose
from keras_scnn.parameters import FaceParameters
from keras_scnn.reconstruction.faces import Reconstruction
from keras_scnn.reconstruction.person import person_weights
from keras_scnn.settings import check_number, whole
from keras_scnn.video.smoothing import OneEuro
from keras_scnn.video.tracks import with_shape

FREEZE_FRAMES = 60


class LiveFace:
    """Smooths one person's face in successive frames, with One Euro filters.

    The identity is fused from the frames so far, like that of several photos of a person, and
    frozen after ``freeze_frames`` of them: from then on the shape is constant.

    Args:
        freeze_frames: number of frames that determine the identity, 1 or more.
        pose_cutoff, pose_beta: filter of the pose, see ``OneEuro``; its values are in degrees, mm,
            and percent of the scale.
        expression_cutoff, expression_beta: filter of the expression weights.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        freeze_frames: int = FREEZE_FRAMES,
        pose_cutoff: float = 1.2,
        pose_beta: float = 0.4,
        expression_cutoff: float = 2.0,
        expression_beta: float = 15.0,
    ):
        self._freeze = whole("freeze_frames", freeze_frames)
        self._pose = OneEuro(pose_cutoff, pose_beta)
        self._expression = OneEuro(expression_cutoff, expression_beta)
        self._faces: list[Reconstruction] = []
        self._identity = np.zeros(0)
        self._turn: np.ndarray | None = None

    @property
    def is_frozen(self) -> bool:
        """Whether the identity no longer changes."""
        return len(self._faces) >= self._freeze

    def update(self, face: Reconstruction, seconds: float) -> Reconstruction:
        """The smoothed face of a frame.

        Args:
            face: from a ``Reconstructor``.
            seconds: time of the frame, increasing from call to call. At a time that does not
                increase, as when a recording begins again, the filters are reset: the pose and the
                expression of this frame are not smoothed, and the identity is kept.

        Raises:
            ValueError: ``seconds`` or a number of the face is not finite; the frame then has no
                effect.
        """
        check_number("seconds", seconds)
        seen = face.parameters
        parts = (seconds, seen.pose, seen.identity, seen.expression)
        if not all(np.isfinite(part).all() for part in parts):
            raise ValueError(f"seconds is {seconds}; it and the face's parameters must be finite")
        if not self.is_frozen:
            self._faces.append(face)
            weights, _ = person_weights(self._faces)
            self._identity = weights @ np.stack([f.parameters.identity for f in self._faces])
        face = with_shape(face, self._identity)
        pose = self._smooth_pose(face.parameters.pose, seconds)
        expression = self._expression.filter(face.parameters.expression, seconds)
        parameters = FaceParameters(pose, self._identity, face.model.clip_expression(expression))
        return dataclasses.replace(face, parameters=parameters)

    def _smooth_pose(self, pose: np.ndarray, seconds: float) -> np.ndarray:
        rotation, scale, shift = decompose(pose)
        turn = np.degrees(Rotation.from_matrix(rotation).as_rotvec())
        self._turn = turn = closest_rotation_vector(turn, self._turn)
        now = np.r_[turn, 100 * np.log(scale), shift / scale]
        *turn, size, x, y, z = self._pose.filter(now, seconds)
        rotation, scale = Rotation.from_rotvec(np.radians(turn)).as_matrix(), np.exp(size / 100)
        return compose(rotation, scale, np.array([x, y, z]) * scale)


def closest_rotation_vector(turn: np.ndarray, before: np.ndarray | None) -> np.ndarray:
    """Of the two rotation vectors (3,), degrees, of a rotation, the one closer to ``before``.

    The rotation of an upside-down head is nearly 180 degrees, about either of two opposite axes.
    """
    angle = np.linalg.norm(turn)
    if before is None or not angle:
        return turn
    other = turn * (1 - 360 / angle)
    return min(turn, other, key=lambda each: float(np.linalg.norm(each - before)))
