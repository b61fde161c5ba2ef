"""Correspondences between the points of two face models."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from keras_scnn.face_models.checks import check_keys
from keras_scnn.geometry.alignment import apply_similarity, similarity_alignment
from keras_scnn.geometry.mesh import vertex_normals
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.storage import read_npz, write_npz
from keras_scnn.storage.guard import reading

FILE_FORMAT, FILE_VERSION = "keras_scnn.correspondence", 1
MIN_POINTS = 10
MAX_DISTANCE = 5.0  # mm from the warped target to the source's surface
NEAREST = 4  # vertices whose triangles are tried: the nearest triangle may lack the nearest vertex
MIN_COSINE = 0.5  # between the two normals; excludes the inner side of lips and eyelids


@dataclass(frozen=True, eq=False)
class Correspondence:
    """Vertices of a target model, each with the corresponding point of a source model's triangles.

    Attributes:
        target_vertices: (M,) int32, 0-based.
        source_vertices: (M, 3) int32, the corners of the triangle in which the point lies; for a
            point at a vertex, three times that vertex, or weights of 1, 0, 0.
        source_weights: (M, 3) float64, barycentric, sum 1.

    Raises:
        ValueError: the shapes do not fit, there are fewer than 10 points, an index is negative, or
            weights are not finite or do not sum to 1.
    """

    target_vertices: np.ndarray
    source_vertices: np.ndarray
    source_weights: np.ndarray

    def __post_init__(self) -> None:
        for field in ("target_vertices", "source_vertices"):
            array = np.array(getattr(self, field))
            most = np.iinfo(np.int32).max
            if not np.issubdtype(array.dtype, np.integer) or ((array < 0) | (array > most)).any():
                raise ValueError(f"{field} must be vertex numbers, whole and from 0 to {most}")
            object.__setattr__(self, field, array.astype(np.int32))
        object.__setattr__(self, "source_weights", np.array(self.source_weights, np.float64))
        self._check_shapes()
        if not np.allclose(self.source_weights.sum(axis=1), 1, atol=1e-3):  # NaN is not close
            raise ValueError("source_weights must be finite and sum to 1 for each point")

    def _check_shapes(self) -> None:
        shapes = tuple(np.shape(getattr(self, field)) for field in _field_names())
        count = shapes[0][0] if len(shapes[0]) == 1 else -1
        if shapes != ((count,), (count, 3), (count, 3)):
            raise ValueError(
                f"target_vertices, source_vertices and source_weights have the shapes {shapes}; "
                "they must be (M,), (M, 3) and (M, 3)"
            )
        if count < MIN_POINTS:
            raise ValueError(f"{count} corresponding points; at least {MIN_POINTS} are needed")

    def __len__(self) -> int:
        return len(self.target_vertices)

    def check_models(self, source: MorphableModel, target: MorphableModel) -> None:
        """Raise a ValueError if a vertex does not exist in its model."""
        for role, model, vertices in (
            ("source", source, self.source_vertices),
            ("target", target, self.target_vertices),
        ):
            if vertices.max() >= model.n_vertices:
                raise ValueError(
                    f"the correspondence names the {role}'s vertex {vertices.max()}; face model "
                    f"'{model.name}' has {model.n_vertices}: it was made for other models"
                )

    def source_sites(self, vertices: np.ndarray) -> np.ndarray:
        """(M, 3) float64 points on a source mesh (N, 3), in its unit."""
        corners = np.float64(vertices)[self.source_vertices]
        return np.einsum("mc,mcd->md", self.source_weights, corners)

    def save(self, path: str | os.PathLike) -> None:
        """Write an .npz file, atomically."""
        arrays = {field: getattr(self, field) for field in _field_names()}
        write_npz(path, FILE_FORMAT, FILE_VERSION, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Correspondence:
        """Read a file of ``save``.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged or of another format, or its arrays do not fit.
        """
        arrays = read_npz(path, FILE_FORMAT, FILE_VERSION)
        with reading(path, "a correspondence of two face models"):
            check_keys(Path(path), arrays, _field_names(), "a correspondence of two face models")
            return cls(**{field: arrays[field] for field in _field_names()})


def _field_names() -> tuple[str, ...]:
    return tuple(field.name for field in fields(Correspondence))


def make_correspondence(
    source_model: MorphableModel, target_model: MorphableModel, dense: bool = True
) -> Correspondence:
    """Find the correspondence of two face models from their 68 landmarks.

    The target's mean face is warped onto the source's landmarks by a similarity and a thin-plate
    spline; each of its vertices then corresponds to the nearest point of the source's same region
    (skin, teeth, an eye ...; of the whole source if a model has no ``regions``), if that is within
    5 mm and its normal has a similar direction.

    Args:
        source_model, target_model: of any topology, unit and frame.
        dense: False: only the 68 landmark vertices.

    Raises:
        ValueError: the landmarks of a model lie in one plane, or the two surfaces hardly overlap.
    """
    landmarks = [_landmarks(source_model), _landmarks(target_model)]
    if not dense:
        corners = np.repeat(source_model.landmark_indices[:, None], 3, axis=1)
        return Correspondence(target_model.landmark_indices, corners, np.full((68, 3), 1 / 3))
    if source_model.regions is None or target_model.regions is None:  # compare whole surfaces
        models = (model.replace(regions=None) for model in (source_model, target_model))
        source_model, target_model = models
    warped = _warped(landmarks[1], landmarks[0], target_model.mean)
    normals = vertex_normals(warped, target_model.triangles)
    found = []
    for region in np.unique(source_model.vertex_regions):
        own = _vertices_of(target_model, region)
        if len(own) and len(_vertices_of(source_model, region)):
            sites = _near_sites(source_model, region, warped[own], normals[own])
            found.append((own[sites[0]], sites[1], sites[2]))
    count = sum(len(vertices) for vertices, _, _ in found)
    if count < MIN_POINTS:
        raise ValueError(
            f"only {count} of {target_model.n_vertices} vertices of '{target_model.name}' lie on "
            f"'{source_model.name}' once their landmarks meet: are both in iBUG order?"
        )
    return Correspondence(*map(np.concatenate, zip(*found, strict=True)))


def _landmarks(model: MorphableModel) -> np.ndarray:
    """(68, 3) float64 landmark vertices of the mean face, checked not to lie in one plane."""
    points = np.float64(model.mean[model.landmark_indices])
    spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    if spread[2] <= 1e-3 * spread[0]:
        raise ValueError(
            f"the 68 landmark_indices of face model '{model.name}' lie in one plane: are they set?"
        )
    return points


def _warped(moving: np.ndarray, fixed: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Vertices (N, 3) warped like landmarks (68, 3): by a similarity, then by a spline."""
    from scipy.interpolate import RBFInterpolator  # slow to import

    similarity = similarity_alignment(moving, fixed)
    aligned = apply_similarity(*similarity, moving)
    unique = np.unique(aligned, axis=0, return_index=True)[1]  # two landmarks may share a vertex
    shifts = RBFInterpolator(aligned[unique], (fixed - aligned)[unique], smoothing=1e-6)
    placed = apply_similarity(*similarity, np.float64(vertices))
    return placed + shifts(placed)


