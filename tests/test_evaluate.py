import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
import scipy.io

from keras_scnn.data.records import FaceRecords, save_records
from keras_scnn.data.sources.bfm_full import FullBfm
from keras_scnn.data.sources.bfm_landmarks import BfmLandmarks
from keras_scnn.evaluate import main
from keras_scnn.geometry.camera import compose, project
from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.models import Preset, build_branch
from keras_scnn.models.inference import Predictions, predict
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import FaceParameters, ParameterLayout, ParameterSpace
from keras_scnn.protocols.aflw2000 import evaluate_aflw2000, read_photos
from keras_scnn.protocols.records import evaluate_records
from keras_scnn.shape_distance import shape_coordinates

SIZE, YAW = 32, np.deg2rad(25)


@pytest.fixture
def truth(tiny_face_model) -> FaceParameters:
    """One face in a 32 px crop."""
    rng = np.random.default_rng(4)
    rotation = rotation_from_euler(np.array([0.1, YAW, -0.2]))
    camera = compose(rotation, np.float64(0.1), np.array([16.0, 17.0, 0.0]))
    return FaceParameters(camera, rng.normal(size=6), rng.uniform(0, 1, 5))


@pytest.fixture
def preset(tiny_face_model, tiny_whitening, truth) -> Preset:
    """A network that predicts ``truth`` for every image: kernels are 0, the bias is the truth."""
    keras.utils.set_random_seed(0)
    image = keras.Input((SIZE, SIZE, 3))
    encoder = keras.Model(image, keras.layers.GlobalAveragePooling2D()(image), name="encoder")
    layout = ParameterLayout(tiny_face_model.n_identity, tiny_face_model.n_expression)
    branch = build_branch(encoder, layout, feature_size=4)
    head = branch.get_layer("parameters")
    head.kernel.assign(np.zeros(head.kernel.shape))
    head.bias.assign(tiny_whitening.whiten(truth.to_vector()))
    return Preset(branch, ParameterSpace(tiny_face_model, tiny_whitening), "mobilenet_0.5")


