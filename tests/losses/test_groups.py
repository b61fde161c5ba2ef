import itertools

import keras
import numpy as np
import pytest
from keras import ops
from scipy.stats import norm

from keras_scnn.losses import (
    EmbeddingDistance,
    GroupContrastiveLoss,
    NeighborhoodLoss,
    RelationalLoss,
    SupervisedContrastiveLoss,
    embedding_distance,
    group_contrastive_loss,
    neighborhood_loss,
    relational_loss,
    supervised_contrastive_loss,
)

RNG = np.random.default_rng(0)
PERSON = np.array([3, 3, 5, 5, 5, 9, 1], np.int32)
VECTORS = RNG.normal(size=(7, 4)).astype(np.float32)
UNIT = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)


def pairs(person=PERSON):
    return list(itertools.combinations(range(len(person)), 2))


def slow_contrastive(margin=None, quantile=0.5, factor=1.0):
    """Pair by pair, the margin by NumPy's lower quantile."""
    length = {(i, j): np.linalg.norm(VECTORS[i] - VECTORS[j]) for i, j in pairs()}
    same = [d for (i, j), d in length.items() if PERSON[i] == PERSON[j]]
    different = [d for (i, j), d in length.items() if PERSON[i] != PERSON[j]]
    if margin is None:
        margin = factor * np.quantile(different, quantile, method="lower")
    push = [max(margin - d, 0) ** 2 for d in different]
    return np.mean(np.square(same)) / 2 + np.mean(push) / 2


@pytest.mark.parametrize(
    "options",
    [{"margin": 2.0}, {"margin_quantile": 0.5}, {"margin_quantile": 0.9, "margin_factor": 1.5}],
)
def test_group_contrast_is_the_mean_over_each_kind_of_pair(options):
    names = {"margin_quantile": "quantile", "margin_factor": "factor"}
    expected = slow_contrastive(**{names.get(k, k): v for k, v in options.items()})
    outputs = float(group_contrastive_loss(PERSON, VECTORS, **options))
    assert outputs == pytest.approx(expected, rel=1e-5)
    loss = GroupContrastiveLoss(**options)
    assert float(loss(PERSON[:, None], VECTORS)) == pytest.approx(expected, rel=1e-5)


def test_supervised_contrast_is_the_papers_sum():
    """Khosla et al. 2020, equation 2, photo by photo."""
    terms = []
    for i in range(7):
        others = [a for a in range(7) if a != i]
        total = sum(np.exp(UNIT[i] @ UNIT[a] / 0.2) for a in others)
        same = [p for p in others if PERSON[p] == PERSON[i]]
        if same:
            logs = [np.log(np.exp(UNIT[i] @ UNIT[p] / 0.2) / total) for p in same]
            terms.append(-np.mean(logs))
    outputs = float(supervised_contrastive_loss(PERSON, UNIT, temperature=0.2))
    assert outputs == pytest.approx(np.mean(terms), rel=1e-5)
    loss = SupervisedContrastiveLoss(temperature=0.2)
    assert float(loss(PERSON[:, None], UNIT)) == pytest.approx(np.mean(terms), rel=1e-5)


def test_the_neighborhood_loss_is_the_log_probability_of_the_same_person():
    """Goldberger et al. 2004, equation 1, photo by photo, with Khosla's mean of logarithms."""
    terms = []
    for i in range(7):
        others = [a for a in range(7) if a != i]
        density = {a: norm.pdf(np.linalg.norm(VECTORS[i] - VECTORS[a]), scale=0.7) for a in others}
        same = [p for p in others if PERSON[p] == PERSON[i]]
        if same:
            terms.append(-np.mean([np.log(density[p] / sum(density.values())) for p in same]))
    outputs = float(neighborhood_loss(PERSON, VECTORS, scale=0.7))
    assert outputs == pytest.approx(np.mean(terms), rel=1e-5)
    loss = NeighborhoodLoss(scale=0.7)
    assert float(loss(PERSON[:, None], VECTORS)) == pytest.approx(np.mean(terms), rel=1e-5)


