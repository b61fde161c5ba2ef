"""Identity labels regressed from a face recognizer's embeddings.

A fit to the 68 landmarks of one photo is a noisy label of the neutral shape. The recognizer's
embedding is nearly the same for all photos of a person, and predicts a part of the shape linearly.
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
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import ParameterLayout
from keras_scnn.settings import check_share

MAX_YAW_DEGREES = 60  # at larger yaws, the recognizer's embeddings are not reliable
RIDGE = 1.0  # penalty, as a share of the embeddings' mean variance
LEAST_PENALTY = 1e-12  # for inputs that do not vary, which give the mean output
MIN_FRONTAL = 4  # frontal photos of a person whose mean embedding replaces those of turned ones
FOLDS, MANY = 10, 10  # folds of cross-validation; photos from which a person's shape is well known
# Factor on the variance of single fits: their errors are correlated in photos of the same kind.
NOISE_FACTOR = 10.0
# Principal shapes are scaled by this power of the map's standard deviation within people, so that
# those that differ between photos of one person count less; and to at most this factor times the
# standard deviation of people.
STEADINESS, MAX_SPREAD = -0.5, 1.5


def comparable_embeddings(records: FaceRecords, source: np.ndarray) -> np.ndarray | None:
    """The records' embeddings, made comparable between data sets.

    Args:
        records: with or without embeddings.
        source: (n,) the index of each photo's data set, whose mean is subtracted.

    Returns:
        (n, E) float32 with a mean length of 1; NaN for photos without embedding, or with a yaw
        above 60 degrees; None if all would be NaN.
    """
    if records.embedding is None:
        return None
    embedding = np.array(records.embedding, np.float32)
    embedding[np.abs(records.euler_degrees()[:, 1]) > MAX_YAW_DEGREES] = np.nan
    is_finite = np.asarray(np.isfinite(embedding).all(axis=1))
    return center_sources(embedding, source, is_finite)[0] if is_finite.any() else None


def center_sources(
    embedding: np.ndarray, source: np.ndarray, among: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.floating]:
    """Subtract the mean of each data set from embeddings, and scale them to a mean length of 1.

    Args:
        embedding: (n, E).
        source: (n,) the index of each photo's data set.
        among: (n,) bool, the photos from which means and length are computed.

    Returns:
        (n, E) embeddings, of the same dtype; the (S, E) means that were subtracted, 0 for a data
        set without such photos; and the length by which they were divided.
    """
    means = np.zeros((source.max() + 1, embedding.shape[1]), embedding.dtype)
    for number in np.unique(source[among]):
        means[number] = embedding[among & (source == number)].mean(axis=0)
    centered = embedding - means[source]
    length = np.linalg.norm(centered[among], axis=1).mean()
    return centered / length, means, length


def align_sources(records: FaceRecords, source: np.ndarray, model: MorphableModel) -> FaceRecords:
    """Records whose data sets all have the mean identity of the first data set.

    Landmark sites differ between annotations, which a fit takes for shape. The first data set has
    to be in the annotation that results are measured on, so its mean is right.
    """
    identity = ParameterLayout(model.n_identity, model.n_expression).identity
    parameters = np.array(records.parameters)
    everybody = np.ones(len(parameters), bool)
    parameters[:, identity] = align_means(parameters[:, identity], source, everybody)
    return dataclasses.replace(records, parameters=parameters)


def align_means(shapes: np.ndarray, source: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Shapes whose data sets all have the mean of the first one.

    Args:
        shapes: (n, K).
        source: (n,) the index of each photo's data set; the first is 0.
        among: (n,) bool, the photos from which the means are computed. A data set without such
            photos is left unchanged; all others get the mean of the first one that has some.
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
    """Records whose identity coefficients are partly regressed from the embeddings.

    Args:
        records: fitted with the face model.
        embeddings: (n, E) from ``comparable_embeddings``.
        among: indices of the photos to learn from; must not include people used for evaluation.
        model: the face model.
        share: of the identity that comes from the embedding, 0 to 1; a photo without embedding
            keeps its fit.

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
    """Estimates the neutral shape from a photo's own fit and from a recognizer's embedding.

    The embedding's linear map gives a prior whose error has a known covariance, the fit to one
    photo is a measurement with noise of known covariance; the label is the posterior mean (Bishop,
    "Pattern Recognition and Machine Learning", 2006, section 2.3.3). Shapes are (K,) identity
    coefficients in mm of vertices.

    Attributes:
        kernel, offset: (E, K) and (K,), the map from embedding to shape.
        gain: (K, K), applied to the difference of the fit from the map's prediction.
        mean: (K,) mean shape.
        gain_alone: (K, K), applied to the difference of the fit from the mean shape, for photos
            without embedding.
    """

    kernel: np.ndarray
    offset: np.ndarray
    gain: np.ndarray
    mean: np.ndarray
    gain_alone: np.ndarray

    def mapped(self, embedding: np.ndarray) -> np.ndarray:
        """(n, K) shapes from (n, E) embeddings by the map alone; NaN for missing embeddings."""
        return embedding @ self.kernel + self.offset

    def __call__(self, own: np.ndarray, embedding: np.ndarray) -> np.ndarray:
        """(n, K) labels from (n, K) fits to single photos and (n, E) embeddings, NaN if missing."""
        known = ~np.isnan(embedding).any(axis=1, keepdims=True)
        prior = np.nan_to_num(embedding) @ self.kernel + self.offset
        alone = self.mean + (own - self.mean) @ self.gain_alone.T
        return np.where(known, prior + (own - prior) @ self.gain.T, alone)


