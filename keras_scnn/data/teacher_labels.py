"""What a face recognizer's embeddings say of shape: better identity labels from many photos.

A fit to the 68 landmarks of one photo is a noisy label of the neutral shape. The recognizer's
embedding is nearly the same for all photos of a person, and a part of the shape can be read off it
linearly. That linear map is learned from the fits themselves: it averages over all who look alike
to the recognizer. People with many photos, whose joint fit is exact, teach the most.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from keras_scnn.data.records import FaceRecords
from keras_scnn.geometry.camera import decompose
from keras_scnn.geometry.rotations import euler_from_rotation
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import POSE_SIZE, ParameterLayout

MOST_YAW_DEGREES = 60  # beyond, the recognizer has not learned to see
RIDGE = 2.0  # penalty, as a share of the embeddings' mean variance
CHUNK = 4096


def yaw_degrees(records: FaceRecords) -> np.ndarray:
    """(n,) float64 of the records' poses; to the image's right is positive."""
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
        more than 60 degrees; None without embeddings.
    """
    if records.embedding is None or np.isnan(records.embedding).all():
        return None
    told = np.array(records.embedding, np.float32)
    told[np.abs(yaw_degrees(records)) > MOST_YAW_DEGREES] = np.nan
    for number in np.unique(source):
        part = source == number
        if not np.isnan(told[part]).all():
            told[part] -= np.nanmean(told[part], axis=0)
    return told / np.nanmean(np.linalg.norm(told, axis=1))


def align_sources(records: FaceRecords, source: np.ndarray, model: MorphableModel) -> FaceRecords:
    """Records whose data sets have one mean identity: that of the first data set.

    Each kind of annotation puts its landmarks somewhat differently, which a fit takes for shape.
    Where the first data set's annotation is the one to be measured on, its mean is right.
    """
    identity = ParameterLayout(model.n_identity, model.n_expression).identity
    parameters = np.array(records.parameters)
    wanted = parameters[source == 0, identity].mean(axis=0)
    for number in np.unique(source):
        part = source == number
        parameters[part, identity] += wanted - parameters[part, identity].mean(axis=0)
    return dataclasses.replace(records, parameters=parameters)


def teach_shapes(
    records: FaceRecords,
    embeddings: np.ndarray,
    among: np.ndarray,
    model: MorphableModel,
    share: float,
) -> FaceRecords:
    """Records whose identity is in part what the embedding says of it.

    Args:
        records: fitted to the face model.
        embeddings: (n, E) of ``comparable_embeddings``.
        among: positions of the photos from which is learned; those of people to be measured on
            must not be among them. Each counts as often as its person has photos there: the noise
            of a fit to n photos has an n-th of the variance of a fit to one.
        model: the face model.
        share: of the identity that comes from the embedding, 0 to 1; where there is no embedding
            the fit is left as it is.

    Raises:
        ValueError: share is out of range, or fewer photos than E + 1 have an embedding.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}; it must lie in 0 to 1")
    identity = ParameterLayout(model.n_identity, model.n_expression).identity
    known = ~np.isnan(embeddings).any(axis=1)
    learned = among[known[among]]
    if len(learned) <= embeddings.shape[1]:
        raise ValueError(
            f"{len(learned)} photos to learn from have an embedding; more than "
            f"{embeddings.shape[1]} are needed"
        )
    weights = model.identity_weights_mm
    of_person = np.bincount(records.identity[learned])[records.identity[learned]]
    told = _ridge(embeddings[learned], records.parameters[learned, identity] * weights, of_person)
    parameters = np.array(records.parameters)
    own = parameters[known, identity]
    parameters[known, identity] = (1 - share) * own + share * told(embeddings[known]) / weights
    return dataclasses.replace(records, parameters=parameters)


def _ridge(inputs: np.ndarray, outputs: np.ndarray, weight: np.ndarray):
    """Weighted ridge regression: a function from (m, E) to (m, K)."""
    share = weight / weight.sum()
    center, mean = share @ inputs, share @ outputs
    x = inputs - center
    gram = (x * share[:, None]).T @ x
    gram += RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    kernel = np.linalg.solve(gram, (x * share[:, None]).T @ (outputs - mean))
    return lambda given: mean + (given - center) @ kernel
