import numpy as np
import pytest
from scipy.special import expit

from keras_scnn.evaluation.calibration import (
    calibrate,
    equal_weights,
    fit_logistic,
    held_out,
    probability,
    reliability,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_two_gaussians_give_the_curve_of_bayes_rule(rng):
    # Equal spread s and equal priors: logit = (m1 - m2) / s^2 * x + (m2^2 - m1^2) / (2 s^2).
    one, two, spread = 1.5, 2.5, 0.7
    same = np.arange(40000) < 10000  # not equally frequent: the weights make up for it
    distance = np.where(same, one, two) + spread * rng.normal(size=len(same))
    result = fit_logistic(distance, same, (-1,))
    assert result["a"] == pytest.approx((one - two) / spread**2, rel=0.03)
    assert result["b"] == pytest.approx((two**2 - one**2) / (2 * spread**2), rel=0.03)


def test_the_fit_is_a_stationary_point_of_the_weighted_likelihood(rng):
    values, same = rng.normal(size=(300, 2)), rng.random(300) < 0.3
    values[same] += [-1, 1]
    result = fit_logistic(values, same, (-1, 1))
    residual = np.where(same, (same.sum() + 1) / (same.sum() + 2), 1 / ((~same).sum() + 2))
    residual -= expit(values @ result["a"] + result["b"])
    for column in (*values.T, np.ones(300)):
        slope = column[same] @ residual[same] / same.sum()
        slope += column[~same] @ residual[~same] / (~same).sum()
        assert slope == pytest.approx(0, abs=1e-5)


def test_units_do_not_matter(rng):
    distance, same = rng.gamma(4, 1, 200), np.arange(200) < 90
    distance[~same] += 1
    in_mm, in_meters = (fit_logistic(distance * u, same, (-1,)) for u in (1, 1e-3))
    assert in_meters["a"] * 1e-3 == pytest.approx(in_mm["a"], rel=1e-4)
    assert in_meters["b"] == pytest.approx(in_mm["b"], rel=1e-4)


def test_a_constant_or_inverted_distance_gives_one_half(rng):
    same = np.arange(400) < 200
    lies = np.where(same, 3.0, 1.0) + rng.normal(size=400)
    for distance in (np.ones(400), lies):
        result = fit_logistic(distance, same, (-1,))
        assert result["a"] == 0
        np.testing.assert_allclose(probability(result, distance), 0.5, atol=1e-4)


def test_pairs_without_overlap_give_a_finite_curve():
    result = fit_logistic([1.0, 1.1, 3.0, 3.1], [True, True, False, False], (-1,))
    assert np.isfinite([result["a"], result["b"]]).all()
    outputs = probability(result, np.array([1.0, 3.0]))
    assert outputs[0] > 0.7
    assert outputs[1] < 0.3


def test_the_probability_falls_with_the_distance_and_rises_with_the_cosine():
    outputs = probability({"a": [-2.0, 3.0], "b": 0.5}, np.array([[1.0, 0.5], [2, 0.5], [1, 0.9]]))
    np.testing.assert_allclose(outputs, 1 / (1 + np.exp([0.0, 2.0, -1.2])))
    assert probability({"a": -2.0, "b": 4.0}, 2.0) == pytest.approx(0.5)


def test_reliability_is_that_of_a_slow_loop(rng):
    outputs, same = rng.random(500), rng.random(500) < 0.2
    result = reliability(outputs, same, 7)
    weights, error = equal_weights(same), 0
    for i in range(7):
        inside = [j for j in range(500) if i / 7 <= outputs[j] < (i + 1) / 7]
        share = sum(weights[j] for j in inside)
        mean = sum(weights[j] * outputs[j] for j in inside) / share
        one = sum(weights[j] for j in inside if same[j]) / share
        error += share * abs(mean - one)
        assert (result.predicted[i], result.observed[i]) == (
            pytest.approx(mean),
            pytest.approx(one),
        )
    assert result.expected_calibration_error == pytest.approx(error)
    assert sum(result.share) == pytest.approx(1)


def test_reliability_by_hand():
    result = reliability([0.8, 0.8, 0.2, 1.0], [True, False, False, True])
    # 0.8 is half right, 0.2 is all wrong, and 1 is right: 0.5 * 0.3 + 0.25 * 0.2 + 0.
    assert result.expected_calibration_error == pytest.approx(0.2)


def people_pairs(rng, people: int, photos: int = 6):
    """Pairs of points on a line, a person's points about a center of his own."""
    person = np.repeat(np.arange(people), photos)
    point = rng.normal(0, 3, people)[person] + rng.normal(size=len(person))
    first, second = np.triu_indices(len(person), 1)
    return abs(point[first] - point[second]), person[first], person[second]


def test_a_fitted_curve_is_reliable_on_people_it_was_not_fitted_on(rng):
    distance, first, second = people_pairs(rng, 80)
    result = held_out(distance, first == second, (first, second), (-1,))
    assert result.expected_calibration_error < 0.08
    # A curve that is far too sure of itself is not.
    curve = fit_logistic(distance, first == second, (-1,))
    outputs = probability({name: 8 * value for name, value in curve.items()}, distance)
    assert reliability(outputs, first == second).expected_calibration_error > 0.12


def test_the_curve_never_sees_the_people_it_is_judged_by(rng, monkeypatch):
    distance, first, second = people_pairs(rng, 20)
    seen = []

    def spy(values, same, signs):
        seen.append({*names[np.isin(distance, values[:, 0])]})
        return {"a": -1.0, "b": 1.0}

    names = first * 1000 + second
    monkeypatch.setattr("keras_scnn.evaluation.calibration.fit_logistic", spy)
    held_out(distance, first == second, (first, second), (-1,))
    assert len(seen) == 5
    for pairs in seen:
        people = {p // 1000 for p in pairs} | {p % 1000 for p in pairs}
        assert len(people) == 16  # of 20, in 5 folds


def test_only_pairs_of_people_of_one_fold_are_judged(rng, monkeypatch):
    """20 people in 5 folds: the pairs of 4 people's 24 photos, 5 times."""
    distance, first, second = people_pairs(rng, 20)
    monkeypatch.setattr(
        "keras_scnn.evaluation.calibration.reliability", lambda predicted, same: (predicted, same)
    )
    predicted, same = held_out(distance, first == second, (first, second), (-1,))
    assert len(predicted) == 5 * (24 * 23 // 2)
    assert same.sum() == 20 * (6 * 5 // 2)


def test_two_people_are_too_few_to_judge_by(rng):
    distance, first, second = people_pairs(rng, 2)
    assert held_out(distance, first == second, (first, second), (-1,)) is None
    result, curves = calibrate(distance, None, first == second, (first, second))
    assert curves == {}
    assert set(result) == {"shape", "pairs", "people"}
    assert (result["pairs"], result["people"]) == (66, 2)


def test_a_fold_of_a_single_person_gives_no_pairs(rng):
    """5 people in 5 folds: no pair of two people is within one."""
    distance, first, second = people_pairs(rng, 5)
    assert held_out(distance, first == second, (first, second), (-1,)) is None


def test_each_kind_has_the_curve_of_its_own_values(rng):
    """With a scaled distance 'both' is of that one, not of the distance in mm."""
    distance, first, second = people_pairs(rng, 8)
    scaled = distance + 0.5 * rng.normal(size=len(distance))
    cosine, same = 0.5 * rng.normal(size=len(distance)) - distance, first == second
    result, _ = calibrate(distance, cosine, same, (first, second), scaled)
    expected = {
        "shape": fit_logistic(distance, same, (-1,)),
        "scaled_shape": fit_logistic(scaled, same, (-1,)),
        "feature": fit_logistic(cosine, same, (1,)),
        "both": fit_logistic(np.c_[scaled, cosine], same, (-1, 1)),
    }
    assert set(result) == {*expected, "pairs", "people"}
    for kind, curve in expected.items():
        assert {name: result[kind][name] for name in curve} == curve
        assert np.all(curve["a"])


def test_a_kind_of_a_single_pair_weighs_one_half():
    np.testing.assert_array_equal(equal_weights([1, 0, 0, 0, 0]), [0.5, *[0.125] * 4])
    np.testing.assert_array_equal(equal_weights([0, 1, 1]), [0.5, 0.25, 0.25])


def test_with_features_there_are_three_kinds(rng):
    distance, first, second = people_pairs(rng, 30)
    cosine = np.exp(-distance) + 0.1 * rng.normal(size=len(distance))
    result, curves = calibrate(distance, cosine, first == second, (first, second))
    assert set(curves) == {"shape", "feature", "both"}
    assert result["both"]["a"][0] <= 0 <= result["both"]["a"][1]
    for kind, curve in curves.items():
        outputs = result[kind]["expected_calibration_error"]
        assert outputs == curve.expected_calibration_error


@pytest.mark.parametrize(
    ("values", "same", "signs", "message"),
    [
        ([1.0, 2], [True, True], (-1,), "pairs of one person and pairs of two"),
        ([1.0, np.nan], [True, False], (-1,), "finite"),
        ([1.0, 2, 3], [True, False], (-1,), "both must be"),
        ([1.0, 2], [True, False], (-1, 1), "1 values per pair, but 2 signs"),
        (np.zeros((2, 2, 2)), [True, False], (-1,), r"\(P,\) or \(P, D\)"),
    ],
)
def test_pairs_that_cannot_be_fitted_are_refused(values, same, signs, message):
    with pytest.raises(ValueError, match=message):
        fit_logistic(values, same, signs)


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"a": "x", "b": 1},
        {"a": [1, 2], "b": 0},
        {"a": float("nan"), "b": 0},
        {"a": 1, "b": float("inf")},
        {"a": np.eye(3).tolist(), "b": 0},
    ],
)
def test_damaged_coefficients_are_refused(bad):
    with pytest.raises(ValueError, match="coefficients"):
        probability(bad, np.ones(3))


@pytest.mark.parametrize("bins", [0, -2, 2.5])
def test_an_invalid_number_of_bins_is_named(bins):
    with pytest.raises(ValueError, match="bins is"):
        reliability([0.5, 0.7], [True, False], bins)


def test_a_single_bin_has_all_pairs():
    result = reliability([0.3, 0.5], [True, False], 1)
    assert result.share == (1,)
    assert result.expected_calibration_error == pytest.approx(0.1)  # 0.4 predicted, 0.5 observed


def test_probabilities_out_of_range_are_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        reliability([0.5, 1.5], [True, False])
