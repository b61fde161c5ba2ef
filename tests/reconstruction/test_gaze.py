import numpy as np
import pytest

from keras_scnn.data.synthesis import rendered_people
from keras_scnn.data.synthesis.rendered_people import SyntheticConfig, render_people
from keras_scnn.geometry.camera import compose, euler_from_camera, project
from keras_scnn.geometry.mesh import sphere_center
from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.parameters import FaceParameters, ParameterLayout
from keras_scnn.photos.iris import IrisFinder
from keras_scnn.reconstruction.gaze import (
    GAIN,
    RADIUS_MM,
    TURNED_BACK,
    gaze_degrees,
    look_weights,
    measured_gaze,
)

RIGHT, LEFT = 4, 3  # regions of the eyeballs, the subject's
PITCH, YAW = 0, 1


def of_units(model):
    """(L, 2, 2) gaze for each expression at weight 1."""
    return gaze_degrees(model, np.eye(model.n_expression))


def front_degrees(model, region: int, unit: str) -> tuple[float, float]:
    """Degrees up and to the model's +x that the foremost vertex of an eyeball turns."""
    ball = np.flatnonzero(model.regions == region)
    center = sphere_center(model.mean[ball])
    front = ball[model.mean[ball, 2].argmax()]
    before = model.mean[front] - center
    after = before + model.expression_basis[front, :, model.expression_names.index(unit)]
    up, aside = (
        np.degrees(np.arctan2(after[k], after[2]) - np.arctan2(before[k], before[2]))
        for k in (1, 0)
    )
    return float(up), float(aside)


@pytest.mark.parametrize("unit", ["eyeLookUp", "eyeLookDown", "eyeLookIn", "eyeLookOut"])
@pytest.mark.parametrize(("eye", "side", "region"), [(0, "Right", RIGHT), (1, "Left", LEFT)])
def test_a_unit_turns_its_eye_as_its_front_moves(open_face, unit, eye, side, region):
    up, aside = front_degrees(open_face, region, f"{unit}{side}")
    degrees = of_units(open_face)[open_face.expression_names.index(f"{unit}{side}")]
    assert degrees[eye, PITCH] == pytest.approx(up, abs=1.5)
    assert degrees[eye, YAW] == pytest.approx(-aside, abs=2)  # positive to the subject's right
    assert np.abs(degrees[1 - eye]).max() < 0.1  # the other eye does not move


def test_only_units_of_the_eyes_turn_them(open_face):
    turning = np.abs(of_units(open_face)).max(axis=(1, 2)) > 2
    names = {name for name, turns in zip(open_face.expression_names, turning, strict=True) if turns}
    assert len(names) == 8 and all(name.startswith("eyeLook") for name in names)


@pytest.mark.parametrize("gaze", [(8, 0), (-15, 0), (0, 20), (0, -20), (-5, 12)])
def test_weights_turn_both_eyes_to_a_gaze(open_face, gaze):
    weights = np.array(gaze) @ look_weights(open_face)
    bounded = open_face.clip_expression(weights)
    assert (bounded <= 1).all() and (bounded > 0).sum() == 2 * np.count_nonzero(gaze)
    np.testing.assert_allclose(gaze_degrees(open_face, bounded), [gaze, gaze], atol=1.0)


def eyes_that_look(model, camera, identity, gaze):
    """Irises (1, 2, 2) and corners (1, 2, 2, 2) in px of eyes with a gaze, by plain geometry."""
    shape = model.vertices(identity)
    corners = shape[model.landmark_indices[[[36, 39], [45, 42]]]]
    direction = rotation_from_euler(np.radians([*gaze, 0.0])) @ [0, 0, 1]
    centers = np.stack([sphere_center(shape[model.regions == each]) for each in (RIGHT, LEFT)])
    irises = centers + RADIUS_MM * direction
    corner_px = np.stack([project(camera, pair)[:, :2] for pair in corners])
    iris_px = project(camera, irises)[:, :2]
    middle = corner_px.mean(axis=1)
    return (middle + (iris_px - middle) / GAIN)[None], corner_px[None]


