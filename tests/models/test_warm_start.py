import numpy as np
import pytest

from keras_scnn.models import build_branch, build_encoder
from keras_scnn.models.warm_start import copy_encoder, solve_head
from keras_scnn.parameters import ParameterLayout

LAYOUT = ParameterLayout(3, 2)
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)


def make(name="mobilenet_0.5", features=8):
    return build_branch(build_encoder(name, 32), LAYOUT, features)


def hidden(branch):
    """The pooled features, through the parameter head's input."""
    import keras

    return keras.Model(branch.input, branch.get_layer("parameters").input)


def test_the_encoder_is_taken_over_and_the_heads_are_not():
    branch, source = make(), make(features=0)
    head = np.array(branch.get_layer("parameters").kernel)
    copy_encoder(branch, source)
    photos = IMAGES[:3].astype(np.float32)
    np.testing.assert_allclose(hidden(branch)(photos), hidden(source)(photos), atol=1e-6)
    np.testing.assert_array_equal(branch.get_layer("parameters").kernel, head)


def test_another_encoder_is_refused():
    with pytest.raises(ValueError, match="another encoder"):
        copy_encoder(make(), make("mobilenet_1.0"))


def test_a_solved_head_finds_a_linear_rule():
    branch = make()
    for weight in branch.weights:  # an untrained network's features are too small to solve for
        if "moving_variance" in weight.path:
            weight.assign(np.full(weight.shape, 0.05))
    x = np.asarray(hidden(branch)(IMAGES.astype(np.float32)))
    truth = np.random.default_rng(1).normal(size=(x.shape[1], LAYOUT.size)) / x.std()
    labels = (x - x.mean(axis=0)) @ truth + 5
    solve_head(branch, IMAGES, labels, ridge=1e-6)
    told = np.asarray(branch(IMAGES.astype(np.float32))["parameters"])
    assert abs(told - labels).mean() < 0.02 * abs(labels - labels.mean(axis=0)).mean()
