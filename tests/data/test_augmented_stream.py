"""Augmentation in the input pipeline: photos and labels change together."""

import keras
import numpy as np
import pytest

from keras_scnn.data.augment import GroupAugmenter
from keras_scnn.data.records import FaceRecords
from keras_scnn.data.samplers import GroupSampler
from keras_scnn.data.stream import group_dataset
from keras_scnn.geometry.landmarks68 import MIRROR68
from keras_scnn.geometry.similarities import move_landmarks
from keras_scnn.models import FaceDecoder
from keras_scnn.models.augmentation import (
    MoveParameters,
    RandomMove,
    photometric_layers,
)
from keras_scnn.parameters import FaceParameters, ParameterSpace, Whitening

pytest.importorskip("tensorflow")

SIZE, MARKED = 64, 30  # the tip of the nose, which is its own mirror partner


@pytest.fixture(scope="module")
def records(open_face) -> FaceRecords:
    """Eight photos of four people that show only a bright dot on the tip of the nose."""
    rng, count = np.random.default_rng(3), 8
    poses = np.zeros((count, 3, 4))
    poses[:, 0, 0], poses[:, 1, 1], poses[:, 2, 2] = 0.2, -0.2, 0.2
    poses[:, :2, 3] = rng.uniform(25, 38, (count, 2))
    identity = np.repeat(rng.normal(0, 0.5, (4, open_face.n_identity)), 2, axis=0)
    expression = np.zeros((count, open_face.n_expression))
    vectors = FaceParameters(poses, identity, expression).to_vector()
    points = open_face.landmarks(identity, expression) @ poses[:, :, :3].transpose(0, 2, 1)
    landmarks = (points + poses[:, None, :, 3]).astype(np.float32)
    y, x = np.mgrid[:SIZE, :SIZE]
    square = (x - landmarks[:, MARKED, 0, None, None]) ** 2
    square = square + (y - landmarks[:, MARKED, 1, None, None]) ** 2
    light = 200 * np.exp(-square / 8)
    images = np.repeat(light[..., None], 3, axis=-1).astype(np.uint8)
    person = np.repeat(np.arange(4, dtype=np.int32), 2)
    return FaceRecords(images, vectors, landmarks, person, "open_face")


def brightest(images) -> np.ndarray:
    """(B, 2) px, x and y of the center of light."""
    light = np.maximum(np.asarray(images, np.float64)[..., 0] - 40, 0)
    y, x = np.mgrid[:SIZE, :SIZE]
    total = light.sum(axis=(1, 2))
    return np.stack([(light * axis).sum(axis=(1, 2)) / total for axis in (x, y)], axis=1)


def test_labels_follow_the_photos_through_the_stream(records, open_face):
    whitening = Whitening.from_samples(records.parameters)
    move = RandomMove(shift=0.04, scale=0.1, degrees=12, flip=0.5, seed=1)
    follow = MoveParameters.of(ParameterSpace(open_face, whitening))
    decode = FaceDecoder.landmarks(ParameterSpace(open_face, whitening))

    def augment(inputs, targets):
        (images,), matrix = move([inputs], training=True)
        targets = dict(targets)
        targets["landmarks"] = move_landmarks(targets["landmarks"], matrix[0], keras.ops)
        targets["parameters"] = follow(targets["parameters"], matrix[0])
        return images, {**targets, "matrix": matrix[0]}

    sampler = GroupSampler(records.identity, people=4, photos=2, seed=2)
    stream = group_dataset(records, whitening, sampler).map(augment)
    seen_mirrored = []
    for inputs, targets in stream.take(6).as_numpy_iterator():
        dot, marked = brightest(inputs), targets["landmarks"][:, MARKED, :2]
        np.testing.assert_allclose(dot, marked, atol=0.3)
        decoded = np.asarray(decode(targets["parameters"]))
        np.testing.assert_allclose(decoded[..., :2], targets["landmarks"][..., :2], atol=0.05)
        seen_mirrored.append(np.linalg.det(targets["matrix"][:, :, :2]) < 0)
    assert 0 < np.mean(seen_mirrored) < 1
    assert MIRROR68[MARKED] == MARKED


@pytest.mark.parametrize("upright", [False, True])
def test_labels_follow_the_photos_that_the_host_augments(records, open_face, upright):
    """Photos differ in each step; an occluder, blur or noise may hide the dot in a few."""
    whitening = Whitening.from_samples(records.parameters)
    decode = FaceDecoder.landmarks(ParameterSpace(open_face, whitening))
    sampler = GroupSampler(records.identity, people=4, photos=2, seed=2)
    augmenter = GroupAugmenter(open_face, np.full(len(records), upright), seed=1)
    stream = group_dataset(records, whitening, sampler, augmenter=augmenter)
    errors, places = [], []
    for images, labels in stream.take(8).as_numpy_iterator():
        decoded = np.asarray(decode(labels["parameters"]))
        np.testing.assert_allclose(decoded[..., :2], labels["landmarks"][..., :2], atol=0.05)
        light = images.astype(np.float64).mean(axis=-1)
        for gray, (x, y) in zip(light, labels["landmarks"][:, MARKED, :2], strict=True):
            rows, columns = np.nonzero(gray > 0.6 * gray.max())
            errors.append(np.hypot(columns.mean() - x, rows.mean() - y))
            places.append((x, y))
    assert np.median(errors) < 0.5
    assert len(np.unique(places, axis=0)) == len(places)


def test_photometric_changes_leave_the_labels_and_differ_from_step_to_step(records):
    whitening = Whitening.from_samples(records.parameters)
    keras.utils.set_random_seed(1)
    change = keras.Sequential(photometric_layers(1.0))
    sampler = GroupSampler(records.identity, people=2, photos=2, seed=2)
    plain = group_dataset(records, whitening, sampler)
    changed = plain.map(lambda x, y: (change(x, training=True), y))
    pairs = zip(plain.take(3), changed.take(3), strict=True)
    differences = []
    for (inputs, targets), (changed_inputs, same_targets) in pairs:
        for name, array in targets.items():
            np.testing.assert_array_equal(array, same_targets[name])
        image = np.asarray(changed_inputs)
        assert image.min() >= 0 and image.max() <= 255
        differences.append(np.abs(image - np.asarray(inputs, np.float32)).mean())
    assert min(differences) > 1
    assert len(set(differences)) == 3
