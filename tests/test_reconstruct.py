import dataclasses
import json

import cv2
import keras
import numpy as np
import pytest
import trimesh
from keras import ops
from skimage import data

from keras_scnn.geometry.camera import angle_in_image, compose
from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.io import read_image, write_image
from keras_scnn.meshes.parts import face_parts
from keras_scnn.models import Preset, build_branch, build_encoder, save_preset
from keras_scnn.parameters import FaceParameters, ParameterLayout, ParameterSpace, Whitening
from keras_scnn.photos.cropping import (
    FaceBox,
    box_from_landmarks,
    crop_face,
    crop_rotated,
    crop_upright,
)
from keras_scnn.photos.detection import LargestFaceDetector
from keras_scnn.reconstruct import main
from keras_scnn.reconstruction.comparison import compare_photos
from keras_scnn.reconstruction.faces import Faces
from keras_scnn.reconstruction.options import parse_options
from keras_scnn.reconstruction.reconstructor import Reconstructor
from keras_scnn.serving.predictor import PresetPredictor
from keras_scnn.storage import short_name

pytestmark = pytest.mark.usefixtures("in_keras")

SIZE = 120
EULER = np.deg2rad([10.0, -25.0, 5.0])
SCALE = 0.4  # px per mm in the crop


class SpotFinder(keras.layers.Layer):
    """A stand-in for a trained network: its face stands where the crop is bright.

    All other parameters are fixed, so that where the mesh must land is known exactly.
    """

    def __init__(self, vector, **kwargs):
        super().__init__(**kwargs)
        self.vector = np.float32(vector)

    def call(self, image):
        weight = ops.mean(image, axis=-1)
        total = ops.sum(weight, axis=(1, 2))
        grid = ops.arange(SIZE, dtype="float32")
        x = ops.sum(weight * grid, axis=(1, 2)) / total
        y = ops.sum(weight * grid[:, None], axis=(1, 2)) / total
        one_hot = ops.one_hot([3, 7], len(self.vector), dtype="float32")
        return self.vector + x[:, None] * one_hot[0] + y[:, None] * one_hot[1]


class FixedDetector:
    def __init__(self, *boxes: FaceBox):
        self.boxes = list(boxes)

    def detect(self, image: np.ndarray) -> list[FaceBox]:
        return self.boxes


@pytest.fixture(scope="module")
def outputs(open_face) -> FaceParameters:
    """The parameters that the stand-in network knows, its camera centered on the origin."""
    rng = np.random.default_rng(4)
    expression = rng.uniform(0, 0.4, open_face.n_expression)
    expression[0] = 1.7  # beyond the bound of 1, as a network may say
    pose = compose(rotation_from_euler(EULER), SCALE, np.zeros(3))
    return FaceParameters(pose, rng.normal(0, 1, open_face.n_identity), expression)


@pytest.fixture(scope="module")
def spot_preset(open_face, outputs) -> Preset:
    vector = outputs.to_vector()
    image = keras.Input((SIZE, SIZE, 3))
    parameters = SpotFinder(vector)(image)
    branch = keras.Model(image, {"parameters": parameters})
    whitening = Whitening(np.zeros(len(vector)), np.ones(len(vector)))
    return Preset(branch, ParameterSpace(open_face, whitening), "mobilenet_0.5")


def photo_with_spots(*spots, size=(300, 400)) -> np.ndarray:
    image = np.zeros((*size, 3), np.uint8)
    for x, y in spots:
        image[y - 2 : y + 3, x - 2 : x + 3] = 255
    return image


def reconstruct(preset, image, *boxes, passes=1):
    reconstructor = Reconstructor(preset, FixedDetector(*boxes))
    return reconstructor.reconstruct_boxes(image, list(boxes), passes)


@pytest.mark.parametrize(
    ("images", "boxes", "message"),
    [
        (2, np.zeros((2, 4)), "boxes must be a list of FaceBox"),
        (1, np.zeros((0, 4)), "there is no box"),
        (1, [FaceBox(0, 0, 9, 9)] * 2, "1 images, 2 boxes; one is for each"),
    ],
)
def test_boxes_of_another_kind_or_number_are_named(spot_preset, images, boxes, message):
    reconstructor = Reconstructor(spot_preset, FixedDetector())
    with pytest.raises(ValueError, match=message):
        reconstructor.reconstruct_many([np.zeros((9, 9, 3), np.uint8)] * images, boxes)


