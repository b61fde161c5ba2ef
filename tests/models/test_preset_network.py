import dataclasses

import numpy as np
import pytest

from keras_scnn.models import Preset, build_branch, build_encoder, load_preset, save_preset
from keras_scnn.models.flip_averaging import build_flip_averaged
from keras_scnn.models.preset_network import network_settings, with_settings
from keras_scnn.parameters import ParameterLayout, ParameterSpace, Whitening


def preset_with(open_face, **heads) -> Preset:
    model = open_face.truncated(8, 4)
    layout = ParameterLayout(8, 4)
    branch = build_branch(build_encoder("mobilenet_0.5", 64), layout, 16, **heads)
    whitening = Whitening(np.zeros(layout.size), np.ones(layout.size))
    return Preset(branch, ParameterSpace(model, whitening), "mobilenet_0.5")


def test_a_network_with_other_settings_has_all_weights_that_fit(open_face):
    heads = {"feature_channels": 24, "joint_head": True, "expression_channels": 6}
    preset = preset_with(open_face, **heads)
    values = {weight.path: np.asarray(weight) for weight in preset.core.weights}
    changes = {"gaze_channels": 3, "feature_size": 20}
    changed, left = with_settings(preset, **changes)
    assert network_settings(changed) == network_settings(preset) | changes
    new = {weight.path for weight in left}
    longer = {"features_linear/kernel", "features_linear/bias"}
    assert new & set(values) == longer and len(new) > len(longer)
    assert all(path.startswith("expression_gaze_") for path in new - longer)
    now = {weight.path: np.asarray(weight) for weight in changed.core.weights}
    assert set(now) == set(values) | new
    for path in set(values) - longer:
        np.testing.assert_array_equal(now[path], values[path])


def test_weights_that_fit_can_be_new_all_the_same(open_face):
    preset = preset_with(open_face, expression_channels=6)
    again, left = with_settings(preset, new=("expression_mix/",))
    assert [weight.path for weight in left] == ["expression_mix/kernel"]
    old = next(w for w in preset.core.weights if w.path == left[0].path)
    assert not np.array_equal(left[0], old)
    assert again.core is not preset.core


def test_flip_averaging_is_kept(open_face):
    preset = preset_with(open_face)
    mirrored = build_flip_averaged(preset.branch, preset.space)
    preset = dataclasses.replace(preset, branch=mirrored)
    changed, left = with_settings(preset, gaze_channels=3)  # which has no effect at first
    assert changed.is_flip_averaged and changed.gaze_channels == 3 and left
    image = np.random.default_rng(1).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    ours, theirs = changed.branch(image), preset.branch(image)
    np.testing.assert_allclose(ours["parameters"], theirs["parameters"], atol=1e-4)


@pytest.mark.integration
@pytest.mark.parametrize(("heads", "prefix"), [((6, 0), ""), ((0, 6), "gaze_")])
def test_a_fine_head_comes_back(tmp_path, open_face, heads, prefix):
    preset = preset_with(open_face)
    preset, _ = with_settings(preset, expression_channels=heads[0], gaze_channels=heads[1])
    linear = preset.core.get_layer(f"expression_{prefix}linear").kernel
    linear.assign(np.random.default_rng(0).normal(size=linear.shape))
    save_preset(tmp_path, preset)
    again = load_preset(tmp_path)
    assert (again.expression_channels, again.gaze_channels) == heads
    image = np.random.default_rng(1).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    expected = preset.branch(image)["parameters"]
    np.testing.assert_allclose(again.branch(image)["parameters"], expected, atol=5e-3)
