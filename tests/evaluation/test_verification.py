import numpy as np
import pytest
from scipy.stats import norm

from keras_scnn.evaluation import verification
from keras_scnn.evaluation.verification import rank_pairs, rates, summarize_pairs, tar_at_far


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_separable_pairs_are_verified_without_error(rng):
    same = np.arange(100) < 50
    result = verification(np.where(same, 1.0, 2.0) + rng.uniform(0, 0.5, 100), same)
    assert result.accuracy_percent == 100
    assert result.auc == 1
    assert 1.4 < result.threshold < 2.1


def test_a_blind_distance_is_at_chance(rng):
    same = np.arange(4000) < 2000
    result = verification(rng.uniform(size=4000), same)
    assert result.accuracy_percent == pytest.approx(50, abs=3)
    assert result.auc == pytest.approx(0.5, abs=0.03)


def test_equal_distances_are_worth_exactly_half():
    result = verification(np.zeros(40), np.arange(40) < 20)
    assert result.auc == 0.5
    assert result.accuracy_percent == 50


def test_accuracy_of_two_normal_distributions_is_the_textbook_value(rng):
    same = np.arange(40000) < 20000
    result = verification(rng.normal(np.where(same, 0, 2), 1), same)
    # Best cut at 1: Phi(1) = 0.84134; AUC = Phi(2 / sqrt 2) = 0.92135.
    assert result.accuracy_percent == pytest.approx(84.13, abs=0.6)
    assert result.auc == pytest.approx(0.92135, abs=0.004)


def test_the_area_under_the_curve_is_that_of_a_slow_loop(rng):
    distance, same = rng.integers(0, 9, 60).astype(float), np.arange(60) % 2 == 0
    wins = [float(a < b) + 0.5 * float(a == b) for a in distance[same] for b in distance[~same]]
    assert verification(distance, same, folds=2).auc == pytest.approx(np.mean(wins))


@pytest.mark.parametrize("apart", [0.5, 2.0, 3.0])
def test_two_normal_distributions_have_the_textbook_numbers(apart):
    # Quantiles in place of random draws: the distributions themselves.
    draws = norm.ppf((np.arange(20000) + 0.5) / 20000)
    result = verification(np.concatenate([draws, draws + apart]), np.arange(40000) < 20000)
    assert result.d_prime == pytest.approx(apart, rel=2e-3)
    assert result.auc == pytest.approx(norm.cdf(apart / np.sqrt(2)), abs=1e-4)
    assert result.eer_percent == pytest.approx(100 * norm.cdf(-apart / 2), abs=0.02)
    for limit, tar in (
        (0.01, result.tar_percent_at_far_1e2),
        (0.001, result.tar_percent_at_far_1e3),
    ):
        assert tar == pytest.approx(
            100 * norm.cdf(apart + norm.ppf(limit)), abs=0.4
        )  # steps of 1 / 20000


def test_rates_by_hand():
    # Distances 1 to 6, kinds S D S S D D: at each cut the accepted shares of D and S.
    ranked = rank_pairs(np.arange(1.0, 7), np.array([1, 0, 1, 1, 0, 0]), folds=2)
    far, tar = rates(ranked, np.ones(6))
    np.testing.assert_allclose(far, np.array([0, 0, 1, 1, 1, 2, 3]) / 3)
    np.testing.assert_allclose(tar, np.array([0, 1, 1, 2, 3, 3, 3]) / 3)
    assert tar_at_far(far, tar, 0.0) == pytest.approx(1 / 3)
    assert tar_at_far(far, tar, 0.34) == 1
    result = verification(np.arange(1.0, 7), np.array([1, 0, 1, 1, 0, 0]), folds=2)
    assert result.eer_percent == pytest.approx(100 / 3)  # after 4: FAR 1/3, and after 3: FRR 1/3
    assert np.isnan(result.tar_percent_at_far_1e2)  # 3 pairs of two people do not show 1 %


@pytest.mark.parametrize(("of_one", "of_two"), [(20, 100), (200, 99)])
def test_pairs_of_two_people_decide_which_rates_are_seen(rng, of_one, of_two):
    result = verification(rng.uniform(size=of_one + of_two), np.arange(of_one + of_two) < of_one)
    assert np.isfinite(result.tar_percent_at_far_1e2) == (of_two == 100)
    assert np.isnan(result.tar_percent_at_far_1e3)


def test_a_threshold_lies_in_the_middle_between_the_nearest_pairs_of_the_other_folds():
    # Fold 0: one person at 1 and 2, two at 5 and 6; fold 1: at 1.5 and 2.5, and at 4.6 and 5.5.
    distance = np.array([1, 2, 5, 6, 1.5, 2.5, 4.6, 5.5])
    same, fold = np.tile([True, True, False, False], 2), np.repeat([0, 1], 4)
    by_hand = [(2.5 + 4.6) / 2, (2 + 5) / 2]
    assert verification(distance, same, fold=fold).threshold == pytest.approx(np.mean(by_hand))


