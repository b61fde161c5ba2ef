import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import lsq_linear

from keras_scnn.fitting import bounded_steps
from keras_scnn.fitting.bounded_steps import NormalEquations


def _random(photos: int, own: int, shared: int, group: list[int], seed: int):
    """Equations of random least squares problems, and each group's problem A x = b as a whole."""
    rng = np.random.default_rng(seed)
    group = np.array(group)
    groups = group.max() + 1
    jacobian = rng.normal(size=(photos, 2 * (own + shared), own + shared))
    target = rng.normal(size=(photos, jacobian.shape[1]))
    square = np.swapaxes(jacobian, 1, 2) @ jacobian
    slope = -np.einsum("bri,br->bi", jacobian, target)
    equations = NormalEquations(
        square[:, :own, :own],
        slope[:, :own],
        square[:, :own, own:],
        np.stack([square[group == g][:, own:, own:].sum(axis=0) for g in range(groups)]),
        np.stack([slope[group == g][:, own:].sum(axis=0) for g in range(groups)]),
        group,
    )
    problems = []
    for g in range(groups):
        members = np.flatnonzero(group == g)
        rows = jacobian.shape[1]
        a = np.zeros((rows * len(members), own * len(members) + shared))
        for i, photo in enumerate(members):
            here = slice(rows * i, rows * (i + 1))
            a[here, own * i : own * (i + 1)] = jacobian[photo, :, :own]
            a[here, own * len(members) :] = jacobian[photo, :, own:]
        problems.append((members, a, target[members].ravel()))
    return equations, problems


@pytest.mark.parametrize("group", [[0, 1, 2], [2, 0, 1], [0, 0, 0], [1, 0, 1]])
@pytest.mark.parametrize("width", [0.01, 0.1, np.inf])
def test_it_is_the_minimum_that_scipy_finds(group, width):
    """lsq_linear's BVLS (Stark and Parker 1995) is another algorithm for the same problem."""
    n_own, n_shared = 12, 5
    equations, problems = _random(3, n_own, n_shared, group, seed=1)
    low = np.full((3, n_own), -np.inf)
    low[:, 3:] = -width * np.linspace(0.01, 1, n_own - 3)
    high = np.full((3, n_own), np.inf)
    high[:, 3:] = width
    own, shared = equations.solve(low, high)
    assert (own >= low).all()
    assert (own <= high).all()
    if width < 1:
        assert ((own == low) | (own == high)).sum() > 5, "the bounds should matter here"
    for g, (members, a, b) in enumerate(problems):
        free = np.full(n_shared, np.inf)
        bounds = np.r_[low[members].ravel(), -free], np.r_[high[members].ravel(), free]
        expected = lsq_linear(a, b, bounds, method="bvls", tol=1e-14).x
        assert_allclose(np.r_[own[members].ravel(), shared[g]], expected, atol=1e-7)


def test_at_the_minimum_nothing_pulls_inwards():
    """The optimality conditions (Karush, Kuhn and Tucker) hold on a hundred harder problems."""
    equations, _ = _random(100, 30, 10, list(range(100)), seed=2)
    low, high = np.full((100, 30), -0.03), np.full((100, 30), 0.05)
    own, shared = equations.solve(low, high)
    slope = equations.slope(own, shared)
    assert (slope[own <= low] >= -1e-9).all()
    assert (slope[own >= high] <= 1e-9).all()
    assert np.abs(slope[(own > low) & (own < high)]).max() < 1e-9


def test_exchanges_of_one_unknown_at_a_time_lead_to_the_same_minimum(monkeypatch):
    """The second phase, which ends where the first one would cycle."""
    equations, _ = _random(20, 12, 4, list(range(20)), seed=3)
    low, high = np.full((20, 12), -0.03), np.full((20, 12), 0.05)
    expected = equations.solve(low, high)
    monkeypatch.setattr(bounded_steps, "MAX_BLOCK_PIVOTS", 0)
    for found, at_once in zip(equations.solve(low, high), expected, strict=True):
        assert_allclose(found, at_once, atol=1e-12)


def test_where_exchanging_all_at_once_cycles_the_minimum_is_found_too():
    """Found among random problems: without the second phase, the active sets repeat."""
    square = np.array([[0.553, 2.07, -1.597], [2.07, 7.898, -6.306], [-1.597, -6.306, 5.946]])
    slope = np.array([0.119, 0.193, 0.918])
    low, high = np.full(3, -0.376), np.full(3, 0.567)
    equations = NormalEquations(
        square[None], slope[None], np.zeros((1, 3, 0)), np.zeros((1, 0, 0)), np.zeros((1, 0)),
        np.zeros(1, int),
    )  # fmt: skip
    (own,), _ = equations.solve(low[None], high[None])
    factor = np.linalg.cholesky(square).T
    target = -np.linalg.solve(factor.T, slope)  # |factor x - target|^2 / 2 is the quadratic
    expected = lsq_linear(factor, target, (low, high), method="bvls", tol=1e-14).x
    assert_allclose(own, expected, atol=1e-7)
