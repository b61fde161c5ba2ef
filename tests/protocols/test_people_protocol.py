import dataclasses
import json

import cv2
import keras
import numpy as np
import pytest
from tiny_encoder import STAND_IN

from keras_scnn.data.sources.photo_lists import people_photos
from keras_scnn.evaluate import main
from keras_scnn.evaluation.calibration import probability
from keras_scnn.models import Preset, build_branch, build_encoder, save_preset
from keras_scnn.models.encoders import ENCODERS
from keras_scnn.parameters import ParameterLayout, ParameterSpace
from keras_scnn.photos.cropping import FaceBox
from keras_scnn.photos.detection import LargestFaceDetector
from keras_scnn.protocols.evaluation import evaluate_preset
from keras_scnn.protocols.people import evaluate_pairs, evaluate_people
from keras_scnn.protocols.photo_predictions import PhotoPredictor
from keras_scnn.reconstruction.reconstructor import Reconstructor

SIZE, PEOPLE, PHOTOS = 32, 12, 4


def mean_color(input_tensor, input_shape, include_top, weights, pooling) -> keras.Model:
    """An encoder with the arguments of ``keras.applications``: (B, S, S, 3) to (B, 3)."""
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(input_tensor)
    return keras.Model(keras.utils.get_source_inputs(input_tensor), pooled)


@pytest.fixture(autouse=True)
def color_encoder(monkeypatch):
    recipe = dataclasses.replace(ENCODERS["mobilenet_0.5"], build=mean_color, options={})
    monkeypatch.setitem(ENCODERS, STAND_IN, recipe)


def color_preset(model, whitening, feature_size) -> Preset:
    """A network that sees nothing but the mean color of the crop."""
    keras.utils.set_random_seed(0)
    encoder = build_encoder(STAND_IN, SIZE)
    layout = ParameterLayout(model.n_identity, model.n_expression)
    branch = build_branch(encoder, layout, feature_size=feature_size)
    kernel = np.zeros((3, layout.size))
    kernel[:, layout.identity] = np.random.default_rng(0).normal(0, 3, (3, model.n_identity))
    branch.get_layer("parameters").kernel.assign(kernel)
    return Preset(branch, ParameterSpace(model, whitening), STAND_IN)


@pytest.fixture
def preset(tiny_face_model, tiny_whitening) -> Preset:
    return color_preset(tiny_face_model, tiny_whitening, feature_size=4)


@pytest.fixture
def folder(tmp_path):
    """12 people of one color each, 4 photos a person, named as LFW names them."""
    rng = np.random.default_rng(1)
    colors = np.array([[r, g, 60] for r in (40, 120, 200) for g in (30, 90, 150, 210)])
    for i, color in enumerate(colors):
        name = f"p{i:02d}"
        (tmp_path / "people" / name).mkdir(parents=True)
        for k in range(1, PHOTOS + 1):
            photo = np.clip(color + rng.normal(0, 3, (48, 48, 3)), 0, 255).astype(np.uint8)
            cv2.imwrite(str(tmp_path / "people" / name / f"{name}_{k:04d}.png"), photo)
    return tmp_path / "people"


@pytest.fixture
def pairs_file(folder, tmp_path):
    """10 folds of 6 pairs of each kind."""
    rng = np.random.default_rng(2)
    lines = ["10\t6"]
    for _ in range(10):
        for _ in range(6):
            i, (a, b) = rng.integers(PEOPLE), rng.choice(PHOTOS, 2, replace=False) + 1
            lines.append(f"p{i:02d}\t{a}\t{b}")
        for _ in range(6):
            i, j = rng.choice(PEOPLE, 2, replace=False)
            a, b = rng.integers(1, PHOTOS + 1, 2)
            lines.append(f"p{i:02d}\t{a}\tp{j:02d}\t{b}")
    (tmp_path / "pairs.txt").write_text("\n".join(lines) + "\n")
    return tmp_path / "pairs.txt"


def middle(image) -> FaceBox:
    return FaceBox(4, 4, 44, 44)