def _vertices_of(model: MorphableModel, region: int) -> np.ndarray:
    """Vertices of the triangles within a region."""
    inside = (model.vertex_regions[model.triangles] == region).all(axis=1)
    return np.unique(model.triangles[inside])


def _near_sites(
    model: MorphableModel, region: int, points: np.ndarray, normals: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which of the points (M, 3) have a near site on the mean face's region, and these sites.

    Returns:
        (M,) bool, and corners (m, 3) and weights (m, 3) of the m sites.
    """
    mean = np.float64(model.mean)
    corners, weights = _closest(model, region, points)
    own = vertex_normals(mean, model.triangles)
    sites, facing = (np.einsum("mc,mcd->md", weights, array[corners]) for array in (mean, own))
    near = np.linalg.norm(sites - points, axis=1) <= MAX_DISTANCE
    keep = near & ((facing * normals).sum(axis=1) >= MIN_COSINE)
    return keep, corners[keep], weights[keep]


def _closest(
    model: MorphableModel, region: int, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Corners (M, 3) and weights (M, 3) of the sites on the mean face's region nearest to points.

    Only triangles at the nearest vertices are tried.
    """
    from scipy.spatial import cKDTree  # slow to import, as trimesh is
    from trimesh.triangles import closest_point, points_to_barycentric

    mean, inside = np.float64(model.mean), _vertices_of(model, region)
    near = inside[cKDTree(mean[inside]).query(points, range(1, 1 + min(NEAREST, len(inside))))[1]]
    vertex = near[:, 0]
    around = _triangles_around(model, region)[near].reshape(len(points), -1)
    corners = model.triangles[around]
    flat, shape = mean[corners].reshape(-1, 3, 3), around.shape
    with np.errstate(all="ignore"):  # triangles without an area
        sites = closest_point(flat, np.repeat(points, shape[1], axis=0))
        weights = points_to_barycentric(flat, sites).reshape(*shape, 3).clip(0)
    distances = np.linalg.norm(sites.reshape(*shape, 3) - points[:, None], axis=-1)
    has_area = np.isfinite(weights).all(axis=-1) & (weights.sum(axis=-1) > 0)
    best = np.where(has_area, distances, np.inf).argmin(axis=1)
    row = np.arange(len(points))
    corners, weights, has_area = corners[row, best], weights[row, best], has_area[row, best]
    corners[~has_area], weights[~has_area] = vertex[~has_area, None], 1 / 3  # the vertex itself
    return corners, weights / weights.sum(axis=1, keepdims=True)


def _triangles_around(model: MorphableModel, region: int) -> np.ndarray:
    """(N, V) a region's triangles at each vertex, padded with the first; arbitrary without any."""
    inside = np.flatnonzero((model.vertex_regions[model.triangles] == region).all(axis=1))
    vertices = model.triangles[inside].ravel()
    owners = np.repeat(inside, 3)[np.argsort(vertices, kind="stable")]
    counts = np.bincount(vertices, minlength=model.n_vertices)
    slot = np.arange(counts.max())
    starts = counts.cumsum() - counts
    slot = np.where(slot < counts[:, None], slot, 0) + starts[:, None]
    return owners[np.minimum(slot, len(owners) - 1)]
