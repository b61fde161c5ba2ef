"""Keras weighs samples only where a loss gives one value a sample."""

import keras
import numpy as np
import pytest

from keras_scnn.losses import (
    WPDC,
    ContrastiveLoss,
    EmbeddingDistance,
    ExponentialContrastiveLoss,
    GroupContrastiveLoss,
    IdentityLoss,
    LandmarkDistance,
    ParameterLoss,
    RelationalLoss,
    SupervisedContrastiveLoss,
    VertexDistance,
)
from keras_scnn.parameters import ParameterSpace

COUNT = 6
RNG = np.random.default_rng(0)
WEIGHTS = np.float32([0, 1, 2, 0.5, 3, 0.25])
SAME = np.float32([1, 0, 0, 1, 0, 1])
POINTS = np.concatenate([RNG.normal(60, 9, (COUNT, 68, 3)), np.ones((COUNT, 68, 1))], axis=-1)


@pytest.fixture
def space(tiny_face_model, tiny_whitening):
    return ParameterSpace(tiny_face_model, tiny_whitening)


def vectors(size: int) -> np.ndarray:
    return RNG.normal(size=(COUNT, size)).astype(np.float32)


def cases(space) -> dict:
    """Loss, label and output of each loss whose value for a sample does not depend on others."""
    parameters = [vectors(space.layout.size) for _ in range(2)]
    distance = np.float32([0.5, 0.2, 1.5, 2, 0.1, 0.7])
    points = np.float32(POINTS)
    return {
        "wpdc": (WPDC(space), *parameters),
        "parameters": (ParameterLoss(space, 0.02, 0.3), *parameters),
        "vertices": (VertexDistance(space), *parameters),
        "landmarks": (LandmarkDistance(10.0, 0.3), points, points[..., :3] + 1),
        "contrast": (ContrastiveLoss(margin=1.0), SAME, distance),
        "exponential": (ExponentialContrastiveLoss(2.0), SAME, distance),
        "identity": (IdentityLoss(0.2), SAME, np.float32(np.cos(distance))),
        "teacher": (EmbeddingDistance(), vectors(4), vectors(4)),
    }  # fmt: skip


NAMES = (
    "wpdc", "parameters", "vertices", "landmarks", "contrast", "exponential", "identity", "teacher"
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_samples_are_honored(space, name):
    loss, label, output = cases(space)[name]
    alone = [float(loss(label[i : i + 1], output[i : i + 1])) for i in range(COUNT)]
    assert float(loss(label, output)) == pytest.approx(np.mean(alone), rel=1e-5)
    weighted = float(loss(label, output, sample_weight=WEIGHTS))
    # Keras' own losses: the weighted sum over the number of samples.
    assert weighted == pytest.approx(np.mean(WEIGHTS * alone), rel=1e-5)


def test_photos_of_a_supervised_contrast_are_weighed():
    person, features = np.array([0, 0, 1, 1, 2, 3]), vectors(4)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    loss = SupervisedContrastiveLoss(0.5)
    whole = float(loss(person, features))
    parts = [float(loss(person, features, sample_weight=np.eye(6)[i])) for i in range(6)]
    assert sum(parts) == pytest.approx(whole, rel=1e-5)
    assert parts[4] == parts[5] == 0  # nobody else shows these people


@pytest.mark.parametrize("loss", [GroupContrastiveLoss(margin=1.0), RelationalLoss()])
def test_losses_of_pairs_of_photos_refuse_weights_of_photos(loss):
    label = np.array([0, 0, 1, 1, 2, 2]) if loss.name.startswith("group") else vectors(3)
    with pytest.raises(ValueError, match=f"{loss.name} compares pairs .* no sample_weight"):
        loss(label, vectors(4), sample_weight=WEIGHTS)
    assert np.isfinite(float(loss(label, vectors(4))))


def one_output(loss) -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    outputs = keras.layers.Dense(1, activation="tanh")(inputs)
    network = keras.Model(inputs, keras.layers.Reshape(())(outputs))
    network.compile(keras.optimizers.SGD(0.1), loss)
    return network


def test_class_weights_are_honored_in_training():
    inputs, results = vectors(3), []
    weights = {0: 0.25, 1: 2.0}
    for options in (
        {"class_weight": weights},
        {"sample_weight": np.float32([weights[int(same)] for same in SAME])},
    ):
        network = one_output(IdentityLoss(0.2))
        network.train_on_batch(inputs, SAME, **options)
        results.append(network.get_weights())
    plain = one_output(IdentityLoss(0.2))
    plain.train_on_batch(inputs, SAME)
    for one, other, unweighted in zip(*results, plain.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
        assert abs(one - unweighted).max() > 1e-3