def test_the_neighborhood_loss_pushes_the_most_similar_people_apart():
    """Unlike the hinge, it hardly moves people who are much farther away than others."""
    person = np.array([0, 0, 1, 1, 2, 2], np.int32)
    x = np.array([0.0, 0.1, 1.0, 1.1, 9.0, 9.1], np.float32)
    _, slope = gradient(LOSSES["neighbors"](person), x[:, None])
    pushes = np.abs(slope.reshape(3, 2).sum(axis=1))  # of a person as a whole
    assert pushes[:2].min() > 1000 * pushes[2]


def test_relations_are_compared_pair_by_pair_where_both_are_known():
    teacher = RNG.normal(size=(7, 9)).astype(np.float32)
    unit = teacher / np.linalg.norm(teacher, axis=1, keepdims=True)
    known = [p for p in pairs() if 2 not in p]
    expected = np.mean([(unit[i] @ unit[j] - UNIT[i] @ UNIT[j]) ** 2 for i, j in known])
    teacher[2] = np.nan
    assert float(relational_loss(teacher, VECTORS)) == pytest.approx(expected, rel=1e-5)
    assert float(RelationalLoss()(teacher, VECTORS)) == pytest.approx(expected, rel=1e-5)


def test_the_distance_to_the_teacher_counts_where_it_is_known():
    teacher = RNG.normal(size=VECTORS.shape).astype(np.float32)
    known = np.delete(np.arange(len(VECTORS)), 2)
    expected = np.mean(np.sum((teacher - VECTORS)[known] ** 2, axis=1))
    teacher[2, 0] = np.nan
    assert float(embedding_distance(teacher, VECTORS)) == pytest.approx(expected, rel=1e-5)
    assert float(EmbeddingDistance()(teacher, VECTORS)) == pytest.approx(expected, rel=1e-5)


def gradient(function, values):
    variable = keras.Variable(values)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            result = function(variable.value)
        return float(result), np.asarray(tape.gradient(result, variable.value))
    jax = pytest.importorskip("jax")
    return float(function(ops.convert_to_tensor(values))), np.asarray(jax.grad(function)(values))


NAN = np.full((4, 3), np.nan, np.float32)
LOSSES = {
    "contrast": lambda person: lambda v: group_contrastive_loss(person, v),
    "features": lambda person: lambda v: supervised_contrastive_loss(person, v),
    "neighbors": lambda person: lambda v: neighborhood_loss(person, v),
    "relations": lambda person: lambda v: relational_loss(NAN, v),
    "teacher": lambda person: lambda v: embedding_distance(NAN[:, :1] + np.zeros(4), v),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("person", [np.zeros(4), np.arange(4)], ids=["one", "all different"])
def test_a_kind_of_pair_that_is_missing_adds_nothing(name, person):
    together = np.tile(UNIT[:1], (4, 1))[:, :4]  # four equal vectors: the worst place for slopes
    value, slope = gradient(LOSSES[name](person.astype(np.int32)), together)
    assert np.isfinite(slope).all()
    per_photo = name in ("features", "neighbors")
    if name in ("relations", "teacher") or (per_photo and person.any()):
        assert value == 0
    if name == "contrast":
        assert value == pytest.approx(0, abs=1e-9)


def test_pulling_and_pushing_go_the_right_way():
    """A step down the gradient brings one person's photos together and parts two people's."""
    _, slope = gradient(LOSSES["contrast"](PERSON), VECTORS)
    moved = VECTORS - 0.05 * slope
    assert group_contrastive_loss(PERSON, moved, margin=2.0) < group_contrastive_loss(
        PERSON, VECTORS, margin=2.0
    )
    _, slope = gradient(LOSSES["features"](PERSON), UNIT)
    moved = UNIT - 0.01 * slope
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    assert supervised_contrastive_loss(PERSON, moved) < supervised_contrastive_loss(PERSON, UNIT)


@pytest.mark.parametrize(
    "loss",
    [
        GroupContrastiveLoss(margin=3.0),
        SupervisedContrastiveLoss(0.3),
        NeighborhoodLoss(0.3),
        RelationalLoss(),
        EmbeddingDistance(),
    ],
    ids=lambda loss: loss.name,
)
def test_settings_survive_saving(loss):
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()
    assert type(again) is type(loss)


def test_a_saved_margin_with_an_idle_quantile_is_still_read():
    config = GroupContrastiveLoss(margin=3.0).get_config()
    again = GroupContrastiveLoss.from_config(config | {"margin_quantile": 0.5})
    assert again.get_config() == config


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GroupContrastiveLoss(margin_quantile=2), "margin_quantile is 2"),
        (lambda: GroupContrastiveLoss(-1.0), "margin is -1.0; it must be 0 or more"),
        (lambda: GroupContrastiveLoss(margin_factor=np.nan), "margin_factor is nan"),
        (lambda: GroupContrastiveLoss(1.0, margin_quantile=0.3), "give either margin or"),
        (lambda: GroupContrastiveLoss(1.0, margin_factor=2.0), "margin_factor is for"),
        (lambda: SupervisedContrastiveLoss(0), "temperature is 0"),
        (lambda: SupervisedContrastiveLoss(np.inf), "temperature is inf; it must be above 0"),
        (lambda: NeighborhoodLoss(0), "scale is 0; it must be above 0"),
        (lambda: NeighborhoodLoss(np.nan), "scale is nan"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "kind", [GroupContrastiveLoss, SupervisedContrastiveLoss, NeighborhoodLoss]
)
def test_large_person_numbers_stay_different(kind):
    """2^24 and 2^24 + 1 are one number in float32, to which Keras casts labels."""
    person = np.array([0, 0, 1, 1, 2, 3, 3])
    loss = kind()
    expected = float(loss(person, UNIT))
    for start in (2**24, 2**31 - 4):
        large = np.int32(start + person)
        assert float(loss(large, UNIT)) == expected
        assert float(loss(large[:, None], UNIT)) == expected


