import dataclasses

import numpy as np
import pytest

from keras_scnn.models import Preset, build_branch, build_encoder, load_preset, save_preset
from keras_scnn.models.preset_network import branch_like, network_settings
from keras_scnn.parameters import ParameterLayout, ParameterSpace, Whitening


def preset_with(open_face, **heads) -> Preset:
    model = open_face.truncated(8, 4)
    layout = ParameterLayout(8, 4)
    branch = build_branch(build_encoder("mobilenet_0.5", 64), layout, 16, **heads)
    whitening = Whitening(np.zeros(layout.size), np.ones(layout.size))
    return Preset(branch, ParameterSpace(model, whitening), "mobilenet_0.5")


def test_a_branch_like_a_presets_has_its_weights_but_for_the_changes(open_face):
    heads = {"feature_channels": 24, "joint_head": True, "expression_channels": 6}
    preset = preset_with(open_face, **heads)
    shapes = [(weight.path, weight.shape) for weight in preset.branch.weights]
    assert [(w.path, w.shape) for w in branch_like(preset).weights] == shapes
    branch = branch_like(preset, gaze_channels=3, feature_size=20)
    again = dataclasses.replace(preset, branch=branch)
    changes = {"gaze_channels": 3, "feature_size": 20}
    assert network_settings(again) == network_settings(preset) | changes
    assert {path for path, _ in shapes} < {weight.path for weight in branch.weights}


@pytest.mark.integration
@pytest.mark.parametrize(("heads", "prefix"), [((6, 0), ""), ((0, 6), "gaze_")])
def test_a_fine_head_comes_back(tmp_path, open_face, heads, prefix):
    preset = preset_with(open_face)
    branch = branch_like(preset, expression_channels=heads[0], gaze_channels=heads[1])
    linear = branch.get_layer(f"expression_{prefix}linear").kernel
    linear.assign(np.random.default_rng(0).normal(size=linear.shape))
    save_preset(tmp_path, dataclasses.replace(preset, branch=branch))
    again = load_preset(tmp_path)
    assert (again.expression_channels, again.gaze_channels) == heads
    image = np.random.default_rng(1).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    expected = branch(image)["parameters"]
    np.testing.assert_allclose(again.branch(image)["parameters"], expected, atol=5e-3)
