"""The table of objectives: losses and weights of each mode, against the losses one by one."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_scnn import losses
from keras_scnn.data.records import FaceRecords
from keras_scnn.data.samplers import GroupSampler, PairSampler
from keras_scnn.data.stream import group_batch, pair_batch
from keras_scnn.models import build_branch, build_encoder, build_group, build_siamese
from keras_scnn.parameters import ParameterLayout, ParameterSpace
from keras_scnn.settings import configuration, read_yaml
from keras_scnn.training.config import TrainConfig
from keras_scnn.training.objectives import (
    OBJECTIVES,
    SplitLoss,
    compile_network,
    create_variables,
    targets_of,
)
from keras_scnn.training.recipes import recipe_path

RNG = np.random.default_rng(0)


@pytest.fixture
def space(tiny_face_model, tiny_whitening):
    return ParameterSpace(tiny_face_model, tiny_whitening)


def labels(space, count: int) -> dict:
    points = RNG.normal(60, 20, (count, 68, 4))
    points[..., 3] = RNG.uniform(0, 1, (count, 68))
    return {
        "parameters": RNG.normal(size=(count, space.layout.size)).astype(np.float32),
        "landmarks": points.astype(np.float32),
        "person": np.arange(count) // 2,
        "embedding": RNG.normal(size=(count, 5)).astype(np.float32),
    }


def networks(space) -> tuple[keras.Model, keras.Model]:
    """A group network and a Siamese one, with all outputs."""
    encoder = build_encoder("mobilenet_0.5", 32)
    layout = ParameterLayout(space.face_model.n_identity, space.face_model.n_expression)
    group = build_group(build_branch(encoder, layout, 4), space, embedding_size=5)
    return group, build_siamese(build_encoder("mobilenet_0.5", 32), space, feature_size=4)


def test_every_output_of_both_networks_has_an_objective(space):
    group, siamese = networks(space)
    assert {*group.output, *siamese.output} == set(OBJECTIVES)


def test_every_label_of_the_table_comes_with_the_batches(space, tiny_whitening):
    """So that a new objective takes one row in the table."""
    rng, layout = np.random.default_rng(0), space.layout
    records = FaceRecords(
        np.zeros((8, 32, 32, 3), np.uint8),
        rng.normal(size=(8, layout.size)).astype(np.float32),
        rng.normal(60, 20, (8, 68, 3)).astype(np.float32),
        np.arange(8) // 2,
        "open_face",
        embedding=rng.normal(size=(8, 5)).astype(np.float32),
    )
    group, siamese = networks(space)
    sampler = GroupSampler(records.identity, people=2, photos=2)
    _, labels = group_batch(records, tiny_whitening, sampler, 0)
    assert set(labels) == {OBJECTIVES[name].label for name in group.output}
    targets = targets_of(group.output, labels)
    assert set(targets) == set(group.output)
    assert targets["shape"] is targets["features"] is labels["person"]
    _, of_pairs = pair_batch(records, tiny_whitening, PairSampler(records.identity), 0, 2)
    assert set(of_pairs) == set(siamese.output)


def test_a_new_objective_takes_one_entry(monkeypatch):
    again = dataclasses.replace(OBJECTIVES["features"], weight=None)
    monkeypatch.setitem(OBJECTIVES, "features_again", again)
    labels = {"person": np.arange(3)}
    assert targets_of(["features_again"], labels) == {"features_again": labels["person"]}


def scalar(loss) -> float:
    """The mean of a loss's values, one per sample, or one for all pairs."""
    return float(np.mean(loss))


@pytest.mark.parametrize("given", [{"margin": 2.0}, {"margin_quantile": 0.7}])
def test_groups_are_pushed_by_a_margin_or_a_quantile(space, given):
    config = TrainConfig(batches="groups", **given)
    person, shapes = np.repeat([0, 1, 2], 2), RNG.normal(size=(6, 6)).astype(np.float32)
    loss = OBJECTIVES["shape"].loss(config, space)
    expected = losses.group_contrastive_loss(person, shapes, **given)
    assert float(loss(person, shapes)) == pytest.approx(float(expected))


