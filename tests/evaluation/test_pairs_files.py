import numpy as np
import pytest

from keras_scnn.evaluation import Pairs, distinct_pairs, draw_pairs

IDENTITY = np.repeat([7, 3, 9, 4], [5, 1, 4, 6])


def drawn(identity, n_pairs):
    """First and second photos of the pairs, and whether they show one person."""
    pairs = draw_pairs(identity, n_pairs)
    assert isinstance(pairs, Pairs) and pairs.fold is None
    return pairs.first, pairs.second, pairs.same


def test_one_person_with_nearly_all_photos_gives_the_pairs_that_others_lack():
    identity = np.concatenate([np.repeat(np.arange(300), 2), np.full(300, 300)])
    first, second, same = drawn(identity, 3000)
    pairs = np.sort(np.stack([first[same], second[same]], axis=1), axis=1)
    assert len(np.unique(pairs, axis=0)) == len(pairs) == 1500
    assert (identity[pairs[:, 0]] == identity[pairs[:, 1]]).all()
    assert len(np.unique(identity[pairs[:, 0]])) == 301  # all people, since they are drawn first


def test_verification_pairs_are_drawn_without_repetition():
    first, second, same = drawn(IDENTITY, 20)
    assert len(first) == 20
    assert same.sum() == 10
    np.testing.assert_array_equal(IDENTITY[first] == IDENTITY[second], same)
    assert (first != second).all()
    np.testing.assert_array_equal(draw_pairs(IDENTITY, 20).first, first)


@pytest.mark.parametrize("n_pairs", [20, 40, 60, 400])
def test_no_pair_comes_twice_and_there_are_no_more_than_the_photos_make(n_pairs):
    first, second, same = drawn(IDENTITY, n_pairs)
    rows = {tuple(sorted(pair)) for pair in zip(first, second, strict=True)}
    assert len(rows) == len(first) == min(n_pairs, 62)  # 31 pairs of one person
    assert same.sum() == len(rows) // 2
    np.testing.assert_array_equal(IDENTITY[first] == IDENTITY[second], same)


def test_a_person_with_many_photos_makes_no_more_pairs_than_others():
    identity = np.repeat(np.arange(20), [300, *[20] * 19])
    first, second, same = drawn(identity, 2000)
    of_first = (identity[first[same]] == 0).mean()
    assert 0.02 < of_first < 0.09  # of 20 people
    of_two = ((identity[first] == 0) | (identity[second] == 0))[~same].mean()
    assert 0.06 < of_two < 0.14  # 2 of 20


def test_distinct_pairs_are_distinct_and_half_of_one_person():
    result = distinct_pairs(IDENTITY)
    # By hand: 10 + 0 + 6 + 15 pairs of one person.
    assert result.same.sum() == 31
    assert (~result.same).sum() == 31
    np.testing.assert_array_equal(IDENTITY[result.first] == IDENTITY[result.second], result.same)
    rows = {tuple(sorted(pair)) for pair in zip(result.first, result.second, strict=True)}
    assert len(rows) == 62
    np.testing.assert_array_equal(result.second, distinct_pairs(IDENTITY).second)


def test_nobody_with_many_photos_outweighs_the_rest():
    identity = np.repeat([0, 1, 2], [60, 60, 3])
    result = distinct_pairs(identity)
    people, counts = np.unique(identity[result.first[result.same]], return_counts=True)
    np.testing.assert_array_equal(people, [0, 1, 2])
    np.testing.assert_array_equal(counts, [100, 100, 3])


def test_few_photos_of_others_limit_both_kinds_of_pairs():
    identity = np.repeat([4, 2], [20, 1])  # 190 pairs of one person, 20 of two
    first, second, same = drawn(identity, 100)
    assert same.sum() == (~same).sum() == 20
    two = np.sort(np.stack([first[~same], second[~same]], axis=1), axis=1)
    np.testing.assert_array_equal(np.sort(two[:, 0]), np.arange(20))
    np.testing.assert_array_equal(two[:, 1], 20)


@pytest.mark.parametrize("identity", [np.arange(5), np.zeros(5, int)])
def test_people_that_make_no_pairs_are_named(identity):
    with pytest.raises(ValueError, match="two photos"):
        draw_pairs(identity, 10)
    with pytest.raises(ValueError, match="two photos"):
        distinct_pairs(identity)


@pytest.mark.parametrize("n_pairs", [-1, -4, 2.5])
def test_an_invalid_number_of_pairs_is_named(n_pairs):
    with pytest.raises(ValueError, match="n_pairs"):
        draw_pairs(IDENTITY, n_pairs)


@pytest.mark.parametrize(("n_pairs", "expected"), [(0, 0), (1, 0), (7, 6)])
def test_an_odd_number_of_pairs_is_rounded_down(n_pairs, expected):
    first, _, same = drawn(IDENTITY, n_pairs)
    assert (len(first), same.sum()) == (expected, expected // 2)


def test_a_person_with_two_photos_and_another_one_are_enough():
    result = distinct_pairs(np.array([8, 8, 5]))
    assert sorted(zip(result.first, result.second, strict=True))[0] == (0, 1)
    assert result.same.sum() == (~result.same).sum() == 1


def test_both_kinds_are_cut_to_the_most_of_a_kind(monkeypatch):
    monkeypatch.setattr("keras_scnn.evaluation.pairs.MAX_PER_KIND", 12)
    result = distinct_pairs(IDENTITY)  # which has 31 pairs of one person
    assert result.same.sum() == (~result.same).sum() == 12
    assert len({*result.first[result.same]}) > 5  # drawn from all, not the first ones
