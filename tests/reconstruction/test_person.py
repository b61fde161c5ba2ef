import dataclasses
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from keras_scnn.data.records import load_records
from keras_scnn.data.synthesis.rendered_people import SyntheticConfig, render_records
from keras_scnn.geometry.camera import compose
from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.io import write_image
from keras_scnn.meshes.options import MeshOptions
from keras_scnn.parameters import FaceParameters
from keras_scnn.photos.cropping import FaceBox
from keras_scnn.reconstruction.faces import Reconstruction
from keras_scnn.reconstruction.person import (
    Fusion,
    Person,
    _far,
    _mean_direction,
    _reconstructed,
    fuse,
    others_center,
    person_weights,
    reconstruct_person,
    robust_limit,
    with_identity,
)
from keras_scnn.reconstruction.reconstructor import Reconstructor
from keras_scnn.shape_distance import shape_coordinates


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(6)


def face_of(model, identity, yaw=0.0, width=120.0, score=0.9, features=None) -> Reconstruction:
    pose = compose(rotation_from_euler(np.deg2rad([5.0, yaw, 3.0])), 0.5, np.array([90.0, 80, 0]))
    expression = np.random.default_rng(1).uniform(0, 0.3, model.n_expression)
    box = FaceBox.square((90, 80), width, score)
    return Reconstruction(model, FaceParameters(pose, identity, expression), box, features)


@pytest.mark.parametrize("count", [3, 5, 11])
def test_equal_photos_have_equal_weights(count):
    """A product of matrices may round the last row differently, which then was an outlier."""
    vectors = np.tile(np.random.default_rng(count).normal(size=80), (count, 1))
    vectors[-1] += 1e-8
    np.testing.assert_allclose(fuse(vectors, np.ones(count)).weights, 1 / count)


def test_equal_worth_gives_the_mean_where_all_agree(rng):
    vectors = np.eye(6)  # all pairs equally far apart
    result = fuse(vectors, np.ones(6))
    np.testing.assert_allclose(result.weights, 1 / 6)
    np.testing.assert_allclose(result.center, 1 / 6)
    np.testing.assert_allclose(result.distance, np.sqrt(1 + 1 / 5))  # from the mean of five others


def test_the_others_center_is_that_of_a_slow_loop(rng):
    vectors, weights = rng.normal(size=(7, 3)), rng.random(7)
    for i, result in enumerate(others_center(vectors, weights)):
        rest = np.arange(7) != i
        np.testing.assert_allclose(result, np.average(vectors[rest], axis=0, weights=weights[rest]))
    np.testing.assert_array_equal(others_center(vectors[:1], weights[:1]), vectors[:1])


def test_a_measurement_that_disagrees_counts_less(rng):
    vectors = rng.normal(size=(9, 4))
    vectors[0] += 20
    result = fuse(vectors, np.ones(9))
    assert result.weights[0] < 0.2 / 9
    assert np.linalg.norm(result.center) < 0.3 * np.linalg.norm(vectors.mean(axis=0))
    assert result.distance.argmax() == 0


def test_measurements_within_two_robust_deviations_count_by_their_quality():
    """By hand: 0 is the weighted mean, so x is |x| 7 / (7 - quality) away from that of the others.

    These distances have the median 2.8 and the MAD 0.7; the limit is 4.88, and the last is 4.67.
    """
    points, quality = np.array([[-3.0], [-2], [-1], [2], [4]]), np.array([1.0, 2, 1, 2, 1])
    result = fuse(points, quality)
    np.testing.assert_allclose(result.distance, [3.5, 2.8, 7 / 6, 2.8, 14 / 3], rtol=1e-9)
    assert robust_limit(result.distance, 2) == pytest.approx(2.8 + 2 * 1.4826 * 0.7, rel=1e-4)
    np.testing.assert_allclose(result.weights, quality / 7, rtol=1e-9)


