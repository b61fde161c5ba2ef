import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from tiny_encoder import STAND_IN
from xla_flags import FAST

from keras_scnn.losses import WPDC, ContrastiveLoss, IdentityLoss, LandmarkDistance
from keras_scnn.models import build_encoder, build_siamese, siamese
from keras_scnn.parameters import ParameterLayout, ParameterSpace, Whitening

SIZE, BATCH = 32, 6
pytestmark = pytest.mark.usefixtures("tiny_encoder")


def make(face_model, whitening, **options):
    keras.utils.set_random_seed(0)
    encoder = build_encoder(STAND_IN, SIZE)
    return build_siamese(encoder, ParameterSpace(face_model, whitening), feature_size=16, **options)


def batch(face_model):
    rng = np.random.default_rng(0)
    size = ParameterLayout(face_model.n_identity, face_model.n_expression).size
    photos = {f"image_{s}": rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8) for s in "ab"}
    same = (np.arange(BATCH) % 2).astype(np.float32)
    labels = {"parameter_distance": same, "feature_similarity": same}
    for side in "ab":
        labels[f"parameters_{side}"] = rng.normal(size=(BATCH, size)).astype(np.float32)
        labels[f"landmarks_{side}"] = rng.uniform(0, 31, (BATCH, 68, 3)).astype(np.float32)
    return photos, labels


def settled(network):
    """The network with weights that do not depend on the backend's random numbers."""
    rng = np.random.default_rng(1)
    branch = network.get_layer("branch")
    branch.set_weights([_settled(rng, w) for w in branch.weights])
    return network


def _settled(rng, weight) -> np.ndarray:
    """Variances stay 1, the other weights are small random numbers."""
    if "variance" in weight.path:
        return np.ones(weight.shape)
    return rng.normal(0, 0.2, weight.shape)


def compile_all(network, face_model, whitening):
    losses = {"parameter_distance": ContrastiveLoss(margin_quantile=0.5)}
    losses["feature_similarity"] = IdentityLoss()
    for side in "ab":
        losses[f"parameters_{side}"] = WPDC(ParameterSpace(face_model, whitening))
        losses[f"landmarks_{side}"] = LandmarkDistance(unit=16)
    network.compile(keras.optimizers.Adam(1e-3), losses)


def test_both_sides_share_one_branch(tiny_face_model, tiny_whitening):
    network = make(tiny_face_model, tiny_whitening)
    photos, _ = batch(tiny_face_model)
    predicted = network(photos)
    swapped = network({"image_a": photos["image_b"], "image_b": photos["image_a"]})
    np.testing.assert_allclose(predicted["parameters_a"], swapped["parameters_b"], atol=1e-5)
    branch = network.get_layer("branch")
    assert network.count_params() > branch.count_params()  # the decoder's constants, no more
    assert len(network.trainable_weights) == len(branch.trainable_weights)
    alone = branch(photos["image_a"])["parameters"]
    np.testing.assert_allclose(predicted["parameters_a"], alone, atol=1e-5)


def test_identity_contrast_is_the_distance_of_neutral_shapes(tiny_face_model, tiny_whitening):
    network = make(tiny_face_model, tiny_whitening)
    photos, _ = batch(tiny_face_model)
    predicted = {name: np.asarray(value) for name, value in network(photos).items()}
    layout = ParameterLayout(tiny_face_model.n_identity, tiny_face_model.n_expression)
    a, b = (
        tiny_face_model.vertices(tiny_whitening.unwhiten(vector)[:, layout.identity])
        for vector in (predicted["parameters_a"], predicted["parameters_b"])
    )
    expected = np.sqrt(np.square(a - b).sum(axis=-1).mean(axis=-1))  # mm, RMS over the vertices
    np.testing.assert_allclose(predicted["parameter_distance"], expected, rtol=1e-3, atol=1e-5)