def test_faces_are_a_sequence(spot_preset):
    """A number gives one face, a slice gives faces, and JSON takes any kind of score."""
    box = FaceBox(0, 0, 40, 40)
    boxes = [dataclasses.replace(box, score=np.float32(score)) for score in (0.25, 0.5, 0.75)]
    images = [photo_with_spots((20, 15), size=(40, 40 + i)) for i in range(3)]
    faces = Reconstructor(spot_preset, FixedDetector()).reconstruct_many(images, boxes)
    part = faces[1:]
    assert isinstance(part, Faces) and part.photo_sizes == ((41, 40), (42, 40))
    for one, same in zip((*part, part[-1], part[np.int64(0)]), (1, 2, 2, 1), strict=True):
        assert json.dumps(one.to_json()) == json.dumps(faces[same].to_json())
        assert one.photo_size == faces[same].photo_size
    assert [json.loads(json.dumps(face.to_json()))["score"] for face in faces] == [0.25, 0.5, 0.75]
    with pytest.raises(IndexError):
        faces[3]
    with pytest.raises(TypeError):
        faces[[0, 1]]


@pytest.mark.parametrize("side", [120.0, 60.0, 180.0])
def test_the_mesh_lands_where_the_network_saw_the_face(spot_preset, open_face, outputs, side):
    image = photo_with_spots((210, 130))
    (face,) = reconstruct(spot_preset, image, FaceBox.square((200.5, 140.5), side))
    # The model's origin stands on the bright spot; sampling moves the spot by a rounding error.
    np.testing.assert_allclose(face.parameters.pose[:2, 3], [210, 130], atol=0.1)
    scale = SCALE * side / SIZE
    shape = open_face.vertices(outputs.identity, open_face.clip_expression(outputs.expression))
    turned = shape @ rotation_from_euler(EULER).T * scale
    expected = np.array([210, 130, 0]) + turned * [1, -1, 1]
    np.testing.assert_allclose(face.posed_vertices, expected, atol=0.11)


def test_pose_and_landmarks_are_those_of_the_parameters(spot_preset, open_face, outputs):
    image = photo_with_spots((210, 130))
    (face,) = reconstruct(spot_preset, image, FaceBox.square((200.5, 140.5), 150))
    np.testing.assert_allclose(face.euler_degrees, np.rad2deg(EULER), atol=1e-3)
    np.testing.assert_allclose(face.parameters.identity, outputs.identity, atol=1e-5)
    assert face.parameters.expression[0] == open_face.expression_bounds[0, 1]
    vertices = face.posed_vertices[open_face.landmark_indices]
    offsets = open_face.landmark_offsets @ rotation_from_euler(EULER).T * [1, -1, 1]
    expected = vertices + offsets * SCALE * 150 / SIZE
    np.testing.assert_allclose(face.landmarks, expected, atol=1e-3)


def seen_mirrored(preset, image, box) -> np.ndarray:
    """(68, 3) landmarks that one look at the mirrored photo finds, px of the photo."""
    width = image.shape[1]
    mirrored = dataclasses.replace(box, x0=width - box.x1, x1=width - box.x0)
    (face,) = reconstruct(preset, np.ascontiguousarray(image[:, ::-1]), mirrored)
    return face.landmarks * [-1, 1, 1] + [width - 1, 0, 0]


def test_the_second_crop_is_the_standard_crop_of_landmarks_found_in_the_mirror_image(spot_preset):
    image = photo_with_spots((210, 130))
    box = FaceBox.square((225.5, 120.5), 140, score=0.75)
    (first,) = reconstruct(spot_preset, image, box)
    (second,) = reconstruct(spot_preset, image, box, passes=2)
    assert first.box == box
    expected = box_from_landmarks(seen_mirrored(spot_preset, image, box), score=0.75)
    np.testing.assert_allclose(second.box.as_array(), expected.as_array(), atol=1e-4)
    assert second.box.score == 0.75
    # Both saw the same spot.
    np.testing.assert_allclose(second.parameters.pose[:2, 3], [210, 130], atol=0.1)