def stand_in(monkeypatch, preset, find_face=middle):
    """Commands use this network, whose face model has no file, and this detector."""
    home = "keras_scnn.reconstruction.reconstructor"
    monkeypatch.setattr(f"{home}.Reconstructor.from_preset", lambda name: Reconstructor(preset))
    monkeypatch.setattr(f"{home}.LargestFaceDetector", lambda: find_face)


def measuring(preset, find_face=middle) -> PhotoPredictor:
    return PhotoPredictor(Reconstructor(preset), find_face=find_face)


def test_a_preset_with_a_scatter_verifies_by_scaled_shapes_too(preset, folder):
    plain = evaluate_people(measuring(preset), folder, resamples=0)
    assert plain.scaled_shape_verification is None
    scatter = 9 * np.eye(preset.face_model.n_identity)  # alike in all directions: the same order
    result = evaluate_people(
        measuring(dataclasses.replace(preset, within_person_covariance=scatter)), folder, 0
    )
    assert result.scaled_shape_verification.auc == pytest.approx(plain.shape_verification.auc)
    assert result.scaled_shape_ratio == pytest.approx(plain.shape_ratio)
    assert set(result.calibration) >= {"shape", "scaled_shape", "feature", "both"}
    assert set(result.curves["roc"]) == {"shape", "scaled_shape", "feature"}


def test_people_who_differ_clearly_are_distinguished(preset, folder):
    result = evaluate_people(measuring(preset), folder, resamples=20)
    for kind in ("shape", "feature"):
        outputs = getattr(result, f"{kind}_verification")
        assert outputs.accuracy_percent == 100, kind
        assert outputs.n_pairs == 2 * PEOPLE * 6  # 6 pairs of 4 photos, and as many of two people
        assert getattr(result, f"{kind}_retrieval").rank1_percent == 100
        assert getattr(result, f"{kind}_ratio") < 0.3
    assert result.left_out == ()
    assert result.intervals["shape_verification.accuracy_percent"] == (100, 100)


def test_people_who_look_alike_are_not(preset, folder):
    rng = np.random.default_rng(0)
    for path in people_photos(folder).paths:
        cv2.imwrite(str(path), np.full((48, 48, 3), rng.integers(50, 200, 3), np.uint8))
    result = evaluate_people(measuring(preset), folder, resamples=200)
    low, high = result.intervals["shape_verification.auc"]
    assert low < 0.5 < high
    assert low < result.shape_verification.auc < high


def test_a_network_without_features_is_judged_by_shape(tiny_face_model, tiny_whitening, folder):
    preset = color_preset(tiny_face_model, tiny_whitening, 0)
    result = evaluate_people(measuring(preset), folder, 9)
    assert result.shape_verification.accuracy_percent == 100
    assert result.feature_verification is None
    assert result.feature_retrieval is None


def test_a_pairs_file_is_judged_in_its_folds(preset, folder, pairs_file):
    result = evaluate_pairs(measuring(preset), pairs_file, folder, resamples=20)
    assert result.shape_verification.accuracy_percent == 100
    assert result.shape_verification.n_pairs == 120
    assert result.shape_retrieval is None
    assert any("10 folds of the file" in note for note in result.notes)


def test_the_notes_have_the_number_of_folds_that_there_are(preset, folder):
    """The second of three folds has no photo; 3 pairs of each kind make 3 random folds."""
    lines = ["3 6"]
    for one, other in (("p00", "p01"), ("a", "b"), ("p02", "p03")):
        lines += [f"{one} {i} {j}" for i in range(1, 5) for j in range(1, i)]
        lines += [f"{one} {i} {other} {j}" for i in (1, 2) for j in (1, 2, 3)]
    (folder.parent / "three.txt").write_text("\n".join(lines))
    measured = evaluate_pairs(measuring(preset), folder.parent / "three.txt", folder, resamples=0)
    assert "24 pairs of three.txt, 2 folds of the file; 12 pairs left out" in measured.notes
    for photo in folder.rglob("*.png"):
        if photo.parent.name not in ("p00", "p01", "p02") or photo.stem.endswith(("1", "2")):
            photo.unlink()
    few = evaluate_people(measuring(preset), folder, resamples=0)
    assert "6 pairs, half of one person, at most 100 of each; 3 random folds" in few.notes


