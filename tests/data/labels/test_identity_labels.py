import dataclasses

import numpy as np
import pytest

from keras_scnn.data.labels import identity_labels
from keras_scnn.data.labels.identity_labels import (
    Photos,
    align_means,
    align_sources,
    comparable_embeddings,
    learn_posterior,
    regress_identity,
    ridge_regression,
    teach_identity,
)
from keras_scnn.data.records import FaceRecords
from keras_scnn.geometry.camera import compose
from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.parameters import FaceParameters, ParameterLayout

PHOTOS, SIZE = 400, 5


@pytest.fixture
def people(tiny_face_model):
    """True shapes (n, K) that are linear in embeddings (n, E), and records with noisy labels."""
    rng = np.random.default_rng(0)
    embeddings = rng.normal(0, 1, (PHOTOS, SIZE))
    shapes = embeddings @ rng.normal(0, 1, (SIZE, tiny_face_model.n_identity))
    noisy = shapes + rng.normal(0, 4, shapes.shape)
    yaw = np.linspace(-80, 80, PHOTOS)
    angles = np.deg2rad(np.stack([0.1 * yaw, yaw, 0 * yaw], axis=1))
    poses = compose(rotation_from_euler(angles), np.ones(PHOTOS), np.zeros((PHOTOS, 3)))
    expression = np.zeros((PHOTOS, tiny_face_model.n_expression))
    records = FaceRecords(
        np.zeros((PHOTOS, 2, 2, 3), np.uint8),
        FaceParameters(poses, noisy, expression).to_vector(),
        np.zeros((PHOTOS, 68, 3), np.float32),
        np.arange(PHOTOS, dtype=np.int32),
        "tiny",
        embedding=(embeddings + 7).astype(np.float32),
    )
    return shapes, records, yaw


def identities(records, model):
    return records.parameters[:, ParameterLayout(model.n_identity, model.n_expression).identity]