def test_the_second_look_is_at_the_upright_head_and_features_are_the_mean_of_both(
    spot_preset, outputs
):
    seen = []

    def network(crops):
        seen.append(crops[0])
        features = np.float32([[1, 0] if len(seen) == 1 else [0.6, 0.8]])
        return {"parameters": outputs.to_vector()[None], "features": features}

    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3)).astype(np.uint8)
    reconstructor = Reconstructor(spot_preset, FixedDetector(), network)
    box = FaceBox(130, 60, 250, 180)
    (once,) = reconstructor.reconstruct_boxes(image, [box], passes=1)
    seen.clear()
    (face,) = reconstructor.reconstruct_boxes(image, [box])
    np.testing.assert_array_equal(seen[0], crop_face(image, box, SIZE).image[:, ::-1])
    # This network predicts the same from every crop: mirrored at the box's center, 189.5.
    landmarks = once.landmarks * [-1, 1, 1] + [2 * 189.5, 0, 0]
    angle = -angle_in_image(once.parameters.pose)
    assert abs(angle) > np.deg2rad(4)
    np.testing.assert_array_equal(seen[1], crop_upright(image, landmarks, angle, SIZE).image)
    # The second prediction's turn comes on top of its crop's.
    assert angle_in_image(face.parameters.pose) == pytest.approx(0, abs=1e-6)
    # (1, 0) and (0.6, 0.8) halve at (0.8, 0.4), which is the direction (2, 1).
    np.testing.assert_allclose(face.features, np.array([2, 1]) / np.sqrt(5), atol=1e-6)


