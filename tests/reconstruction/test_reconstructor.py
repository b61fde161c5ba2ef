"""A photo to faces: where meshes land, which crops are seen, what is refused."""

import dataclasses
import json

import cv2
import keras
import numpy as np
import pytest
from keras import ops
from skimage import data

from keras_scnn.geometry.camera import angle_in_image, compose
from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.io import write_image
from keras_scnn.models import Preset
from keras_scnn.parameters import FaceParameters, ParameterSpace, Whitening
from keras_scnn.photos.cropping import (
    FaceBox,
    box_from_landmarks,
    crop_face,
    crop_rotated,
    crop_upright,
)
from keras_scnn.reconstruct import main
from keras_scnn.reconstruction.faces import Faces
from keras_scnn.reconstruction.reconstructor import Reconstructor

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
    expression[0] = 1.7  # beyond the bound of 1, as a network may predict
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
        (1, [FaceBox(0, 0, 9, 9)] * 2, "1 images, 2 boxes; give one box per image"),
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


def test_an_unknown_number_of_passes_is_refused(spot_preset):
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


def test_faces_know_the_size_of_their_photo(spot_preset):
    image, box = photo_with_spots((210, 130)), FaceBox.square((200.5, 140.5), 150)
    for passes in (1, 2):
        (face,) = reconstruct(spot_preset, image, box, passes=passes)
        assert face.photo_size == (400, 300)
    with pytest.raises(ValueError, match="image is 400 x 200 px; this face was found in a photo"):
        face.texture(image[:200])


def test_invalid_boxes_are_refused(spot_preset):
    with pytest.raises(ValueError, match="boxes must be a list of FaceBox"):
        reconstruct(spot_preset, photo_with_spots((210, 130)), [100, 50, 300, 250])
    with pytest.raises(ValueError, match="passes is '2'; it must be 1 or 2"):
        reconstruct(spot_preset, photo_with_spots((210, 130)), FaceBox(0, 0, 9, 9), passes="2")
    for one in (FaceBox(0, 0, 9, 9), None, 4):
        with pytest.raises(ValueError, match=r"boxes must be a list of FaceBox.* as \[box\]"):
            Reconstructor(spot_preset).reconstruct_boxes(photo_with_spots((210, 130)), one)


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
