"""A batch in parts has the losses and gradients of the whole one."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from xla_flags import FAST

from keras_scnn.losses import SupervisedContrastiveLoss
from keras_scnn.models.micro_batches import InParts

TESTS = Path(__file__).resolve().parents[1]
ROWS, PARTS = 12, 3


def build(parts: int, batch_norm: bool = False) -> tuple[keras.Model, keras.Model]:
    """A network trained on all pairs of a batch, and its branch, which runs on micro-batches."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(image)
    if batch_norm:
        x = keras.layers.BatchNormalization(momentum=0.5)(x)
    x = keras.layers.Dense(5)(keras.layers.Flatten()(x))
    branch = keras.Model(image, {"features": keras.layers.UnitNormalization()(x)})
    whole = keras.Input((8, 8, 3))
    network = keras.Model(whole, dict(InParts(branch, parts)(whole)))
    network.compile(keras.optimizers.SGD(0.5), {"features": SupervisedContrastiveLoss()})
    return network, branch


def batch() -> tuple[np.ndarray, dict]:
    images = np.random.default_rng(0).normal(size=(ROWS, 8, 8, 3)).astype(np.float32)
    return images, {"features": np.repeat(np.arange(4, dtype=np.int32), 3)}


def check_parts_are_the_whole() -> None:
    """Equal weights after plain gradient steps: equal gradients."""
    (whole, one), (parted, other) = build(1), build(PARTS)
    before = [np.array(w) for w in one.weights]
    for _ in range(3):
        losses = [float(network.train_on_batch(*batch())) for network in (whole, parted)]
        np.testing.assert_allclose(*losses, rtol=1e-5)
    for start, mine, theirs in zip(before, one.weights, other.weights, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
        assert np.abs(start - np.asarray(mine)).max() > 0.01  # it has learned
    images = batch()[0]
    parted_rows = other(images)["features"], parted(images, training=True)["features"]
    np.testing.assert_allclose(*map(np.asarray, parted_rows), rtol=1e-4, atol=1e-5)


def test_loss_and_gradients_of_all_pairs_are_those_of_the_whole_batch():
    check_parts_are_the_whole()


def test_a_batch_that_its_parts_do_not_divide_is_refused():
    images = np.zeros((PARTS + 1, 8, 8, 3), np.float32)
    with pytest.raises(ValueError, match="a batch of 4 rows cannot be divided into 3 parts"):
        build(PARTS)[0](images, training=True)


@pytest.mark.integration
def test_the_same_on_jax():
    code = "from models.test_micro_batches import *; check_parts_are_the_whole()"
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    own = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": path, "XLA_FLAGS": FAST}
    subprocess.run([sys.executable, "-c", code], env=own, check=True)


def test_batch_norm_is_updated_once_for_each_part_by_its_own_statistics():
    """By hand: part i has the rows i, i + parts, ...; momentum 0.5."""
    network, branch = build(PARTS, batch_norm=True)
    convolution, norm = branch.layers[1:3]
    images, labels = batch()
    mean = np.zeros(4)
    for i in range(PARTS):
        mean = 0.5 * mean + 0.5 * np.asarray(convolution(images[i::PARTS])).mean(axis=(0, 1, 2))
    network.train_on_batch(images, labels)
    np.testing.assert_allclose(np.asarray(norm.moving_mean), mean, rtol=1e-4)


def test_the_layer_comes_back_from_its_settings():
    layer = InParts(build(1)[1], 4, name="branch")
    again = InParts.from_config(layer.get_config())
    assert (again.parts, again.name) == (4, "branch")
    assert len(again.network.weights) == len(layer.network.weights)


def test_mixed_precision_rounds_no_weights():
    """Frozen ones keep every bit, and the step is the whole batch's within bfloat16's precision."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        (whole, one), (parted, other) = build(1), build(PARTS)
    finally:
        keras.config.set_dtype_policy(before)
    for branch in (one, other):
        branch.layers[1].trainable = False
    frozen = [np.array(w) for w in other.layers[1].weights]
    for network in (whole, parted):
        network.compile(keras.optimizers.SGD(0.5), {"features": SupervisedContrastiveLoss()})
        network.train_on_batch(*batch())
    for start, now in zip(frozen, other.layers[1].weights, strict=True):
        np.testing.assert_array_equal(start, now)
    for mine, theirs in zip(one.weights, other.weights, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=0.05)


@pytest.mark.parametrize("parts", [0, -1])
def test_no_part_at_all_is_refused(parts):
    with pytest.raises(ValueError, match=f"parts is {parts}; it must be 1 or more"):
        build(parts)


def test_half_a_part_is_refused():
    with pytest.raises(ValueError, match="parts is 1.5; it must be a whole number, 1 or more"):
        build(1.5)
