import dataclasses
import json
import os
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from keras_scnn.compare import main
from keras_scnn.evaluation import IdentityEvaluator, Pairs
from keras_scnn.evaluation.calibration import probability
from keras_scnn.io import write_image
from keras_scnn.models import load_preset, save_preset, write_metadata
from keras_scnn.parameters import FaceParameters, ParameterLayout, ParameterSpace, Whitening
from keras_scnn.photos.cropping import FaceBox
from keras_scnn.reconstruction.comparison import (
    answering_kind,
    basis,
    compare_faces,
    compare_photos,
    probabilities,
    report,
)
from keras_scnn.reconstruction.drawing import draw_comparison
from keras_scnn.reconstruction.faces import Reconstruction
from keras_scnn.reconstruction.reconstructor import Reconstructor
from keras_scnn.shape_distance import shape_coordinates

GOLDEN = json.loads((Path(__file__).with_name("golden") / "comparisons.json").read_text())
CALIBRATION = {
    "shape": {"a": -2.0, "b": 4.0},
    "feature": {"a": 10.0, "b": -4.0},
    "both": {"a": [-1.0, 6.0], "b": -1.0},
    "data": "somebody's photos",
    "pairs": 120,
}


class Finds:
    """A detector that returns given boxes."""

    def __init__(self, *boxes: FaceBox):
        self.boxes = list(boxes)

    def detect(self, image):
        return self.boxes if image.any() else []


@pytest.fixture(scope="module")
def preset():
    return load_preset("aflw-mobilenet-0.5")  # without a feature head


@pytest.fixture(scope="module")
def astronaut():
    return np.ascontiguousarray(data.astronaut())


def face_of(model, seed, features=None) -> Reconstruction:
    rng = np.random.default_rng(seed)
    identity = rng.normal(0, 1, model.n_identity)
    parameters = FaceParameters(np.eye(3, 4), identity, np.zeros(model.n_expression))
    return Reconstruction(model, parameters, FaceBox(0, 0, 200, 200), features)


def test_the_distance_is_the_one_used_for_verification(preset):
    faces = [face_of(preset.face_model, seed) for seed in (1, 2)]
    result = compare_faces(preset, *faces)
    # By hand, and by the protocol's evaluator.
    square = np.square(faces[0].neutral_vertices - faces[1].neutral_vertices).sum(axis=1)
    assert result.distance_mm == pytest.approx(np.sqrt(square.mean()), rel=1e-4)
    identity = np.stack([face.parameters.identity for face in faces])
    vectors = shape_coordinates(preset.face_model, identity)
    pairs = Pairs(np.tile([0, 0], 10), np.tile([0, 1], 10), np.tile([True, False], 10))
    assert result.distance_mm == pytest.approx(
        IdentityEvaluator(vectors, pairs).distance[1], rel=1e-12
    )
    assert 0 < result.aligned_mm < result.distance_mm


