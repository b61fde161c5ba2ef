"""What the distance of two neutral faces is: in millimeters, or in within-person deviations."""

from __future__ import annotations

import numpy as np

from keras_scnn.morphable_model import MorphableModel

LEAST_SCATTER = 0.003  # of a direction, as a share of the largest


def shape_coordinates(model: MorphableModel, identity: np.ndarray) -> np.ndarray:
    """(n, K) float64 mm whose Euclidean distances are those of the neutral shapes.

    The distance of two is the root mean square distance of corresponding vertices.
    """
    basis = model.identity_basis.reshape(-1, model.n_identity).astype(np.float64)
    triangle = np.linalg.qr(basis, mode="r")  # |Q R x| = |R x|
    return np.asarray(identity, np.float64) @ triangle.T / np.sqrt(model.n_vertices)


def person_scatter(coordinates: np.ndarray, person: np.ndarray) -> np.ndarray:
    """How the neutral shapes of one person's photos differ: the pooled covariance within people.

    Args:
        coordinates: (n, K) mm, of ``shape_coordinates``.
        person: (n,) whom each photo shows.

    Returns:
        (K, K) float64, mm².

    Raises:
        ValueError: nobody has two photos.
    """
    people, number = np.unique(person, return_inverse=True)
    spare = len(number) - len(people)
    if not spare:
        raise ValueError(f"{len(people)} people with one photo each; a scatter needs two of one")
    coordinates = np.asarray(coordinates, np.float64)
    means = np.zeros((len(people), coordinates.shape[1]))
    np.add.at(means, number, coordinates)
    apart = coordinates - (means / np.bincount(number)[:, None])[number]
    return apart.T @ apart / spare


def scaled_coordinates(coordinates: np.ndarray, scatter: np.ndarray) -> np.ndarray:
    """Shapes in units of one person's scatter: what photos of one person differ in counts less.

    Euclidean distances of the result are Mahalanobis distances of the neutral vertices (within-
    class covariance normalization: Hatch, Kajarekar and Stolcke, 2006).

    Args:
        coordinates: (n, K) mm, of ``shape_coordinates``.
        scatter: (K, K) mm², of ``person_scatter``; directions in which hardly anything varies are
            taken to have ``LEAST_SCATTER`` of the largest variance.

    Returns:
        (n, K) float64, standard deviations.
    """
    variance, axes = np.linalg.eigh(np.asarray(scatter, np.float64))
    return np.asarray(coordinates) @ (axes / np.sqrt(variance + LEAST_SCATTER * variance[-1]))