@pytest.mark.parametrize("degrees", [-70, 50])
def test_a_turned_photo_shows_the_same_person(degrees):
    photo, box = data.astronaut()[:256, 96:352], FaceBox(60, 62, 200, 202)
    reconstructor = Reconstructor.from_preset("mobile")
    (upright,) = reconstructor.reconstruct_boxes(photo, [box])
    matrix = cv2.getRotationMatrix2D((129.5, 131.5), -degrees, 1)  # OpenCV's are counterclockwise
    turned_photo = cv2.warpAffine(photo, matrix, photo.shape[1::-1], flags=cv2.INTER_CUBIC)
    (once,) = reconstructor.reconstruct_boxes(turned_photo, [box], passes=1)
    (twice,) = reconstructor.reconstruct_boxes(turned_photo, [box])
    expected = upright.landmarks[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    apart = np.linalg.norm(twice.landmarks[:, :2] - expected, axis=1)
    assert apart.mean() < 0.01 * box.width
    turn = angle_in_image(twice.parameters.pose) - angle_in_image(upright.parameters.pose)
    assert np.rad2deg(turn) == pytest.approx(degrees, abs=2)

    def rms(face):
        difference = face.neutral_vertices - upright.neutral_vertices
        return np.sqrt(np.square(difference).sum(axis=1).mean())

    assert rms(twice) < min(0.3, rms(once))  # mm; two people are about 1.5 apart


def test_a_number_of_looks_that_is_not_known_is_refused(spot_preset):
    with pytest.raises(ValueError, match="passes is 3; it must be 1 or 2"):
        reconstruct(spot_preset, photo_with_spots((210, 130)), FaceBox(0, 0, 9, 9), passes=3)


def test_a_first_pass_without_landmarks_keeps_the_box(spot_preset):
    scale = np.array(spot_preset.space.whitening.scale)
    layout = spot_preset.layout
    scale[layout.pose] = 1e-9  # all landmarks in one place
    flat = dataclasses.replace(
        spot_preset,
        space=ParameterSpace(
            spot_preset.face_model, Whitening(spot_preset.space.whitening.mean, scale)
        ),
    )
    box = FaceBox.square((200.5, 140.5), 150)
    (face,) = reconstruct(flat, photo_with_spots((210, 130)), box, passes=2)
    assert face.box == box


def test_every_face_of_the_photo_is_reconstructed_in_its_own_box(spot_preset):
    spots = np.array([[60, 80], [200, 170], [330, 90]])
    boxes = [FaceBox.square(spot + [4.5, -3.5], 70, 0.6) for spot in spots]
    reconstructor = Reconstructor(spot_preset, FixedDetector(*boxes))
    faces = reconstructor(photo_with_spots(*spots))
    places = np.array([face.parameters.pose[:2, 3] for face in faces])
    np.testing.assert_allclose(places, spots, atol=0.1)


def test_no_face_is_an_empty_list(spot_preset):
    assert Reconstructor(spot_preset, FixedDetector())(photo_with_spots((50, 50))) == []


def test_the_texture_shows_the_photo(spot_preset, open_face):
    image = photo_with_spots((210, 130))
    (face,) = reconstruct(spot_preset, image, FaceBox.square((200.5, 140.5), 180))
    texture = face.texture(np.full((300, 400, 3), (200, 120, 40), np.uint8))
    rows = ((1 - open_face.uv[:, 1]) * (len(texture) - 1)).round().astype(int)
    columns = (open_face.uv[:, 0] * (len(texture) - 1)).round().astype(int)
    at_vertices = texture[rows, columns].astype(int)
    # Seen, mirrored or filled in: of a photo of one color, all skin is that color.
    skin = open_face.regions == 0
    assert np.percentile(np.abs(at_vertices[skin] - (200, 120, 40)), 97) <= 6


def test_seen_texels_have_the_color_of_their_place_in_the_photo(spot_preset, open_face):
    image = photo_with_spots((210, 130))
    (face,) = reconstruct(spot_preset, image, FaceBox.square((200.5, 140.5), 180))
    y, x = np.mgrid[:300, :400]
    gradient = np.stack([x // 2, y // 2, np.full_like(x, 90)], axis=-1).astype(np.uint8)
    texture = face.texture(gradient, baked=True)
    tip = open_face.landmark_indices[30]
    column, row = open_face.uv[tip] * [1, -1] * (len(texture) - 1) + [0, len(texture) - 1]
    expected = face.posed_vertices[tip, :2] / 2
    np.testing.assert_allclose(texture[round(row), round(column), :2], expected, atol=3)


@pytest.fixture(scope="module")
def preset_folder(tmp_path_factory, open_face):
    """A preset with random weights, whose faces nearly are the mean face, filling the crop."""
    layout = ParameterLayout(open_face.n_identity, open_face.n_expression)
    branch = build_branch(build_encoder("mobilenet_0.5", SIZE), layout, feature_size=8)
    mean = np.zeros(layout.size)
    low, high = (edge(open_face.landmarks(), axis=0) for edge in (np.min, np.max))
    scale = SIZE / np.linalg.norm((high - low)[:2])
    center = (SIZE - 1) / 2 - scale * (low + high) / 2 * [1, -1, 1]
    mean[layout.pose] = compose(np.eye(3), scale, center).ravel()
    whitening = Whitening(mean, np.full(layout.size, 1e-3))
    folder = tmp_path_factory.mktemp("preset")
    save_preset(folder, Preset(branch, ParameterSpace(open_face, whitening), "mobilenet_0.5"))
    return folder


def test_a_preset_folder_reconstructs_a_real_photo_in_three_lines(preset_folder):
    reconstructor = Reconstructor.from_preset(preset_folder)
    (face,) = reconstructor(data.astronaut())
    assert face.features.shape == (8,)
    # Such a network puts a frontal mean face in the middle of the box; the face is found there.
    np.testing.assert_allclose(face.euler_degrees, 0, atol=1)
    assert 150 < face.landmarks[:, 0].mean() < 300 and 60 < face.landmarks[:, 1].mean() < 200
    assert face.box.score > 0.6


@pytest.mark.parametrize("suffix", ["obj", "ply", "glb"])
def test_the_command_writes_mesh_numbers_and_overlay(tmp_path, preset_folder, open_face, suffix):
    write_image(tmp_path / "anna b.png", data.astronaut())
    out = tmp_path / "out"
    options = ["--out", str(out), "--preset", str(preset_folder), "--format", suffix, "--draw"]
    assert main([str(tmp_path / "anna b.png"), *options]) == 0
    # OBJ readers take a space for a name's end.
    beside = {"anna_b-4cdffd9d.mtl", "anna_b-4cdffd9d_texture.png"} if suffix == "obj" else set()
    files = {f"anna b.{suffix}", "anna b.json", "anna b_overlay.png", "anna b_views.png"}
    assert {path.name for path in out.iterdir()} == files | beside
    mesh = trimesh.load(out / f"anna b.{suffix}", process=False, force="mesh")
    height = 1000 * np.ptp(mesh.vertices[:, 2 if suffix == "ply" else 1])
    assert len(mesh.faces) == sum(map(len, face_parts(open_face).values()))
    assert height == pytest.approx(np.ptp(open_face.mean[:, 1]), rel=0.02)
    changed = (read_image(out / "anna b_overlay.png") != data.astronaut()).any(axis=-1)
    # Drawn over the face (a quarter of the crop at least), and nowhere far from it.
    assert changed[60:200, 155:295].mean() > 0.25 and not changed[300:].any()
    outputs = json.loads((out / "anna b.json").read_text())
    assert np.shape(outputs["landmarks"]) == (68, 3)
    assert np.shape(outputs["pose"]["image_from_model"]) == (3, 4)
    assert set(outputs["pose"]["euler_degrees"]) == {"pitch", "yaw", "roll"}
    assert len(outputs["expression"]) == open_face.n_expression


def test_the_command_writes_the_parts_that_are_asked_for(tmp_path, preset_folder, open_face):
    write_image(tmp_path / "anna.png", data.astronaut())
    arguments = [str(tmp_path / "anna.png"), "--out", str(tmp_path), "--preset", str(preset_folder)]
    options = ["--format", "ply", "--unit", "mm", "--parts", "skin, eyes", "--neutral"]
    assert main([*arguments, *options]) == 0
    mesh = trimesh.load(tmp_path / "anna.ply", process=False)
    assert len(mesh.faces) == sum(map(len, face_parts(open_face, ("skin", "eyes")).values()))
    assert b"comment unit: mm\n" in (tmp_path / "anna.ply").read_bytes()[:200]
    identity = json.loads((tmp_path / "anna.json").read_text())["identity"]
    expected = open_face.vertices(np.array(identity))
    np.testing.assert_allclose(np.ptp(mesh.vertices[:, 2]), np.ptp(expected[:, 1]), rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "glb", "--unit", "mm"], "GLB is in meters always, not in 'mm'"),
        (["--parts", "skin,eye"], "unknown part 'eye' (did you mean 'eyes'?); known are skin"),
        (["--parts", ""], "unknown part ''"),
        (["--unit", "inch"], "'inch' is not one of mm, cm, m"),
        (["--baked", "--albedo"], "--albedo: not allowed with argument --baked"),
    ],
)
def test_mesh_options_that_do_not_fit_are_named_before_the_work(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit):
        main(["missing.jpg", "--out", str(tmp_path / "out"), *options])
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.integration
def test_baked_is_the_photo_with_its_light(tmp_path, preset_folder):
    write_image(tmp_path / "anna.png", data.astronaut())
    arguments = [str(tmp_path / "anna.png"), "--largest", "--preset", str(preset_folder)]
    pictures = []
    for options in (["--albedo"], ["--baked"]):
        assert main([*arguments, "--out", str(tmp_path / "out"), *options]) == 0
        pictures.append(read_image(tmp_path / "out" / "anna_texture.png").astype(int))
    assert np.abs(pictures[1] - pictures[0]).mean() > 2
    assert not parse_options([*arguments, "--out", str(tmp_path)], "").mesh_options.baked