def test_a_face_is_at_no_distance_from_itself_and_the_order_does_not_matter(preset):
    one, two = (face_of(preset.face_model, seed) for seed in (1, 2))
    itself = compare_faces(preset, one, one)
    assert itself.distance_mm == 0
    assert itself.aligned_mm == pytest.approx(0, abs=1e-4)
    features = np.random.default_rng(1).normal(size=(100, 128)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    rounded = next(each for each in features if each @ each > 1)
    again = face_of(preset.face_model, 1, rounded)
    assert compare_faces(preset, again, again).cosine == 1
    there, back = compare_faces(preset, one, two), compare_faces(preset, two, one)
    assert there.distance_mm == pytest.approx(back.distance_mm)


def test_faces_that_are_not_of_the_preset_are_refused(preset, tiny_face_model):
    one, two = (face_of(preset.face_model, n, np.full(4, 0.5)) for n in (1, 2))
    with pytest.raises(
        ValueError, match=rf"model \(named '{tiny_face_model.name}'\) than the preset's"
    ):
        compare_faces(preset, one, face_of(tiny_face_model, 2))
    longer = dataclasses.replace(two, features=np.full(16, 0.25))
    with pytest.raises(ValueError, match=r"lengths \[4, 16\]; .* with the preset"):
        compare_faces(preset, one, longer)


def test_without_a_feature_of_each_face_there_is_no_cosine(preset):
    one, two = face_of(preset.face_model, 1, np.full(4, 0.5)), face_of(preset.face_model, 2)
    assert compare_faces(preset, one, two).cosine is compare_faces(preset, two, one).cosine is None


def test_a_larger_copy_is_the_same_after_alignment(tiny_face_model, preset):
    model = tiny_face_model
    basis = np.concatenate([model.mean[..., None] / 50, model.identity_basis[..., 1:]], axis=-1)
    model = model.replace(identity_basis=basis)
    one, two = (face_of(model, 0) for _ in range(2))
    for face, value in ((one, 0.0), (two, 5.0)):  # 10 % larger
        face.parameters.identity[:] = 0
        face.parameters.identity[0] = value
    size = ParameterLayout(model.n_identity, model.n_expression).size
    space = ParameterSpace(model, Whitening(np.zeros(size), np.ones(size)))
    result = compare_faces(dataclasses.replace(preset, space=space), one, two)
    size = np.sqrt(np.square(model.mean).sum(axis=1).mean())
    assert result.distance_mm == pytest.approx(0.1 * size, rel=1e-4)
    assert result.aligned_mm == pytest.approx(0, abs=1e-3)


def test_a_preset_with_a_scatter_scales_the_distance_too(preset):
    faces = [face_of(preset.face_model, seed) for seed in (1, 2)]
    plain = compare_faces(preset, *faces)
    assert plain.scaled_distance is None
    scatter = 4 * np.eye(preset.face_model.n_identity)  # 2 mm each way, and the floor
    result = compare_faces(dataclasses.replace(preset, within_person_covariance=scatter), *faces)
    assert result.distance_mm == plain.distance_mm
    assert result.scaled_distance == pytest.approx(plain.distance_mm / np.sqrt(4 * 1.003))
    assert result.to_json()["scaled_distance"] == result.scaled_distance


def test_both_uses_the_scaled_distance_if_there_is_one():
    calibration = {"scaled_shape": {"a": -1.0, "b": 2.0}, "both": {"a": [-1.0, 6.0], "b": -1.0}}
    result = probabilities(calibration, 1.5, 0.5, 3.0)
    logits = {"scaled_shape": 2 - 3.0, "both": -3.0 + 6 * 0.5 - 1}
    assert result == pytest.approx({k: 1 / (1 + np.exp(-v)) for k, v in logits.items()})


def test_probabilities_are_those_of_the_calibration():
    result = probabilities(CALIBRATION, 1.5, 0.5)
    logits = {"shape": 4 - 2 * 1.5, "feature": 10 * 0.5 - 4, "both": -1.5 + 6 * 0.5 - 1}
    assert result == pytest.approx({k: 1 / (1 + np.exp(-v)) for k, v in logits.items()})
    assert set(probabilities(CALIBRATION, 1.5, None)) == {"shape"}
    assert probabilities(None, 1.5, 0.5) == {}


@pytest.mark.parametrize("case", GOLDEN, ids=[case["name"] for case in GOLDEN])
def test_the_golden_comparisons(case):
    """The page's are compared in ``export/test_browser.py``."""
    values = case["distance_mm"], case["cosine"], case["scaled_distance"], case["certainty"]
    answer = probabilities(case["calibration"], *values)
    assert answer == pytest.approx(case["probabilities"], rel=1e-9)
    kind = answering_kind(answer)
    assert (kind and answer[kind]) == (case["probability"] and pytest.approx(case["probability"]))
    assert (kind and basis(case["calibration"], kind)) == case["probability_by"]


def test_the_golden_comparisons_are_what_their_script_makes():
    path = Path(__file__).with_name("golden") / "make_comparisons.py"
    made = runpy.run_path(str(path))["table"]()
    assert json.loads(json.dumps(made)) == GOLDEN


def test_a_shape_without_weight_is_reported_in_text_and_numbers(preset):
    calibration = {"both": {"a": [0.0, 6.0], "b": -1.0}}
    calibrated = dataclasses.replace(preset, metadata={"verification": calibration})
    faces = [face_of(preset.face_model, seed, np.eye(4)[0]) for seed in (1, 2)]
    answer = compare_faces(calibrated, *faces)
    words = "features; the calibration gives the shape no weight"
    assert answer.to_json()["probability_by"] == words
    assert f"% by {words}" in "\n".join(report(answer, ("a", "b"), calibration))


@pytest.mark.parametrize(
    "bad",
    [
        {"shape": [1, 2]},
        {"shape": 3},
        {"shape": {"a": 1}},
        {"shape": "x"},
        ["shape", "feature"],
        [1, 2],
        "shape",
        "text",
        7,
    ],
)
def test_a_damaged_calibration_is_named(bad):
    with pytest.raises(ValueError, match="metadata 'verification' is damaged"):
        probabilities(bad, 1.0, None)


def test_features_and_both_are_reported(preset):
    one, two = np.eye(4)[0], np.array([0.6, 0.8, 0, 0])
    calibrated = dataclasses.replace(preset, metadata={"verification": CALIBRATION})
    model = preset.face_model
    result = compare_faces(calibrated, face_of(model, 1, one), face_of(model, 1, two), (1, 3))
    assert result.cosine == pytest.approx(0.6)
    expected = probability(CALIBRATION["both"], [0.0, 0.6], result.certainty)
    assert result.probability == pytest.approx(expected)
    text = "\n".join(report(result, ("a.jpg", "b.jpg"), CALIBRATION))
    assert "b.jpg: 3 faces found; the largest was taken" in text
    assert "a.jpg" not in text
    assert f"{100 * result.probability:.1f} % by shape and features" in text
    assert "calibrated on 120 pairs (somebody's photos)" in text
    of_people = "\n".join(report(result, ("a.jpg", "b.jpg"), {**CALIBRATION, "people": 9}))
    assert "calibrated on 120 pairs of photos of 9 people (somebody's photos)" in of_people
    assert json.loads(json.dumps(result.to_json()))["faces_found"] == [1, 3]


def test_poor_photos_move_the_probability_to_one_half(preset):
    calibrated = dataclasses.replace(preset, metadata={"verification": CALIBRATION})
    far = np.array([-0.6, 0.8, 0, 0])
    clear = [face_of(preset.face_model, i, f) for i, f in enumerate((np.eye(4)[0], far))]
    small = [dataclasses.replace(face, box=FaceBox(0, 0, 15, 15, 0.6)) for face in clear]
    answers = [compare_faces(calibrated, *faces) for faces in (clear, small)]
    assert answers[0].certainty == 1 and "certainty" not in "\n".join(
        report(answers[0], ("a", "b"), CALIBRATION)
    )
    quality = small[0].quality
    assert quality < 0.1 and answers[1].to_json()["quality"] == [quality, small[1].quality]
    assert answers[1].certainty == pytest.approx((quality * small[1].quality) ** 0.4)
    logits = [np.log(p / (1 - p)) for p in (answer.probability for answer in answers)]
    assert logits[1] == pytest.approx(logits[0] * answers[1].certainty)
    assert "certainty of the faces" in "\n".join(report(answers[1], ("a", "b"), CALIBRATION))


def test_without_calibration_there_is_no_probability(preset):
    result = compare_faces(preset, face_of(preset.face_model, 1), face_of(preset.face_model, 2))
    if "verification" not in preset.metadata:
        assert result.probability is None
    bare = compare_faces(
        dataclasses.replace(preset, metadata={}),
        face_of(preset.face_model, 1),
        face_of(preset.face_model, 2),
    )
    text = "\n".join(report(bare, ("a", "b"), None))
    assert "no probability is known" in text
    assert "--calibrate" in text


def test_the_largest_face_is_compared(preset, astronaut):
    small, large = FaceBox.square((100, 100), 60), FaceBox.square((222, 120), 150)
    reconstructor = Reconstructor(preset, Finds(small, large))
    result = compare_photos(reconstructor, (astronaut, astronaut))
    assert result.n_faces == (2, 2)
    assert np.linalg.norm(result.faces[0].box.center - [222, 120]) < 40
    with pytest.raises(ValueError, match="b.jpg: no face found"):
        compare_photos(reconstructor, (astronaut, np.zeros_like(astronaut)), ("a.jpg", "b.jpg"))
    with pytest.raises(ValueError, match="photos has the length 1; it must be 2"):
        compare_photos(reconstructor, (astronaut,))


def test_the_faces_are_those_of_the_reconstructors_own_detector(preset, astronaut):
    own = Reconstructor(preset, Finds(FaceBox.square((100, 100), 60, 0.25)))
    result = compare_photos(own, (astronaut, astronaut))
    assert [face.box.score for face in result.faces] == [0.25, 0.25]  # 0.9 by ``FaceDetector``


@pytest.mark.parametrize("size", [(300, 200), (40, 500)])
def test_the_picture_shows_both_faces_and_their_difference(tiny_face_model, tmp_path, size):
    model = tiny_face_model
    shapes = np.stack([model.mean, model.mean + [3, 0, 0]])
    photo = np.full((*size, 3), 200, np.uint8)
    boxes = (FaceBox(10, 10, 60, 60), FaceBox(-20, -10, 30, 40))
    draw_comparison(
        tmp_path / "a.png", model, (photo, photo), boxes, shapes, ("one", "two"), "both"
    )
    picture = cv2.imread(str(tmp_path / "a.png"))
    assert picture.shape[1] > 1000
    assert picture.std() > 10


def test_the_command(preset, astronaut, tmp_path, capsys, in_keras):
    """Uncalibrated, then calibrated; other photos of the astronaut are the same photo, changed."""
    first, second = tmp_path / "one.png", tmp_path / "two.jpg"
    write_image(first, astronaut)
    write_image(second, np.ascontiguousarray(astronaut[:400, 60:460]))
    folder, out = tmp_path / "preset", tmp_path / "out"
    save_preset(folder, dataclasses.replace(preset, metadata={}))
    command = [str(first), str(second), "--preset", str(folder), "--out", str(out)]
    assert main(command) == 0
    assert "no probability is known" in capsys.readouterr().out
    outputs = json.loads((out / "one-two.json").read_text())
    assert outputs["probability"] is None
    assert outputs["cosine"] is None
    assert outputs["distance_mm"] < 1
    assert (out / "one-two.png").is_file()

    write_metadata(folder, "verification", CALIBRATION)
    assert main(command) == 0
    assert "% by shape" in capsys.readouterr().out
    outputs = json.loads((out / "one-two.json").read_text())
    expected = probability(CALIBRATION["shape"], outputs["distance_mm"])
    assert outputs["probability"] == pytest.approx(float(expected))

    write_metadata(folder, "verification", "damaged")
    assert main(command) == 2
    assert "metadata 'verification' is damaged: it is a str" in capsys.readouterr().err
    assert (out / "one-two.json").is_file() and (out / "one-two.png").is_file()


@pytest.mark.integration
@pytest.mark.parametrize(
    "name", [b"a$b$c.png", b"x$\\frac{$.png", b"bad\xff.png", "顔.png".encode()]
)
def test_a_comparison_is_drawn_whatever_the_photos_are_called(astronaut, tmp_path, capfd, name):
    photo = tmp_path / os.fsdecode(name)
    try:
        write_image(photo, astronaut)
    except OSError:
        pytest.skip("the file system does not take this name")
    assert main([str(photo), str(photo), "--preset", "mobile", "--out", str(tmp_path / "o")]) == 0
    assert len(list((tmp_path / "o").glob("*.png"))) == 1
    errors = capfd.readouterr().err
    assert "findfont" not in errors and "Glyph" not in errors


def test_photos_that_cannot_be_compared_are_reported(tmp_path, capsys):
    black = tmp_path / "black.png"
    write_image(black, np.zeros((64, 64, 3), np.uint8))
    assert main([str(black), str(tmp_path / "missing.jpg")]) == 2
    assert "missing.jpg: no such photo" in capsys.readouterr().err
    assert main([str(black), str(black), "--out", str(tmp_path / "out")]) == 2
    assert "black.png: no face found" in capsys.readouterr().err
    assert main([str(black), str(black), "--preset", "nothing"]) == 2
    assert "no preset 'nothing'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.integration
def test_another_pair_of_the_same_names_does_not_overwrite_it(
    preset, astronaut, tmp_path, capsys, in_keras
):
    pairs = []
    for i, folder in enumerate("abcd"):
        (tmp_path / folder).mkdir()
        write_image(tmp_path / folder / "1.png", np.ascontiguousarray(astronaut[: 400 + i]))
        pairs.append(str(tmp_path / folder / "1.png"))
    save_preset(tmp_path / "preset", preset)
    options = ["--preset", str(tmp_path / "preset"), "--out", str(tmp_path / "out")]
    assert main([*pairs[:2], *options]) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert json.loads(before["1-1.json"])["photos"] == pairs[:2]
    assert main([*pairs[2:], *options]) == 2
    said = capsys.readouterr().err
    assert f"{pairs[2]} and {pairs[3]}: its results would overwrite those of {pairs[0]}" in said
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert main([*pairs[:2], "--preset", "mobil", *options[2:]]) == 2
    os.rename(pairs[1], tmp_path / "elsewhere.png")
    assert main([*pairs[:2], *options]) == 2  # no photo now
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    write_image(tmp_path / "b" / "1.png", np.zeros((64, 64, 3), np.uint8))
    assert main([*pairs[:2], *options]) == 2  # no face now
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.integration
def test_pixels_of_a_reduced_photo_are_reported_as_such(preset, tmp_path, monkeypatch, in_keras):
    save_preset(tmp_path / "preset", preset)
    for name, size in (("a", 512), ("b", 500)):
        write_image(tmp_path / f"{name}.png", np.ascontiguousarray(data.astronaut()[:size]))
    for name in ("MAX_WHOLE_PIXELS", "MAX_PIXELS"):
        monkeypatch.setattr(f"keras_scnn.storage.images.{name}", 512 * 500)
    photos = [str(tmp_path / name) for name in ("a.png", "b.png")]
    options = ["--preset", str(tmp_path / "preset"), "--out", str(tmp_path / "out")]
    assert main([*photos, *options]) == 0
    result = json.loads((tmp_path / "out" / "a-b.json").read_text())
    assert result["photo_sizes"] == [[256, 256], [512, 500]]
    assert result["photos_reduced_by"] == [2, 1]
    halved, whole = np.array(result["boxes"])
    np.testing.assert_allclose(2 * halved, whole, atol=8)


def test_a_photo_named_like_the_result_is_not_overwritten(astronaut, tmp_path, capsys):
    photos = [tmp_path / name for name in ("one.png", "two.png", "one-two.png")]
    for photo in photos:
        write_image(photo, astronaut)
    before = photos[2].read_bytes()
    assert main([*map(str, photos[:2]), "--out", str(tmp_path)]) == 2
    assert "would overwrite" in capsys.readouterr().err
    assert photos[2].read_bytes() == before