def test_augmented_networks_predict_the_face_in_the_photo_that_was_given(open_face, monkeypatch):
    """With a branch that predicts the center of light: any move is undone in its prediction."""
    monkeypatch.setattr(siamese, "photometric_layers", lambda _: [keras.layers.Identity()])
    size = ParameterLayout(open_face.n_identity, open_face.n_expression).size
    mean = np.zeros(size, np.float32)
    mean[[0, 5, 10]] = [0.4, -0.4, 0.4]
    image = keras.Input((64, 64, 3))
    light, grid = ops.sum(image, axis=-1), ops.arange(64, dtype="float32")
    total = ops.sum(light, axis=(1, 2))
    x = ops.sum(light * grid, axis=(1, 2)) / total
    y = ops.sum(light * grid[:, None], axis=(1, 2)) / total
    place = ops.one_hot([3, 7], size, dtype="float32")
    predicted = x[:, None] * place[0] + y[:, None] * place[1]
    branch = keras.Model(image, {"parameters": predicted})
    images = [keras.Input((64, 64, 3)) for _ in "ab"]
    outputs = siamese.augmented_branch(
        branch, images, ParameterSpace(open_face, Whitening(mean, np.ones(size))), 1.0
    )
    network = keras.Model(images, [predicted["parameters"] for predicted in outputs])
    photos = np.zeros((40, 64, 64, 3), np.float32)
    photos[:, 20:25, 36:43] = 255
    for training in (False, True):
        for result in network([photos, photos], training=training):
            expected = np.tile([39.0, 22.0], (40, 1))
            np.testing.assert_allclose(np.asarray(result)[:, [3, 7]], expected, atol=0.1)
    assert np.abs(np.asarray(result)[:, 0]).std() > 1e-3, "size and turn show that it was moved"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augmentation": float("nan")}, "augmentation is nan; it must be 0 or more"),
        ({"augmentation": -1.0}, "augmentation is -1.0; it must be 0 or more"),
        ({"parts": 0}, "parts is 0; it must be 1 or more"),
    ],
)
def test_strengths_and_parts_out_of_range_are_refused(
    tiny_face_model, tiny_whitening, options, message
):
    with pytest.raises(ValueError, match=message):
        make(tiny_face_model, tiny_whitening, **options)


@pytest.mark.integration
def test_an_augmented_network_trains_and_is_the_same_branch(open_face):
    size = ParameterLayout(open_face.n_identity, open_face.n_expression).size
    whitening = Whitening(np.zeros(size), np.ones(size))
    network = make(open_face, whitening, augmentation=1.0)
    compile_all(network, open_face, whitening)
    photos, labels = batch(open_face)
    one, two = (network(photos, training=True)["landmarks_a"] for _ in range(2))
    assert np.abs(np.asarray(one) - np.asarray(two)).max() > 1e-3
    assert np.isfinite(network.train_on_batch(photos, labels)[0])
    plain = make(open_face, whitening)
    plain.get_layer("branch").set_weights(network.get_layer("branch").get_weights())
    np.testing.assert_allclose(
        network(photos)["parameters_a"], plain(photos)["parameters_a"], atol=1e-3
    )


def test_contrast_on_all_parameters_is_the_papers_distance(tiny_face_model, tiny_whitening):
    network = make(tiny_face_model, tiny_whitening, contrast="all")
    predicted = {
        name: np.asarray(value) for name, value in network(batch(tiny_face_model)[0]).items()
    }
    expected = np.linalg.norm(predicted["parameters_a"] - predicted["parameters_b"], axis=1)
    np.testing.assert_allclose(predicted["parameter_distance"], expected, rtol=1e-4, atol=1e-5)


def test_similarity_is_the_cosine_of_the_features(tiny_face_model, tiny_whitening):
    network = make(tiny_face_model, tiny_whitening)
    photos, _ = batch(tiny_face_model)
    branch = network.get_layer("branch")
    a, b = (np.asarray(branch(photos[f"image_{s}"])["features"]) for s in "ab")
    predicted = np.asarray(network(photos)["feature_similarity"])
    np.testing.assert_allclose(predicted, (a * b).sum(axis=1), atol=1e-5)