@pytest.fixture
def photos(tmp_path, tiny_face_model, truth):
    """Two photos in the layout of AFLW2000-3D whose faces are ``truth`` in their benchmark box."""
    folder = tmp_path / "photos"
    folder.mkdir()
    in_crop = project(truth.pose, tiny_face_model.landmarks(truth.identity, truth.expression))
    in_photo = 3 * (in_crop + 0.5) - 0.5 + [40, 30, 0]  # the crop of 32 px was 96 px of the photo
    points = (in_photo + 1).T  # MATLAB counts from 1
    rows = ["name,yaw_degrees,crop_x0,crop_y0,crop_x1,crop_y1"]
    for name in ("one", "two"):
        pose = np.array([[0.1, YAW, -0.2, 0, 0, 0, 1]])
        scipy.io.savemat(folder / f"{name}.mat", {"pt3d_68": points, "Pose_Para": pose})
        cv2.imwrite(str(folder / f"{name}.jpg"), np.full((450, 450, 3), 90, np.uint8))
        rows.append(f"{name},25,40,30,136,126")
    (folder / "protocol.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture
def records(tiny_face_model, truth) -> FaceRecords:
    """40 photos of 8 people, all in the pose of ``truth`` and without expression."""
    rng = np.random.default_rng(8)
    identity = np.repeat(np.arange(8, dtype=np.int32), 5)
    shapes = rng.normal(size=(8, 6))[identity]
    poses = np.broadcast_to(truth.pose, (40, 3, 4))
    vectors = FaceParameters(poses, shapes, np.zeros((40, 5))).to_vector()
    images = rng.integers(0, 255, (40, SIZE, SIZE, 3), np.uint8)
    landmarks = project(poses, tiny_face_model.landmarks(shapes)).astype(np.float32)
    return FaceRecords(images, vectors, landmarks, identity, "tiny")


def test_a_perfect_network_has_no_error_in_exact_pixels(preset, photos):
    result = evaluate_aflw2000(preset, photos)
    assert result.landmarks.mean_percent == pytest.approx(0, abs=1e-3)
    assert result.pose.mean_degrees == pytest.approx(0, abs=1e-3)
    assert result.landmarks.bins_count == (2, 0, 0)


def test_the_fields_convention_is_off_by_its_shift(preset, photos):
    points = scipy.io.loadmat(photos / "one.mat")["pt3d_68"][:2]
    # By hand: (3 - 1) / 2 px in x and y at three photo pixels to a crop pixel.
    expected = 100 * np.sqrt(2) / np.sqrt(np.prod(np.ptp(points, axis=1)))
    result = evaluate_aflw2000(preset, photos, convention="field")
    assert result.landmarks.mean_percent == pytest.approx(expected, abs=1e-3)


def test_without_a_protocol_the_standard_crop_is_cut_around_the_annotation(
    preset, photos, truth, tiny_face_model
):
    """The network predicts the same in another box: by hand, the mean over landmarks, 2D."""
    (photos / "protocol.csv").unlink()
    result = evaluate_aflw2000(preset, photos)
    points = scipy.io.loadmat(photos / "one.mat")["pt3d_68"].T[:, :2] - 1
    size, center = np.ptp(points, axis=0), (points.min(axis=0) + points.max(axis=0)) / 2
    outputs = project(truth.pose, tiny_face_model.landmarks(truth.identity, truth.expression))
    in_photo = (outputs[:, :2] - (SIZE - 1) / 2) * np.linalg.norm(size) / SIZE + center
    error = np.linalg.norm(in_photo - points, axis=1).mean()
    expected = 100 * error / np.sqrt(np.prod(size))
    assert result.landmarks.mean_percent == pytest.approx(expected, rel=1e-3)
    assert result.pose.mean_degrees == pytest.approx(0, abs=1e-3)


def test_predictions_have_the_documented_frames(preset, truth, tiny_face_model):
    outputs = predict(preset, np.full((3, SIZE, SIZE, 3), 90, np.uint8))
    np.testing.assert_allclose(outputs.euler, [[0.1, YAW, -0.2]] * 3, atol=1e-5)
    np.testing.assert_allclose(outputs.parameters.identity[1], truth.identity, atol=1e-5)
    expected = project(truth.pose, tiny_face_model.landmarks(truth.identity, truth.expression))
    np.testing.assert_allclose(outputs.landmarks[2], expected, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(outputs.features, axis=1), 1, atol=1e-5)


@pytest.mark.integration
def test_a_constant_prediction_has_no_identity(preset, records):
    result = evaluate_records(preset, records)
    assert result.shape.relative > 1  # a random other person's shape is worse than the mean face
    assert result.shape_verification.accuracy_percent == pytest.approx(50, abs=4)
    assert result.pose.mean_degrees == pytest.approx(0, abs=1e-3)
    assert result.landmarks.mean_percent > 1


def test_records_of_another_face_model_or_size_are_refused(preset, records):
    other = FaceRecords(
        records.images, records.parameters, records.landmarks, records.identity, "other"
    )
    with pytest.raises(ValueError, match="face model 'other'"):
        evaluate_records(preset, other)
    small = FaceRecords(
        records.images[:, 1:, 1:], records.parameters, records.landmarks, records.identity, "tiny"
    )
    with pytest.raises(ValueError, match="takes 32 px crops"):
        evaluate_records(preset, small)


@dataclass(frozen=True, eq=False)
class NoisyPredictions(Predictions):
    """Predictions with some px added to their landmarks."""

    noise: np.ndarray | float = 0.0

    @property
    def landmarks(self) -> np.ndarray:
        return super().landmarks + self.noise


def perfect(preset, parameters, features=None, noise=0.0) -> Predictions:
    """The predictions of a network that knows the parameters; ``noise`` moves the landmarks."""
    return NoisyPredictions(preset.face_model, parameters, features, noise)


def test_annotation_plus_noise_has_the_errors_of_the_noise(preset, photos, truth, monkeypatch):
    points = scipy.io.loadmat(photos / "one.mat")["pt3d_68"]
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(2, 68, 3))
    both = FaceParameters(
        *(np.stack([a, a]) for a in (truth.pose, truth.identity, truth.expression))
    )
    monkeypatch.setattr(
        "keras_scnn.protocols.aflw2000.predict", lambda *_: perfect(preset, both, noise=noise)
    )
    result = evaluate_aflw2000(preset, photos, resamples=50)
    # The crop's pixels are three of the photo; depth errors count from their mean.
    side = np.sqrt(np.prod(np.ptp(points[:2], axis=1)))
    noise[..., 2] -= noise[..., 2].mean(axis=1, keepdims=True)
    flat, deep = (np.linalg.norm(noise[..., :d], axis=-1).mean(axis=1) for d in (2, 3))
    np.testing.assert_allclose(result.curves["error_2d"], 300 * flat / side, atol=1e-3)
    np.testing.assert_allclose(result.curves["error_3d"], 300 * deep / side, atol=1e-3)
    assert result.landmarks.mean_percent == pytest.approx(300 * flat.mean() / side, rel=1e-4)
    assert result.landmarks_3d.mean_percent == pytest.approx(300 * deep.mean() / side, rel=1e-4)
    # Resamples of two faces: one twice, the other twice, or both.
    low, high = result.intervals["landmarks.mean_percent"]
    assert (low, high) == pytest.approx(
        (300 * flat.min() / side, 300 * flat.max() / side), rel=1e-4
    )


