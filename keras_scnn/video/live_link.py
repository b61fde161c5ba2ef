"""Write the CSV of Epic's app Live Link Face, which importers of Unreal, Unity, Blender, Maya read.

Names and order of the columns are those of the app's recordings and of Unreal's
``EARFaceBlendShape`` (AppleARKit plugin): ARKit's 52 blend shapes and nine angles in radians. The
head's yaw is positive if the face turns to the subject's left, pitch if it looks down, roll if it
tilts to the subject's right; yaw is applied last, as in that plugin's code for an image that is not
mirrored. The eyes' angles are those of the eyeballs relative to the head, with the same signs.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from keras_scnn.geometry.camera import decompose
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.reconstruction.gaze import eye_rotations, has_eyes
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
VARIABLE = 1e-3  # relative difference from cameras' rates beyond which the rate is variable
HEADER = ("Timecode", "BlendshapeCount", *SHAPES, *ANGLES)


def has_shapes(model: MorphableModel) -> bool:
    """Whether a face model has expressions with names of ARKit's blend shapes."""
    return bool(set(_columns(model)) & set(SHAPES))


def timecode(seconds: float, rate: float) -> str:
    """A non-drop-frame time code, HH:MM:SS:FF.fff, with thousandths of a frame.

    As in all such time codes, a second has the rounded number of frames: 30 at 29.97 frames per
    second. A rate that is neither a whole number nor 1000/1001 of one is taken for a variable one,
    whose time codes show the true time instead.

    Args:
        seconds: s since the clip's start, at least 0.
        rate: frames per second, on average.

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
    """Write the CSV file of a face's motion, atomically.

    Args:
        path: of the file.
        model: the face model; blend shapes that it lacks are 0.
        seconds: (n,) increasing times.
        pose: (n, 3, 4) image_from_model.
        expression: (n, L) weights.
        rate: frames per second, for the time codes.
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
    """The expressions' names in the app, which begin with a capital letter."""
    return [name[:1].upper() + name[1:] for name in model.arkit_names]


def head_angles(pose: np.ndarray) -> np.ndarray:
    """(n, 3) yaw, pitch and roll of the head, radians, from cameras (n, 3, 4)."""
    return Rotation.from_matrix(decompose(pose)[0]).as_euler("YXZ")


def eye_angles(model: MorphableModel, expression: np.ndarray) -> np.ndarray:
    """(n, 6) yaw, pitch and roll, radians, of the subject's left and right eyeball.

    They are those of ``eye_rotations`` for the expressions (n, L); 0 if the face model has no eyes.
    """
    if not has_eyes(model):
        return np.zeros((len(expression), 6))
    left_and_right = eye_rotations(model, expression)[:, ::-1].reshape(-1, 3, 3)
    return Rotation.from_matrix(left_and_right).as_euler("YXZ").reshape(-1, 6)
