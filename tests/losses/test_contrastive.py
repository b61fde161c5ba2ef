import keras
import numpy as np
import pytest
from keras import ops

from keras_scnn.losses import (
    ContrastiveLoss,
    ExponentialContrastiveLoss,
    IdentityLoss,
    LossLayer,
    contrastive_loss,
    exponential_contrastive_loss,
    identity_loss,
)
from keras_scnn.losses.contrastive import different_quantile

RNG = np.random.default_rng(0)
SAME = np.array([1, 0, 0, 1, 0, 1, 0, 0], np.float32)
DISTANCE = RNG.uniform(0, 3, 8).astype(np.float32)


def slow_hinge(same, distance, margin):
    """Hadsell et al. 2006, equation 4, pair by pair."""
    total = 0.0
    for s, d in zip(same, distance, strict=True):
        total += d**2 / 2 if s else max(margin - d, 0) ** 2 / 2
    return total / len(same)


def slow_exponential(same, distance, q):
    """Chopra et al. 2005, equation 8, pair by pair."""
    total = 0.0
    for s, d in zip(same, distance, strict=True):
        total += 2 / q * d**2 if s else 2 * q * np.exp(-2.77 / q * d)
    return total / len(same)


def slope(function, values):
    """The gradient of a scalar function of one array, computed by the running backend."""
    variable = keras.Variable(values)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            result = function(variable.value)
        return float(result), tape.gradient(result, variable.value).numpy()
    pytest.skip("gradients are checked on the TensorFlow backend; training on others elsewhere")