def test_photos_that_cannot_be_measured_are_listed_and_the_rest_is_measured(
    preset, folder, pairs_file
):
    (folder / "p00" / "p00_0001.png").write_text("no photo")
    for path in (folder / "p01").iterdir():
        path.unlink()

    def blind_to_p02(image):
        if np.allclose(image.mean(axis=(0, 1)), [60, 150, 40], atol=5):
            raise ValueError("no face found")
        return middle(image)

    result = evaluate_pairs(measuring(preset, blind_to_p02), pairs_file, folder, resamples=5)
    assert result.shape_verification.n_pairs < 120
    reasons = "\n".join(result.left_out)
    assert "p00_0001.png: not a readable image" in reasons
    assert "p01_0001.jpg: no such photo" in reasons
    assert "p02_0002.png: no face found" in reasons


def test_too_little_to_measure_is_an_error(preset, folder):
    def blind(image):
        raise ValueError("no face found")

    with pytest.raises(
        ValueError, match="none of 48 photos can be measured.*p00_0001.png: no face"
    ):
        evaluate_people(measuring(preset, blind), folder)
    for photo in [p for p in folder.rglob("*.png") if p.parent.name != "p11"]:
        photo.write_bytes(b"no photo")
    message = "^1 person, 1 of them with two photos .*; left out: .*p00_0001.png: not a readable"
    with pytest.raises(ValueError, match=message):  # else one would look for the other 11 people
        evaluate_people(measuring(preset), folder)


def test_people_with_one_photo_each_are_refused_before_any_photo_is_read(preset, folder):
    for photo in folder.rglob("*.png"):
        if not photo.stem.endswith("1"):
            photo.unlink()
    with pytest.raises(ValueError, match="^12 people, 0 of them with two photos or more; verific"):
        evaluate_people(measuring(preset, lambda _: pytest.fail("it was read")), folder)


def test_too_few_listed_pairs_are_an_error(preset, folder):
    (folder.parent / "few.txt").write_text("1 1\np00 1 2\np00 1 p01 1\n")
    with pytest.raises(ValueError, match="1 pair of one person and 1 of two"):
        evaluate_pairs(measuring(preset), folder.parent / "few.txt", folder)


def test_one_pair_of_one_person_is_refused_before_any_photo_is_read(preset, folder):
    """Two folds need two pairs of each kind."""
    for photo in folder.rglob("*.png"):
        if not photo.stem.endswith("1") and photo.stem != "p03_0002":
            photo.unlink()
    with pytest.raises(ValueError, match="^12 people, only one of them with two photos; verif"):
        evaluate_people(measuring(preset, lambda _: pytest.fail("it was read")), folder)


def test_pairs_that_are_left_in_one_fold_only_are_refused(preset, folder):
    lines = ["2 12"]
    for one, two, three in (("p00", "p01", "p02"), ("a", "b", "c")):
        lines += [f"{p} {i} {j}" for p in (one, two) for i in range(1, 5) for j in range(1, i)]
        lines += [f"{one} {i} {three} {j}" for i in range(1, 5) for j in (1, 2, 3)]
    (folder.parent / "two.txt").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="are of one fold; two are needed; left out: .*a_0001"):
        evaluate_pairs(measuring(preset), folder.parent / "two.txt", folder)


def test_pairs_of_missing_photos_are_refused_before_any_photo_is_read(preset, folder, pairs_file):
    predictor = measuring(preset, lambda _: pytest.fail("it was read"))
    (folder.parent / "few.txt").write_text("1 1\np00 1 2\np00 1 p01 1\n")
    few = "few.txt: .*people has both photos of 1 pair of one person and 1 of two, of 1 and 1; 10"
    with pytest.raises(ValueError, match=few):
        evaluate_pairs(predictor, folder.parent / "few.txt", folder)
    for photo in folder.rglob("*_000[234].png"):
        photo.unlink()
    message = "pairs.txt: .*people has both photos of 0 pairs of one person and . of two, of 60"
    with pytest.raises(ValueError, match=message):
        evaluate_pairs(predictor, pairs_file, folder)


