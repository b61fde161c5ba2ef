"""The CSV of Live Link Face, against the header of a recording of the app."""

import csv

import numpy as np
import pytest

from keras_scnn.geometry.camera import compose
from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.video.live_link import (
    eye_angles,
    has_shapes,
    head_angles,
    timecode,
    write_live_link,
)

# The first line of a recording, as public importers of these files quote it.
RECORDED = (
    "Timecode,BlendshapeCount,EyeBlinkLeft,EyeLookDownLeft,EyeLookInLeft,EyeLookOutLeft,"
    "EyeLookUpLeft,EyeSquintLeft,EyeWideLeft,EyeBlinkRight,EyeLookDownRight,EyeLookInRight,"
    "EyeLookOutRight,EyeLookUpRight,EyeSquintRight,EyeWideRight,JawForward,JawRight,JawLeft,"
    "JawOpen,MouthClose,MouthFunnel,MouthPucker,MouthRight,MouthLeft,MouthSmileLeft,"
    "MouthSmileRight,MouthFrownLeft,MouthFrownRight,MouthDimpleLeft,MouthDimpleRight,"
    "MouthStretchLeft,MouthStretchRight,MouthRollLower,MouthRollUpper,MouthShrugLower,"
    "MouthShrugUpper,MouthPressLeft,MouthPressRight,MouthLowerDownLeft,MouthLowerDownRight,"
    "MouthUpperUpLeft,MouthUpperUpRight,BrowDownLeft,BrowDownRight,BrowInnerUp,BrowOuterUpLeft,"
    "BrowOuterUpRight,CheekPuff,CheekSquintLeft,CheekSquintRight,NoseSneerLeft,NoseSneerRight,"
    "TongueOut,HeadYaw,HeadPitch,HeadRoll,LeftEyeYaw,LeftEyePitch,LeftEyeRoll,RightEyeYaw,"
    "RightEyePitch,RightEyeRoll"
)


def test_columns_and_values(tmp_path, open_face):
    expression = np.random.default_rng(0).uniform(-0.3, 1.3, (3, open_face.n_expression))
    pose = compose(np.stack([np.eye(3)] * 3), np.ones(3), np.zeros((3, 3)))
    path = tmp_path / "a.csv"
    write_live_link(path, open_face, np.array([0, 0.04, 1.0]), pose, expression, 25.0)
    assert path.read_text().split("\n")[0] == RECORDED
    rows = list(csv.DictReader(path.open()))
    assert [row["Timecode"] for row in rows] == [
        "00:00:00:00.000", "00:00:00:01.000", "00:00:01:00.000",
    ]  # fmt: skip
    assert {row["BlendshapeCount"] for row in rows} == {"61"}
    for name in ("eyeBlinkLeft", "jawLeft", "jawRight", "mouthRight", "tongueOut"):
        column = [float(row[name[0].upper() + name[1:]]) for row in rows]
        expected = expression[:, open_face.expression_names.index(name)]
        np.testing.assert_allclose(column, np.clip(expected, 0, 1), atol=1e-7)
    assert (expression < 0).any() and (expression > 1).any()


def test_names_of_ict_facekit_are_understood(tmp_path, open_face):
    """Its expressions are ARKit's with _L and _R, and two halves of browInnerUp: both were 0."""
    ict = {"eyeBlinkLeft": "eyeBlink_L", "mouthSmileRight": "mouthSmile_R",
           "browInnerUp": "browInnerUp_L", "tongueOut": "browInnerUp_R"}  # fmt: skip
    names = [ict.get(name, name) for name in open_face.expression_names]
    weights = np.random.default_rng(0).uniform(0, 1, (1, len(names)))
    pose = compose(np.eye(3)[None], np.ones(1), np.zeros((1, 3)))
    model = open_face.replace(expression_names=names)
    write_live_link(tmp_path / "a.csv", model, np.zeros(1), pose, weights, 25.0)
    (row,) = csv.DictReader((tmp_path / "a.csv").open())
    given = dict(zip(names, weights[0], strict=True))
    expected = {
        "EyeBlinkLeft": given["eyeBlink_L"],
        "MouthSmileRight": given["mouthSmile_R"],
        "JawOpen": given["jawOpen"],
        "BrowInnerUp": (given["browInnerUp_L"] + given["browInnerUp_R"]) / 2,
        "TongueOut": 0,
    }
    for name, value in expected.items():
        assert float(row[name]) == pytest.approx(value, abs=1e-7)


@pytest.mark.parametrize(
    ("seconds", "rate", "expected"),
    [
        (0, 30, "00:00:00:00.000"),
        (3599.96, 25, "00:59:59:24.000"),
        (3600, 60, "01:00:00:00.000"),
        (1.001, 30000 / 1001, "00:00:01:00.000"),  # SMPTE ST 12: the 30th frame, without drops
        (0.99999, 30, "00:00:01:00.000"),
        (600, 29.42, "00:10:00:00.000"),  # the mean of a variable rate: a second stays one
        (0.25, 30, "00:00:00:07.500"),  # frames of a variable rate lie between those of a fixed one
    ],
)
def test_time_codes(seconds, rate, expected):
    assert timecode(seconds, rate) == expected


def test_angles_of_the_head_are_those_of_unreals_arkit_plugin():
    """Yaw to the subject's left, pitch down, roll to the subject's right, in radians.

    Points of the face show it: the nose (0, 0, 1) moves to the viewer's right, which is the
    subject's left, and down; the top of the head (0, 1, 0) moves to the viewer's left.
    """
    angles = np.array([[-0.2, 0, 0], [0.2, 0, 0], [0, 0.3, 0], [0, -0.3, 0], [0, 0, 0.4]])
    pose = compose(rotation_from_euler(angles), np.full(5, 2.0), np.zeros((5, 3)))
    rotation = rotation_from_euler(angles)
    yaw, pitch, roll = head_angles(pose).T
    nose, top = rotation @ [0, 0, 1], rotation @ [0, 1, 0]
    np.testing.assert_allclose(np.sin(yaw), nose[:, 0], atol=1e-9)
    np.testing.assert_allclose(np.sin(pitch), -nose[:, 1], atol=1e-9)
    np.testing.assert_allclose(np.sin(roll), -top[:, 0], atol=1e-9)


def test_eyes_turn_as_the_weights_say(open_face):
    names = ("eyeLookOutLeft", "eyeLookInLeft", "eyeLookUpLeft", "eyeLookOutRight")
    weights = np.zeros((4, open_face.n_expression))
    for row, name in enumerate(names):
        weights[row, open_face.expression_names.index(name)] = 1
    left, right = np.degrees(eye_angles(open_face, weights)).reshape(4, 2, 3).swapaxes(0, 1)
    assert left[0, 0] > 20 and left[1, 0] < -20  # to the subject's left, and to the nose
    assert left[2, 1] < -8  # up
    assert right[3, 0] < -20  # to the subject's right
    assert np.abs(right[:3]).max() < 1 and np.abs(left[3]).max() < 1


def test_models_without_these_expressions_or_eyes_have_no_angles(tiny_face_model, open_face):
    assert has_shapes(open_face) and not has_shapes(tiny_face_model)
    weights = np.ones((2, tiny_face_model.n_expression))
    assert not eye_angles(tiny_face_model, weights).any()
