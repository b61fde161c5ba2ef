import numpy as np
import pytest

from keras_scnn.evaluation import (
    IdentityEvaluator,
    Pairs,
    distance_ratio,
    draw_pairs,
    retrieval_ranks,
    summarize_ranks,
    verification,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_the_distance_ratio_is_that_of_the_means():
    assert distance_ratio([1, 3, 10, 30], [True, True, False, False]) == pytest.approx(2 / 20)
    assert distance_ratio(np.zeros(4), [True, True, False, False]) == 1


def test_the_ratio_takes_weights():
    result = distance_ratio([1, 3, 10, 30], [1, 1, 0, 0], np.array([3.0, 1, 0, 2]))
    assert result == pytest.approx(1.5 / 30)  # by hand: (3 * 1 + 3) / 4 over 30


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([1.0, 1, 1, 0], 1.0),  # all distances that count are 0: chance
        ([0, 0, 1, 0], np.nan),
        ([1, 1, 0, 0], np.nan),
        ([1, 1, 0, 1], 0.0),
    ],
)
def test_pairs_without_weight_have_no_part_in_the_ratio(weights, expected):
    result = distance_ratio([0, 0, 0, 5], [1, 1, 0, 0], np.array(weights))
    np.testing.assert_equal(result, expected)


def test_people_at_no_distance_from_each_other_make_an_infinite_ratio():
    assert distance_ratio([1, 3, 0, 0], [1, 1, 0, 0]) == np.inf


def test_ranks_by_hand():
    # On a line: 0 and 1 are person 0; 3 and 7 person 1; 8 person 2, who has no other photo.
    vectors, identity = np.array([[0.0], [1], [3], [7], [8]]), np.array([0, 0, 1, 1, 2])
    result = retrieval_ranks(vectors, identity)
    # 3's other photo is 4 away, behind 1 and 0; 7's is 4 away, behind 8.
    np.testing.assert_array_equal(result, [1, 1, 3, 2, np.nan])
    outputs = summarize_ranks(result)
    assert (outputs.rank1_percent, outputs.rank5_percent) == (50, 100)
    assert outputs.mean_reciprocal_rank == pytest.approx((1 + 1 + 1 / 3 + 1 / 2) / 4)
    assert (outputs.n_probes, outputs.n_gallery) == (4, 5)
    assert summarize_ranks(result, np.array([1.0, 0, 3, 0, 9])).rank1_percent == 25


def test_a_fifth_rank_is_among_five_and_a_sixth_is_not():
    result = summarize_ranks(np.array([1.0, 2, 5, 6, np.nan]))
    assert (result.rank1_percent, result.rank5_percent) == (25, 75)


def test_ranks_are_those_of_a_slow_loop(rng):
    vectors, identity = rng.integers(0, 4, (300, 2)), rng.integers(0, 60, 300)
    result = retrieval_ranks(vectors, identity)
    for i in range(300):
        distance = np.linalg.norm(vectors - vectors[i], axis=1)
        own = (identity == identity[i]) & (np.arange(300) != i)
        expected = np.nan
        if own.any():
            expected = 1 + (distance[identity != identity[i]] <= distance[own].min()).sum()
        np.testing.assert_equal(result[i], expected)


def test_a_mirror_image_is_left_out_of_the_gallery(rng):
    """Person p + 50 is the mirror image of p: neither the same person nor a stranger."""
    identity = rng.integers(0, 100, 300)
    vectors = rng.integers(0, 4, (300, 2)) + identity[:, None] % 50 / 10
    result = retrieval_ranks(vectors, identity, identity % 50)
    for i in range(300):
        rest = [j for j in range(300) if abs(identity[j] - identity[i]) != 50]
        left = retrieval_ranks(vectors[rest], identity[rest])
        np.testing.assert_equal(result[i], left[rest.index(i)])
    assert (result < retrieval_ranks(vectors, identity)).any()


def test_a_constant_prediction_identifies_nobody(rng):
    outputs = summarize_ranks(retrieval_ranks(np.zeros((40, 3)), np.arange(40) // 4))
    assert outputs.rank5_percent == 0


def test_an_evaluator_combines_distances_pairs_and_ranks(rng):
    identity = np.repeat(np.arange(60), 8)
    vectors = rng.normal(size=(60, 3))[identity] + rng.normal(size=(480, 3))
    pairs = draw_pairs(identity, 2400)  # enough for a false accept rate of 0.1 %
    distance = np.linalg.norm(vectors[pairs.first] - vectors[pairs.second], axis=1)
    evaluator = IdentityEvaluator(vectors, pairs, identity)
    ratio, outputs, result = evaluator.summary(np.ones(480))
    assert ratio == distance_ratio(distance, pairs.same)
    assert outputs == verification(distance, pairs.same)
    assert result == summarize_ranks(retrieval_ranks(vectors, identity))
    assert IdentityEvaluator(vectors, pairs).summary(np.ones(480))[2] is None


def test_a_photo_that_was_drawn_twice_counts_by_the_rule_of_pairs():
    pairs = Pairs(np.array([0, 0, 1]), np.array([1, 2, 3]), np.array([True, False, False]))
    # Person of 0 and 1 twice, of 2 three times, of 3 never: 2, 2 * 3, 2 * 0.
    np.testing.assert_array_equal(pairs.weights(np.array([2.0, 2, 3, 0])), [2, 6, 0])


def test_the_roc_curve_rises_from_corner_to_corner(rng):
    identity = np.repeat(np.arange(30), 6)
    vectors = rng.normal(size=(30, 3))[identity] + rng.normal(size=(180, 3))
    roc = IdentityEvaluator(vectors, draw_pairs(identity, 4000)).roc()
    assert len(roc["far"]) == len(roc["tar"]) <= 202
    for rate in roc.values():
        assert (rate[0], rate[-1]) == (0, 1)
        assert (np.diff(rate) >= 0).all()


def test_a_ratio_needs_both_kinds():
    with pytest.raises(ValueError, match="two people are needed"):
        distance_ratio([1, 2], [1, 1])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vectors_that_are_not_finite_have_no_ranks(rng, bad):
    vectors = rng.normal(size=(8, 3))
    vectors[5, 1] = bad
    with pytest.raises(ValueError, match="vectors must be finite numbers"):
        retrieval_ranks(vectors, np.arange(8) // 2)


@pytest.mark.parametrize(
    ("vectors", "identity", "either_side"),
    [
        (np.zeros((0, 3)), np.zeros(0, int), None),
        (np.zeros((4, 3)), np.arange(3), None),
        (np.zeros((4, 3)), np.arange(5), None),
        (np.zeros((4, 3)), np.zeros((4, 1)), None),
        (np.zeros((4, 3)), np.arange(4), np.arange(3)),
        (np.zeros(4), np.arange(4), None),
    ],
)
def test_ranks_of_other_shapes_are_refused(vectors, identity, either_side):
    with pytest.raises(ValueError, match=r"must be \(n, D\), \(n,\) and \(n,\), n above 0"):
        retrieval_ranks(vectors, identity, either_side)


@pytest.mark.parametrize("count", [0, 1])
def test_no_pairs_have_indices_too(count):
    pairs = draw_pairs(np.array([0, 0, 1, 1]), count)
    assert pairs.first.dtype.kind == pairs.second.dtype.kind == "i"
    assert pairs.weights(np.ones(4)).shape == (0,)
