"""Distances between neutral faces: in millimeters, and Mahalanobis distances."""

from __future__ import annotations

import numpy as np

from keras_scnn.morphable_model import MorphableModel
from keras_scnn.settings import check_above
from keras_scnn.storage.text import counted

MIN_VARIANCE_SHARE = 0.003  # added to the variance of each direction, as a share of the largest
LEAST_VARIANCE = 1e-12  # mm²; if all photos get the same shape, the variance is zero
VISIBLE_MM = 0.1  # root mean square over the vertices; smaller differences are invisible in a mesh


def shape_coordinates(model: MorphableModel, identity: np.ndarray) -> np.ndarray:
    """Coordinates whose Euclidean distances are the distances between the neutral shapes.

    The distance between two shapes is the root mean square distance of corresponding vertices.

    Args:
        model: the coefficients' face model.
        identity: (n, K) coefficients, standard deviations.

    Returns:
        (n, K) float64, mm.

    >>> from keras_scnn import MorphableModel
    >>> model = MorphableModel.open_face()
    >>> one, other = shape_coordinates(model, np.stack([np.zeros(80), np.eye(80)[0]]))
    >>> bool(np.isclose(np.linalg.norm(one - other), model.identity_weights_mm[0]))
    True
    """
    return np.asarray(identity, np.float64) @ shape_basis(model)


def shape_basis(model: MorphableModel) -> np.ndarray:
    """(K, K) float64, mm: row k is the contribution of one standard deviation of coefficient k.

    A factor of the Gram matrix of the components, which are not orthogonal: the squared norm of
    ``identity @ shape_basis(model)`` is the mean squared displacement of the vertices.
    """
    basis = model.identity_basis.reshape(3 * model.n_vertices, model.n_identity)
    triangle = np.asarray(np.linalg.qr(basis.astype(np.float64), mode="r"))  # |Q R x| = |R x|
    return triangle.T / np.sqrt(model.n_vertices)


def person_means(coordinates: np.ndarray, person: np.ndarray) -> np.ndarray:
    """(n, K) float64: for each photo, the mean over all photos of its person.

    Args:
        coordinates: (n, K) of the photos.
        person: (n,) the person in each photo.
    """
    _, number, count = np.unique(person, return_inverse=True, return_counts=True)
    sums = np.zeros((len(count), np.shape(coordinates)[1]))
    np.add.at(sums, number, np.asarray(coordinates, np.float64))
    return (sums / count[:, None])[number]


def within_person_covariance(coordinates: np.ndarray, person: np.ndarray) -> np.ndarray:
    """Pooled within-person covariance of the neutral shapes of people's photos.

    Args:
        coordinates: (n, K) mm, from ``shape_coordinates``.
        person: (n,) the person in each photo.

    Returns:
        (K, K) float64, mm².

    Raises:
        ValueError: nobody has two photos.
    """
    coordinates, people = np.asarray(coordinates, np.float64), np.unique(person)
    degrees_of_freedom = len(coordinates) - len(people)
    if not degrees_of_freedom:
        raise ValueError(
            f"{counted(len(people), 'person')} with one photo each; one person needs two photos"
        )
    centered = coordinates - person_means(coordinates, person)
    return centered.T @ centered / degrees_of_freedom


def mahalanobis_coordinates(coordinates: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Coordinates whose Euclidean distances are Mahalanobis distances between neutral shapes.

    Directions in which photos of the same person differ count less (within-class covariance
    normalization: Hatch, Kajarekar and Stolcke, 2006).

    Args:
        coordinates: (n, K) mm, from ``shape_coordinates``.
        covariance: (K, K) mm², from ``within_person_covariance``; ``MIN_VARIANCE_SHARE`` of its
            largest eigenvalue is added to each, and ``LEAST_VARIANCE`` is their lower bound.

    Returns:
        (n, K) float64, standard deviations.
    """
    variance, axes = np.linalg.eigh(np.asarray(covariance, np.float64))
    variance = np.maximum(variance + MIN_VARIANCE_SHARE * variance[-1], LEAST_VARIANCE)
    return np.asarray(coordinates) @ (axes / np.sqrt(variance))


def visible_coordinates(
    coordinates: np.ndarray, covariance: np.ndarray, floor_mm: float = VISIBLE_MM
) -> np.ndarray:
    """``mahalanobis_coordinates`` that ignore differences too small to be visible in a mesh.

    Mahalanobis distances amplify directions in which predictions hardly vary, so that differences
    of micrometers may decide. Here ``floor_mm``² is added to the within-person variance in every
    direction, so that differences far below ``floor_mm`` have almost no effect.

    Args:
        coordinates: (n, K) mm, from ``shape_coordinates``.
        covariance: (K, K) mm², from ``within_person_covariance``; ``floor_mm``² is added to its
            diagonal.
        floor_mm: mm, root mean square over the vertices; above 0.

    Returns:
        (n, K) float64, standard deviations.

    Raises:
        ValueError: the floor is not above 0.
    """
    check_above("floor_mm", floor_mm)
    variance, axes = np.linalg.eigh(np.asarray(covariance, np.float64))
    return np.asarray(coordinates) @ (axes / np.sqrt(np.maximum(variance, 0) + floor_mm**2))