def test_outliers_count_equally_little_far_from_the_origin(rng):
    vectors, worth = rng.normal(size=(9, 4)), rng.random(9) + 0.5
    vectors[0] += 20
    near, far = fuse(vectors, worth), fuse(vectors + [300, -100, 50, 0], worth)
    assert near.weights[0] < 0.01
    np.testing.assert_allclose(far.weights, near.weights, atol=1e-5)
    np.testing.assert_allclose(far.distance, near.distance, atol=1e-3)


def test_measurements_of_no_worth_have_no_part(rng):
    vectors, worth = rng.normal(size=(12, 4)), np.repeat([1.0, 0], [7, 5])
    vectors[0] += 20
    vectors[7:] += 50
    result, alone = fuse(vectors, worth), fuse(vectors[:7], worth[:7])
    np.testing.assert_allclose(result.weights, np.append(alone.weights, np.zeros(5)), atol=1e-9)
    np.testing.assert_allclose(result.center, alone.center, atol=1e-9)


def test_those_that_agree_exactly_outvote_the_rest():
    result = fuse(np.array([[0.0], [0], [0], [7]]), np.ones(4))
    np.testing.assert_allclose(result.weights, [1 / 3, 1 / 3, 1 / 3, 0], atol=1e-12)
    result = fuse(np.array([[0.0], [0], [0], [7]]), np.array([0.0, 0, 0, 2]))
    np.testing.assert_allclose(result.weights, [0, 0, 0, 1])


def test_the_order_does_not_matter_and_the_frame_neither(rng):
    vectors, worth = rng.normal(size=(8, 3)), rng.random(8) + 0.1
    result, order = fuse(vectors, worth), rng.permutation(8)
    turned = fuse(vectors[order] @ rotation_from_euler(np.array([0.3, 1, 2])) + 5, worth[order])
    np.testing.assert_allclose(turned.weights, result.weights[order], atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "worth", "message"),
    [
        ((0, 3), [], "n above 0"),
        ((2, 3), [1.0], "shapes"),
        ((2, 3), [0.0, 0.0], "positive sum"),
        ((2, 3), [1.0, -1.0], "at least 0"),
        ((2, 3), [1.0, np.nan], "at least 0"),
        ((2, 3), [1.0, np.inf], "quality must be finite"),
        ((3,), [1.0, 1.0, 1.0], "shapes"),
    ],
)
def test_measurements_that_cannot_be_fused_are_refused(shape, worth, message):
    with pytest.raises(ValueError, match=message):
        fuse(np.zeros(shape), worth)


def test_vectors_that_are_not_finite_cannot_be_fused():
    with pytest.raises(ValueError, match="vectors must be finite"):
        fuse(np.array([[0.0], [np.nan]]), np.ones(2))


def test_a_stranger_is_found_by_shape_or_by_features(tiny_face_model, rng):
    shapes = rng.normal(0, 0.1, (8, 6))
    shapes[3] += 4
    weights, reasons = person_weights([face_of(tiny_face_model, shape) for shape in shapes])
    assert list(reasons) == [3]
    assert "shape" in reasons[3]
    assert "mm" in reasons[3]
    assert weights[3] == 0
    assert weights.sum() == pytest.approx(1)

    directions = np.eye(10)[0] + rng.normal(0, 0.1, (8, 10))
    directions[5] = np.eye(10)[1]
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    alike = [
        face_of(tiny_face_model, s, features=f) for s, f in zip(shapes * 0, directions, strict=True)
    ]
    weights, reasons = person_weights(alike)
    assert list(reasons) == [5]
    assert "feature" in reasons[5]


def test_of_two_photos_neither_is_taken_for_the_strangers(tiny_face_model):
    faces = [face_of(tiny_face_model, np.full(6, value)) for value in (0.0, 5.0)]
    weights, reasons = person_weights(faces)
    assert reasons == {}
    np.testing.assert_allclose(weights, 0.5)


def test_a_bad_photo_is_not_taken_for_a_stranger(tiny_face_model, rng):
    shapes = rng.normal(0, 0.2, (9, 6))
    shapes[0] += 0.7
    good, small = ([face_of(tiny_face_model, s, width=w) for s in shapes] for w in (120, 120))
    small[0] = face_of(tiny_face_model, shapes[0], width=12)
    assert list(person_weights(good)[1]) == [0]
    weights, reasons = person_weights(small)
    assert reasons == {}
    assert weights[0] < 0.5 / 9


