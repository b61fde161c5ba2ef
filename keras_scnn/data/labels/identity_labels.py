"""Identity labels regressed from a face recognizer's embeddings.

A fit to the 68 landmarks of one photo is a noisy label of the neutral shape. The recognizer's
embedding is nearly the same for all photos of a person, and a part of the shape is linear in it.
The linear map is learned from the fits themselves, so it averages over all people with similar
embeddings.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_scnn.data.records import FaceRecords, photos_of_each
from keras_scnn.evaluation.pairs import rows_of_people
from keras_scnn.geometry.camera import decompose
from keras_scnn.geometry.rotations import euler_from_rotation
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import POSE_SIZE, ParameterLayout
from keras_scnn.settings import check_share

MAX_YAW_DEGREES = 60  # beyond, the recognizer's embeddings are not reliable
RIDGE = 1.0  # penalty, as a share of the embeddings' mean variance
LEAST_PENALTY = 1e-12  # inputs that do not vary give the mean output
MIN_FRONTAL = 4  # photos of a person of which the mean embedding is that of turned ones
FOLDS, MANY = 10, 10  # parts of the people in turn left out; photos that make a person well known
# How many times the noise of single fits counts: it is alike in all photos of a kind.
NOISE_FACTOR = 10.0
# Principal shapes are weighted by the power of the map's own standard deviation within people, so
# that what differs between photos of one person counts less; none becomes wider than so many times
# people's.
STEADINESS, MAX_SPREAD = -0.5, 1.5
CHUNK = 4096


def yaw_degrees(records: FaceRecords) -> np.ndarray:
    """(n,) float64 of the records' poses; a nose to the image's left is positive."""
    pose = records.parameters[:, :POSE_SIZE].reshape(-1, 3, 4).astype(np.float64)
    chunks = [pose[i : i + CHUNK] for i in range(0, len(pose), CHUNK)]
    angles = [euler_from_rotation(decompose(chunk)[0])[:, 1] for chunk in chunks]
    return np.rad2deg(np.concatenate(angles))


def comparable_embeddings(records: FaceRecords, source: np.ndarray) -> np.ndarray | None:
    """The records' embeddings, made comparable over data sets.

    Args:
        records: with or without embeddings.
        source: (n,) the number of each photo's data set, whose mean is taken off.

    Returns:
        (n, E) float32 of length 1 on average, NaN where there is none or the face is turned by
        more than 60 degrees; None where all would be NaN.
    """
    if records.embedding is None:
        return None
    embedding = np.array(records.embedding, np.float32)
    embedding[np.abs(yaw_degrees(records)) > MAX_YAW_DEGREES] = np.nan
    is_finite = np.asarray(np.isfinite(embedding).all(axis=1))
    return center_sources(embedding, source, is_finite)[0] if is_finite.any() else None


def center_sources(
    embedding: np.ndarray, source: np.ndarray, among: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.floating]:
    """Embeddings without the mean of their data set, of length 1 on average.

    Args:
        embedding: (n, E).
        source: (n,) the number of each photo's data set.
        among: (n,) bool, the photos over which mean and length are taken.

    Returns:
        (n, E) of the embeddings' dtype; the (S, E) means that were taken off, 0 for a data set
        without such photos; and the length that they were divided by.
    """
    means = np.zeros((source.max() + 1, embedding.shape[1]), embedding.dtype)
    for number in np.unique(source[among]):
        means[number] = embedding[among & (source == number)].mean(axis=0)
    centered = embedding - means[source]
    length = np.linalg.norm(centered[among], axis=1).mean()
    return centered / length, means, length


def align_sources(records: FaceRecords, source: np.ndarray, model: MorphableModel) -> FaceRecords:
    """Records whose data sets have one mean identity: that of the first data set.

    Each kind of annotation puts its landmarks somewhat differently, which a fit takes for shape.
    Where the first data set's annotation is the one to be measured on, its mean is right.
    """
    identity = ParameterLayout(model.n_identity, model.n_expression).identity
    parameters = np.array(records.parameters)
    everybody = np.ones(len(parameters), bool)
    parameters[:, identity] = align_means(parameters[:, identity], source, everybody)
    return dataclasses.replace(records, parameters=parameters)


def align_means(shapes: np.ndarray, source: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Shapes whose data sets have one mean, that of the first.

    Args:
        shapes: (n, K).
        source: (n,) the number of each photo's data set; the first is 0.
        among: (n,) bool, the photos over which the means are taken. A data set without any of them
            stays as it is; all others get the mean of the first one that has some.
    """
    counts = np.bincount(source, among, source.max() + 1)
    sums = np.zeros((len(counts), shapes.shape[1]))
    np.add.at(sums, source[among], shapes[among])
    known = np.flatnonzero(counts)
    means = sums[known] / counts[known, None]
    shift = np.zeros_like(sums)
    shift[known] = means[:1] - means
    return shapes + shift[source]


