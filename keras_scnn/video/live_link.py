"""The CSV of Epic's app Live Link Face: what importers of Unreal, Unity, Blender and Maya read.

Names and order of the columns are those of the app's recordings, which are those of Unreal's
``EARFaceBlendShape`` (AppleARKit plugin): ARKit's 52 blend shapes and nine angles in radians.
Head: yaw is positive where the face turns to its own left, pitch where it looks down, roll where it
leans to its own right; yaw is applied last, as in that plugin's code for a picture that is not
mirrored. The eyes' angles are those of the eyeballs in the head, positive likewise.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from keras_scnn.geometry.camera import decompose
from keras_scnn.geometry.rotations import nearest_rotation
from keras_scnn.meshes.parts import EYES
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.storage import atomic_path

SHAPES = (
    "EyeBlinkLeft", "EyeLookDownLeft", "EyeLookInLeft", "EyeLookOutLeft", "EyeLookUpLeft",
    "EyeSquintLeft", "EyeWideLeft", "EyeBlinkRight", "EyeLookDownRight", "EyeLookInRight",
    "EyeLookOutRight", "EyeLookUpRight", "EyeSquintRight", "EyeWideRight", "JawForward",
    "JawRight", "JawLeft", "JawOpen", "MouthClose", "MouthFunnel", "MouthPucker", "MouthRight",
    "MouthLeft", "MouthSmileLeft", "MouthSmileRight", "MouthFrownLeft", "MouthFrownRight",
    "MouthDimpleLeft", "MouthDimpleRight", "MouthStretchLeft", "MouthStretchRight",
    "MouthRollLower", "MouthRollUpper", "MouthShrugLower", "MouthShrugUpper", "MouthPressLeft",
    "MouthPressRight", "MouthLowerDownLeft", "MouthLowerDownRight", "MouthUpperUpLeft",
    "MouthUpperUpRight", "BrowDownLeft", "BrowDownRight", "BrowInnerUp", "BrowOuterUpLeft",
    "BrowOuterUpRight", "CheekPuff", "CheekSquintLeft", "CheekSquintRight", "NoseSneerLeft",
    "NoseSneerRight", "TongueOut",
)  # fmt: skip
ANGLES = tuple(
    f"{what}{angle}"
    for what in ("Head", "LeftEye", "RightEye")
    for angle in ("Yaw", "Pitch", "Roll")
)
VARIABLE = 1e-3  # a rate that differs so much from those of cameras is the mean of a variable one
HEADER = ("Timecode", "BlendshapeCount", *SHAPES, *ANGLES)


def has_shapes(model: MorphableModel) -> bool:
    """Whether a face model has any of ARKit's expressions, by their names."""
    return bool(set(_columns(model)) & set(SHAPES))


def timecode(seconds: float, rate: float) -> str:
    """HH:MM:SS:FF.fff: a time as a number of frames, without drops, and thousandths of a frame.

    As with all such codes, a second has the rate rounded: 30 frames at 29.97 a second. A rate that
    is neither a whole one nor 1000/1001 of it is a variable one, whose codes keep the time instead.

    Args:
        seconds: since the clip's start, s, at least 0.
        rate: frames a second, on average.

    >>> timecode(61.5, 30.0)
    '00:01:01:15.000'
    >>> timecode(0.05, 30.0)
    '00:00:00:01.500'
    """
    nominal = max(round(rate), 1)
    if min(abs(rate / nominal - share) for share in (1, 1000 / 1001)) > VARIABLE:
        rate = nominal
    thousandths = round(seconds * rate * 1000)
    frames, rest = divmod(thousandths, 1000)
    whole, frame = divmod(frames, nominal)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}:{frame:02}.{rest:03}"


def write_live_link(
    path: Path,
    model: MorphableModel,
    seconds: np.ndarray,
    pose: np.ndarray,
    expression: np.ndarray,
    rate: float,
) -> None:
    """Write the CSV file of a face's motion, whole or not at all.

    Args:
        path: of the file.
        model: the face model; expressions that it does not have are 0.
        seconds: (n,) rising.
        pose: (n, 3, 4) image_from_model.
        expression: (n, L) weights.
        rate: frames a second, for the time codes.
    """
    weights = dict(zip(_columns(model), np.clip(expression, 0, 1).T, strict=True))
    for name in set(SHAPES) - set(weights):  # ICT-FaceKit has halves of browInnerUp and cheekPuff
        if (halves := {f"{name}Left", f"{name}Right"}) <= set(weights):
            weights[name] = np.mean([weights[half] for half in halves], axis=0)
    shapes = np.stack([weights.get(name, np.zeros(len(seconds))) for name in SHAPES], axis=1)
    angles = np.c_[head_angles(pose), eye_angles(model, expression)]
    count = str(len(SHAPES) + len(ANGLES))
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(HEADER)
        for time, row in zip(seconds.tolist(), np.c_[shapes, angles], strict=True):
            rows.writerow([timecode(time, rate), count, *(f"{v:.8f}" for v in row + 0.0)])


def _columns(model: MorphableModel) -> list[str]:
    """Names of the app for 'eyeBlinkLeft', as ARKit has it, and 'eyeBlink_L', as ICT-FaceKit."""
    names = [re.sub("_L$", "Left", re.sub("_R$", "Right", name)) for name in model.expression_names]
    return [name[:1].upper() + name[1:] for name in names]


def head_angles(pose: np.ndarray) -> np.ndarray:
    """(n, 3) yaw, pitch and roll, radians, of cameras (n, 3, 4)."""
    return Rotation.from_matrix(decompose(pose)[0]).as_euler("YXZ")


def eye_angles(model: MorphableModel, expression: np.ndarray) -> np.ndarray:
    """(n, 6) yaw, pitch and roll, radians, of the left and the right eyeball of the subject.

    They are the rotations nearest to how the expressions (n, L) move the eyeballs; 0 where the face
    model has no eyes.
    """
    angles = []
    for region in EYES.values():
        ball = np.flatnonzero(model.regions == region)  # none where there are no regions
        if not len(ball):
            angles.append(np.zeros((len(expression), 3)))
            continue
        rest = model.mean[ball] - model.mean[ball].mean(axis=0)
        moved = np.tensordot(expression, model.expression_basis[ball], axes=(1, 2)) + rest
        moved = moved - moved.mean(axis=1, keepdims=True)
        turn = nearest_rotation(np.swapaxes(moved, 1, 2) @ rest)
        angles.append(Rotation.from_matrix(turn).as_euler("YXZ"))
    return np.concatenate(angles, axis=1)
