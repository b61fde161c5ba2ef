import dataclasses

import numpy as np
import pytest
from skimage import data

from keras_scnn.data.labels.fit import Labeling
from keras_scnn.data.photo_source import LabeledPhoto, PhotoSource
from keras_scnn.data.records import part_of
from keras_scnn.data.synthesis.turned_copies import turn_limits, with_turned_copies
from keras_scnn.geometry.camera import decompose, project
from keras_scnn.geometry.rotations import euler_from_rotation
from keras_scnn.models import preset_face_model
from keras_scnn.parameters import FaceParameters, ParameterLayout
from keras_scnn.reconstruction.reconstructor import Reconstructor

LAYOUT = ParameterLayout(80, 52)


class Astronauts(PhotoSource):
    """The same photo three times, under three names; the last one cannot be read again."""

    def __init__(self):
        # The preset whose landmark sites the fitted model has.
        (face,) = Reconstructor.from_preset("aflw-mobilenet-0.5")(data.astronaut())
        self.landmarks, self.reads = face.landmarks, 0

    def names(self) -> list[str]:
        return ["a/1", "b/1", "c/1"]

    def person(self, name: str) -> str:
        return name[0]

    def load(self, name: str) -> LabeledPhoto:
        self.reads += name == "c/1"
        if self.reads > 1:
            raise ValueError("gone")
        return LabeledPhoto(name, name[0], self.landmarks, np.ones(68), data.astronaut)


@pytest.fixture(scope="module")
def model():
    return preset_face_model("aflw-mobilenet-0.5")


@pytest.fixture(scope="module")
def turned(model):
    """The records before and after; the copies that are missing are tested here."""
    source = Astronauts()
    _, records, _ = Labeling(model).records(source, source.names())
    records = dataclasses.replace(records, embedding=np.arange(6.0).reshape(3, 2))
    after, missing = with_turned_copies(records, source, model, count=2)
    assert missing == {"c/1#1": "gone", "c/1#2": "gone"}
    return records, after


def test_a_face_model_that_cannot_be_textured_turns_no_face(turned, model):
    """Such as FLAME. Before, no copies were made, without an error."""
    flat = model.replace(uv=None)
    with pytest.raises(ValueError, match="face model 'open_face' has no uv"):
        Labeling(flat, turned=2)
    with pytest.raises(ValueError, match="face model 'open_face' has no uv"):
        with_turned_copies(turned[0], Astronauts(), flat, count=2)


def test_each_photo_that_can_be_read_has_its_copies(turned):
    before, after = turned
    assert after.name.tolist() == ["a/1", "b/1", "c/1", "a/1#1", "a/1#2", "b/1#1", "b/1#2"]
    np.testing.assert_array_equal(after.identity, [0, 1, 2, 0, 0, 1, 1])
    np.testing.assert_array_equal(after.embedding[:, 0], [0, 2, 4, 0, 0, 2, 2])
    np.testing.assert_array_equal(after.images[:3], before.images)


def test_records_without_names_are_refused(turned, model):
    unnamed = dataclasses.replace(turned[0], name=None)
    with pytest.raises(ValueError, match="name and crop_from_image"):
        with_turned_copies(unnamed, Astronauts(), model, count=1)


def test_copies_show_the_same_person_from_other_sides(turned):
    _, after = turned
    parameters = FaceParameters.from_vector(after.parameters, LAYOUT)
    np.testing.assert_array_equal(parameters.identity[3], parameters.identity[0])
    np.testing.assert_array_equal(parameters.expression[3], parameters.expression[0])
    yaw = np.rad2deg(euler_from_rotation(decompose(parameters.pose)[0])[:, 1])
    assert np.abs(yaw - yaw[0]).max() <= 46
    assert len(set(yaw[3:].round(3))) == 4, "each copy has a turn of its own"
    assert np.abs(yaw[3:] - yaw[0]).max() > 10


def test_copies_are_standard_crops_with_their_landmarks(turned, model):
    _, after = turned
    parameters = FaceParameters.from_vector(after.parameters.astype(float), LAYOUT)
    expected = project(parameters.pose, model.landmarks(parameters.identity, parameters.expression))
    np.testing.assert_allclose(after.landmarks[3:], expected[3:], atol=1e-2)
    extent = np.linalg.norm(np.ptp(after.landmarks[3:, :, :2], axis=1), axis=1)
    np.testing.assert_allclose(extent, 120, rtol=0.01)


def test_a_network_finds_the_turned_faces_where_the_labels_say(turned):
    """The released network, which has never seen them, is the witness."""
    from keras_scnn.models import load_preset
    from keras_scnn.models.inference import predict

    _, after = turned
    outputs = predict(load_preset("aflw-mobilenet-0.5"), after.images)
    error = np.linalg.norm(outputs.landmarks[..., :2] - after.landmarks[..., :2], axis=-1)
    assert error.mean(axis=1).max() < 5
    yaw = np.rad2deg(outputs.euler[:, 1])
    pose = FaceParameters.from_vector(after.parameters, LAYOUT).pose
    expected = np.rad2deg(euler_from_rotation(decompose(pose)[0])[:, 1])
    np.testing.assert_allclose(yaw, expected, atol=12)


def test_the_turns_depend_only_on_the_name(turned, model):
    before, after = turned
    source = Astronauts()
    one = dataclasses.replace(
        before, **{name: getattr(before, name)[1:2] for name in before.arrays()}
    )
    again, _ = with_turned_copies(one, source, model, count=2)
    np.testing.assert_array_equal(again.images[1:], after.images[5:])
    assert (after.parameters[3:5] != after.parameters[5:]).any()


@pytest.mark.parametrize(
    ("yaw", "limits"),
    [(0, (-45, 45)), (20, (-21, 45)), (-20, (-45, 21)), (50, (-10, 25)), (-90, (0, 10))],
)
def test_what_the_photo_hides_is_not_turned_to_the_front(yaw, limits):
    np.testing.assert_allclose(turn_limits(yaw), limits, atol=1e-9)


def test_copies_of_records_without_weights_have_none(turned, model):
    """None stands for 1, which is what copies have."""
    one = part_of(turned[0], np.array([1]))
    source = Astronauts()
    weighted, plain = (
        with_turned_copies(dataclasses.replace(one, weight=weight), source, model, count=1)[0]
        for weight in (one.weight, None)
    )
    assert plain.weight is None
    np.testing.assert_array_equal(weighted.weight[1:], np.ones((1, 68)))
    for name in ("images", "parameters", "landmarks", "identity", "name"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(weighted, name))