def regress_identity(
    records: FaceRecords,
    embeddings: np.ndarray,
    among: np.ndarray,
    model: MorphableModel,
    share: float,
) -> FaceRecords:
    """Records whose identity coefficients are in part regressed from the embeddings.

    Args:
        records: fitted to the face model.
        embeddings: (n, E) of ``comparable_embeddings``.
        among: positions of the photos to learn from; people to be measured on must not be among
            them.
        model: the face model.
        share: of the identity that comes from the embedding, 0 to 1; where there is no embedding
            the fit is left as it is.

    Raises:
        ValueError: share is out of range, or fewer photos than E + 1 have an embedding.
    """
    check_share("share", share)
    identity = ParameterLayout(model.n_identity, model.n_expression).identity
    known = ~np.isnan(embeddings).any(axis=1)
    learned = among[known[among]]
    if len(learned) <= embeddings.shape[1]:
        raise ValueError(
            f"{len(learned)} photos to learn from have an embedding; more than "
            f"{embeddings.shape[1]} are needed"
        )
    weights = model.identity_weights_mm
    shapes = records.parameters[learned, identity] * weights
    kernel, offset = ridge_regression(embeddings[learned], shapes, RIDGE)
    predicted = (embeddings[known] @ kernel + offset) / weights
    parameters = np.array(records.parameters)
    parameters[known, identity] = (1 - share) * parameters[known, identity] + share * predicted
    return dataclasses.replace(records, parameters=parameters)


@dataclass(frozen=True, eq=False)
class ShapePosterior:
    """The neutral shape, from a photo's own fit and from a recognizer's embedding.

    The embedding's linear map is a prior whose error has a known covariance, the fit to one photo a
    measurement with noise of known covariance; the label is the posterior mean (Bishop, "Pattern
    Recognition and Machine Learning", 2006, section 2.3.3). Shapes are (K,) identity coefficients
    in mm of vertices.

    Attributes:
        kernel, offset: (E, K) and (K,), the map from embedding to shape.
        gain: (K, K), the share of the fit's difference from the map that is taken.
        mean: (K,) mean shape.
        gain_alone: (K, K), the same beyond the mean, for photos without embedding.
    """

    kernel: np.ndarray
    offset: np.ndarray
    gain: np.ndarray
    mean: np.ndarray
    gain_alone: np.ndarray

    def mapped(self, embedding: np.ndarray) -> np.ndarray:
        """(n, K) shapes by the map alone from (n, E) embeddings; NaN for none."""
        return embedding @ self.kernel + self.offset

    def __call__(self, own: np.ndarray, embedding: np.ndarray) -> np.ndarray:
        """(n, K) labels from (n, K) fits to single photos and (n, E) embeddings, NaN for none."""
        known = ~np.isnan(embedding).any(axis=1, keepdims=True)
        prior = np.nan_to_num(embedding) @ self.kernel + self.offset
        alone = self.mean + (own - self.mean) @ self.gain_alone.T
        return np.where(known, prior + (own - prior) @ self.gain.T, alone)