@pytest.mark.parametrize(("distance", "is_far"), [(5.9, False), (6.1, True)])
def test_how_far_is_too_far_grows_with_the_standard_deviation(distance, is_far):
    """Worth is an inverse variance: a quarter of it is twice the standard deviation."""
    fused = Fusion(np.full(5, 0.2), np.zeros(1), np.array([1.0, 1, 1, 1, distance]))
    reasons = _far(fused, np.array([1.0, 1, 1, 1, 0.25]), 3.0, "shape", "mm")
    assert list(reasons) == ([4] if is_far else [])


def test_the_reason_has_the_distances_as_they_are_whatever_the_photos_are_worth():
    fused = Fusion(np.full(5, 0.2), np.zeros(1), np.array([1.0, 1.2, 1.4, 1.1, 40]))
    reasons = _far(fused, np.array([1.0, 1, 1, 4, 1]), 3.0, "shape", "mm")
    words = "its shape is 40.00 mm away from the person's other photos; the median photo is 1.20"
    assert reasons == {4: words}
    assert "feature is 40.00 away" in _far(fused, np.ones(5), 3.0, "feature", "")[4]


def test_a_photo_that_is_left_out_is_named_once(tmp_path):
    def reconstruct(image):
        raise ValueError("no face found")

    image = np.zeros((9, 9, 3), np.uint8)
    write_image(tmp_path / "a.png", image)
    faces, left_out = _reconstructed([tmp_path / "a.png", image, tmp_path / "b.png"], reconstruct)
    assert faces == {}
    assert (left_out[0], left_out[1]) == ("a.png: no face found", "no face found")
    assert left_out[2].count("b.png") == 1 and "no such photo" in left_out[2]


def test_of_three_photos_one_may_be_a_strangers():
    fused = Fusion(np.full(3, 1 / 3), np.zeros(1), np.array([1.0, 1.1, 40]))
    for worth in (0.1, 1, 7):  # of all photos alike
        assert list(_far(fused, np.full(3, worth), 3.0, "shape", "mm")) == [2]
    assert _far(fused, np.array([9.0, 9, 0.05]), 3.0, "shape", "mm") == {}
    two = Fusion(np.full(2, 0.5), np.zeros(1), np.array([1.0, 40]))
    assert _far(two, np.ones(2), 3.0, "shape", "mm") == {}


def test_a_persons_feature_is_the_direction_of_the_weighted_mean(tiny_face_model):
    features = np.array([[1.0, 0, 0], [0.6, 0.8, 0]])
    faces = [face_of(tiny_face_model, np.zeros(6), features=one) for one in features]
    # By hand: 3 (1, 0, 0) + (0.6, 0.8, 0) is (3.6, 0.8, 0) before it is normalized.
    result = _mean_direction(faces, np.array([0.75, 0.25]))
    np.testing.assert_allclose(result, np.array([3.6, 0.8, 0]) / np.hypot(3.6, 0.8))
    bare = [face_of(tiny_face_model, np.zeros(6))] * 2
    assert _mean_direction(bare, np.array([0.75, 0.25])) is None


def test_two_strangers_among_five_are_found(tiny_face_model, rng):
    shapes = rng.normal(0, 0.1, (5, 6))
    shapes[1, 0] += 6
    shapes[4, 3] -= 6
    weights, reasons = person_weights([face_of(tiny_face_model, shape) for shape in shapes])
    assert list(reasons) == [1, 4]
    assert weights[[1, 4]].tolist() == [0, 0]