@pytest.mark.parametrize("batches", ["groups", "matching"])
def test_groups_may_be_pushed_by_their_neighborhoods(space, batches):
    """Goldberger et al. 2004, equation 1, of the logarithm: photo by photo."""
    config = TrainConfig(batches=batches, contrast_form="neighborhood", margin=1.5)
    person, shapes = np.repeat([0, 1, 2], 3), RNG.normal(size=(9, 6))
    distances = np.linalg.norm(shapes[:, None] - shapes[None], axis=-1)
    terms = []
    for i in range(9):
        near = np.exp(-(distances[i] ** 2) / (2 * 1.5**2))
        total = near.sum() - near[i]
        terms.append(
            -np.mean([np.log(near[j] / total) for j in range(9) if j != i and j // 3 == i // 3])
        )
    loss = OBJECTIVES["shape"].loss(config, space)
    assert float(loss(person, np.float32(shapes))) == pytest.approx(np.mean(terms), rel=1e-5)


@pytest.mark.integration
def test_a_batch_of_matching_has_the_loss_of_the_released_loop(space):
    """The sum, written out by hand with the numbers of the released run."""
    values = read_yaml(recipe_path("matching")) | {"group_people": 2, "group_photos": 2}
    config = configuration(TrainConfig, values)
    truth, count = labels(space, 7), 4
    outputs = {
        "parameters": RNG.normal(size=(7, space.layout.size)).astype(np.float32),
        "landmarks": RNG.normal(60, 20, (7, 68, 3)).astype(np.float32),
        "shape": RNG.normal(size=(7, 6)).astype(np.float32),
        "features": RNG.normal(size=(7, 4)).astype(np.float32),
        "embedding": RNG.normal(size=(7, 5)).astype(np.float32),
        "feature_likeness": RNG.normal(size=(7, 4)).astype(np.float32),
        "shape_likeness": RNG.normal(size=(7, 6)).astype(np.float32),
    }
    parameters = losses.ParameterLoss(space, 0.02, 0.36)
    wanted = {
        name: loss.call(truth[label], outputs[name])
        for name, loss, label in (
            ("landmarks", losses.LandmarkDistance(10.0, 1.0, 0.25), "landmarks"),
            ("shape", losses.GroupContrastiveLoss(margin_quantile=0.7), "person"),
            ("features", losses.SupervisedContrastiveLoss(), "person"),
            ("embedding", losses.EmbeddingDistance(), "embedding"),
            ("feature_likeness", losses.RelationalLoss(), "embedding"),
        )
    }
    both = [
        scalar(parameters.call(truth["parameters"][rows], outputs["parameters"][rows]))
        for rows in (slice(count), slice(count, None))
    ]
    weights = {"landmarks": 1.0, "shape": 0.06, "features": 0.06}
    weights |= {"embedding": 1.2, "feature_likeness": 0.6}
    expected = 0.55 * both[0] + 0.45 * both[1]
    expected += sum(weight * scalar(wanted[name]) for name, weight in weights.items())
    inputs = {name: keras.Input(value.shape[1:]) for name, value in outputs.items()}
    layers = {name: keras.layers.Identity(name=name)(one) for name, one in inputs.items()}
    network = keras.Model(list(inputs.values()), layers)
    compile_network(network, config, space, keras.optimizers.SGD(0.0))
    targets = targets_of(network.output, truth)
    total = network.evaluate(
        list(outputs.values()), targets, batch_size=7, verbose=0, return_dict=True
    )
    assert total["loss"] == pytest.approx(expected, rel=1e-5)


class Counting(keras.layers.Dense):
    """Counts how often a training step is traced."""

    traced = 0

    def call(self, inputs, training=None):
        self.traced += bool(training)
        return super().call(inputs)


@pytest.mark.parametrize("created", [False, True])
def test_a_step_is_traced_once_if_its_variables_exist(created):
    tf = pytest.importorskip("tensorflow")
    keras.utils.set_random_seed(0)
    layer = Counting(2, name="out")
    image = keras.Input((3,))
    network = keras.Model(image, {"out": layer(image)})
    network.compile(keras.optimizers.Adam(0.1), {"out": keras.losses.MeanSquaredError()})
    x, y = np.ones((4, 3), np.float32), {"out": np.zeros((4, 2), np.float32)}
    stream = tf.data.Dataset.from_tensors((x, y)).repeat(3)
    before, layer.traced = np.array(layer.kernel), 0
    if created:
        create_variables(network, stream)
        np.testing.assert_array_equal(layer.kernel, before)
    (loss,) = network.fit(stream, shuffle=False, verbose=0).history["loss"]
    assert layer.traced == (1 if created else 2)
    keras.utils.set_random_seed(0)
    other = keras.Model(image, {"out": keras.layers.Dense(2, name="out")(image)})
    other.get_layer("out").set_weights([before, np.zeros(2)])
    other.compile(keras.optimizers.Adam(0.1), {"out": keras.losses.MeanSquaredError()})
    assert loss == pytest.approx(other.fit(stream, shuffle=False, verbose=0).history["loss"][0])


def test_a_split_loss_weighs_the_first_rows_and_the_rest():
    loss = SplitLoss(losses.LandmarkDistance(), count=2, share=0.75)
    points = np.zeros((5, 68, 3), np.float32)
    points[:2, :, 0], points[2:, :, 0] = 1, 4
    truth = np.tile(np.float32([0, 0, 1]), (5, 68, 1))  # all weights are 1
    assert scalar(loss(truth, points)) == pytest.approx(0.75 * 1 + 0.25 * 4)