def test_embeddings_lose_their_mean_and_those_of_profiles_are_left_out(people):
    _, records, yaw = people
    source = np.repeat([0, 1], PHOTOS // 2)
    records.embedding[source == 1] += 3
    result = comparable_embeddings(records, source)
    np.testing.assert_array_equal(np.isnan(result).any(axis=1), np.abs(yaw) > 60)
    for number in (0, 1):
        np.testing.assert_allclose(np.nanmean(result[source == number], axis=0), 0, atol=1e-5)
    assert np.nanmean(np.linalg.norm(result, axis=1)) == pytest.approx(1, rel=1e-5)


def test_without_embeddings_there_is_nothing_to_compare(people):
    _, records, yaw = people
    source = np.zeros(PHOTOS, int)
    records.embedding[np.abs(yaw) < 61] = np.nan
    assert comparable_embeddings(records, source) is None  # of profiles only
    records.embedding[:] = np.nan
    assert comparable_embeddings(records, source) is None


def test_data_sets_get_the_mean_of_the_first(people, tiny_face_model):
    records, source = people[1], np.repeat([0, 1], PHOTOS // 2)
    identities(records, tiny_face_model)[source == 1] += 5
    aligned = identities(align_sources(records, source, tiny_face_model), tiny_face_model)
    before = identities(records, tiny_face_model)
    np.testing.assert_allclose(aligned[source == 0], before[source == 0], atol=1e-6)
    np.testing.assert_allclose(
        aligned[source == 1].mean(axis=0), before[source == 0].mean(axis=0), atol=1e-4
    )


def test_labels_that_average_over_those_who_look_alike_are_nearer_to_the_truth(
    people, tiny_face_model
):
    """Also for people that were not learned from."""
    shapes, records, _ = people
    embeddings = comparable_embeddings(records, np.zeros(PHOTOS, int))
    unseen = np.arange(PHOTOS) % 4 == 0
    learned = np.flatnonzero(~unseen)
    taught = regress_identity(records, embeddings, learned, tiny_face_model, share=1.0)
    known = unseen & ~np.isnan(embeddings).any(axis=1)
    error = [
        np.linalg.norm(identities(r, tiny_face_model)[known] - shapes[known], axis=1).mean()
        for r in (records, taught)
    ]
    assert error[1] < 0.5 * error[0]
    half = regress_identity(records, embeddings, learned, tiny_face_model, share=0.5)
    middle = (identities(records, tiny_face_model) + identities(taught, tiny_face_model)) / 2
    np.testing.assert_allclose(identities(half, tiny_face_model), middle, atol=1e-4)


def test_every_photo_counts_the_same(people, tiny_face_model):
    """A hundred people with a photo each contradict ten people with 30 photos each."""
    rng = np.random.default_rng(1)
    person = np.r_[np.arange(100), 100 + np.repeat(np.arange(10), 30)].astype(np.int32)
    records = dataclasses.replace(people[1], identity=person)
    embeddings = rng.normal(0, 1, (110, SIZE))[person]
    shapes = embeddings @ rng.normal(0, 1, (SIZE, tiny_face_model.n_identity))
    identities(records, tiny_face_model)[:] = np.where(person[:, None] < 100, -shapes, shapes)
    taught = regress_identity(records, embeddings, np.arange(PHOTOS), tiny_face_model, 1.0)
    outputs = identities(taught, tiny_face_model)
    assert np.corrcoef(outputs.ravel(), shapes.ravel())[0, 1] > 0.8  # three photos against one


def test_unknown_people_keep_their_fit(people, tiny_face_model):
    records = people[1]
    embeddings = comparable_embeddings(records, np.zeros(PHOTOS, int))
    taught = regress_identity(records, embeddings, np.arange(PHOTOS), tiny_face_model, 1.0)
    unknown = np.isnan(embeddings).any(axis=1)
    np.testing.assert_array_equal(taught.parameters[unknown], records.parameters[unknown])


def test_too_little_to_learn_from_and_a_wrong_share_are_refused(people, tiny_face_model):
    records = people[1]
    embeddings = comparable_embeddings(records, np.zeros(PHOTOS, int))
    with pytest.raises(ValueError, match="3 photos to learn from have an embedding"):
        regress_identity(records, embeddings, np.arange(200, 203), tiny_face_model, 1.0)
    with pytest.raises(ValueError, match="share is 2"):
        regress_identity(records, embeddings, np.arange(200), tiny_face_model, 2)


@pytest.fixture
def gaussian_people(monkeypatch):
    """200 people with 10 photos: shapes (n, 3) = embedding @ kernel + rest, and noisy fits."""
    monkeypatch.setattr(identity_labels, "STEADINESS", 0.0)
    monkeypatch.setattr(identity_labels, "MAX_SPREAD", 100.0)
    monkeypatch.setattr(identity_labels, "NOISE_FACTOR", 1.0)
    monkeypatch.setattr(identity_labels, "RIDGE", 1e-6)
    rng = np.random.default_rng(3)
    person = np.repeat(np.arange(200), 10)
    kernel, rest_sd, noise_sd = rng.normal(size=(4, 3)), [0.5, 1.0, 2.0], [1.0, 1.0, 0.5]
    embedding = np.repeat(rng.normal(size=(200, 4)), 10, axis=0)
    shape = embedding @ kernel + np.repeat(rng.normal(0, rest_sd, (200, 3)), 10, axis=0) + 5
    own = shape + rng.normal(0, noise_sd, shape.shape)
    return embedding, shape, own, person, kernel, np.square(rest_sd), np.square(noise_sd)


def test_the_posterior_is_that_of_the_gaussians_that_made_the_data(gaussian_people):
    embedding, shape, own, person, kernel, rest, noise = gaussian_people
    result = learn_posterior(shape, own, embedding, person)
    outputs = embedding @ kernel + 5
    expected = outputs + (own - outputs) * rest / (rest + noise)  # of independent components
    label = result(own, embedding)
    assert np.square(label - expected).mean() < 0.05 * np.square(own - shape).mean()
    for worse in (own, embedding @ result.kernel + result.offset):
        assert np.square(label - shape).mean() < 0.8 * np.square(worse - shape).mean()


def test_any_whole_numbers_number_the_people_of_a_posterior(gaussian_people):
    embedding, shape, own, person, *_ = gaussian_people
    expected = learn_posterior(shape, own, embedding, person)
    result = learn_posterior(shape, own, embedding, person - 50)
    np.testing.assert_array_equal(result.kernel, expected.kernel)
    np.testing.assert_array_equal(result.gain, expected.gain)


def test_without_an_embedding_a_fit_is_drawn_to_the_mean(gaussian_people):
    embedding, shape, own, person, kernel, rest, noise = gaussian_people
    result = learn_posterior(shape, own, embedding, person)
    unknown = np.full_like(embedding, np.nan)
    covariance = kernel.T @ kernel + np.diag(rest)
    gain = covariance @ np.linalg.inv(covariance + np.diag(noise))
    expected = 5 + (own - 5) @ gain.T
    assert np.square(result(own, unknown) - expected).mean() < 0.1


def test_the_noise_of_fits_counts_as_often_as_it_is_set_to(gaussian_people, monkeypatch):
    """Gains of independent components, by the formula of the posterior."""
    embedding, shape, own, person, _, rest, noise = gaussian_people
    for factor in (1.0, 10.0):
        monkeypatch.setattr(identity_labels, "NOISE_FACTOR", factor)
        gain = learn_posterior(shape, own, embedding, person).gain
        np.testing.assert_allclose(gain, np.diag(rest / (rest + factor * noise)), atol=0.08)


def test_a_map_is_measured_on_people_not_fitted_on():
    """Embeddings without information, but long enough to memorize these people."""
    rng = np.random.default_rng(2)
    person = np.repeat(np.arange(40), 10)
    shape, embedding = (rng.normal(size=(40, size))[person] for size in (3, 60))
    result = learn_posterior(shape, shape + rng.normal(size=shape.shape), embedding, person)
    # Such a map is trusted less than the mean shape, and the fit more than without a map.
    assert np.trace(result.gain) > np.trace(result.gain_alone)


def test_a_label_weighs_by_the_inverse_covariances():
    """Where shapes and noise lie along different axes, by the formula of the precisions."""
    rng = np.random.default_rng(2)
    person = np.repeat(np.arange(300), 10)
    shape = (rng.normal(0, [5, 1], (300, 2)) @ [[0.8, 0.6], [-0.6, 0.8]])[person]
    own = shape + rng.normal(0, [1, 0.2], shape.shape)
    result = learn_posterior(shape, own, rng.normal(size=(3000, 3)), person)
    noise = identity_labels.NOISE_FACTOR * (own - shape).T @ (own - shape) / len(own)
    precisions = np.linalg.inv(np.cov(shape.T)), np.linalg.inv(noise)
    expected = np.linalg.solve(sum(precisions), precisions[1])
    np.testing.assert_allclose(result.gain_alone, expected, atol=1e-9)
    # The map knows as little as the mean: of an error as large as people differ.
    np.testing.assert_allclose(result.gain, expected, atol=0.05)


def test_components_that_vary_little_within_people_grow_and_the_size_is_kept():
    """Two principal shapes; the map's noise within people is 4 and 1: factors as 1 to 2."""
    rng = np.random.default_rng(5)
    person = np.repeat(np.arange(400), 10)
    true = np.repeat(rng.normal(0, [8, 6], (400, 2)), 10, axis=0)
    mapped = 0.5 * true + rng.normal(0, [4, 1], (4000, 2))
    factor = np.abs(identity_labels._spread(true, mapped, person))
    assert factor[1, 1] / factor[0, 0] == pytest.approx(2, rel=0.1)
    assert np.abs([factor[0, 1], factor[1, 0]]).max() < 0.1
    size = np.linalg.norm((mapped @ factor).std(axis=0))
    assert size == pytest.approx(np.linalg.norm(mapped.std(axis=0)), rel=0.02)


def test_capped_sizes_keep_their_total():
    """By hand: 3 is cut to 1, and the other takes the rest: 1 + x^2 = 9 + 4."""
    outputs = identity_labels._capped(np.array([3.0, 2.0]), np.array([1.0, 9.0]), np.sqrt(13))
    np.testing.assert_allclose(outputs, [1, np.sqrt(12)])
    outputs = identity_labels._capped(np.array([3.0, 2.0]), np.array([1.0, 1.5]), np.sqrt(13))
    np.testing.assert_allclose(outputs, [1, 1.5])  # no room for all of it


def test_turned_faces_are_taught_by_their_person_or_by_the_last_recognizer():
    rng = np.random.default_rng(2)
    person = np.r_[np.repeat(np.arange(18), 11), np.arange(18, 60)]
    code = rng.normal(0, 1, (60, 3))[person]
    raw = np.c_[code, code @ rng.normal(0, 1, (3, 3))] + rng.normal(0, 0.01, (240, 6))
    frontal = np.arange(240) % 11 != 0
    frontal[211] = True
    frontal[210] = False
    raw[~frontal] = 9.0  # embeddings of turned faces are useless
    raw[210, 3:] = raw[211, 3:]  # but for this one, of a person with one photo
    photos = Photos(person, np.zeros(240, int), frontal, np.ones(240, bool))
    shape = code @ rng.normal(0, 1, (3, 4))
    taught = teach_identity(shape, shape, raw, [3, 3], photos)
    own = taught.embedding[1:11].mean(axis=0)
    np.testing.assert_allclose(taught.embedding[0], own, atol=1e-5)
    np.testing.assert_allclose(taught.embedding[210], taught.embedding[211], atol=0.05)
    np.testing.assert_allclose(taught.shapes[0], taught.posterior.mapped(own[None])[0], atol=1e-4)
    alone = teach_identity(shape, shape, raw[:, :3], [3], photos)
    assert np.isnan(alone.embedding[210]).all() and np.isfinite(alone.shapes).all()


def test_four_frontal_photos_make_the_embedding_of_a_turned_one():
    """With three there is none, where no recognizer knows turned faces."""
    embedding = np.random.default_rng(0).normal(size=(9, 2))
    person, frontal = np.repeat([0, 1], [4, 5]), np.ones(9, bool)
    frontal[[0, 4]] = False
    photos = Photos(person, np.zeros(9, int), frontal, np.ones(9, bool))
    result = identity_labels._turned_embeddings(embedding, 0, photos)
    assert np.isnan(result[0]).all()
    np.testing.assert_allclose(result[4], embedding[5:].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(result[frontal], embedding[frontal], rtol=1e-6)


def test_a_posterior_needs_people_with_many_photos(gaussian_people):
    embedding, shape, own, person, *_ = gaussian_people
    with pytest.raises(ValueError, match="9 people have 10 photos, from .* learned; 10 are needed"):
        learn_posterior(shape[:90], own[:90], embedding[:90], person[:90])


@pytest.mark.parametrize("missing", [0, 1, 3])
def test_a_data_set_without_photos_to_average_stays_as_it_is(missing):
    """All others get the mean of the first of them, by a loop over the data sets."""
    rng = np.random.default_rng(4)
    source = np.repeat(np.arange(4), [30, 20, 40, 25])
    shapes = rng.normal(size=(115, 3)) + 10 * source[:, None]
    among = (rng.random(115) < 0.5) & (source != missing)
    aligned = align_means(shapes, source, among)
    assert np.isfinite(aligned).all()
    np.testing.assert_array_equal(aligned[source == missing], shapes[source == missing])
    first = min({0, 1, 2, 3} - {missing})
    mean = shapes[among & (source == first)].mean(axis=0)
    for number in {0, 1, 2, 3} - {missing}:
        moved = aligned[source == number] - shapes[source == number]
        shift = mean - shapes[among & (source == number)].mean(axis=0)
        np.testing.assert_allclose(moved, np.tile(shift, (len(moved), 1)), atol=1e-9)


def test_without_any_photo_to_average_all_data_sets_stay_as_they_are():
    shapes = np.random.default_rng(0).normal(size=(6, 3))
    aligned = align_means(shapes, np.repeat([0, 1], 3), np.zeros(6, bool))
    np.testing.assert_array_equal(aligned, shapes)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("with_covariance", [False, True])
def test_a_ridge_is_the_least_squares_solution_of_its_penalties_as_rows(weighted, with_covariance):
    """A map without penalty on the offset: np.linalg.lstsq finds all of it at once."""
    rng = np.random.default_rng(4)
    inputs, outputs = rng.normal(3, [1, 2, 5], (50, 3)), rng.normal(7, 2, (50, 2))
    weights = rng.uniform(0.1, 3, 50) if weighted else np.ones(50)
    root = rng.normal(size=(3, 3)) if with_covariance else np.zeros((3, 3))
    shares = weights / weights.sum()
    variance = shares @ (inputs - shares @ inputs) ** 2
    rows = np.c_[np.sqrt(shares)[:, None] * inputs, np.sqrt(shares)]
    penalties = np.vstack([np.sqrt(0.3 * variance.mean()) * np.eye(3), root])
    rows = np.vstack([rows, np.c_[penalties, np.zeros(6)]])
    targets = np.vstack([np.sqrt(shares)[:, None] * outputs, np.zeros((6, 2))])
    expected = np.linalg.lstsq(rows, targets, rcond=None)[0]
    kernel, offset = ridge_regression(
        inputs,
        outputs,
        0.3,
        weights if weighted else None,
        root.T @ root if with_covariance else 0.0,
    )
    np.testing.assert_allclose(kernel, expected[:3])
    np.testing.assert_allclose(offset, expected[3])
