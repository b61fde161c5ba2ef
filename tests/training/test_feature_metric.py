"""Features of people, with the most noise in directions that do not depend on the person."""

import numpy as np
import pytest

from keras_scnn.training.feature_metric import MetricOptions, learn_feature_metric
from keras_scnn.training.identity_map import MapOptions

PEOPLE, PHOTOS, SIZE, DISTURBED = 60, 6, 8, 2
FAST = MetricOptions(people=20, photos=3, steps=150, learning_rate=0.05, penalty=0.0)


@pytest.fixture(scope="module")
def photos():
    """(n, 8) features, the last two of which do not depend on the person, and (n,) the people."""
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(PEOPLE), PHOTOS)
    features = rng.normal(size=(PEOPLE, SIZE))[person]
    features[:, -DISTURBED:] = 0
    noise = np.r_[np.full(SIZE - DISTURBED, 0.3), np.full(DISTURBED, 3.0)]
    return features + rng.normal(size=features.shape) * noise, person


def learn(photos, options=FAST, start=None):
    features, person = photos
    start = np.eye(SIZE) if start is None else start
    return learn_feature_metric(features[None], person, start, options)


@pytest.fixture(scope="module")
def metric(photos):
    """The kernel learned with the options FAST."""
    return learn(photos)


def cosines(rows):
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


def separation(features, person):
    """The mean cosine of one person's photos less that of two people's."""
    similar, same = cosines(features), person[:, None] == person[None]
    return similar[same & ~np.eye(len(person), dtype=bool)].mean() - similar[~same].mean()


def test_directions_that_vary_within_people_are_shrunk(metric):
    size = np.linalg.norm(metric, axis=1)
    assert size[-DISTURBED:].max() < 0.4 * size[:-DISTURBED].min()


def test_people_not_trained_on_are_separated_too(photos):
    features, person = photos
    seen = person < PEOPLE // 2
    metric = learn((features[seen], person[seen]))
    new, others = features[~seen], person[~seen]
    assert separation(new @ metric, others) > separation(new, others) + 0.15


@pytest.mark.integration
def test_a_large_penalty_keeps_the_metric_as_it_was(photos):
    start = np.random.default_rng(1).normal(size=(SIZE, 5))
    far = [
        np.linalg.norm(learn(photos, MetricOptions(**{**vars(FAST), "penalty": p}), start) - start)
        for p in (0.0, 10.0, 1000.0)
    ]
    assert far[0] > 1.5 * far[1] > 3 * far[2]
    assert far[2] < 0.05 * np.linalg.norm(start)


@pytest.mark.integration
def test_the_metric_scales_with_the_start(photos):
    options = MetricOptions(**{**vars(FAST), "penalty": 1.0})
    once, large = learn(photos, options), learn(photos, options, 50 * np.eye(SIZE))
    np.testing.assert_allclose(large, 50 * once, atol=0.05)


def test_each_view_takes_part(photos, metric):
    """The second view is noise alone, which only a batch of it can bring into the metric."""
    features, person = photos
    other = np.random.default_rng(2).normal(size=features.shape)
    both = learn_feature_metric(np.stack([features, other]), person, np.eye(SIZE), FAST)
    assert np.abs(both - metric).max() > 0.05


@pytest.mark.integration
def test_a_seed_repeats_itself(photos, metric):
    np.testing.assert_allclose(learn(photos), metric, atol=1e-5)
    other = learn(photos, MetricOptions(**{**vars(FAST), "seed": 1}))
    assert np.abs(other - metric).max() > 1e-3


def test_too_few_people_are_named(photos):
    with pytest.raises(ValueError, match="60 people"):
        learn(photos, MetricOptions(people=61))


@pytest.mark.parametrize("options", [MetricOptions, MapOptions])
@pytest.mark.parametrize(
    "wrong",
    [{"people": 1}, {"photos": 1}, {"steps": 0}, {"learning_rate": np.inf}, {"penalty": -1.0}],
)
def test_options_out_of_range_are_named(options, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is "):
        options(**wrong)


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (MetricOptions, {"temperature": 0.0}),
        (MapOptions, {"contrast_weight": -1.0}),
        (MapOptions, {"margin_quantile": 1.1}),
    ],
)
def test_so_are_those_of_one_loss(options, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is "):
        options(**wrong)