def test_a_photo_whose_name_the_system_refuses_is_listed(preset, folder, pairs_file):
    first = pairs_file.read_text().splitlines()[1]
    too_long = "x" * 300
    pairs_file.write_text(pairs_file.read_text().replace(first, f"{too_long}\t1\t2", 1))
    result = evaluate_pairs(measuring(preset), pairs_file, folder, resamples=0)
    assert any(too_long in reason for reason in result.left_out)
    assert any("1 pair left out" in note for note in result.notes)


def test_the_only_pairs_that_are_found_must_make_two_folds(preset, folder):
    """Known only after all photos are measured, the error names the first that was lost."""
    for photo in folder.rglob("*.png"):
        if not photo.stem.endswith("1") and photo.stem not in ("p03_0002", "p04_0002"):
            photo.write_bytes(b"no photo")
    (folder / "p03" / "p03_0002.png").write_bytes(b"no photo")
    message = "1 pair of one person and 1 of two; left out: .*p00_0002.png: not a readable"
    with pytest.raises(ValueError, match=message):
        evaluate_people(measuring(preset), folder)


def test_the_largest_face_of_a_photo_is_used():
    class Finds:
        def __init__(self, *sides):
            self.sides = sides

        def detect(self, image):
            return [FaceBox.square([50, 50], side) for side in self.sides]

    image = np.zeros((9, 9, 3), np.uint8)
    assert LargestFaceDetector(Finds(20, 60, 30))(image).width == 60
    with pytest.raises(ValueError, match="no face found"):
        LargestFaceDetector(Finds())(image)


def test_a_given_detector_is_asked_once():
    class Counts:
        asked = 0

        def detect(self, image):
            self.asked += 1
            return []

    detector = Counts()
    with pytest.raises(ValueError, match="no face found"):
        LargestFaceDetector(detector)(np.zeros((9, 9, 3), np.uint8))
    assert detector.asked == 1


@pytest.mark.parametrize("without", [0, 1, 2, 3])
def test_the_default_detectors_are_asked_in_turn_until_one_finds_a_face(monkeypatch, without):
    """Large faces that are confirmed, then large ones that are not, then small ones."""
    asked: list[dict] = []

    class Detector:
        def __init__(self, *scores, **options):
            self.options = options

        def detect(self, image):
            asked.append(self.options)
            return [FaceBox.square([50, 50], 20)] if len(asked) > without else []

    monkeypatch.setattr("keras_scnn.photos.detection.FaceDetector", Detector)
    find, image = LargestFaceDetector(), np.zeros((9, 9, 3), np.uint8)
    if without == 3:
        with pytest.raises(ValueError, match="no face found"):
            find(image)
    else:
        assert find(image).width == 20
    order = [{"tiles": False, "stop_early": True}, {"tiles": False, "checked": False}, {}]
    assert asked == order[: without + 1]


@pytest.mark.integration
def test_the_command_knows_people_and_pairs(
    preset, folder, pairs_file, tmp_path, capsys, monkeypatch
):
    stand_in(monkeypatch, preset)
    out = ["--out", str(tmp_path / "out"), "--resamples", "9"]
    run = tmp_path / "a" / "run"
    save_preset(run, preset)
    for arguments in (
        ["--data", str(folder)],
        ["--data", str(folder), "--people"],
        ["--data", str(pairs_file), "--photos", str(folder)],
    ):
        assert main([str(run), *arguments, *out]) == 0
        assert "EER" in capsys.readouterr().out
    for name in ("run-people.json", "run-people-curves.png", "run-pairs.json"):
        assert (tmp_path / "out" / name).is_file()
    for _ in range(2):  # the plots of the first time are photos of nobody
        assert main([str(run), "--data", str(folder), "--out", str(folder / "evaluation")]) == 0
        assert "48 photos of 12 people" in capsys.readouterr().out
    assert main([str(run), "--data", str(pairs_file), *out]) == 2
    assert "needs --photos" in capsys.readouterr().err


