import numpy as np
import pytest

from keras_scnn.face_models import load_face_model
from keras_scnn.models import Preset, build_branch, build_encoder
from keras_scnn.models.heads import FINE, GAZE
from keras_scnn.parameters import ParameterLayout, ParameterSpace, Whitening
from keras_scnn.training.warm_start import copy_encoder, copy_network, solve_dense

LAYOUT = ParameterLayout(3, 2)
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)


def make(name="mobilenet_0.5", features=8, **heads):
    return build_branch(build_encoder(name, 32), LAYOUT, features, **heads)


def hidden(branch):
    """The pooled features, through the parameter head's input."""
    import keras

    return keras.Model(branch.input, branch.get_layer("parameters").input)


def test_the_encoder_is_copied_and_the_heads_are_not():
    branch, source = make(), make(features=0)
    head = np.array(branch.get_layer("parameters").kernel)
    copy_encoder(branch, source)
    photos = IMAGES[:3].astype(np.float32)
    np.testing.assert_allclose(hidden(branch)(photos), hidden(source)(photos), atol=1e-6)
    np.testing.assert_array_equal(branch.get_layer("parameters").kernel, head)


def test_another_encoder_is_refused():
    with pytest.raises(ValueError, match="have different encoders"):
        copy_encoder(make(), make("mobilenet_1.0"))
    with pytest.raises(ValueError, match="branch is 'mobile' .str.; it must be a network, such as"):
        copy_encoder("mobile", make())
    with pytest.raises(ValueError, match="source is 'mobile' .str.; it must be a network"):
        copy_encoder(make(), "mobile")


def preset(branch):
    model = load_face_model("open_face").truncated(3, 2)
    rng = np.random.default_rng(2)
    whitening = Whitening(rng.normal(size=LAYOUT.size), rng.uniform(0.5, 2, LAYOUT.size))
    return Preset(branch, ParameterSpace(model, whitening), "mobilenet_0.5", {})


@pytest.mark.integration
@pytest.mark.parametrize(("expression", "gaze"), [(0, 0), (4, 0), (4, 3), (0, 3)])
def test_a_copied_network_predicts_the_same_with_another_whitening(expression, gaze):
    heads = {"expression_channels": expression, "gaze_channels": gaze}
    branch, theirs = (make(**heads) for _ in range(2))
    for prefix in [name for name, n in ((FINE, expression), (GAZE, gaze)) if n]:
        fine = theirs.get_layer(f"{prefix}linear")  # it adds nothing before it is trained
        fine.set_weights([np.full_like(w, 0.1) for w in fine.get_weights()])
    source = preset(theirs)
    whitening = Whitening(np.linspace(-1, 1, LAYOUT.size), np.linspace(0.5, 3, LAYOUT.size))
    copy_network(branch, source, whitening)
    photos = IMAGES[:3].astype(np.float32)
    mine, theirs = branch(photos), source.branch(photos)
    np.testing.assert_allclose(
        whitening.unwhiten(mine["parameters"]),
        source.space.whitening.unwhiten(theirs["parameters"]),
        atol=1e-5,
    )
    np.testing.assert_allclose(mine["features"], theirs["features"], atol=1e-6)


def test_a_network_with_a_new_gaze_head_predicts_the_same():
    source = preset(make(expression_channels=4))
    branch = make(expression_channels=4, gaze_channels=3)
    copy_network(branch, source, source.space.whitening)
    photos = IMAGES[:3].astype(np.float32)
    mine, theirs = (one(photos)["parameters"] for one in (branch, source.branch))
    np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_the_heads_of_a_preset_that_the_network_lacks_are_named():
    source = preset(make(expression_channels=4, gaze_channels=3))
    with pytest.raises(ValueError, match="it has expression_channels 4, gaze_channels 3"):
        copy_network(make(expression_channels=4), source, source.space.whitening)


def test_another_network_is_refused():
    with pytest.raises(ValueError, match="start_with 'encoder'"):
        copy_network(make(features=0), preset(make()), preset(make()).space.whitening)


@pytest.mark.parametrize("name", ["parameters", "features_linear"])
def test_a_solved_layer_finds_a_linear_rule(name):
    branch = make()
    for weight in branch.weights:  # an untrained network's features are too small to solve for
        if "moving_variance" in weight.path:
            weight.assign(np.full(weight.shape, 0.05))
    x = np.asarray(hidden(branch)(IMAGES.astype(np.float32)))
    layer = branch.get_layer(name)
    truth = np.random.default_rng(1).normal(size=layer.kernel.shape) / x.std()
    labels = (x - x.mean(axis=0)) @ truth + 5
    solve_dense(branch, layer, IMAGES, labels, ridge=1e-6)
    outputs = np.asarray(layer(x))
    assert abs(outputs - labels).mean() < 0.02 * abs(labels - labels.mean(axis=0)).mean()


def test_the_other_units_of_a_solved_layer_stay():
    branch, labels = make(), np.random.default_rng(1).normal(3, 1, (len(IMAGES), LAYOUT.n_identity))
    head = branch.get_layer("parameters")
    before = head.get_weights()
    solve_dense(branch, head, IMAGES, labels, columns=LAYOUT.identity)
    solved = np.zeros(LAYOUT.size, bool)
    solved[LAYOUT.identity] = True
    for old, new in zip(before, head.get_weights(), strict=True):
        np.testing.assert_array_equal(new[..., ~solved], old[..., ~solved])
        assert (new[..., solved] != old[..., solved]).all()
    outputs = np.asarray(head(hidden(branch)(IMAGES.astype(np.float32))))[:, solved]
    np.testing.assert_allclose(outputs.mean(axis=0), labels.mean(axis=0), atol=0.01)
