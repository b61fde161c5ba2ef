"""Losses as layers of a functional model: same numbers as the losses of named outputs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_scnn.data.records import FaceRecords
from keras_scnn.data.samplers import PairSampler
from keras_scnn.data.stream import join_labels, pair_batch, pair_dataset
from keras_scnn.losses import (
    ContrastiveLoss,
    ContrastiveLossLayer,
    IdentityLoss,
    IdentityLossLayer,
    LandmarkDistance,
    LossLayer,
    ParameterLoss,
    add_loss_layers,
    contrastive_loss,
    identity_loss,
)
from keras_scnn.models import build_siamese
from keras_scnn.parameters import ParameterSpace

ROOT = Path(__file__).resolve().parents[2]
SIZE, BATCH = 16, 8
WEIGHTS = {"parameter_distance": 0.1, "feature_similarity": 4.0, "landmarks_a": 0.5}


@pytest.fixture
def space(tiny_face_model, tiny_whitening):
    return ParameterSpace(tiny_face_model, tiny_whitening)


@pytest.fixture
def records(space):
    rng, n = np.random.default_rng(0), 24
    return FaceRecords(
        images=rng.integers(0, 256, (n, SIZE, SIZE, 3), np.uint8),
        parameters=space.whitening.unwhiten(rng.normal(size=(n, space.layout.size))),
        landmarks=rng.uniform(0, SIZE, (n, 68, 3)),
        identity=np.arange(n) // 4,
        face_model=space.face_model.name,
    )


def siamese(space):
    keras.utils.set_random_seed(0)
    image = keras.Input((SIZE, SIZE, 3), name="image")
    features = keras.layers.Conv2D(4, 3, 2, activation="relu")(image)
    encoder = keras.Model(image, keras.layers.GlobalAveragePooling2D()(features))
    return build_siamese(encoder, space, feature_size=6)


def losses(space) -> dict[str, keras.losses.Loss]:
    named = {"parameter_distance": ContrastiveLoss(margin_quantile=0.5)}
    named["feature_similarity"] = IdentityLoss(margin=0.1)
    for side in "ab":
        named[f"parameters_{side}"] = ParameterLoss(space, 0.02, 0.3)
        named[f"landmarks_{side}"] = LandmarkDistance(unit=10.0)
    return named


@pytest.mark.integration
def test_loss_and_gradients_are_those_of_the_named_outputs(space, records):
    """One step of SGD at rate 1 changes the weights by the gradient."""
    inputs, targets = pair_batch(
        records, space.whitening, PairSampler(records.identity), step=0, batch_size=BATCH
    )
    plain, with_layers = siamese(space), add_loss_layers(siamese(space), losses(space), WEIGHTS)
    weights = {name: WEIGHTS.get(name, 1.0) for name in losses(space)}
    plain.compile(keras.optimizers.SGD(1.0), losses(space), loss_weights=weights)
    with_layers.compile(keras.optimizers.SGD(1.0))
    expected = plain.train_on_batch(inputs, targets, return_dict=True)["loss"]
    loss = with_layers.train_on_batch(
        join_labels(inputs, targets, with_layers.input), return_dict=True
    )["loss"]
    assert loss == pytest.approx(expected, rel=1e-5)
    for one, other in zip(plain.trainable_weights, with_layers.trainable_weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.integration
def test_a_stream_and_an_optimizer_are_enough_to_train(space, records):
    named = losses(space)
    del named["landmarks_b"]  # its label is left out of the stream
    network = add_loss_layers(siamese(space), named, WEIGHTS)
    network.compile("adam")
    sampler = PairSampler(records.identity)
    names = network.input
    stream = pair_dataset(records, space.whitening, sampler, BATCH, input_names=names)
    history = network.fit(stream, steps_per_epoch=20, epochs=3, verbose=0, shuffle=False).history[
        "loss"
    ]
    assert history[-1] < 0.9 * history[0]


def test_the_two_layers_alone_take_two_images_and_their_label(space, records):
    """The literal form: a functional model of two images and whether they show one person."""
    network, same = siamese(space), keras.Input((), name="same")
    outputs = network.output
    distance = ContrastiveLossLayer(margin=1.0, weight=0.5)(outputs["parameter_distance"], same)
    similarity = IdentityLossLayer(margin=0.1)(outputs["feature_similarity"], same)
    model = keras.Model(
        {**network.input, "same": same}, {"distance": distance, "similarity": similarity}
    )
    model.compile("sgd")
    inputs, targets = pair_batch(
        records, space.whitening, PairSampler(records.identity), step=0, batch_size=BATCH
    )
    batch = join_labels(inputs, targets, model.input)
    labels = batch["same"]
    result = model.predict(batch, verbose=0)
    expected = 0.5 * contrastive_loss(labels, result["distance"], 1.0)
    expected += identity_loss(labels, result["similarity"], 0.1)
    assert model.evaluate(batch, verbose=0) == pytest.approx(float(expected), rel=1e-5)


def test_a_loss_of_an_output_that_is_not_there_is_refused(space):
    with pytest.raises(ValueError, match="unknown output 'shape'; those of the network are"):
        add_loss_layers(siamese(space), {"shape": ContrastiveLoss(1.0)})
    with pytest.raises(ValueError, match="unknown output 'nonsense'"):
        add_loss_layers(siamese(space), {}, {"nonsense": 1.0})
    with pytest.raises(ValueError, match="unknown output 'q'"):
        add_loss_layers(siamese(space), {}, labels={"q": keras.Input((), name="q")})


def test_weights_and_labels_of_outputs_without_a_loss_are_refused(space):
    losses, label = {"parameter_distance": ContrastiveLoss(1.0)}, keras.Input((), name="same")
    with pytest.raises(ValueError, match="weights: 'feature_similarity' has no loss; outputs with"):
        add_loss_layers(siamese(space), losses, {"feature_similarity": 0.5})
    with pytest.raises(ValueError, match="labels: 'feature_similarity' has no loss"):
        add_loss_layers(siamese(space), losses, labels={"feature_similarity": label})
    with pytest.raises(ValueError, match="weight is nan"):
        add_loss_layers(siamese(space), losses, {"parameter_distance": float("nan")})


def test_losses_may_be_added_one_after_the_other(space):
    first = add_loss_layers(siamese(space), {"parameter_distance": ContrastiveLoss(1.0)})
    both = add_loss_layers(first, {"feature_similarity": IdentityLoss()})
    assert set(both.input) == {"image_a", "image_b", "same"}
    with pytest.raises(ValueError, match="'parameter_distance' already has a loss layer"):
        add_loss_layers(both, {"parameter_distance": ContrastiveLoss(1.0)})


def test_a_sum_over_the_batch_is_refused(space):
    loss = keras.losses.MeanSquaredError(reduction="sum", name="squares")
    with pytest.raises(ValueError, match="loss 'squares' has reduction 'sum'; a loss layer adds"):
        add_loss_layers(siamese(space), {"parameters_a": loss})


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ({"parameter_distance": "mse"}, r"losses\['parameter_distance'\] is 'mse' .str.; it must"),
        ([ContrastiveLoss(1.0)], "losses is .* .list.; it must be a dictionary"),
    ],
)
def test_losses_of_another_type_are_refused_by_name(space, losses, message):
    with pytest.raises(ValueError, match=message):
        add_loss_layers(siamese(space), losses)
    with pytest.raises(ValueError, match="loss is None .NoneType.; it must be a keras.losses.Loss"):
        LossLayer(None)


def test_a_network_without_named_inputs_is_refused():
    image = keras.Input((4,))
    network = keras.Model(image, {"y": keras.layers.Dense(2)(image)}, name="plain")
    with pytest.raises(ValueError, match="network 'plain' has no dictionaries of inputs"):
        add_loss_layers(network, {"y": keras.losses.MeanSquaredError()})


REPLICAS = """
import json, sys
import keras, numpy as np, tensorflow as tf
from keras_scnn.losses import *

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)