def test_of_five_photos_four_are_not_left_out(tiny_face_model, rng):
    """Two look like somebody else by their shapes, and two more by their features: who is it?"""
    shapes, features = rng.normal(0, 0.1, (5, 6)), np.eye(10)[0] + rng.normal(0, 0.1, (5, 10))
    shapes[3, 0] += 6
    shapes[4, 3] -= 6
    features[:2] = np.eye(10)[1:3]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    by_shape = [face_of(tiny_face_model, one) for one in shapes]
    by_feature = [face_of(tiny_face_model, shapes[0], features=one) for one in features]
    assert [list(person_weights(faces)[1]) for faces in (by_shape, by_feature)] == [[3, 4], [0, 1]]
    pairs = zip(by_shape, features, strict=True)
    weights, reasons = person_weights([dataclasses.replace(a, features=b) for a, b in pairs])
    assert reasons == {} and (weights > 0).all()


def test_the_same_identity_changes_nothing(open_face, rng):
    face = face_of(open_face, rng.normal(0, 1, open_face.n_identity), yaw=20)
    again = with_identity(face, face.parameters.identity)
    np.testing.assert_allclose(again.landmarks, face.landmarks, atol=0.01)
    np.testing.assert_allclose(again.parameters.expression, face.parameters.expression, atol=0.01)
    np.testing.assert_allclose(again.euler_degrees, face.euler_degrees, atol=0.05)


def test_pose_and_expression_follow_the_landmarks(open_face, rng):
    identity = rng.normal(0, 1, open_face.n_identity)
    face = face_of(open_face, identity, yaw=-30)
    other = identity + rng.normal(0, 0.7, open_face.n_identity)
    parameters = dataclasses.replace(face.parameters, identity=other)
    before = dataclasses.replace(face, parameters=parameters)
    after = with_identity(face, other)
    miss = [
        np.linalg.norm((f.landmarks - face.landmarks)[:, :2], axis=1).mean()
        for f in (before, after)
    ]
    assert miss[1] < 0.75 * miss[0]
    np.testing.assert_array_equal(after.parameters.identity, other)
    low, high = open_face.expression_bounds.T
    assert (after.parameters.expression >= low).all()
    assert (after.parameters.expression <= high).all()


@pytest.mark.parametrize("stretch", [0.95, 1.05])
def test_a_camera_that_fits_better_than_any_scaled_rotation_is_kept(open_face, rng, stretch):
    """As networks predict them, a little wider or narrower than high."""
    face = face_of(open_face, rng.normal(0, 1, open_face.n_identity), yaw=20)
    pose = face.parameters.pose * np.array([[stretch], [1], [1]])
    face = dataclasses.replace(face, parameters=dataclasses.replace(face.parameters, pose=pose))
    kept = with_identity(face, face.parameters.identity).parameters
    np.testing.assert_array_equal(kept.pose, pose)
    np.testing.assert_array_equal(kept.expression, face.parameters.expression)


def test_a_fused_person_has_one_face_in_all_photos(tiny_face_model, rng, tmp_path):
    known = {}
    for i in range(6):
        image = np.full((9, 9, 3), i, np.uint8)
        known[i] = face_of(tiny_face_model, rng.normal(0, 0.1, 6), yaw=10 * i)
        write_image(tmp_path / f"{i}.png", image)
    known[2] = face_of(tiny_face_model, np.full(6, 4.0))

    def reconstruct(image):
        if image[0, 0, 0] not in known:
            raise ValueError("no face found")
        return known[image[0, 0, 0]]

    photos = [np.full((9, 9, 3), 99, np.uint8), *(tmp_path / f"{i}.png" for i in range(7))]
    result = reconstruct_person(photos, reconstruct)
    assert set(result.left_out) == {0, 7}
    assert result.left_out[0] == "no face found"
    assert "6.png: no such photo" in result.left_out[7]
    assert list(result.outliers) == [3]
    np.testing.assert_array_equal(result.weights == 0, [i in (0, 3, 7) for i in range(8)])
    assert result.weights.sum() == pytest.approx(1)
    expected = sum(result.weights[i + 1] * known[i].parameters.identity for i in range(6))
    np.testing.assert_allclose(result.identity, expected)
    for i, face in enumerate(result.faces):
        assert (face is None) == (i in (0, 3, 7))
        if face is not None:
            np.testing.assert_array_equal(face.neutral_vertices, result.neutral_vertices)
            assert face.box == known[i - 1].box
    assert result.features is None


