import dataclasses

import numpy as np
import pytest

from keras_scnn.data.labels import identity_labels
from keras_scnn.data.labels.identity_labels import (
    align_sources,
    comparable_embeddings,
    learn_posterior,
    regress_identity,
    yaw_degrees,
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


def test_yaw_is_that_of_the_poses(people):
    np.testing.assert_allclose(yaw_degrees(people[1]), people[2], atol=1e-3)


def test_embeddings_lose_their_mean_and_what_is_said_of_profiles(people):
    _, records, yaw = people
    source = np.repeat([0, 1], PHOTOS // 2)
    records.embedding[source == 1] += 3
    found = comparable_embeddings(records, source)
    np.testing.assert_array_equal(np.isnan(found).any(axis=1), np.abs(yaw) > 60)
    for number in (0, 1):
        np.testing.assert_allclose(np.nanmean(found[source == number], axis=0), 0, atol=1e-5)
    assert np.nanmean(np.linalg.norm(found, axis=1)) == pytest.approx(1, rel=1e-5)


def test_without_embeddings_there_is_nothing_to_compare(people):
    records = people[1]
    records.embedding[:] = np.nan
    assert comparable_embeddings(records, np.zeros(PHOTOS, int)) is None


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
    """Also of people from whom nothing was learned."""
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


def test_people_with_many_photos_teach_the_most(people, tiny_face_model):
    """200 people with a photo each say the opposite of ten people with 20 photos each."""
    rng = np.random.default_rng(1)
    person = np.r_[np.arange(200), 200 + np.repeat(np.arange(10), 20)].astype(np.int32)
    records = dataclasses.replace(people[1], identity=person)
    embeddings = rng.normal(0, 1, (210, SIZE))[person]
    shapes = embeddings @ rng.normal(0, 1, (SIZE, tiny_face_model.n_identity))
    identities(records, tiny_face_model)[:] = np.where(person[:, None] < 200, -shapes, shapes)
    everybody = np.arange(PHOTOS)
    taught = regress_identity(records, embeddings, everybody, tiny_face_model, 1.0)
    outputs = identities(taught, tiny_face_model)
    assert np.corrcoef(outputs.ravel(), shapes.ravel())[0, 1] > 0.8, "photo by photo it would be 0"


def test_who_is_not_known_keeps_the_fit(people, tiny_face_model):
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
    monkeypatch.setattr(identity_labels, "SPREAD", 0.0)
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
    found = learn_posterior(shape, own, embedding, person)
    outputs = embedding @ kernel + 5
    expected = outputs + (own - outputs) * rest / (rest + noise)  # of independent components
    label = found(own, embedding)
    assert np.square(label - expected).mean() < 0.05 * np.square(own - shape).mean()
    for worse in (own, embedding @ found.kernel + found.offset):
        assert np.square(label - shape).mean() < 0.8 * np.square(worse - shape).mean()


def test_without_an_embedding_a_fit_is_drawn_to_the_mean(gaussian_people):
    embedding, shape, own, person, kernel, rest, noise = gaussian_people
    found = learn_posterior(shape, own, embedding, person)
    unknown = np.full_like(embedding, np.nan)
    covariance = kernel.T @ kernel + np.diag(rest)
    gain = covariance @ np.linalg.inv(covariance + np.diag(noise))
    expected = 5 + (own - 5) @ gain.T
    assert np.square(found(own, unknown) - expected).mean() < 0.1


def test_spread_makes_labels_as_different_as_people_are(gaussian_people, monkeypatch):
    embedding, shape, own, person, *_ = gaussian_people
    monkeypatch.setattr(identity_labels, "SPREAD", 1.0)
    found = learn_posterior(shape, own, embedding, person)
    outputs = embedding @ found.kernel + found.offset
    np.testing.assert_allclose(np.cov(outputs.T).trace(), np.cov(shape.T).trace(), rtol=0.1)


def test_a_posterior_needs_people_with_many_photos(gaussian_people):
    embedding, shape, own, person, *_ = gaussian_people
    with pytest.raises(ValueError, match="9 people have 10 photos; 10 are needed"):
        learn_posterior(shape[:90], own[:90], embedding[:90], person[:90])