def result(n_devices, as_layers, weighted=False):
    devices = [f"CPU:{i}" for i in range(n_devices)]
    with tf.distribute.MirroredStrategy(devices).scope():
        keras.utils.set_random_seed(0)
        image = keras.Input((4,), name="image")
        vector = keras.layers.Dense(3, name="dense")(image)
        outputs = {
            "parameter_distance": keras.ops.sum(vector**2, axis=-1),
            "feature_similarity": keras.ops.tanh(vector[:, 0]),
            "group": vector,
        }
        network = keras.Model({"image": image}, outputs)
        losses = {
            "parameter_distance": ContrastiveLoss(margin=1.0),
            "feature_similarity": IdentityLoss(),
            "group": EmbeddingDistance(),
        }
        if as_layers:
            network = add_loss_layers(network, losses)
        network.compile(keras.optimizers.SGD(1.0), None if as_layers else losses)
    rng = np.random.default_rng(0)
    same = np.tile(np.float32([1, 0]), 4)
    x = rng.normal(size=(8, 4)).astype("float32")
    y = rng.normal(size=(8, 3)).astype("float32")
    if as_layers:
        data = {"image": x, "same": same, "group_label": y}
    else:
        data = {"image": x}, {"parameter_distance": same, "feature_similarity": same, "group": y}
    if weighted:
        weight = np.float32([0, 1, 2, 0.5, 3, 0.25, 1.5, 0.75])
        data += (dict.fromkeys(data[1], weight),)
    stream = tf.data.Dataset.from_tensors(data).unbatch().batch(8)
    loss = network.fit(stream, verbose=0).history["loss"][0]
    return [loss, *np.asarray(network.get_layer("dense").kernel).ravel().tolist()]

plain = [result(n, layers) for layers in (False, True) for n in (1, 2)]
print(json.dumps([plain, [result(n, False, weighted=True) for n in (1, 2)]]))
"""


@pytest.mark.integration
def test_two_replicas_train_as_one_on_the_same_global_batch():
    """MirroredStrategy on two logical CPU devices: loss, and weights after one step.

    As losses and as layers, and with weights of samples.
    """
    done = subprocess.run(
        [sys.executable, "-c", REPLICAS],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (one, *others), (weighted, on_two) = json.loads(done.stdout.splitlines()[-1])
    for other in others:
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(on_two, weighted, rtol=1e-4, atol=1e-5)
    assert np.abs(np.subtract(weighted, one)).max() > 1e-2