@pytest.mark.parametrize("head", [(0, 0, 0), (10, 25, 0), (-12, -30, 40), (0, 20, 170)])
@pytest.mark.parametrize("gaze", [(0, 0), (10, -15), (-12, 20)])
def test_gaze_is_that_of_the_irises_at_any_pose_and_size(open_face, head, gaze):
    identity = np.random.default_rng(1).normal(0, 0.5, open_face.n_identity)
    camera = compose(rotation_from_euler(np.radians(head)), 2.5, np.array([300.0, 200.0, 0]))
    iris, corners = eyes_that_look(open_face, camera, identity, gaze)
    face = FaceParameters(camera[None], identity[None], np.zeros((1, open_face.n_expression)))
    measured = measured_gaze(open_face, face, iris, corners)
    expected = np.array(gaze) + [0, TURNED_BACK * head[1]]
    np.testing.assert_allclose(measured, [[expected, expected]], atol=0.05)


def rendered(model, monkeypatch, yaw: float):
    """90 rendered photos of eyes with a random gaze (n, 2), which is returned as well."""
    weights = look_weights(model)

    def look(model, rng):
        return np.float32(model.clip_expression(rng.uniform([-10, -20], [8, 20]) @ weights))

    monkeypatch.setattr(rendered_people, "_expression", look)
    monkeypatch.setattr(rendered_people, "_turn_eyes", lambda *_: None)
    monkeypatch.setattr(rendered_people, "_close_eyes", lambda *_: None)
    config = SyntheticConfig(
        people=30, photos=3, size=160, yaw_degrees=yaw, pitch_degrees=5, roll_degrees=3,
        portraits=True, spread=0.5, seed=11,
    )  # fmt: skip
    records = render_people(config)
    layout = ParameterLayout(model.n_identity, model.n_expression)
    faces = FaceParameters.from_vector(records.parameters, layout)
    return records, faces, gaze_degrees(model, faces.expression).mean(axis=1)


def test_gaze_of_renderings_is_measured_at_any_pose_of_the_head(open_face, monkeypatch):
    """The only images whose gaze is known: GAIN and TURNED_BACK were chosen on others of them."""
    records, faces, true = rendered(open_face, monkeypatch, yaw=25)
    finder = IrisFinder()
    pairs = zip(records.images, records.landmarks, strict=True)
    eyes = [finder(np.ascontiguousarray(image), points) for image, points in pairs]
    iris, corners = (np.stack([getattr(e, name) for e in eyes]) for name in ("iris", "corners"))
    measured = measured_gaze(open_face, faces, iris, corners).mean(axis=1)
    known = np.isfinite(measured).all(axis=1)
    assert known.mean() > 0.9
    true, measured = true[known], measured[known]
    head = np.degrees(euler_from_camera(faces.pose))[known, 1]
    rows = np.c_[true[:, YAW], head, np.ones(len(head))]
    slope, by_head, _ = np.linalg.lstsq(rows, measured[:, YAW], rcond=None)[0]
    assert slope == pytest.approx(1, abs=0.15)
    assert by_head == pytest.approx(0, abs=0.1)
    assert np.corrcoef(true[:, YAW], measured[:, YAW])[0, 1] > 0.8
    assert np.corrcoef(true[:, PITCH], measured[:, PITCH])[0, 1] > 0.25


def test_a_face_model_without_eyes_is_named(tiny_face_model):
    with pytest.raises(ValueError, match=f"face model '{tiny_face_model.name}' has no eyeballs"):
        look_weights(tiny_face_model)


def test_a_missing_unit_is_named(open_face):
    names = [name.replace("eyeLookIn", "in") for name in open_face.expression_names]
    with pytest.raises(ValueError, match="has no 'eyeLookInRight'"):
        look_weights(open_face.replace(expression_names=tuple(names)))


def test_an_iris_outside_of_its_eye_has_no_gaze(open_face):
    camera = compose(np.eye(3), 2.5, np.array([300.0, 200.0, 0]))
    identity = np.zeros(open_face.n_identity)
    iris, corners = eyes_that_look(open_face, camera, identity, (0, 0))
    iris[0, 1, 0] += 20  # px, 2 * 20 / 2.5 = 16 mm
    face = FaceParameters(camera[None], identity[None], np.zeros((1, open_face.n_expression)))
    measured = measured_gaze(open_face, face, iris, corners)
    assert np.isnan(measured[0, 1]).all() and np.isfinite(measured[0, 0]).all()