@pytest.mark.integration
def test_calibrated_probabilities_are_stored_in_the_preset(
    preset, folder, tmp_path, capsys, monkeypatch
):
    stand_in(monkeypatch, preset)
    save_preset(tmp_path / "run", dataclasses.replace(preset, metadata={"seed": 3}))
    command = ["--data", str(folder), "--out", str(tmp_path / "out"), "--resamples", "0"]
    weights = (tmp_path / "run" / "weights.npz").read_bytes()
    assert main([str(tmp_path / "run"), *command]) == 0
    settings = json.loads((tmp_path / "run" / "preset.json").read_text())
    assert settings["metadata"] == {"seed": 3}  # nothing is stored without being asked for
    assert main([str(tmp_path / "run"), *command, "--calibrate"]) == 0
    settings = json.loads((tmp_path / "run" / "preset.json").read_text())
    stored = settings["metadata"]["verification"]
    assert settings["metadata"]["seed"] == 3
    assert (stored["data"], stored["people"]) == ("people", PEOPLE)
    assert stored["pairs"] == 2 * PEOPLE * 6
    results = json.loads((tmp_path / "out" / "run-people.json").read_text())
    assert stored == results["calibration"] | {"data": "people"}
    for kind, near, far in (("shape", 0, 50), ("feature", 1, -1), ("both", (0, 1), (50, -1))):
        assert probability(stored[kind], near) > 0.7, kind
        assert probability(stored[kind], far) < 0.01, kind
    assert (tmp_path / "run" / "weights.npz").read_bytes() == weights
    assert "expected calibration error" in capsys.readouterr().out


def test_a_preset_of_the_package_is_not_written_into(folder, tmp_path, capsys):
    command = ["--data", str(folder), "--out", str(tmp_path / "out"), "--calibrate"]
    assert main(["aflw-mobilenet-0.5", *command]) == 2
    assert "must be the path of its folder" in capsys.readouterr().err
    photos = tmp_path / "aflw2000"
    photos.mkdir()
    (photos / "a.mat").touch()
    save_to = tmp_path / "run"
    save_to.mkdir()
    assert main([str(save_to), "--data", str(photos), "--calibrate"]) == 2
    assert "several photos of each person" in capsys.readouterr().err


@pytest.mark.integration
def test_a_second_command_reads_no_photo_again(preset, folder, tmp_path, monkeypatch):
    seen = []

    def watching(image):
        seen.append(1)
        return middle(image)

    stand_in(monkeypatch, preset, watching)
    save_preset(tmp_path / "run", preset)
    command = [str(tmp_path / "run"), "--data", str(folder), "--resamples", "0"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    first = (tmp_path / "out" / "run-people.json").read_text()
    assert len(seen) == PEOPLE * PHOTOS
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    assert len(seen) == PEOPLE * PHOTOS
    assert (tmp_path / "out" / "run-people.json").read_text() == first


def test_faces_of_real_people_are_found_and_measured(shared_data):
    people = sorted(p for p in (shared_data / "celeba-people").iterdir() if p.is_dir())[-6:]
    paths = tuple(path for person in people for path in sorted(person.iterdir())[:4])
    predictor = PhotoPredictor.from_preset("aflw-mobilenet-0.5")
    faces = predictor(paths)
    assert len(faces.kept) >= len(paths) - 1
    assert faces.parameters.identity.shape == (len(faces.kept), predictor.preset.layout.n_identity)
    assert np.isfinite(faces.parameters.identity).all()


def test_paths_may_be_text(predictor, people, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(
        "keras_scnn.protocols.evaluation.PhotoPredictor.from_preset",
        lambda name, folder: made.append(folder) or predictor,
    )
    evaluate_preset("mobile", people / "people", keep=str(tmp_path), resamples=0)
    assert made == [tmp_path]
    (tmp_path / "pairs.txt").write_text("1\na 1 2\na 1 b 1\n")
    with pytest.raises(FileNotFoundError, match="--photos: nowhere: no such file or folder"):
        evaluate_preset("mobile", tmp_path / "pairs.txt", photos="nowhere")