def test_no_photo_with_a_face_is_an_error():
    def blind(image):
        raise ValueError("no face found")

    with pytest.raises(ValueError, match="none of 2 photos shows a face; the first: no face"):
        reconstruct_person([np.zeros((9, 9, 3), np.uint8)] * 2, blind)
    with pytest.raises(ValueError, match="none of 0 photos"):
        reconstruct_person([], blind)


@pytest.fixture(scope="module")
def reconstructor() -> Reconstructor:
    return Reconstructor.from_preset()


def test_photos_of_an_astronaut_give_one_astronaut(reconstructor):
    photo = np.ascontiguousarray(data.astronaut())
    small = np.ascontiguousarray(photo[::3, ::3])
    result = reconstructor.fit_person([photo, np.zeros_like(photo), small])
    assert list(result.left_out) == [1]
    assert result.weights[0] > result.weights[2] > 0.05  # the small one counts less
    own = reconstructor.largest(photo)
    shift = np.linalg.norm((own.landmarks - result.faces[0].landmarks)[:, :2], axis=1).mean()
    assert shift < 0.02 * own.box.width
    assert result.neutral_vertices.shape == own.neutral_vertices.shape


def test_two_halves_of_a_synthetic_persons_photos_agree_more_than_the_photos(
    reconstructor, open_face, tmp_path
):
    render_records(SyntheticConfig(people=1, photos=12, yaw_degrees=30), tmp_path, workers=1)
    whole = FaceBox(0, 0, 120, 120)
    faces = [
        reconstructor.reconstruct_boxes(np.asarray(image), [whole], passes=1)[0]
        for image in load_records(tmp_path).images
    ]
    halves = faces[::2], faces[1::2]
    own = [np.stack([face.parameters.identity for face in half]) for half in halves]
    fused = [person_weights(half)[0] @ identity for half, identity in zip(halves, own, strict=True)]
    distance, single = (
        np.linalg.norm(shape_coordinates(open_face, one - two), axis=-1).mean()
        for one, two in (fused, (own[0][:, None], own[1]))
    )
    assert distance < 0.7 * single


def two_photos(model) -> tuple[Person, list[np.ndarray]]:
    """A person in a red and in a blue photo; the blue one counts more, and a third not at all."""
    faces = (face_of(model, np.zeros(model.n_identity)), face_of(model, np.ones(80) * 0.1), None)
    weights = np.array([0.3, 0.7, 0.0])
    person = Person(model, np.zeros(model.n_identity), weights, faces, {2: "far"}, {})
    red, blue = (
        np.full((160, 180, 3), color, np.uint8) for color in ((170, 90, 90), (90, 90, 170))
    )
    return person, [red, blue, np.zeros((5, 5, 3), np.uint8)]


def test_a_persons_texture_has_the_colors_of_the_photo_that_counts_most(open_face, tmp_path):
    person, photos = two_photos(open_face)
    write_image(tmp_path / "blue.png", photos[1])
    texture = person.texture([photos[0], tmp_path / "blue.png", tmp_path / "not_there.png"])
    nose = open_face.uv[open_face.landmark_indices[30]] * [1, -1] + [0, 1]
    column, row = (nose * len(texture)).astype(int)
    np.testing.assert_allclose(texture[row, column].astype(int), (90, 90, 170), atol=8)


def test_a_person_is_written_with_and_without_texture(open_face, tmp_path):
    person, photos = two_photos(open_face)
    person.write_mesh(tmp_path / "plain.glb")
    person.write_mesh(tmp_path / "textured.glb", photos, MeshOptions(baked=True))
    sizes = [(tmp_path / f"{name}.glb").stat().st_size for name in ("plain", "textured")]
    assert sizes[1] > sizes[0] > 100_000
    assert b"baseColorTexture" not in (tmp_path / "plain.glb").read_bytes()