def test_a_part_that_the_presets_model_has_not_is_named_before_the_photos(
    tmp_path, spot_preset, open_face, capsys, monkeypatch
):
    bare = dataclasses.replace(
        spot_preset,
        space=dataclasses.replace(spot_preset.space, face_model=open_face.replace(regions=None)),
    )
    monkeypatch.setattr(Reconstructor, "from_preset", lambda *_: Reconstructor(bare))
    arguments = ["missing.jpg", "--out", str(tmp_path / "out"), "--parts", "teeth"]
    assert main(arguments) == 2
    assert "unknown part 'teeth'; known are skin" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.integration
def test_two_faces_of_a_photo_are_numbered(tmp_path, preset_folder):
    write_image(tmp_path / "pair.png", np.hstack([data.astronaut(), data.astronaut()[:, ::-1]]))
    arguments = [str(tmp_path / "pair.png"), "--out", str(tmp_path), "--format", "ply"]
    assert main([*arguments, "--preset", str(preset_folder)]) == 0
    assert {p.stem for p in tmp_path.glob("*.ply")} == {"pair_0", "pair_1"}


def test_the_largest_face_alone(tmp_path):
    small = cv2.resize(data.astronaut()[:, ::-1], (256, 256), interpolation=cv2.INTER_AREA)
    photo = np.hstack([data.astronaut(), np.pad(small, ((0, 256), (0, 0), (0, 0)))])
    write_image(tmp_path / "pair.png", photo)
    arguments = [str(tmp_path / "pair.png"), "--out", str(tmp_path)]
    assert main([*arguments, "--largest", "--format", "ply"]) == 0
    assert [p.stem for p in tmp_path.glob("*.ply")] == ["pair"]
    x0, _, x1, _ = json.loads((tmp_path / "pair.json").read_text())["box"]
    assert 180 < (x0 + x1) / 2 < 270