def test_a_reannotation_is_measured_beside_the_original(preset, photos, tmp_path):
    points = scipy.io.loadmat(photos / "one.mat")["pt3d_68"][:2]
    side = np.sqrt(np.prod(np.ptp(points, axis=1)))
    np.save(tmp_path / "again.npy", np.stack([points.T + [3, 4], points.T]))
    result = evaluate_aflw2000(preset, photos, annotation=tmp_path / "again.npy", resamples=0)
    assert result.landmarks.mean_percent == pytest.approx(0, abs=1e-3)
    assert result.reannotated.mean_percent == pytest.approx(50 * 5 / side, abs=1e-3)
    assert any("again.npy" in note for note in result.notes)


def test_the_benchmarks_own_crops_are_taken_as_they_are(preset, photos, tmp_path, capsys):
    crops = tmp_path / "crops"
    crops.mkdir()
    for name in ("one", "two"):
        cv2.imwrite(str(crops / f"{name}.jpg"), np.full((SIZE, SIZE, 3), 200, np.uint8))
    result = evaluate_aflw2000(preset, photos, benchmark_crops=crops)
    assert result.landmarks.mean_percent == pytest.approx(0, abs=1e-3)
    assert any("the benchmark's own crops" in note for note in result.notes)
    (crops / "two.jpg").rename(crops / "two.JPG")
    images = read_photos(photos, SIZE, crops).crops
    (crops / "two.JPG").rename(crops / "two.jpg")
    assert (np.abs(images.astype(int) - 200) < 3).all()  # not the photos, which are of 90
    (crops / "one.jpg").unlink()
    cv2.imwrite(str(crops / "two.jpg"), np.zeros((40, 40, 3), np.uint8))
    with pytest.raises(ValueError, match=r"none of 2 photos can be read; the first: one"):
        read_photos(photos, SIZE, crops)
    cv2.imwrite(str(crops / "one.jpg"), np.zeros((SIZE, SIZE, 3), np.uint8))
    assert "two.jpg is 40 x 40 px; 32 px are needed" in read_photos(photos, SIZE, crops).left_out[0]
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        read_photos(photos, SIZE, tmp_path / "nowhere")
    table = (photos / "protocol.csv").read_text()
    cv2.imwrite(str(crops / "two.jpg"), np.zeros((SIZE, SIZE, 3), np.uint8))
    (photos / "protocol.csv").write_text(table.replace("two,25,40,30,136", "two,25,40,30,40"))
    result = read_photos(photos, SIZE, crops)  # a box without width leaves out its own face only
    assert [face.name for face in result.faces] == ["one"]
    assert result.left_out[0].startswith("two: a face box needs finite edges")
    (photos / "protocol.csv").unlink()
    with pytest.raises(ValueError, match=r"need protocol.csv"):
        read_photos(photos, SIZE, crops)