@pytest.mark.parametrize(
    ("function", "loss", "label"),
    [
        (group_contrastive_loss, GroupContrastiveLoss(), PERSON),
        (supervised_contrastive_loss, SupervisedContrastiveLoss(), PERSON),
        (neighborhood_loss, NeighborhoodLoss(), PERSON),
        (relational_loss, RelationalLoss(), VECTORS[::-1].copy()),
        (embedding_distance, EmbeddingDistance(), VECTORS[::-1].copy()),
    ],
)
def test_a_class_has_the_defaults_of_its_function(function, loss, label):
    assert float(loss(label, UNIT)) == pytest.approx(float(function(label, UNIT)), rel=1e-6) != 0


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (GroupContrastiveLoss(), "vectors"),
        (NeighborhoodLoss(), "vectors"),
        (SupervisedContrastiveLoss(), "features"),
    ],
)
def test_a_loss_over_people_needs_one_vector_per_photo(loss, name):
    for shape in ((7,), (7, 2, 2)):
        with pytest.raises(ValueError, match=f"{name} has the shape .7.*; it must be .B, D."):
            loss(PERSON, np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match=f"{name} has 4 rows and person 7; they must match"):
        loss(PERSON, VECTORS[:4])


@pytest.mark.parametrize(
    ("loss", "name"), [(RelationalLoss(), "vectors"), (EmbeddingDistance(), "embedding")]
)
def test_a_loss_of_embeddings_needs_vectors(loss, name):
    with pytest.raises(ValueError, match=f"{name} has the shape .7,.; it must be .B, D."):
        loss(VECTORS, VECTORS[:, 0])
    with pytest.raises(ValueError, match="teacher has the shape .7,.; it must be .B, D."):
        loss.call(VECTORS[:, 0], VECTORS)


@pytest.mark.parametrize(
    "loss",
    [
        group_contrastive_loss,
        supervised_contrastive_loss,
        neighborhood_loss,
        lambda _, vectors: relational_loss(NAN[:0], vectors),
        lambda _, vectors: embedding_distance(VECTORS[:0], vectors),
    ],
)
def test_the_group_losses_of_an_empty_batch_are_0(loss):
    assert float(loss(PERSON[:0], VECTORS[:0])) == 0


@pytest.mark.parametrize(
    "loss", [GroupContrastiveLoss(), SupervisedContrastiveLoss(), NeighborhoodLoss()]
)
def test_the_classes_take_an_empty_batch(loss):
    assert not np.sum(loss(PERSON[:0], VECTORS[:0]))
