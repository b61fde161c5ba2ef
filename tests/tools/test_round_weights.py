"""Kernels with few digits."""

import sys

import numpy as np
import pytest

from keras_scnn.models import load_preset
from keras_scnn.models.inference import keras_network
from keras_scnn.models.presets import FOLDER


def test_each_channel_lies_on_a_grid_of_its_own(tool):
    scale = np.array([1e-3, 1.0, 50.0])
    kernel = np.float32(np.random.default_rng(0).normal(0, scale, (40, 50, 3)))
    rounded = tool.on_grid(kernel, 4)
    error = abs(rounded - kernel).max(axis=(0, 1))
    assert (error <= 1.02 * scale / 8).all() and (error > scale / 40).all()
    assert all(len(np.unique(rounded[..., i])) < 100 for i in range(3))


def test_a_channel_of_a_depthwise_kernel_has_a_grid_of_its_own(tool):
    scale = np.geomspace(1e-4, 10, 60)[:, None]
    kernel = np.float32(np.random.default_rng(0).normal(0, scale, (7, 7, 60, 1)))
    rounded = tool.on_grid(kernel, 4)
    deviation = kernel.std(axis=(0, 1))
    assert (abs(rounded - kernel).max(axis=(0, 1)) <= deviation / 8 * 1.001).all()
    assert (rounded.std(axis=(0, 1)) > 0.9 * deviation).all()


@pytest.mark.integration
def test_the_command_makes_a_smaller_file_of_nearly_the_same_network(tool, tmp_path, monkeypatch):
    name, out = "aflw-mobilenet-0.5", tmp_path / "rounded"
    monkeypatch.setattr(sys, "argv", ["round_weights.py", name, str(out), "--steps", "16"])
    tool.main()
    before, after = ((folder / "weights.npz").stat().st_size for folder in (FOLDER / name, out))
    assert after < 0.7 * before
    assert load_preset(out).metadata["rounded"]["steps"] == 16
    crops = np.random.default_rng(0).integers(0, 255, (4, 120, 120, 3)).astype(np.uint8)
    one, other = (keras_network(load_preset(p))(crops)["parameters"] for p in (name, out))
    assert 0 < abs(one - other).mean() < 0.1  # standard deviations


def test_steps_must_be_positive(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", "mobile", str(tmp_path / "out"), "--steps", "0"])
    with pytest.raises(SystemExit):
        tool.main()
    assert "--steps is 0; it must be above 0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
