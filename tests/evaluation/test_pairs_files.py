import numpy as np
import pytest

from keras_scnn.evaluation import distinct_pairs, verification_pairs

IDENTITY = np.repeat([7, 3, 9, 4], [5, 1, 4, 6])


def test_verification_pairs_are_what_they_say():
    first, second, same = verification_pairs(IDENTITY, 400)
    assert len(first) == 400
    assert same.sum() == 200
    np.testing.assert_array_equal(IDENTITY[first] == IDENTITY[second], same)
    assert (first != second).all()
    again = verification_pairs(IDENTITY, 400)
    np.testing.assert_array_equal(again[0], first)


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


@pytest.mark.parametrize("identity", [np.arange(5), np.zeros(5, int)])
def test_people_that_make_no_pairs_are_named(identity):
    with pytest.raises(ValueError, match="two photos"):
        verification_pairs(identity, 10)
    with pytest.raises(ValueError, match="two photos"):
        distinct_pairs(identity)