@pytest.mark.parametrize("margin", [0.0, 1.0, 2.5])
def test_the_hinge_form_is_the_published_sum(margin):
    expected = slow_hinge(SAME, DISTANCE, margin)
    assert float(contrastive_loss(SAME, DISTANCE, margin)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("q", [1.0, 4.0])
def test_the_exponential_form_is_the_published_sum(q):
    expected = slow_exponential(SAME, DISTANCE, q)
    assert float(exponential_contrastive_loss(SAME, DISTANCE, q)) == pytest.approx(expected, 1e-5)


def test_a_hand_worked_case():
    # One same pair at 2: 4/2 = 2. One different pair at 0.5, margin 1: 0.25/2. Mean of the two.
    assert float(contrastive_loss([1, 0], [2.0, 0.5], 1.0)) == pytest.approx((2 + 0.125) / 2)


@pytest.mark.parametrize("function", [contrastive_loss, exponential_contrastive_loss])
@pytest.mark.parametrize("distance", [0.0, 1e-6, 50.0])
@pytest.mark.parametrize("kind", [0.0, 1.0])
def test_a_batch_of_one_kind_has_finite_gradients(function, distance, kind):
    same = np.full(4, kind, np.float32)
    distances = np.full(4, distance, np.float32)
    loss, gradient = slope(lambda d: function(same, d, 1.0), distances)
    assert np.isfinite(loss) and np.isfinite(gradient).all()


@pytest.mark.parametrize("kind, distance", [(1.0, 0.0), (0.0, 7.0)])
def test_pairs_that_are_where_they_should_be_cost_nothing(kind, distance):
    same, distances = np.full(3, kind, np.float32), np.full(3, distance, np.float32)
    loss, gradient = slope(lambda d: contrastive_loss(same, d, 1.0), distances)
    assert loss == 0 and (gradient == 0).all()


def test_a_batch_without_different_pairs_pushes_nothing_with_a_margin_from_the_data():
    same = np.ones(4, np.float32)
    distances = np.array([0.5, 1.0, 2.0, 0.0], np.float32)
    loss, gradient = slope(lambda d: ContrastiveLoss(margin_quantile=0.5)(same, d), distances)
    assert loss == pytest.approx(slow_hinge(same, distances, 0.0))  # the pull alone
    np.testing.assert_allclose(gradient, distances / 4, rtol=1e-5)


def test_a_batch_without_same_pairs_pulls_nothing():
    same, distances = np.zeros(4, np.float32), np.full(4, 9.0, np.float32)
    assert float(ContrastiveLoss(margin=1.0)(same, distances)) == 0


@pytest.mark.parametrize("quantile", [0.0, 0.25, 0.5, 1.0])
def test_the_margin_is_a_quantile_of_the_different_pairs_only(quantile):
    expected = np.quantile(DISTANCE[SAME == 0], quantile, method="lower")
    assert float(different_quantile(SAME, DISTANCE, quantile)) == pytest.approx(expected)


def test_one_different_pair_has_every_quantile():
    same, distance = np.float32([1, 0, 1]), np.float32([9, 4, 1])
    assert [float(different_quantile(same, distance, q)) for q in (0.0, 0.5, 1.0)] == [4, 4, 4]


@pytest.mark.parametrize("count", [1, 2, 11, 101, 201, 1001])
def test_an_exact_rank_is_not_lost_to_rounding(count):
    """By whole numbers: the quantile k / 100 of n distances 0, 1 ... is k (n - 1) // 100."""
    same, distance = np.zeros(count, np.float32), np.arange(count, dtype=np.float32)
    outputs = [int(different_quantile(same, distance, k / 100)) for k in range(101)]
    assert outputs == [k * (count - 1) // 100 for k in range(101)]


def test_no_gradient_flows_through_the_margin():
    # With all different pairs at the margin or beyond, the push is 0 and has no slope.
    same, distances = np.zeros(3, np.float32), np.array([1.0, 2.0, 3.0], np.float32)
    _, gradient = slope(lambda d: ContrastiveLoss(margin_quantile=0.0)(same, d), distances)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("shape", [(8,), (8, 1)])
def test_columns_and_vectors_are_the_same(shape):
    loss = ContrastiveLoss(margin=1.0)(SAME.reshape(shape), DISTANCE.reshape(shape))
    assert float(loss) == pytest.approx(slow_hinge(SAME, DISTANCE, 1.0), rel=1e-5)


@pytest.mark.parametrize(
    "arguments, message",
    [({}, "either"), ({"margin": 1, "margin_quantile": 0.5}, "either")]
    + [({"margin_quantile": 1.5}, "0 to 1")]
    + [({"margin": value}, f"margin is {value}; it must be") for value in (-1.0, np.nan, np.inf)]
    + [({"margin": 1.0, "margin_factor": 3.0}, "margin_factor is for margin_quantile")]
    + [
        ({"margin_quantile": 0.5, "margin_factor": value}, f"margin_factor is {value}; it must be")
        for value in (-1.0, 0.0, np.nan)
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ContrastiveLoss(**arguments)
    with pytest.raises(ValueError, match="above 0"):
        ExponentialContrastiveLoss(0.0)


def test_half_precision_distances_are_summed_in_single():
    loss = contrastive_loss(SAME, ops.cast(DISTANCE, "float16"), 1.0)
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"


@pytest.mark.parametrize("bound", [0.0, -1.0, np.nan, np.inf])
def test_bounds_that_make_no_sense_are_refused(bound):
    with pytest.raises(ValueError, match=f"upper_bound is {bound}; it must be above 0"):
        ExponentialContrastiveLoss(bound)


PAIR_LOSSES = {
    "contrastive": (contrastive_loss, "distance"),
    "exponential": (
        lambda same, values: exponential_contrastive_loss(same, values, 2.0),
        "distance",
    ),
    "identity": (identity_loss, "similarity"),
    "ContrastiveLoss": (ContrastiveLoss(1.0), "distance"),
    "a margin of the batch": (ContrastiveLoss(margin_quantile=0.5), "distance"),
    "ExponentialContrastiveLoss": (ExponentialContrastiveLoss(2.0), "distance"),
    "IdentityLoss": (IdentityLoss(), "similarity"),
}


@pytest.mark.parametrize("labels", [SAME[:3], SAME[:1], SAME[:0], np.stack([SAME, SAME])])
@pytest.mark.parametrize("which", PAIR_LOSSES)
def test_each_pair_has_one_label(which, labels):
    loss, name = PAIR_LOSSES[which]
    with pytest.raises(ValueError, match=f"{name} has 8 values and same {labels.size}"):
        loss(labels, DISTANCE)


@pytest.mark.parametrize("which", PAIR_LOSSES)
def test_columns_of_pairs_are_rows_of_pairs(which):
    loss, _ = PAIR_LOSSES[which]
    expected = float(loss(SAME, DISTANCE))
    assert float(loss(SAME[:, None], DISTANCE)) == pytest.approx(expected, rel=1e-6)
    assert float(loss(SAME, DISTANCE[:, None])) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("which", PAIR_LOSSES)
def test_a_batch_without_pairs_has_a_loss_of_0(which):
    loss, _ = PAIR_LOSSES[which]
    if isinstance(loss, keras.losses.Loss):
        layer = LossLayer(loss)
        layer(DISTANCE[:0], SAME[:0])
        values = layer.losses
    else:
        values = [loss(SAME[:0], DISTANCE[:0])]
    assert [float(value) for value in values] == [0]


def test_the_margin_of_a_batch_without_pairs_is_0():
    assert float(different_quantile(SAME[:0], DISTANCE[:0], 0.5)) == 0
