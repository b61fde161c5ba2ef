from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from keras_scnn.evaluate import main
from keras_scnn.geometry.camera import compose
from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.parameters import FaceParameters
from keras_scnn.photos.iris import EyePoints
from keras_scnn.protocols import gaze as protocol
from keras_scnn.protocols.gaze import LEAST_PHOTOS, ROWS, evaluate_gaze
from keras_scnn.protocols.photo_predictions import PhotoPredictions
from keras_scnn.reconstruction.gaze import LEAST_OPENING, MAX_YAW, look_weights

PEOPLE, PHOTOS = 5, 4
N = PEOPLE * PHOTOS


@pytest.fixture
def folder(tmp_path):
    """People of photos whose number is their color."""
    for i in range(N):
        path = tmp_path / f"p{i // PHOTOS}" / f"{i % PHOTOS}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), np.full((40, 40, 3), i, np.uint8))
    return tmp_path


@pytest.fixture
def measure(open_face, monkeypatch):
    """From predicted and true gaze, yaw of the heads and openings to the values of the protocol."""

    def run(folder, predicted, true, yaw=None, opening=None, last=None, resamples=0, broken=()):
        yaw = np.linspace(-20, 20, N) if yaw is None else yaw
        angles = np.radians(np.stack([np.zeros(N), yaw, np.zeros(N)], axis=1))
        pose = compose(rotation_from_euler(angles), 1.0, np.zeros((N, 3)))
        expression = open_face.clip_expression(predicted @ look_weights(open_face))
        faces = FaceParameters(pose, np.zeros((N, open_face.n_identity)), expression)

        class Predictor:
            preset = SimpleNamespace(face_model=open_face)

            def __call__(self, paths):
                chosen = [PHOTOS * int(p.parent.name[1:]) + int(p.stem) for p in paths]
                kept = np.arange(len(paths))
                return PhotoPredictions(open_face, kept, faces[chosen], None, len(paths))

        class Finder:
            def __call__(self, image, landmarks):
                place = np.full((2, 2), float(image[0, 0, 0]))
                if place[0, 0] in broken:
                    raise ValueError("the crop is empty")
                opened = 0.3 if opening is None else opening[int(place[0, 0])]
                return EyePoints(place, np.zeros((2, 2, 2)), np.full(2, opened))

        def measured(model, parameters, iris, corners):
            return true[iris[:, 0, 0].astype(int)][:, None].repeat(2, axis=1)

        monkeypatch.setattr(protocol, "IrisFinder", Finder)
        monkeypatch.setattr(protocol, "measured_gaze", measured)
        return evaluate_gaze(Predictor(), folder, last, resamples)

    return run


@pytest.fixture
def gaze():
    rng = np.random.default_rng(0)
    return rng.uniform([-8, -18], [8, 18], (N, 2))


def test_a_perfect_network_has_correlation_1_and_no_error(folder, measure, gaze):
    result = measure(folder, gaze, gaze, resamples=20)
    for name in ("horizontal", "vertical"):
        values = result.values[name]
        assert values["correlation"] == pytest.approx(1, abs=2e-3), name
        assert values["beyond_pose"] == pytest.approx(1, abs=2e-3), name
        assert values["slope"] == pytest.approx(1, abs=0.05), name
        assert values["error"] == pytest.approx(0, abs=0.3), name
        assert values["constant_error"] > 3, name
        assert values["eyes"] == pytest.approx(1), name
    assert result.values["alike_percent"] == 100
    assert {row[0] for row in ROWS} == set(result.intervals)


def test_gaze_beyond_pose_is_what_the_pose_does_not_predict(folder, measure, gaze):
    yaw = np.linspace(-20, 20, N)
    by_pose = np.stack([0 * yaw, -0.6 * yaw], axis=1)
    rest = 0.4 * gaze * [0, 1]
    values = measure(folder, by_pose + rest, by_pose + rest, yaw).values["horizontal"]
    assert values["by_pose"] < 0.95 and values["beyond_pose"] > 0.99
    values = measure(folder, by_pose - rest, by_pose + rest, yaw).values["horizontal"]
    assert values["correlation"] > 0.4 and values["beyond_pose"] < -0.99


def test_an_iris_outside_of_its_eye_is_not_measured(folder, measure, gaze):
    true = gaze.copy()
    true[4] = np.nan
    result = measure(folder, gaze, true)
    assert f"{N - 1} photos of" in result.notes[0]
    assert result.values["horizontal"]["correlation"] == pytest.approx(1, abs=2e-3)


def test_closed_eyes_and_turned_heads_are_not_measured(folder, measure, gaze):
    yaw, opening = np.zeros(N), np.full(N, 0.3)
    yaw[3], opening[5] = MAX_YAW + 1, LEAST_OPENING / 2
    wrong = gaze.copy()
    wrong[[3, 5]] *= -1
    result = measure(folder, gaze, wrong, yaw, opening)
    assert result.values["vertical"]["correlation"] == pytest.approx(1, abs=2e-3)
    assert f"{N - 2} photos of {PEOPLE} people, of {N} photos" in result.notes[0]


def test_only_the_last_people_are_measured(folder, measure, gaze):
    wrong = gaze.copy()
    wrong[: 2 * PHOTOS] *= -1
    result = measure(folder, gaze, wrong, last=PEOPLE - 2)
    assert result.values["horizontal"]["correlation"] == pytest.approx(1, abs=2e-3)


def test_a_photo_that_fails_is_listed_and_the_others_are_measured(folder, measure, gaze):
    result = measure(folder, gaze, gaze, broken=(6,))
    assert result.left_out == (f"{folder / 'p1' / '2.png'}: the crop is empty",)
    assert f"{N - 1} photos of" in result.notes[0]


def test_a_face_model_without_eyes_is_refused_before_photos_are_read(tmp_path, tiny_face_model):
    predictor = SimpleNamespace(preset=SimpleNamespace(face_model=tiny_face_model))
    with pytest.raises(ValueError, match="has no eyeballs, which a gaze needs"):
        evaluate_gaze(predictor, tmp_path / "none")


def test_too_few_photos_are_refused(folder, measure, gaze):
    opening = np.where(np.arange(N) < LEAST_PHOTOS - 1, 0.3, 0.0)
    with pytest.raises(ValueError, match=f"in {LEAST_PHOTOS - 1} photos; at least {LEAST_PHOTOS}"):
        measure(folder, gaze, gaze, opening=opening)


def test_too_few_photos_are_refused_before_one_is_read(folder, open_face, monkeypatch):
    class Predictor:
        preset = SimpleNamespace(face_model=open_face)

        def __call__(self, paths):
            pytest.fail("photos are read")

    monkeypatch.setattr(protocol, "IrisFinder", lambda: None)
    message = f"8 photos of 2 people; at least {LEAST_PHOTOS} photos are needed"
    with pytest.raises(ValueError, match=message):
        evaluate_gaze(Predictor(), folder, last=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--gaze --pairs x", "--pairs and --gaze do not go together"),
        ("--gaze --last 9", "--last is 9; there are 5 people"),
    ],
)
def test_options_that_do_not_fit_are_named(folder, options, message, capsys, tmp_path):
    out = str(tmp_path / "out")
    assert main(["mobile", "--data", str(folder), "--out", out, *options.split()]) == 2
    assert message in capsys.readouterr().err