@dataclass(frozen=True, eq=False)
class Photos:
    """Person, data set and view of n photos.

    Attributes:
        person: (n,) int. source: (n,) int, the number of each photo's data set.
        frontal: (n,) bool, turned so little that every recognizer's embedding counts.
        seen: (n,) bool, those to learn from.
    """

    person: np.ndarray
    source: np.ndarray
    frontal: np.ndarray
    seen: np.ndarray


@dataclass(frozen=True, eq=False)
class TaughtIdentity:
    """Identity labels of n photos from recognizers; see ``teach_identity``.

    Attributes:
        embedding: (n, E) float32, centered by data set, each recognizer's of length 1 on average.
        shapes: (n, K) mm, the identity labels.
        posterior: that gives the labels.
        means: (S, E) of the data sets, and length (E,): centered = (raw - mean) / length.
    """

    embedding: np.ndarray
    shapes: np.ndarray
    posterior: ShapePosterior
    means: np.ndarray
    length: np.ndarray


def teach_identity(
    joint: np.ndarray,
    own: np.ndarray,
    raw: np.ndarray,
    sizes: Sequence[int],
    photos: Photos,
) -> TaughtIdentity:
    """Identity labels of photos, from recognizers' embeddings and from fits to landmarks.

    A frontal photo gets the posterior mean of its own fit and its embedding. A turned face has the
    mean embedding of its person's frontal photos, where there are enough (``MIN_FRONTAL``); else
    the last recognizer's embedding, and those of the others by regression on it. Its shape follows
    from this embedding.

    Args:
        joint, own: (n, K) mm, fits to all photos of a person and to each alone.
        raw: (n, E) embeddings, one recognizer's after the other's.
        sizes: length of each recognizer's; with more than one, the last recognizes turned faces.
        photos: person, data set and view of each.

    Raises:
        ValueError: see ``learn_posterior``.
    """
    used, ends = photos.seen & photos.frontal, np.cumsum([0, *sizes])
    scaled = [center_sources(raw[:, a:b], photos.source, used) for a, b in itertools.pairwise(ends)]
    centered, means = (np.concatenate([part[i] for part in scaled], axis=1) for i in (0, 1))
    length = np.repeat([part for _, _, part in scaled], sizes)
    joint, own = (align_means(fit, photos.source, photos.seen) for fit in (joint, own))
    posterior = learn_posterior(joint[used], own[used], centered[used], photos.person[used])
    embedding = _turned_embeddings(centered, int(ends[-2]), photos)
    mapped = posterior.mapped(embedding)
    fits = np.where(photos.frontal[:, None] | np.isnan(mapped), own, mapped)
    return TaughtIdentity(embedding, posterior(fits, embedding), posterior, means, length)


def _turned_embeddings(centered: np.ndarray, first: int, photos: Photos) -> np.ndarray:
    """(n, E) float32 with those of turned faces replaced; the last recognizer's begin at first."""
    embedding, turned = centered.astype(np.float32), ~photos.frontal
    embedding[turned] = np.nan
    if first:
        x, y = centered[:, first:], centered[:, :first]
        used = photos.seen & photos.frontal
        kernel = np.linalg.lstsq(x[used], y[used], rcond=None)[0]
        embedding[turned] = np.concatenate([x[turned] @ kernel, x[turned]], axis=1)
    for own in rows_of_people(photos.person):
        frontal = own[photos.frontal[own]]
        if len(frontal) >= MIN_FRONTAL:
            embedding[own[turned[own]]] = centered[frontal].mean(axis=0)
    return embedding