def test_other_photos_than_the_persons_are_refused(open_face, tmp_path):
    person, photos = two_photos(open_face)
    message = "2 photos for a person made from 3; give the same ones again"
    with pytest.raises(ValueError, match=message):
        person.texture(photos[:2])
    with pytest.raises(ValueError, match="expected .H, W, 3. uint8"):
        person.write_mesh(tmp_path / "a.glb", [photos[0], photos[1] / 255, photos[2]])
    with pytest.raises(ValueError, match="suffix '.stl'"):
        person.write_mesh(tmp_path / "a.stl", photos)
    with pytest.raises(FileNotFoundError, match="a.glb: there is no folder .*no; create it first"):
        person.write_mesh(tmp_path / "no" / "a.glb", photos)
    assert not list(tmp_path.iterdir())


@pytest.mark.integration
def test_photos_of_another_size_are_refused(open_face, tmp_path):
    person, photos = two_photos(open_face)
    seen = dataclasses.replace(person.faces[0], photo_size=(180, 160))
    person = dataclasses.replace(person, faces=(seen, *person.faces[1:]))
    assert person.texture(photos).shape[2] == 3
    with pytest.raises(ValueError, match="image is 180 x 150 px; this face .* of 180 x 160 px"):
        person.texture([photos[0][:150], *photos[1:]])
    with pytest.raises(ValueError, match="image is 180 x 150 px"):
        seen.write_mesh(tmp_path / "face.obj", photos[0][:150])
    with pytest.raises(ValueError, match="image is not a photo"):
        seen.write_mesh(tmp_path / "face.obj", "photo.jpg")
    assert list(tmp_path.iterdir()) == []


PHOTO = np.zeros((160, 180, 3), np.uint8)


@pytest.mark.parametrize(
    ("photos", "message"),
    [
        ([], "none of 0 photos shows a face; no photo was given"),
        (iter(()), "no photo was given"),
        (None, "photos is NoneType; give a list of photos or paths"),
        ([None], r"photo 0 is NoneType; expected a path or an \(H, W, 3\) uint8 array"),
        ([PHOTO, "a.png", 1], "photo 2 is int; expected a path"),
        ([PHOTO, b"a.png"], "photo 1 is bytes; expected a path"),
        (iter([PHOTO, [PHOTO]]), "photo 1 is list; expected a path"),
    ],
)
def test_an_invalid_list_of_photos_is_refused_before_any_work(open_face, photos, message):
    with pytest.raises(ValueError, match=message):
        reconstruct_person(photos, lambda _: pytest.fail("a photo was reconstructed"))


@pytest.mark.parametrize(
    ("photos", "message"),
    [
        ([PHOTO, 1, PHOTO], "photo 1 is int"),
        (5, "photos is int; give a list"),
        ([], "0 photos for a person made from 3; give the same ones again"),
    ],
)
def test_a_persons_look_is_made_only_of_photos(open_face, tmp_path, photos, message):
    person = two_photos(open_face)[0]
    with pytest.raises(ValueError, match=message):
        person.texture(photos)
    with pytest.raises(ValueError, match=message):
        person.write_mesh(tmp_path / "a.glb", photos)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.integration
def test_photos_may_come_from_a_generator(open_face, tmp_path):
    person, photos = two_photos(open_face)
    seen = iter(person.faces[:2])
    found = reconstruct_person((photo for photo in photos[:2]), lambda _: next(seen))
    assert len(found.faces) == len(found.weights) == 2 and not found.left_out
    np.testing.assert_array_equal(person.texture(iter(photos)), person.texture(photos))
    person.write_mesh(tmp_path / "a.ply", iter(photos))
    assert (tmp_path / "a.ply").is_file()


@pytest.mark.parametrize("photos", ["photo.jpg", Path("photo.jpg"), np.zeros((8, 8, 3), np.uint8)])
def test_a_single_photo_instead_of_a_list_is_refused(open_face, photos):
    with pytest.raises(ValueError, match="photos is a single photo; give a list"):
        reconstruct_person(photos, None)
    with pytest.raises(ValueError, match="photos is a single photo; give a list"):
        two_photos(open_face)[0].texture(photos)