@pytest.mark.integration
@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_every_precision_trains_without_nan(tiny_face_model, tiny_whitening, policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        network = make(tiny_face_model, tiny_whitening)
        compile_all(network, tiny_face_model, tiny_whitening)
        photos, labels = batch(tiny_face_model)
        steps = 18 if policy == "mixed_float16" else 3
        before_training = [np.asarray(w) for w in network.trainable_weights]
        # In half precision the first dozen steps bring the loss scale down, and move nothing.
        losses = [float(network.train_on_batch(photos, labels)[0]) for _ in range(steps)]
        moved = [
            not np.array_equal(w, old)
            for w, old in zip(network.trainable_weights, before_training, strict=True)
        ]
        predicted = network(photos)
    finally:
        keras.config.set_dtype_policy(before)
    assert np.isfinite(losses).all()
    assert np.mean(moved) > 0.9, "loss scaling must not skip every step"
    assert {keras.backend.standardize_dtype(v.dtype) for v in predicted.values()} == {"float32"}
    assert all(np.isfinite(np.asarray(value)).all() for value in predicted.values())


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore:Gradients do not exist")  # of the other losses' heads
def test_every_loss_reaches_the_encoder(tiny_face_model, tiny_whitening):
    photos, labels = batch(tiny_face_model)
    for name in ("parameter_distance", "feature_similarity", "landmarks_b"):
        network = make(tiny_face_model, tiny_whitening)
        compile_all(network, tiny_face_model, tiny_whitening)
        alone = {name: network._compile_loss._user_loss[name]}
        network.compile(keras.optimizers.SGD(1e-2), alone)
        first = next(w for w in network.trainable_weights if "kernel" in w.path)
        before = np.array(ops.convert_to_numpy(first))
        network.train_on_batch(photos, {name: labels[name]})
        assert not np.array_equal(before, ops.convert_to_numpy(first)), name


def test_a_network_survives_saving(tmp_path, tiny_face_model, tiny_whitening):
    network = make(tiny_face_model, tiny_whitening)
    network.save(tmp_path / "siamese.keras")
    again = keras.models.load_model(tmp_path / "siamese.keras")
    photos, _ = batch(tiny_face_model)
    for name, value in network(photos).items():
        np.testing.assert_allclose(np.asarray(again(photos)[name]), np.asarray(value), atol=1e-5)


@pytest.mark.parametrize(
    "options, message",
    [({"contrast": "pose"}, "choose from identity, all"), ({}, "needs 1 or more")],
)
def test_settings_that_make_no_sense_are_refused(tiny_face_model, tiny_whitening, options, message):
    encoder = build_encoder(STAND_IN, SIZE)
    feature_size = 8 if options else 0
    with pytest.raises(ValueError, match=message):
        build_siamese(
            encoder, ParameterSpace(tiny_face_model, tiny_whitening), feature_size, **options
        )


@pytest.mark.integration
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_the_same_network_has_the_same_loss_on_other_backends(
    tiny_face_model, tiny_whitening, backend
):
    """The first step's loss does not depend on the encoder's random weights: see ``settled``."""
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed; .ci/full installs it")
    script = Path(__file__).with_name("backend_step.py")
    environment = {**os.environ, "KERAS_BACKEND": backend, "XLA_FLAGS": FAST}
    command = [sys.executable, script, backend]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    network = settled(make(tiny_face_model, tiny_whitening))
    compile_all(network, tiny_face_model, tiny_whitening)
    expected = float(network.train_on_batch(*batch(tiny_face_model))[0])
    assert float(done.stdout.split()[-1]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("counts", [(0, 3), (4, 0), (0, 0)])
def test_face_models_without_identity_or_expression_have_networks_too(open_face, counts):
    model = open_face.truncated(*counts)
    size = ParameterLayout(*counts).size
    network = make(model, Whitening(np.zeros(size), np.ones(size)))
    predicted = network(batch(model)[0])
    if not counts[0]:
        np.testing.assert_allclose(predicted["parameter_distance"], 0, atol=1e-5)
    assert predicted["landmarks_a"].shape[1:] == (68, 3)


def test_the_slope_of_a_distance_is_finite_where_both_are_equal():
    tf = pytest.importorskip("tensorflow")  # missing when this module runs on another backend
    one = tf.ones((3, 4))
    with tf.GradientTape() as tape:
        tape.watch(one)
        distance = siamese.WeightedDistance()([one, tf.ones((3, 4))])
    np.testing.assert_allclose(distance, 0, atol=1e-5)
    assert np.isfinite(tape.gradient(distance, one)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"encoder": "mobilenet_0.5"},
            "encoder is 'mobilenet_0.5' .str.; it must be a Keras mod",
        ),
        ({"space": None}, "space is None .NoneType.; it must be a ParameterSpace"),
        ({"space": "model"}, "space is 'model' .str.; it must be a ParameterSpace"),
        ({"feature_size": "16"}, "feature_size is '16'; it must be a whole number"),
    ],
)
def test_arguments_of_another_type_are_refused_by_name(
    tiny_face_model, tiny_whitening, change, message
):
    given = {
        "encoder": build_encoder(STAND_IN, SIZE),
        "space": ParameterSpace(tiny_face_model, tiny_whitening),
        "feature_size": 16,
    }
    with pytest.raises(ValueError, match=message):
        build_siamese(**given | change)
