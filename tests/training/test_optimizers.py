"""Optimizers of a run: decay, rates, the running mean, and batch norm statistics that fit it."""

import keras
import numpy as np
import pytest

from keras_scnn.training.config import TrainConfig
from keras_scnn.training.optimizers import finish, make_optimizer

RNG = np.random.default_rng(0)
WEIGHTS = {
    "conv1/kernel": RNG.normal(size=(3, 2)),
    "conv1/bias": RNG.normal(size=2),
    "identity_stem/kernel": RNG.normal(size=(2, 2)),
}
SETTINGS = dict(
    batches="groups", optimizer="adamw", weight_decay=0.01, learning_rate=0.05, identity_rate=0.4
)


def variables():
    made = []
    for path, value in WEIGHTS.items():
        with keras.name_scope(path.split("/")[0]):
            made.append(keras.Variable(np.float32(value), name=path.split("/")[1]))
    assert [v.path for v in made] == list(WEIGHTS)
    return made


@pytest.mark.integration
def test_adamw_is_that_of_the_released_loop():
    """optax is the reference: clipped by the global norm, kernels decayed, a rate of its own."""
    optax = pytest.importorskip("optax")
    reference = optax.chain(
        optax.clip_by_global_norm(10.0),
        optax.scale_by_adam(),
        optax.add_decayed_weights(0.01, mask=[True, False, True]),
    )
    mine, optimizer = variables(), make_optimizer(TrainConfig(**SETTINGS))
    optimizer.build(mine)
    theirs = [np.float32(value) for value in WEIGHTS.values()]
    state = reference.init(theirs)
    for scale in (1.0, 100.0, 0.1):
        gradients = [np.float32(scale * RNG.normal(size=w.shape)) for w in theirs]
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients])
        updates, state = reference.update(gradients, state, theirs)
        shares = (1.0, 1.0, 0.4)
        theirs = [w - 0.05 * s * u for w, u, s in zip(theirs, updates, shares, strict=True)]
    for one, other in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(np.asarray(one), other, rtol=1e-4, atol=1e-6)


def first_step(config: TrainConfig, scale: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The change of each weight in the first step, and the gradients, of global norm ``scale``."""
    mine, optimizer = variables(), make_optimizer(config)
    optimizer.build(mine)
    gradients = [np.sign(value) * (1 + np.abs(value)) for value in WEIGHTS.values()]
    norm = np.sqrt(sum(np.square(g).sum() for g in gradients))
    gradients = [np.float32(scale * g / norm) for g in gradients]
    optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients])
    added = [np.asarray(v) - w for v, w in zip(mine, WEIGHTS.values(), strict=True)]
    return added, gradients


def test_the_first_step_of_adamw_by_hand():
    """Adam's first step is the rate, against the gradient's sign; kernels decay, biases do not."""
    added, gradients = first_step(TrainConfig(**SETTINGS), 3.0)
    for (name, weight), change, gradient in zip(WEIGHTS.items(), added, gradients, strict=True):
        rate = 0.05 * (0.4 if name.startswith("identity") else 1.0)
        expected = -rate * np.sign(gradient) - rate * 0.01 * weight * (weight.ndim > 1)
        np.testing.assert_allclose(change, expected, atol=2e-6)


@pytest.mark.parametrize(("norm", "kept"), [(9.0, 1.0), (100.0, 0.1)])
def test_the_first_step_of_sgd_is_nesterovs_of_gradients_clipped_to_a_norm_of_10(norm, kept):
    added, gradients = first_step(TrainConfig(optimizer="sgd", learning_rate=0.02), norm)
    for change, gradient in zip(added, gradients, strict=True):
        np.testing.assert_allclose(change, -(1 + 0.9) * 0.02 * kept * gradient, atol=1e-6)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_the_running_mean_grows_slower_from_step_to_step(name):
    """TensorFlow's rule: the momentum is min(m, (1 + n) / (10 + n)) after n steps."""
    optimizer = make_optimizer(TrainConfig(optimizer=name, weight_average=0.3, learning_rate=0.1))
    (variable,) = mine = [keras.Variable(np.float32([1, 2]), name="bias")]
    optimizer.build(mine)
    mean = None
    for step in range(8):
        optimizer.apply([keras.ops.convert_to_tensor(np.float32([1, -1]))])
        now = np.asarray(variable)
        keep = min(0.3, (1 + step) / (10 + step)) if step else 0.0
        mean = now if mean is None else keep * mean + (1 - keep) * now
    optimizer.finalize_variable_values(mine)
    np.testing.assert_allclose(np.asarray(variable), mean, rtol=1e-5)
    assert np.abs(mean - now).max() > 1e-3


@pytest.mark.integration
def test_batch_norm_statistics_are_those_of_the_averaged_weights():
    keras.utils.set_random_seed(0)
    image = keras.Input((4,))
    hidden = keras.layers.Dense(3, name="first")(image)
    normed = keras.layers.BatchNormalization(momentum=0.9, name="norm")(hidden)
    network = keras.Model(image, keras.layers.Dense(2)(normed))
    config = TrainConfig(weight_average=0.9, learning_rate=0.3)
    network.compile(make_optimizer(config), "mse")
    x, y = RNG.normal(1, 2, (64, 4)), RNG.normal(0, 30, (64, 2))

    def stream():
        while True:
            yield np.float32(x), np.float32(y)

    network.fit(stream(), steps_per_epoch=30, shuffle=False, verbose=0)
    finish(network, stream())
    first, norm = network.get_layer("first"), network.get_layer("norm")
    values = x @ np.asarray(first.kernel) + np.asarray(first.bias)
    np.testing.assert_allclose(norm.moving_mean, values.mean(axis=0), rtol=0.02, atol=0.02)
    np.testing.assert_allclose(norm.moving_variance, values.var(axis=0), rtol=0.03)
    last = network.optimizer._model_variables_moving_average[0]
    np.testing.assert_allclose(np.asarray(first.kernel), np.asarray(last), rtol=1e-6)


def test_the_loss_scale_is_kept_if_the_optimizer_is_built_again():
    """As in a resumed run: by the checkpoint that is loaded, then before training."""
    optimizer = make_optimizer(TrainConfig(precision="mixed_float16"))
    variables = [keras.Variable(np.zeros(3, np.float32))]
    optimizer.build(variables)
    optimizer.dynamic_scale.assign(64.0)
    count = len(optimizer.variables)
    optimizer.build(variables)
    assert len(optimizer.variables) == count
    assert float(optimizer.dynamic_scale) == 64
