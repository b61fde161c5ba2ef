import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from keras_scnn.evaluate import main
from keras_scnn.evaluation import Pairs
from keras_scnn.evaluation.verification import rank_pairs, right_answers, summarize_pairs
from keras_scnn.protocols import groups as module
from keras_scnn.protocols.groups import group_summary
from keras_scnn.protocols.listed_pairs import evaluate_listed_pairs


def test_an_answer_is_right_by_the_threshold_of_the_other_folds():
    distance = np.array([0.1, 0.9, 0.5, 1.0, 2.0, 0.2])
    same = np.array([True, False, True, False, True, False])
    fold = np.array([0, 0, 0, 1, 1, 1])
    # The best threshold of fold 1 is below 1.0 (or any that accepts nothing of two people and
    # nothing of one), that of fold 0 between 0.5 and 0.9.
    right = right_answers(rank_pairs(distance, same, fold=fold))
    assert right[3:].tolist() == [True, False, False]  # 1.0 refused, 2.0 refused, 0.2 accepted
    accuracy = 100 * np.mean([right[:3].mean(), right[3:].mean()])
    from keras_scnn.evaluation.verification import verification

    assert verification(distance, same, fold=fold).accuracy_percent == pytest.approx(accuracy)


@pytest.mark.parametrize("seed", range(20))
def test_right_answers_make_the_accuracy_also_where_distances_are_equal(seed):
    rng, fold = np.random.default_rng(seed), np.arange(12) % 3
    ranked = rank_pairs(rng.integers(0, 4, 12), rng.permutation(12) < 6, fold=fold)
    right = right_answers(ranked)
    by_fold = [right[fold == number].mean() for number in range(3)]
    assert summarize_pairs(ranked).accuracy_percent == pytest.approx(100 * np.mean(by_fold))


@pytest.mark.parametrize("across", [9, 1])  # a pair of two groups, right or wrong, is of neither
def test_a_groups_accuracy_is_the_mean_of_accepted_and_refused(monkeypatch, across):
    monkeypatch.setattr(module, "MIN_PAIRS", 2)
    # Groups: 0, 1 are a, 2, 3 are b, 4 is unknown; a photo has its person's number. The two folds
    # are alike, so the threshold of both lies between 1 and 9.
    first = np.tile([0, 1, 0, 2, 3, 2, 2, 4, 0], 2)
    second = np.tile([0, 1, 1, 2, 3, 3, 3, 4, 2], 2)
    same = np.tile([True, True, False, True, True, False, False, True, False], 2)
    distance = np.tile([1.0, 1, 9, 1, 9, 9, 1, 1, across], 2)
    pairs = Pairs(first, second, same, np.repeat([0, 1], 9))
    ranked = {"mm": rank_pairs(distance, same, fold=pairs.fold)}
    of = {"set": np.array(["a", "a", "b", "b", ""])}
    values = group_summary(ranked, pairs, of)(np.ones(18))["set"]
    assert values["a"]["mm"] == {
        "accuracy_percent": 100.0,
        "accepted_percent": 100.0,
        "refused_percent": 100.0,
        "auc": 1.0,
    }
    assert values["b"]["mm"]["accepted_percent"] == 50 == values["b"]["mm"]["refused_percent"]
    # Of b's pairs of one person and of two (1 and 9 each), one of four combinations is in order,
    # one reversed and two are ties.
    assert values["b"]["mm"]["auc"] == 0.5
    assert set(values) == {"a", "b"}
    monkeypatch.setattr(module, "MIN_PAIRS", 5)
    assert group_summary(ranked, pairs, of)(np.ones(18)) == {"set": {}}


def test_a_groups_auc_does_not_depend_on_the_common_threshold(monkeypatch):
    monkeypatch.setattr(module, "MIN_PAIRS", 2)
    rng, n = np.random.default_rng(0), 400
    person = np.arange(20)
    first, second = rng.integers(0, 20, (2, n))
    second = np.where(rng.random(n) < 0.5, first, second)
    same = person[first] == person[second]
    tone = np.where(person < 12, "a", "b")
    # All distances of group b are small: one threshold accepts its pairs of two people.
    distance = rng.normal(np.where(same, 1.0, 2.0), 0.8) * np.where(tone[first] == "b", 0.1, 1)
    pairs = Pairs(first, second, same, rng.integers(0, 5, n))
    ranked = {"mm": rank_pairs(distance, same, fold=pairs.fold)}
    weights = rng.integers(0, 3, n).astype(float)
    values = group_summary(ranked, pairs, {"tone": tone})(weights)["tone"]
    for group in "ab":
        chosen = (tone[first] == group) & (tone[second] == group)
        one, two = (
            np.repeat(distance[kind], np.int64(weights[kind]))
            for kind in (chosen & same, chosen & ~same)
        )
        expected = mannwhitneyu(two, one).statistic / (len(one) * len(two))
        assert values[group]["mm"]["auc"] == pytest.approx(expected)
    assert values["b"]["mm"]["accuracy_percent"] < 70 < 80 < 100 * values["b"]["mm"]["auc"]
    nobody = group_summary(ranked, pairs, {"tone": tone})(np.zeros(n))["tone"]
    assert np.isnan(nobody["a"]["mm"]["auc"])


def test_accuracy_by_group_stands_in_the_results(predictor, people, pairs_file, monkeypatch):
    monkeypatch.setattr(module, "MIN_PAIRS", 10)
    file = people / "groups.csv"
    lines = [f"people/p{i},{'red' if i > 3 else 'dark'},{'x' if i else 'y'}" for i in range(8)]
    file.write_text("\n".join(["person,tone,kind", *lines]) + "\n")
    result = evaluate_listed_pairs(predictor, [pairs_file], people, resamples=5, groups=file)
    assert set(result.values["all"]["by"]["tone"]) == {"red", "dark"}
    assert result.values["all"]["by"]["tone"]["red"]["mm"]["accuracy_percent"] == 100
    assert "all.by.tone.red.mm.accuracy_percent" in result.intervals
    assert result.values["all"]["by"]["tone"]["red"]["mm"]["auc"] == 1
    assert ("all.by.tone.red.mm.auc", "all, tone red: same person? by mm, AUC", "") in result.rows
    assert any("tone dark: same person? by mm" in label for _, label, _ in result.rows)
    assert set(result.values["all"]["by"]["kind"]) == {"x"}  # y is one person, of no pair of two
    assert "all: without a row, because of too few pairs: kind y" in result.notes
    assert evaluate_listed_pairs(predictor, [pairs_file], people, 0).values["all"]["by"] == {}
    assert any("without groups of fewer than 30 pairs of a kind" in note for note in result.notes)


def test_groups_of_other_people_are_refused_before_photos_are_read(people, pairs_file):
    file = people / "groups.csv"
    file.write_text("person,sex\np0001,woman\npeople/p3,\n")
    message = r"groups.csv: has a group for none of the people in .*all.csv; .*, such as p0"
    with pytest.raises(ValueError, match=message):
        evaluate_listed_pairs(
            lambda _: pytest.fail("it was read"), [pairs_file], people, groups=file
        )


def test_groups_are_for_pairs(tmp_path, capsys):
    assert main(["mobile", "--data", str(tmp_path), "--groups", "groups.csv"]) == 2
    assert "--groups is for --pairs" in capsys.readouterr().err
