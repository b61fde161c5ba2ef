import numpy as np
import pytest

from keras_scnn.losses import IdentityLoss, identity_loss


def test_a_hand_worked_case():
    # same: 1 - 0.5; different: 0.7 - 0.2; different: 0.1 is below the margin. Mean of three.
    loss = identity_loss([1, 0, 0], [0.5, 0.7, 0.1], margin=0.2)
    assert float(loss) == pytest.approx((0.5 + 0.5 + 0) / 3)


@pytest.mark.parametrize("same, similarity", [(1.0, 1.0), (0.0, 0.1), (0.0, -1.0)])
def test_features_that_are_where_they_should_be_cost_exactly_nothing(same, similarity):
    assert float(identity_loss([same] * 3, np.full(3, similarity), margin=0.2)) == 0


def test_it_is_the_cosine_embedding_loss_of_a_slow_loop():
    rng = np.random.default_rng(1)
    same, similarity = rng.integers(0, 2, 20), rng.uniform(-1, 1, 20)
    pairs = zip(same, similarity, strict=True)
    expected = np.mean([1 - c if s else max(c - 0.2, 0) for s, c in pairs])
    assert float(IdentityLoss(0.2)(same, similarity)) == pytest.approx(expected, rel=1e-5)


def test_a_margin_that_no_cosine_reaches_is_refused():
    with pytest.raises(ValueError, match="cosine"):
        IdentityLoss(margin=1.5)


def test_a_margin_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match=r"margin is '0.5' \(str\); it must be a number"):
        IdentityLoss(margin="0.5")
