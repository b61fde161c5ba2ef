"""Kernels with few digits."""

import numpy as np


def test_each_channel_lies_on_a_grid_of_its_own(tool):
    scale = np.array([1e-3, 1.0, 50.0])
    kernel = np.float32(np.random.default_rng(0).normal(0, scale, (40, 50, 3)))
    rounded = tool.on_grid(kernel, 4)
    error = abs(rounded - kernel).max(axis=(0, 1))
    assert (error <= 1.02 * scale / 8).all() and (error > scale / 40).all()
    assert all(len(np.unique(rounded[..., i])) < 100 for i in range(3))
