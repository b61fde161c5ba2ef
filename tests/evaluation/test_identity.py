import numpy as np
import pytest
from scipy.spatial import procrustes

from keras_scnn.evaluation import distance_ratio, shape_error, verification, verification_pairs
from keras_scnn.evaluation.identity import _best_threshold
from keras_scnn.geometry.rotations import rotation_from_euler


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_pose_and_scale_of_a_prediction_do_not_count_as_shape_error(rng):
    true = rng.normal(0, 40, (3, 50, 3))
    turned = 1.3 * true @ rotation_from_euler(np.array([0.2, 0.7, -0.1])).T + [5, 6, 7]
    found = shape_error(turned, true, rng.normal(0, 40, (50, 3)))
    assert found.vertex_mm == pytest.approx(0, abs=1e-9)
    assert found.relative == pytest.approx(0, abs=1e-9)


def test_the_mean_face_is_exactly_as_good_as_itself(rng):
    true, mean = rng.normal(0, 40, (3, 50, 3)), rng.normal(0, 40, (50, 3))
    found = shape_error(np.repeat(mean[None], 3, axis=0), true, mean)
    assert found.relative == pytest.approx(1)
    assert found.n_faces == 3


def test_the_error_after_alignment_is_that_of_scipy(rng):
    true = rng.normal(0, 40, (60, 3))
    predicted = 1.2 * true + rng.normal(0, 5, true.shape)
    # scipy aligns to the true shape of norm 1 about its center.
    fixed, aligned, _ = procrustes(true, predicted)
    unit = np.linalg.norm(true - true.mean(axis=0))
    expected = unit * np.linalg.norm(fixed - aligned, axis=1).mean()
    found = shape_error(predicted[None], true[None], rng.normal(0, 40, (60, 3)))
    assert found.vertex_mm == pytest.approx(expected, rel=1e-9)


def test_the_chunks_of_a_large_batch_do_not_change_the_mean(rng):
    true, mean = rng.normal(0, 40, (130, 20, 3)), rng.normal(0, 40, (20, 3))
    predicted = true + rng.normal(size=true.shape)
    alone = [
        shape_error(p[None], t[None], mean).vertex_mm for p, t in zip(predicted, true, strict=True)
    ]
    assert shape_error(predicted, true, mean).vertex_mm == pytest.approx(np.mean(alone))


def test_the_distance_ratio_is_that_of_the_means():
    assert distance_ratio([1, 3, 10, 30], [True, True, False, False]) == pytest.approx(2 / 20)
    assert distance_ratio(np.zeros(4), [True, True, False, False]) == 1


def test_separable_pairs_are_verified_without_error(rng):
    same = np.arange(100) < 50
    found = verification(np.where(same, 1.0, 2.0) + rng.uniform(0, 0.5, 100), same)
    assert found.accuracy_percent == 100
    assert found.auc == 1
    assert 1.4 < found.threshold < 2.1


def test_a_blind_distance_is_at_chance(rng):
    same = np.arange(4000) < 2000
    found = verification(rng.uniform(size=4000), same)
    assert found.accuracy_percent == pytest.approx(50, abs=3)
    assert found.auc == pytest.approx(0.5, abs=0.03)


def test_equal_distances_are_worth_exactly_half():
    found = verification(np.zeros(40), np.arange(40) < 20)
    assert found.auc == 0.5
    assert found.accuracy_percent == 50


def test_accuracy_of_two_normal_distributions_is_the_textbook_value(rng):
    same = np.arange(40000) < 20000
    found = verification(rng.normal(np.where(same, 0, 2), 1), same)
    # Best cut at 1: Phi(1) = 0.84134; AUC = Phi(2 / sqrt 2) = 0.92135.
    assert found.accuracy_percent == pytest.approx(84.13, abs=0.6)
    assert found.auc == pytest.approx(0.92135, abs=0.004)


def test_the_best_threshold_is_that_of_a_slow_loop(rng):
    for _ in range(50):
        distance, same = rng.integers(0, 6, 15).astype(float), rng.random(15) < 0.5
        cuts = [*np.arange(-0.5, 7)]
        best = max(((distance < cut) == same).sum() for cut in cuts)
        assert ((distance < _best_threshold(distance, same)) == same).sum() == best


def test_the_area_under_the_curve_is_that_of_a_slow_loop(rng):
    distance, same = rng.integers(0, 9, 60).astype(float), np.arange(60) % 2 == 0
    wins = [float(a < b) + 0.5 * float(a == b) for a in distance[same] for b in distance[~same]]
    assert verification(distance, same, folds=2).auc == pytest.approx(np.mean(wins))


def test_verification_pairs_are_what_they_say(rng):
    identity = np.repeat([7, 3, 9, 4], [5, 1, 4, 6])
    first, second, same = verification_pairs(identity, 400)
    assert len(first) == 400
    assert same.sum() == 200
    np.testing.assert_array_equal(identity[first] == identity[second], same)
    assert (first != second).all()
    again = verification_pairs(identity, 400)
    np.testing.assert_array_equal(again[0], first)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shape_error(np.zeros((2, 5, 3)), np.zeros((2, 4, 3)), np.zeros((4, 3))), "mean_f"),
        (
            lambda: shape_error(np.zeros((0, 4, 3)), np.zeros((0, 4, 3)), np.zeros((4, 3))),
            "no face",
        ),
        (lambda: distance_ratio([1, 2], [1, 1]), "two people are needed"),
        (lambda: verification(np.zeros((2, 2)), np.ones(2)), r"\(P,\)"),
        (lambda: verification(np.zeros(8), np.arange(8) < 4), "10 folds"),
        (lambda: verification_pairs(np.arange(5), 10), "two photos"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