@dataclass(frozen=True, eq=False)
class Photos:
    """Person, data set and view of n photos.

    Attributes:
        person: (n,) int.
        source: (n,) int, the index of each photo's data set.
        frontal: (n,) bool, with a yaw at which all recognizers' embeddings are reliable.
        seen: (n,) bool, the photos to learn from.
    """

    person: np.ndarray
    source: np.ndarray
    frontal: np.ndarray
    seen: np.ndarray


@dataclass(frozen=True, eq=False)
class TaughtIdentity:
    """Identity labels of n photos from recognizers; see ``teach_identity``.

    Attributes:
        embedding: (n, E) float32, centered by data set, with a mean length of 1 for each
            recognizer.
        shapes: (n, K) mm, the identity labels.
        posterior: gives the labels.
        means: (S, E) of the data sets.
        length: (E,): embeddings are (raw - mean) / length.
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

    A frontal photo gets the posterior mean from its own fit and its embedding. A turned face gets
    the mean embedding of its person's frontal photos if there are enough (``MIN_FRONTAL``); else
    the last recognizer's embedding, and those of the others by regression on it. Its shape follows
    from this embedding.

    Args:
        joint, own: (n, K) mm, fits to all photos of a person, and to each photo alone.
        raw: (n, E) embeddings of all recognizers, concatenated.
        sizes: length of each recognizer's embeddings; of several, the last one has to recognize
            turned faces.
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
    """(n, E) float32 embeddings with those of turned faces replaced, see ``teach_identity``.

    Args:
        centered: (n, E) embeddings.
        first: column at which the last recognizer's begin; 0 if it is the only one.
        photos: person, data set and view of each.
    """
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


def well_known(person: np.ndarray) -> np.ndarray:
    """Indices of the photos, of the people (n,) in ``person``, of those with ``MANY`` or more.

    Raises:
        ValueError: these are fewer than ``FOLDS`` people, too few to learn identity labels from.
    """
    known = np.flatnonzero(photos_of_each(person) >= MANY)
    if (count := len(np.unique(person[known]))) < FOLDS:
        raise ValueError(
            f"{count} people have {MANY} photos, from which identity labels are learned; {FOLDS} "
            "are needed"
        )
    return known


def learn_posterior(
    joint: np.ndarray, own: np.ndarray, embeddings: np.ndarray, person: np.ndarray
) -> ShapePosterior:
    """Learn the map, and the error covariances of the map and of the fits.

    A regression's predictions vary less than people do, particularly in shapes that the embedding
    hardly determines. ``_spread`` rescales them along the principal shapes.

    Args:
        joint: (n, K) mm, the fit to all photos of the photo's person.
        own: (n, K) mm, the fit to the photo alone.
        embeddings: (n, E), all known.
        person: (n,) int; the errors are measured on people with at least ``MANY`` photos.

    Raises:
        ValueError: see ``well_known``.
    """
    known = well_known(person)
    number = np.unique(person[known], return_inverse=True)[1]
    true, mapped = joint[known].astype(np.float64), np.empty((len(known), joint.shape[1]))
    for fold in range(FOLDS):  # predict each fold with a map that was not trained on its people
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
    """(K, K) factor for a map's predictions, which keeps their total size.

    It enlarges the principal shapes that vary little between a person's photos.

    Args:
        true: (m, K) mm, the joint fits.
        mapped: (m, K) mm, predicted by a map that was not trained on the person.
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
    """Sizes scaled to a total length, with none above its limit; the others compensate."""
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
        inputs: (n, E). If none varies, the map gives the mean output.
        outputs: (n, K).
        penalty: as a share of the inputs' mean variance.
        weights: (n,) above 0, of the rows; None: all equal.
        covariance_penalty: (E, E), also added to the inputs' covariance.
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
