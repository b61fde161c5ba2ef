"""The closed form of the preset 'identity', against least squares on stacked equations."""

import sys
from pathlib import Path

import numpy as np
import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
N, SIZE, TARGETS, PEOPLE = 60, 5, 3, 12


@pytest.fixture
def solve(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    from make_identity_preset import solve

    yield solve
    sys.modules.pop("make_identity_preset", None)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    inputs = rng.normal(1, 2, (N, SIZE)).astype(np.float32)
    targets = inputs @ rng.normal(size=(SIZE, TARGETS)) + rng.normal(size=(N, TARGETS)) + 4
    return inputs, targets, rng.uniform(1, 4, N), np.arange(N) % PEOPLE


def test_the_map_is_that_of_least_squares(solve, data):
    """Rows of the errors, of the differences within people, and of the penalty, each weighted."""
    from make_identity_preset import RIDGE, WITHIN

    inputs, targets, weight, person = data
    kernel, bias = solve(*data)
    weight = weight / weight.mean()
    x = inputs - np.average(inputs, axis=0, weights=weight)
    y = targets - np.average(targets, axis=0, weights=weight)
    root = np.sqrt(weight)[:, None]
    mean = np.stack(
        [np.average(x[person == p], axis=0, weights=weight[person == p]) for p in person]
    )
    ridge = RIDGE * (weight[:, None] * x**2).sum() / SIZE
    rows = np.vstack([root * x, np.sqrt(WITHIN) * root * (x - mean), np.sqrt(ridge) * np.eye(SIZE)])
    wanted = np.vstack([root * y, np.zeros((N + SIZE, TARGETS))])
    np.testing.assert_allclose(kernel, np.linalg.lstsq(rows, wanted, rcond=None)[0], atol=1e-6)
    residual = np.average(inputs @ kernel + bias - targets, axis=0, weights=weight)
    np.testing.assert_allclose(residual, 0, atol=1e-6)


def test_shapes_of_one_person_are_nearer_than_without_the_penalty(solve, data, monkeypatch):
    import make_identity_preset

    def within(kernel):
        shapes = data[0] @ kernel
        return np.mean([shapes[data[3] == p].var(axis=0).sum() for p in range(PEOPLE)])

    steady = within(solve(*data)[0])
    monkeypatch.setattr(make_identity_preset, "WITHIN", 0.0)
    assert steady < 0.9 * within(solve(*data)[0])
