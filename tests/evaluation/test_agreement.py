import numpy as np
import pytest

from keras_scnn.evaluation.agreement import AgreementEvaluator

RNG = np.random.default_rng(0)
TRUE = RNG.normal(size=(40, 6))
YAW = RNG.uniform(-80, 80, 40)


def summary(predicted, true=TRUE, weights=None):
    weights = np.ones(len(true)) if weights is None else weights
    return AgreementEvaluator(predicted, true, YAW[: len(true)]).summary(weights)


def test_a_constant_explains_nothing_and_the_truth_plus_a_constant_all():
    constant = summary(np.full_like(TRUE, 3.0))
    assert constant.r2 == pytest.approx(0, abs=1e-9)
    assert constant.spread == pytest.approx(0, abs=1e-6)
    same = summary(TRUE + [1, 2, 3, 4, 5, 6])
    assert (same.r2, same.spread, same.error_mm) == pytest.approx((1, 1, 0), abs=1e-6)
    half = summary(TRUE / 2)
    assert half.r2 == pytest.approx(0.75)  # 1 - (1 - 1/2)^2
    assert (half.spread, half.correlation) == pytest.approx((0.5, 1))


def test_numbers_are_those_of_the_plain_formula_with_weights_too():
    predicted = 0.4 * TRUE + RNG.normal(size=TRUE.shape) + 2
    weights = RNG.integers(0, 4, len(TRUE)).astype(float)
    result = summary(predicted, weights=weights)
    rows = np.repeat(np.arange(len(TRUE)), weights.astype(int))  # as often as the weight says
    p, t = predicted[rows] - predicted[rows].mean(axis=0), TRUE[rows] - TRUE[rows].mean(axis=0)
    assert result.r2 == pytest.approx(1 - ((p - t) ** 2).sum() / (t**2).sum())
    assert result.spread == pytest.approx(p.std() / t.std())
    assert result.correlation == pytest.approx(np.corrcoef(p.ravel(), t.ravel())[0, 1], abs=1e-6)
    assert result.true_spread_mm == pytest.approx(np.sqrt((t**2).sum(axis=1).mean()))
    turned = np.abs(YAW[rows]) >= 30
    expected = 1 - ((p - t)[turned] ** 2).sum() / (t[turned] ** 2).sum()
    assert result.bins_r2[2] == pytest.approx(expected)
    assert result.bins_count[2] == (np.abs(YAW) >= 30).sum()


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"they must be \(M, D\)"):
        summary(TRUE[:, :3])
    with pytest.raises(ValueError, match="M above 1"):
        summary(TRUE[:1], TRUE[:1])
    with pytest.raises(ValueError, match="finite"):
        summary(np.full_like(TRUE, np.nan))


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
@pytest.mark.parametrize("which", range(3))
def test_numbers_that_are_not_finite_are_refused(which, bad):
    arrays = [TRUE.copy(), TRUE.copy(), YAW.copy()]
    arrays[which][7] = bad
    with pytest.raises(ValueError, match="shapes and yaw_degrees must be finite numbers"):
        AgreementEvaluator(*arrays)


def test_without_any_weight_there_are_no_numbers():
    """As in a resample of people without a found face."""
    result = AgreementEvaluator(TRUE, TRUE, YAW).summary(np.zeros(len(TRUE)))
    numbers = result.r2, result.correlation, result.spread, result.error_mm, result.true_spread_mm
    assert np.isnan([*numbers, *result.bins_r2, *result.bins_spread]).all()


def test_equal_true_shapes_leave_nothing_to_explain():
    """Rounded Gram matrices gave an R² of -6e15 and a spread of 8e7."""
    rng = np.random.default_rng(0)
    predicted, true = rng.normal(size=(6, 30)), np.tile(rng.normal(size=30), (6, 1))
    for weights in (np.ones(6), rng.uniform(size=6)):
        result = AgreementEvaluator(predicted, true, np.zeros(6)).summary(weights)
        assert np.isnan([result.r2, result.spread, result.correlation]).all()
        assert (result.true_spread_mm, result.error_mm > 1) == (0, True)