def test_a_box_that_is_not_square_is_stretched_and_kept(preset, photos, tmp_path):
    """A crop 96 px wide and 48 high shows a gradient of the photo as a square, exactly."""
    gray = np.minimum(np.arange(450), 255).astype(np.uint8)
    ramp = np.tile(gray[:, None, None], (1, 450, 3))
    cv2.imwrite(str(photos / "one.png"), ramp)
    (photos / "one.png").rename(photos / "one.jpg")  # without loss
    text = (photos / "protocol.csv").read_text().replace("40,30,136,126", "40,60,136,108")
    (photos / "protocol.csv").write_text(text)
    result = read_photos(photos, SIZE)
    assert result.left_out == ()
    rows = result.crops[0, :, SIZE // 2, 0].astype(float)
    # By pixel centers: row v of the crop is y = (v + 0.5) 48 / 32 - 0.5 + 60 of the photo.
    expected = (np.arange(SIZE) + 0.5) * 48 / SIZE - 0.5 + 60
    np.testing.assert_allclose(rows, expected, atol=1.5)
    assert evaluate_aflw2000(preset, photos, resamples=0).landmarks.bins_count == (2, 0, 0)


def test_an_unreadable_photo_is_listed_and_the_rest_is_measured(preset, photos, tmp_path):
    points = scipy.io.loadmat(photos / "two.mat")["pt3d_68"][:2]
    (photos / "one.jpg").write_text("no photo")
    np.save(tmp_path / "again.npy", np.stack([points.T + 99, points.T]))
    result = evaluate_aflw2000(preset, photos, annotation=tmp_path / "again.npy")
    assert result.landmarks.bins_count == (1, 0, 0)
    assert result.reannotated.mean_percent == pytest.approx(0, abs=1e-3)  # of the second face
    assert len(result.left_out) == 1
    assert "one.jpg" in result.left_out[0]
    (photos / "two.jpg").write_text("no photo")
    with pytest.raises(ValueError, match="none of 2 photos can be read"):
        evaluate_aflw2000(preset, photos)


def test_a_damaged_annotation_is_listed_too(preset, photos, tmp_path):
    points = scipy.io.loadmat(photos / "two.mat")["pt3d_68"][:2]
    np.save(tmp_path / "again.npy", np.stack([points.T + 99, points.T]))
    (photos / "one.mat").write_bytes(b"no annotation")
    result = evaluate_aflw2000(preset, photos, annotation=tmp_path / "again.npy", resamples=0)
    assert result.reannotated.mean_percent == pytest.approx(0, abs=1e-3)
    assert "one.mat" in result.left_out[0]


def test_landmarks_that_span_no_area_are_listed_too(preset, photos):
    arrays = scipy.io.loadmat(photos / "one.mat")
    line = {"pt3d_68": arrays["pt3d_68"] * [[1], [0], [1]], "Pose_Para": arrays["Pose_Para"]}
    scipy.io.savemat(photos / "one.mat", line)
    result = evaluate_aflw2000(preset, photos, resamples=0)
    assert result.landmarks.bins_count == (1, 0, 0)
    assert result.left_out == ("one: the points of an annotated face span no area",)


IDENTITY_DEVIATION, EXPRESSION_DEVIATION = 2.0, 0.5


def annotate(path, truth, shift_px: float) -> None:
    """Write ``truth`` as the parameters of a .mat file, in the crop's place in the photo."""
    scale = 3 * 0.1 * 1e-3  # px of the photo per micrometer
    # As the published files have it: from 1, y up, of a 450 px photo.
    center = 3 * (truth.pose[:2, 3] + 0.5) - 0.5 + [40 + shift_px, 30]
    pose = [0.1, YAW, -0.2, center[0] + 1, 450 - center[1], 0, scale]
    arrays = {
        "pt3d_68": scipy.io.loadmat(path)["pt3d_68"],
        "Pose_Para": np.array([pose]),
        "Shape_Para": np.zeros((199, 1)),
        "Exp_Para": np.zeros((29, 1)),
    }
    arrays["Shape_Para"][:6, 0] = truth.identity * IDENTITY_DEVIATION
    arrays["Exp_Para"][:5, 0] = truth.expression * EXPRESSION_DEVIATION
    scipy.io.savemat(path, arrays)


def test_the_dense_error_is_measured_with_the_full_face_model(preset, photos, truth):
    pad = {"identity_basis": (0, 193), "expression_basis": (0, 24)}
    model = preset.face_model
    names = [*model.expression_names, *(f"more{i}" for i in range(24))]
    bounds = np.concatenate([model.expression_bounds, np.tile([0.0, 1.0], (24, 1))])
    bases = {k: np.pad(getattr(model, k), ((0, 0), (0, 0), w)) for k, w in pad.items()}
    whole = model.replace(**bases, expression_names=names, expression_bounds=bounds)
    bfm = FullBfm(whole, np.full(199, IDENTITY_DEVIATION), np.full(29, EXPRESSION_DEVIATION))
    for name, shift in (("one", 0.0), ("two", 6.0)):
        annotate(photos / f"{name}.mat", truth, shift)
    result = evaluate_aflw2000(preset, photos, bfm=bfm, resamples=0)
    side = np.sqrt(np.prod(np.ptp(scipy.io.loadmat(photos / "one.mat")["pt3d_68"][:2], axis=1)))
    # By hand: no error in one photo, 6 px in the other.
    assert result.dense_percent == pytest.approx(100 * 3 / side, abs=1e-2)
    assert result.dense_3d_percent == pytest.approx(100 * 3 / side, abs=1e-2)
    other = FullBfm(MorphableModel.open_face(), np.ones(80), np.ones(51))
    with pytest.raises(ValueError, match="'tiny' has 70 vertices"):
        evaluate_aflw2000(preset, photos, bfm=other)


def test_annotations_that_do_not_fit_are_refused_before_the_prediction(
    preset, photos, truth, tmp_path, monkeypatch
):
    monkeypatch.setattr("keras_scnn.protocols.aflw2000.predict", lambda *_: pytest.fail("late"))
    bfm = FullBfm(preset.face_model, np.ones(199), np.ones(29))
    with pytest.raises(ValueError, match=r"one.mat: Shape_Para is missing"):
        evaluate_aflw2000(preset, photos, bfm=bfm)
    for name in ("one", "two"):
        annotate(photos / f"{name}.mat", truth, 0.0)
    small = FullBfm(preset.face_model, np.ones(6), np.ones(5))
    with pytest.raises(ValueError, match=r"one.mat: .*Shape_Para has 199 numbers; the model 6"):
        evaluate_aflw2000(preset, photos, bfm=small)
    points = np.random.default_rng(0).uniform(0, 450, (2, 68, 2))
    points[1] = points[1, 0]
    np.save(tmp_path / "again.npy", points)
    with pytest.raises(ValueError, match=r"again.npy: two: the points .* span no area"):
        evaluate_aflw2000(preset, photos, annotation=tmp_path / "again.npy")
    for name in ("one", "two"):
        arrays = scipy.io.loadmat(photos / f"{name}.mat")
        pose = np.array([[0.1, 0.2, 2.0, 0, 0, 0, 1]])
        scipy.io.savemat(photos / f"{name}.mat", {"pt3d_68": arrays["pt3d_68"], "Pose_Para": pose})
    with pytest.raises(ValueError, match="no annotated face has all angles below 99"):
        evaluate_aflw2000(preset, photos)


@pytest.mark.parametrize("suffix", [".mat", ".MAT"])
def test_the_neutral_shape_is_compared_with_the_annotated_one(
    preset, photos, truth, tmp_path, suffix
):
    model = preset.face_model
    true = model.landmarks(truth.identity).astype(np.float64)
    rng = np.random.default_rng(3)
    # A basis in which each person is the same mean face plus the first component.
    basis = rng.normal(0, 1e3, (68, 3, 199))
    BfmLandmarks(1000 * true - 2 * basis[..., 0], basis, np.zeros((68, 3, 29))).save(
        tmp_path / "basis.npz"
    )
    for name in ("one", "two"):
        arrays = scipy.io.loadmat(photos / f"{name}.mat")
        arrays = {key: arrays[key] for key in ("pt3d_68", "Pose_Para")}
        arrays["Shape_Para"] = 2.0 * np.eye(199, 1)
        arrays["Exp_Para"] = np.zeros((29, 1))
        (photos / f"{name}.mat").unlink()
        with (photos / f"{name}{suffix}").open("wb") as file:
            scipy.io.savemat(file, arrays)
    result = evaluate_aflw2000(preset, photos, basis=tmp_path / "basis.npz", resamples=10)
    assert result.shape68.vertex_mm == pytest.approx(0, abs=1e-3)
    assert result.shape68.raw_vertex_mm == pytest.approx(0, abs=1e-3)
    deviation = 2 * (basis[..., 0] - basis[..., 0].mean(axis=0)) / 1000
    expected = np.linalg.norm(deviation, axis=1).mean()
    assert result.shape68.raw_mean_face_mm == pytest.approx(expected, rel=1e-4)
    assert result.shape68.explained_variance == pytest.approx(1, abs=1e-4)
    assert result.model_mean_mm > 0
    assert "shape68.vertex_mm" in result.intervals


def test_a_bad_basis_or_convention_is_refused_before_the_photos(
    preset, photos, tmp_path, monkeypatch
):
    whole, expression = np.zeros((68, 3, 199)), np.zeros((68, 3, 29))
    BfmLandmarks(np.zeros((68, 3)), whole, expression).save(tmp_path / "whole.npz")
    monkeypatch.setattr("keras_scnn.protocols.aflw2000.predict", lambda *_: pytest.fail("late"))
    with pytest.raises(ValueError, match="one.mat"):  # has no Shape_Para
        evaluate_aflw2000(preset, photos, basis=tmp_path / "whole.npz")
    monkeypatch.setattr("keras_scnn.protocols.aflw2000.read_photos", lambda *_: pytest.fail("late"))
    (tmp_path / "basis.npz").write_text("no arrays")
    with pytest.raises(ValueError, match="basis.npz"):
        evaluate_aflw2000(preset, photos, basis=tmp_path / "basis.npz")
    with pytest.raises(ValueError, match="unknown convention 'fields'; choose from exact, field"):
        evaluate_aflw2000(preset, photos, "fields")


def test_a_perfect_network_has_no_error_on_records(preset, records, monkeypatch):
    true = FaceParameters.from_vector(records.parameters, preset.layout)
    features = np.eye(8, dtype=np.float32)[records.identity]
    monkeypatch.setattr(
        "keras_scnn.protocols.records.predict", lambda *_: perfect(preset, true, features)
    )
    result = evaluate_records(preset, records, resamples=20)
    for value in (
        result.landmarks.mean_percent,
        result.landmarks_3d.mean_percent,
        result.dense_percent,
        result.dense_3d_percent,
        result.shape.vertex_mm,
        result.shape_ratio,
        result.feature_ratio,
        result.shape_verification.eer_percent,
    ):
        assert value == pytest.approx(0, abs=1e-3)
    assert result.shape.explained_variance == pytest.approx(1, abs=1e-4)
    assert result.shape_verification.accuracy_percent == 100
    assert result.feature_retrieval.rank1_percent == 100
    assert result.intervals["feature_verification.accuracy_percent"] == (100, 100)


def test_the_dense_error_is_that_of_the_vertices(preset, records, monkeypatch):
    true = FaceParameters.from_vector(records.parameters, preset.layout)
    moved = FaceParameters(
        true.pose + np.eye(4)[3] * [[3], [4], [0]], true.identity, true.expression
    )
    monkeypatch.setattr("keras_scnn.protocols.records.predict", lambda *_: perfect(preset, moved))
    result = evaluate_records(preset, records, resamples=0)
    extent = np.ptp(records.landmarks[..., :2].astype(float), axis=1)
    expected = np.mean(500 / np.sqrt(extent.prod(axis=1)))  # every vertex is off by (3, 4) px
    assert result.dense_percent == pytest.approx(expected, rel=1e-4)
    assert result.dense_3d_percent == pytest.approx(expected, rel=1e-4)
    assert result.landmarks.faces_percent == pytest.approx(expected, rel=1e-4)


def test_the_distance_of_shapes_is_that_of_their_vertices(tiny_face_model):
    identity = np.random.default_rng(0).normal(size=(2, 6))
    one, two = shape_coordinates(tiny_face_model, identity)
    a, b = tiny_face_model.vertices(identity)
    expected = np.sqrt(((a - b) ** 2).sum(axis=1).mean())
    assert np.linalg.norm(one - two) == pytest.approx(expected, rel=1e-5)


def stand_in(monkeypatch, preset):
    """The command uses this network, whatever name it is given."""
    for protocol in ("aflw2000", "records"):
        monkeypatch.setattr(f"keras_scnn.protocols.{protocol}.load_preset", lambda name: preset)
    monkeypatch.setattr("keras_scnn.models.presets.preset_folder", Path)


def test_the_command_writes_table_json_and_plot(
    preset, photos, records, tmp_path, capsys, monkeypatch
):
    stand_in(monkeypatch, preset)
    save_records(tmp_path / "records", records)
    for data, measure in ((photos, "mean of bins"), (tmp_path / "records", "mm")):
        out = tmp_path / "out"
        assert main(["a/run", "--data", str(data), "--out", str(out)]) == 0
        assert measure in capsys.readouterr().out
        text = (out / f"run-{data.name}.json").read_text()
        assert "NaN" not in text
        assert json.loads(text)["landmarks"]["bins_percent"][2] is None  # no face has this yaw
        for name in (f"run-{data.name}.png", f"run-{data.name}-curves.png"):
            assert cv2.imread(str(out / name)) is not None


def test_missing_presets_and_data_are_named(tmp_path, capsys, preset, monkeypatch):
    assert main([str(tmp_path / "no-run"), "--data", str(tmp_path)]) == 2
    assert "no-run" in capsys.readouterr().err
    stand_in(monkeypatch, preset)
    assert main(["run", "--data", str(tmp_path / "no-data")]) == 2
    assert "no-data: no such folder" in capsys.readouterr().err
    assert main(["run", "--data", str(tmp_path)]) == 2
    assert "holds neither" in capsys.readouterr().err


def test_the_convention_is_printed_and_options_must_fit_the_data(
    preset, photos, tmp_path, capsys, monkeypatch
):
    stand_in(monkeypatch, preset)
    command = ["run", "--data", str(photos), "--out", str(tmp_path / "out"), "--resamples", "9"]
    assert main([*command, "--convention", "field"]) == 0
    shown = capsys.readouterr().out
    assert "convention 'field'" in shown
    assert "9 bootstrap resamples" in shown
    assert main([*command, "--photos", str(tmp_path)]) == 2
    assert "--photos is for a pairs file" in capsys.readouterr().err
    (photos / "one.jpg").unlink()
    (photos / "one.jpg").write_text("no photo")
    assert main(command) == 0
    assert "left out" in capsys.readouterr().err


def test_the_released_preset_reaches_its_results_on_real_photos(shared_data):
    from keras_scnn.models.presets import list_presets

    name = "aflw-mobilenet-0.5"
    if name not in list_presets():
        pytest.skip(f"the preset {name} is not in this checkout")
    result = evaluate_aflw2000(name, shared_data / "aflw2000-3d-dev")
    assert result.landmarks.mean_percent < 5.0  # the project's goal for the first weights
    assert result.pose.mean_degrees < 5.0


@pytest.mark.parametrize("option", ["--annotation", "--shape-basis", "--bfm", "--benchmark-crops"])
def test_a_file_that_is_missing_is_named_before_the_work(tmp_path, capsys, monkeypatch, option):
    monkeypatch.setattr("keras_scnn.models.presets.load_preset", lambda _: None)
    (tmp_path / "a.mat").touch()
    missing = tmp_path / "missing.npz"
    words = ["mobile", "--data", str(tmp_path), option, str(missing), "--out", str(tmp_path / "o")]
    assert main(words) == 2
    assert f"{option}: {missing}: no such file or folder" in capsys.readouterr().err


def made_data(folder: Path, kind: str) -> Path:
    """A path that is accepted as data of a kind until it is read."""
    if kind == "pairs":
        (folder / "pairs.txt").touch()
        return folder / "pairs.txt"
    files = {"people": ("a/1.jpg", "b/1.jpg"), "records": ("manifest.json",), "aflw": ("a.mat",)}
    for name in files[kind]:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    return folder


OF_AFLW2000 = "{} is for a folder of AFLW2000-3D; "
UNFIT = [
    ("people", "--convention field", OF_AFLW2000.format("--convention")),
    ("people", "--annotation-first-pixel 0", OF_AFLW2000.format("--annotation-first-pixel")),
    ("people", "--last 1", "--last is for --shape-truth or --points or --gaze"),
    ("records", "--convention field", OF_AFLW2000.format("--convention")),
    ("records", "--annotation-first-pixel 1", OF_AFLW2000.format("--annotation-first-pixel")),
    ("pairs", "--convention exact", OF_AFLW2000.format("--convention")),
    ("pairs", "--people", "--people is for a folder; "),
    ("aflw", "--annotation-first-pixel 0", "has no effect without --annotation"),
    ("aflw", "--bfm-expression x", "--bfm-expression has no effect without --bfm"),
    ("aflw", "--bfm-info x", "--bfm-info has no effect without --bfm"),
    ("people", "--openings x --convention field", "--openings and --convention do not go together"),
    (
        "people",
        "--points x --annotation-first-pixel 0",
        "--points and --annotation-first-pixel do not go together",
    ),
    (
        "people",
        "--shape-truth there.npz --last 2",
        "--last has no effect on an existing file of --shape-truth",
    ),
    (
        "people",
        "--shape-truth there.npz --fit-truth --last 2",
        "--last has no effect on an existing file of --shape-truth",
    ),
    ("people", "--shape-truth x --last 2", "x: no such file; expected a shape truth (--fit-truth"),
    ("people", "--shape-truth a", "a: is a folder; expected a shape truth"),
    ("people", "--shape-truth a --fit-truth", "a: is a folder; expected a shape truth"),
    (
        "people",
        "--gaze --shape-truth there.npz --last 2",
        "--shape-truth and --gaze do not go together",
    ),
]


@pytest.mark.parametrize(("kind", "options", "message"), UNFIT)
def test_an_option_that_would_have_no_effect_is_refused_before_the_work(
    tmp_path, capsys, monkeypatch, kind, options, message
):
    monkeypatch.chdir(tmp_path)
    Path("there.npz").touch()
    words = ["mobile", "--data", str(made_data(tmp_path, kind)), *options.split()]
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