def learn_posterior(
    joint: np.ndarray, own: np.ndarray, embeddings: np.ndarray, person: np.ndarray
) -> ShapePosterior:
    """Learn the map, and how far it and the fits can be trusted.

    A regression's predictions vary less than people do, most of all where the embedding says
    little. ``_spread`` widens those of the map, principal shape by principal shape.

    Args:
        joint: (n, K) mm, the fit to all photos of the photo's person.
        own: (n, K) mm, the fit to the photo alone.
        embeddings: (n, E), all known.
        person: (n,) int; people with ``MANY`` photos show how wrong the map and the fits are.

    Raises:
        ValueError: fewer than ``FOLDS`` people have so many photos.
    """
    known = np.flatnonzero(photos_of_each(person) >= MANY)
    people, number = np.unique(person[known], return_inverse=True)
    if len(people) < FOLDS:
        raise ValueError(f"{len(people)} people have {MANY} photos; {FOLDS} are needed")
    true, mapped = joint[known].astype(np.float64), np.empty((len(known), joint.shape[1]))
    for fold in range(FOLDS):  # the map of people that it has not seen
        new = number % FOLDS == fold
        seen = np.delete(np.arange(len(joint)), known[new])
        kernel, offset = ridge_regression(embeddings[seen], joint[seen], RIDGE)
        mapped[new] = embeddings[known[new]] @ kernel + offset
    mean, center = true.mean(axis=0), mapped.mean(axis=0)
    wider = _spread(true, mapped, number)
    mapped = mean + (mapped - center) @ wider
    noise = own[known] - true
    noise = NOISE_FACTOR * noise.T @ noise / len(noise)
    wrong, spread = np.cov((true - mapped).T), np.cov(true.T)
    kernel, offset = ridge_regression(embeddings, joint, RIDGE)
    return ShapePosterior(
        kernel @ wider,
        mean + (offset - center) @ wider,
        wrong @ np.linalg.inv(wrong + noise),
        mean,
        spread @ np.linalg.inv(spread + noise),
    )


def _spread(true: np.ndarray, mapped: np.ndarray, person: np.ndarray) -> np.ndarray:
    """(K, K) factor of a map's predictions: what is steady within people grows, of one total size.

    Args:
        true: (m, K) mm, the joint fits.
        mapped: (m, K) mm, predicted by a map that has not seen the person.
        person: (m,) int from 0.
    """
    axes = np.linalg.eigh(np.cov(true.T))[1]
    people = ((true - true.mean(axis=0)) @ axes).std(axis=0)
    along = (mapped - mapped.mean(axis=0)) @ axes
    count = np.bincount(person)[:, None]
    means = np.stack([np.bincount(person, one) for one in along.T], axis=1) / count
    within = (along - means[person]).std(axis=0)
    size = along.std(axis=0)
    wanted = size * within**STEADINESS
    wanted = _capped(wanted, MAX_SPREAD * people, float(np.linalg.norm(size)))
    return axes * (wanted / size) @ axes.T


def _capped(sizes: np.ndarray, limits: np.ndarray, total: float) -> np.ndarray:
    """Sizes scaled to a total length with none above its limit: what is cut off, others get."""
    free = np.ones(len(sizes), bool)
    for _ in sizes:
        rest = total**2 - (limits[~free] ** 2).sum()
        scaled = np.where(free, sizes * np.sqrt(max(rest, 0) / (sizes[free] ** 2).sum()), limits)
        beyond = free & (scaled > limits)
        if not beyond.any() or (free & ~beyond).sum() == 0:
            break
        free &= ~beyond
    return np.minimum(scaled, limits)


def ridge_regression(
    inputs: np.ndarray,
    outputs: np.ndarray,
    penalty: float,
    weights: np.ndarray | None = None,
    covariance_penalty: np.ndarray | float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Kernel (E, K) and offset (K,) of the linear map from inputs to outputs.

    Args:
        inputs: (n, E). Where none varies, the map gives the mean output.
        outputs: (n, K).
        penalty: as a share of the inputs' mean variance.
        weights: (n,) above 0, how much each row counts; all count alike without.
        covariance_penalty: (E, E), added to the inputs' covariance besides.
    """
    center = np.average(inputs, axis=0, weights=weights)
    mean = np.average(np.asarray(outputs, np.float64), axis=0, weights=weights)
    x = inputs - center
    weighted = x if weights is None else x * (weights / weights.mean())[:, None]
    gram = weighted.T @ x / len(x)
    least = max(penalty * np.trace(gram) / len(gram), LEAST_PENALTY) * np.eye(len(gram))
    kernel = np.linalg.solve(
        gram + least + covariance_penalty, weighted.T @ (outputs - mean) / len(x)
    )
    return kernel, mean - center @ kernel