def test_d_prime_is_not_that_of_rounded_means():
    """0.1 is not exactly the mean of seven times 0.1."""
    distance = np.repeat([0.1, 0.3], 7)
    assert verification(distance, distance < 0.2).d_prime == 0


def test_d_prime_is_that_of_its_formula(rng):
    distance, same = rng.uniform(size=300), rng.random(300) < 0.3
    one, two = distance[same], distance[~same]
    expected = (two.mean() - one.mean()) / np.sqrt((one.var() + two.var()) / 2)
    assert verification(distance, same).d_prime == pytest.approx(expected)


def test_accuracy_by_fold_is_that_of_a_slow_loop(rng):
    for _ in range(20):
        distance, same = rng.integers(0, 12, 60) / 2, rng.random(60) < 0.5
        fold, accuracies = rng.integers(0, 3, 60), []
        for i in range(3):
            others = fold != i
            known = np.unique(distance[others])
            cuts = [known[0], *(known[1:] + known[:-1]) / 2, known[-1] + 1e-9]
            right = [((distance[others] < cut) == same[others]).sum() for cut in cuts]
            cut = cuts[np.argmax(right)]
            accuracies.append(((distance[~others] < cut) == same[~others]).mean())
        result = verification(distance, same, fold=fold)
        assert result.accuracy_percent == pytest.approx(100 * np.mean(accuracies))
        assert result.accuracy_std_percent == pytest.approx(100 * np.std(accuracies))


def test_given_folds_may_have_any_names(rng):
    distance, same = rng.uniform(size=4000), np.arange(4000) % 2 == 0
    fold = np.arange(4000) // 2000
    named = verification(distance, same, fold=np.array([7, 30])[fold])
    assert named == verification(distance, same, fold=fold)


@pytest.mark.parametrize("missing", [[], [2], [0, 3]], ids=str)
def test_a_weight_of_two_is_a_pair_that_is_there_twice(rng, missing):
    """And a fold without weight, as in resamples of few people, is left out."""
    distance, same = rng.integers(0, 20, 400).astype(float), rng.random(400) < 0.5
    fold, weights = np.arange(400) % 4, rng.integers(0, 4, 400)
    weights[np.isin(fold, missing)] = 0
    result = summarize_pairs(rank_pairs(distance, same, fold=fold), weights.astype(float))
    index = np.repeat(np.arange(400), weights)
    again = verification(distance[index], same[index], fold=fold[index])
    for name in ("accuracy_percent", "accuracy_std_percent", "auc", "threshold", "eer_percent",
                 "d_prime", "tar_percent_at_far_1e2"):  # fmt: skip
        assert getattr(result, name) == pytest.approx(getattr(again, name)), name


def test_a_resample_without_a_kind_of_pair_has_no_numbers():
    distance, same = np.arange(40.0), np.arange(40) < 20
    result = summarize_pairs(rank_pairs(distance, same), same.astype(float))
    assert np.isnan([result.auc, result.eer_percent, result.d_prime]).all()


def test_a_fold_alone_has_no_threshold_and_no_accuracy(rng):
    """As in a resample of the people of one of two folds: accepting nothing was its threshold."""
    fold, same = np.arange(40) % 2, np.arange(40) < 20
    ranked = rank_pairs(rng.uniform(size=40), same, fold=fold)
    result = summarize_pairs(ranked, (fold == 1).astype(float))
    assert np.isnan([result.accuracy_percent, result.threshold]).all()
    assert 0 < result.auc < 1


def test_a_resample_without_any_pair_has_no_numbers():
    """As with people of one photo each, none of whom are paired."""
    result = summarize_pairs(rank_pairs(np.arange(40.0), np.arange(40) < 20), np.zeros(40))
    numbers = result.accuracy_percent, result.accuracy_std_percent, result.threshold, result.auc
    assert np.isnan(numbers).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: verification(np.zeros((2, 2)), np.ones(2)), r"\(P,\)"),
        (lambda: verification(np.zeros(8), np.arange(7) < 3), r"\(8,\) and \(7,\)"),
        (lambda: verification(np.zeros(8), np.arange(8) < 1), "2 pairs of each kind"),
        (lambda: verification([1, np.nan], [True, False]), "finite"),
        (lambda: verification(np.zeros(4), np.arange(4) < 2, fold=np.zeros(4)), "two folds"),
        (lambda: verification(np.zeros(4), np.arange(4) < 2, fold=np.arange(3)), r"\(3,\)"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_few_pairs_are_split_into_fewer_folds():
    distance, same = np.r_[np.arange(4.0), np.arange(4.0) + 10], np.arange(8) < 4
    assert set(rank_pairs(distance, same).fold) == {0, 1, 2, 3}
    assert verification(distance, same).accuracy_percent == 100


@pytest.mark.parametrize("folds", [2.5, 1, 0, -3, True, "10"])
def test_folds_that_are_not_a_whole_number_from_two_are_named(folds):
    distance, same = np.arange(12.0), np.arange(12) % 2
    with pytest.raises(ValueError, match="folds is .*; it must be"):
        verification(distance, same, folds)
    assert verification(distance, same, folds, fold=np.arange(12) // 6).n_pairs == 12