@pytest.mark.integration
def test_the_least_score_of_a_face(tmp_path, capsys):
    write_image(tmp_path / "a.png", data.astronaut())
    arguments = [str(tmp_path / "a.png"), "--out", str(tmp_path)]
    assert main([*arguments, "--min-score", "0.99"]) == 1
    assert main([*arguments, "--min-score", "0.99", "--largest"]) == 1
    assert capsys.readouterr().err.count("a.png: no face found") == 2
    assert main([*arguments, "--min-score", "0.7"]) == 0


@pytest.mark.parametrize(
    ("photo", "options", "message"),
    [
        ("a.png", ["--min-score", "1.5"], "--min-score is 1.5; it must lie between 0 and 1"),
        ("a.png", ["--min-score", "nan"], "--min-score is nan; it must lie between 0 and 1"),
        (".", ["--min-score", "0.5"], "--min-score works on single photos and one video, not on"),
        (".", ["--largest"], "--largest works on single photos, not on a folder"),
        ("a.png", ["--crops"], "--crops works on one folder, not on single photos"),
        ("a.mp4", ["--largest"], "--largest works on single photos, not on a video"),
        ("a.mp4", ["--unit", "cm"], "--unit works on single photos and one folder, not on a vi"),
        ("a.mp4", ["--format", "ply"], "--format ply cannot move; a video gives GLB"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, capsys, photo, options, message):
    with pytest.raises(SystemExit):
        main([str(tmp_path / photo), "--out", str(tmp_path / "out"), *options])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("degrees", [105, 180, -150])
def test_a_head_on_its_side_or_upside_down_is_the_same_face(degrees):
    photo = data.astronaut()
    turned = crop_rotated(photo, np.array([224.0, 120]), 240, -np.deg2rad(degrees), 240)
    reconstructor = Reconstructor.from_preset()
    upright, other = reconstructor.largest(photo), reconstructor.largest(turned.image)
    affine = turned.crop_from_image
    expected = upright.landmarks[:, :2] @ affine[:, :2].T + affine[:, 2]
    size = np.sqrt(np.prod(np.ptp(upright.landmarks[:, :2], axis=0)))
    error = np.linalg.norm(other.landmarks[:, :2] - expected, axis=1).mean() / size
    assert error < 0.03


def test_a_batch_gives_the_good_photos_and_lists_the_bad(tmp_path, preset_folder, capsys):
    write_image(tmp_path / "good.png", data.astronaut())
    write_image(tmp_path / "empty.png", np.full((200, 200, 3), 90, np.uint8))
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    names = ["empty.png", "broken.jpg", "good.png", "missing.png"]
    photos = [str(tmp_path / name) for name in names]
    out = tmp_path / "out"
    assert main([*photos, "--out", str(out), "--preset", str(preset_folder)]) == 1
    listed = capsys.readouterr().err
    assert "empty.png: no face found" in listed
    assert "broken.jpg: not a readable image" in listed
    assert "missing.png: no such photo" in listed
    assert "good.png:" not in listed
    assert (out / "good.obj").is_file() and not list(out.glob("*.partial*"))


def test_nothing_is_left_where_every_photo_failed(tmp_path, preset_folder):
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    out = tmp_path / "new" / "out"
    arguments = ["--out", str(out), "--preset", str(preset_folder)]
    assert main([str(tmp_path / "broken.jpg"), *arguments]) == 1
    assert not out.parent.exists()


def test_photos_of_one_name_do_not_overwrite_each_other(tmp_path, preset_folder, capsys):
    photos = [tmp_path / "a" / "anna.png", tmp_path / "b" / "anna.png"]
    for photo in photos:
        photo.parent.mkdir()
        write_image(photo, data.astronaut())
    options = ["--out", str(tmp_path / "out"), "--preset", str(preset_folder)]
    assert main([*map(str, photos), *options]) == 1
    refused = f"{photos[1]}: its results would overwrite those of {photos[0]}"
    assert refused in capsys.readouterr().err
    assert (tmp_path / "out" / "anna.obj").is_file()


def test_a_photo_with_as_long_a_name_as_there_may_be_has_results_too(tmp_path, preset_folder):
    photo = tmp_path / f"{'顔' * 83}.png"  # 253 bytes, of 255
    write_image(photo, data.astronaut())
    for draw in ([], ["--draw"]):  # the second run replaces the first one's results
        options = ["--out", str(tmp_path / "out"), "--preset", str(preset_folder), *draw]
        assert main([str(photo), *options]) == 0
    (note,) = (tmp_path / "out").glob("*.json")
    assert note.stem == short_name(photo.stem)
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {note.name, *json.loads(note.read_text())["files"]} and len(written) == 6


def test_a_preset_that_is_not_there_is_named(tmp_path, capsys):
    assert main(["a.jpg", "--out", str(tmp_path), "--preset", "nothing"]) == 2
    assert "no preset 'nothing'" in capsys.readouterr().err


def test_a_model_without_uv_gives_a_plain_mesh(tmp_path, spot_preset, open_face, monkeypatch):
    bare = dataclasses.replace(
        spot_preset,
        space=dataclasses.replace(spot_preset.space, face_model=open_face.replace(uv=None)),
    )
    box = FaceBox.square((200.5, 140.5), 150)
    bare_reconstructor = Reconstructor(bare, FixedDetector(box))
    monkeypatch.setattr(Reconstructor, "from_preset", lambda *_: bare_reconstructor)
    write_image(tmp_path / "a.png", photo_with_spots((210, 130)))
    assert main([str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]) == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"a.obj", "a.json", "a_overlay.png"}


@pytest.mark.integration
def test_what_an_earlier_run_left_is_not_this_runs_result(tmp_path, preset_folder, capsys):
    photo, out = tmp_path / "anna.png", tmp_path / "out"
    arguments = [str(photo), "--out", str(out), "--preset", str(preset_folder), "--format", "ply"]
    face = data.astronaut()
    write_image(photo, np.hstack([face, face[:, ::-1]]))
    assert main([*arguments, "--draw"]) == 0
    assert {p.stem for p in out.glob("*.ply")} == {"anna_0", "anna_1"}
    write_image(photo, face)  # fewer faces, and no views now
    assert main(arguments) == 0
    assert {p.name for p in out.iterdir()} == {"anna.ply", "anna.json", "anna_overlay.png"}
    write_image(photo, np.full((200, 200, 3), 90, np.uint8))
    assert main(arguments) == 1
    assert "no face found" in capsys.readouterr().err and not list(out.iterdir())


@pytest.mark.integration
def test_an_input_photo_is_not_written_over(tmp_path, preset_folder, capsys):
    photos = [tmp_path / "anna.png", tmp_path / "anna_overlay.png"]
    for photo in photos:
        write_image(photo, data.astronaut())
    before = photos[1].read_bytes()
    for given in (photos, photos[:1]):  # also where it is only lying there
        options = ["--out", str(tmp_path), "--preset", str(preset_folder)]
        assert main([*map(str, given), *options]) == 1
        assert "anna.png: its results would overwrite" in capsys.readouterr().err
        assert photos[1].read_bytes() == before
        assert not (tmp_path / "anna.json").exists()


def test_an_output_that_is_a_file_is_named_before_the_work(tmp_path, capsys):
    (tmp_path / "out").touch()
    assert main(["missing.jpg", "--out", str(tmp_path / "out")]) == 2
    assert f"{tmp_path / 'out'}: is a file; the results need a folder" in capsys.readouterr().err


@pytest.mark.parametrize("name, what", [("people", "a folder; give one"), ("a.MOV", "a video")])
def test_what_is_no_photo_is_said_before_the_work(tmp_path, capsys, name, what):
    (tmp_path / "people").mkdir()
    assert main(["a.jpg", str(tmp_path / name), "--out", str(tmp_path / "out")]) == 2
    assert f"{tmp_path / name} is {what}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.integration
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_pixels_of_a_reduced_photo_are_reported_and_right(tmp_path, monkeypatch, suffix):
    """Those of the JSON, brought to the photo's by ``photo_reduced_by``, are the whole photo's."""
    photo = tmp_path / f"a.{suffix}"
    write_image(photo, data.astronaut())
    found = {}
    for limit in (512 * 512, 512 * 512 - 1):
        for name in ("MAX_WHOLE_PIXELS", "MAX_PIXELS"):
            monkeypatch.setattr(f"keras_scnn.storage.images.{name}", limit)
        main([str(photo), "--largest", "--preset", "mobile", "--out", str(tmp_path / str(limit))])
        face = json.loads((tmp_path / str(limit) / "a.json").read_text())
        factor = face["photo_reduced_by"]
        assert face["photo_size"] == [512 // factor, 512 // factor]
        found[factor] = (np.array(face["landmarks"])[:, :2] + 0.5) * factor - 0.5
    assert set(found) == {1, 2}
    apart = np.linalg.norm(found[1] - found[2], axis=1)
    assert apart.mean() < 1.5  # the face is 150 px wide


def test_where_no_face_is_confirmed_all_ways_to_look_at_a_photo_agree(tmp_path, capsys):
    """A color wheel, in which BlazeFace sees a face that nothing confirms."""
    pytest.importorskip("pyarrow", reason="extra 'batch' is not installed")
    wheel = data.colorwheel()
    (tmp_path / "photos").mkdir()
    write_image(tmp_path / "photos" / "a.png", wheel)
    reconstructor = Reconstructor.from_preset("mobile")
    assert reconstructor(wheel) == []
    assert PresetPredictor.from_preset("mobile").faces(wheel) is None
    for photos, out in (("photos/a.png", "one"), ("photos", "folder")):
        words = [str(tmp_path / photos), "--out", str(tmp_path / out), "--preset", "mobile"]
        assert main(words) == 1
    assert "a.png: no face found" in capsys.readouterr().err
    assert "a.png,no face found" in (tmp_path / "folder" / "failed.csv").read_text()
    # A photo that is said to show somebody gives it, to all that say so.
    unconfirmed = LargestFaceDetector()(wheel)
    assert reconstructor.largest(wheel).box.score == unconfirmed.score
    assert compare_photos(reconstructor, (wheel, wheel)).distance_mm == 0


def test_faces_know_the_size_of_their_photo(spot_preset):
    image, box = photo_with_spots((210, 130)), FaceBox.square((200.5, 140.5), 150)
    for passes in (1, 2):
        (face,) = reconstruct(spot_preset, image, box, passes=passes)
        assert face.photo_size == (400, 300)
    with pytest.raises(ValueError, match="image is 400 x 200 px; this face was found in a photo"):
        face.texture(image[:200])


def test_boxes_that_are_none_are_refused(spot_preset):
    with pytest.raises(ValueError, match="boxes must be a list of FaceBox"):
        reconstruct(spot_preset, photo_with_spots((210, 130)), [100, 50, 300, 250])
    with pytest.raises(ValueError, match="passes is '2'; it must be 1 or 2"):
        reconstruct(spot_preset, photo_with_spots((210, 130)), FaceBox(0, 0, 9, 9), passes="2")
    for one in (FaceBox(0, 0, 9, 9), None, 4):
        with pytest.raises(ValueError, match=r"boxes must be a list of FaceBox.* as \[box\]"):
            Reconstructor(spot_preset).reconstruct_boxes(photo_with_spots((210, 130)), one)
