"""Reader of the Basel Face Model 2017 and 2019 (.h5, the Statismo layout).

The files are in millimeters, with x to the image's right, y up and z towards the viewer, as in the
model frame. They may not be redistributed: users get them from the University of Basel.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from scipy.interpolate import RBFInterpolator
from scipy.spatial import cKDTree

from keras_scnn.face_models.checks import (
    BFM_LICENSE,
    build_model,
    check_file,
    check_keys,
    check_landmarks,
    expression_components,
    mean_vertices,
    scaled_basis,
)
from keras_scnn.geometry.alignment import apply_similarity, similarity_alignment
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.storage.guard import reading
from keras_scnn.storage.hdf5 import read_datasets

H5_WHAT = "a Basel Face Model of 2017 or 2019 (.h5)"
H5_KEYS = (
    *(
        f"{p}/model/{k}"
        for p in ("shape", "expression")
        for k in ("mean", "pcaBasis", "pcaVariance")
    ),
    "shape/representer/cells",
)
H5_POINTS = "metadata/landmarks/json"
# iBUG landmarks by the names of the same points in /metadata/landmarks/json.
IBUG_OF_NAME = {
    "center.chin.tip": 8, "center.nose.tip": 30, "right.eye.corner_outer": 36,
    "right.eye.corner_inner": 39, "left.eye.corner_inner": 42, "left.eye.corner_outer": 45,
    "right.lips.corner": 48, "center.lips.upper.outer": 51, "left.lips.corner": 54,
    "center.lips.lower.outer": 57, "center.lips.upper.inner": 62, "center.lips.lower.inner": 66,
}  # fmt: skip


def read_bfm_h5(
    path: str | os.PathLike, landmark_indices: np.ndarray | None = None
) -> MorphableModel:
    """Read BFM 2017 or 2019 (Gerig et al., "Morphable Face Models - An Open Framework", 2018).

    Args:
        path: for instance model2017-1_bfm_nomouth.h5 or model2019_face12.h5: /shape/model and
            /expression/model with mean (3N,) and pcaBasis (3N, K) in mm and pcaVariance (K,),
            /shape/representer/cells (3, T) 0-based triangles, /metadata/landmarks/json.
        landmark_indices: (68,) 0-based vertices. By default they are estimated: the embedded
            model's landmarks are warped onto the file's named points (Bookstein's thin plate
            spline, 1989), and the nearest vertices are taken. Eye and lip corners, nose tip and
            chin are then exact; the others are accurate to a few millimeters.

    Returns:
        a MorphableModel in mm; expression weights are in standard deviations, unbounded.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, has another layout, or lacks the named points.
    """
    path = check_file(path, (".h5", ".hdf5"), H5_WHAT)
    with reading(path, H5_WHAT):
        arrays = read_datasets(path, (*H5_KEYS, H5_POINTS), H5_WHAT)
        check_keys(path, arrays, H5_KEYS, H5_WHAT)
        mean, basis = _h5_part(path, arrays, "shape")
        mean_expression, expressions = _h5_part(path, arrays, "expression")
        if mean.shape != mean_expression.shape:
            raise ValueError(f"{path}: shape and expression have different numbers of vertices")
        if landmark_indices is None and H5_POINTS in arrays:
            landmark_indices = _estimate_landmarks(mean, _named_points(arrays[H5_POINTS]))
        return build_model(
            path,
            name=path.stem,
            mean=mean + mean_expression,
            identity_basis=basis,
            triangles=arrays["shape/representer/cells"].T,
            landmark_indices=check_landmarks(path, landmark_indices, "give landmark_indices"),
            **expression_components(expressions),
            license=BFM_LICENSE,
        )


def _h5_part(path: Path, arrays: dict, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean (N, 3) in mm and basis (N, 3, K) in mm per standard deviation."""
    mean, components, variances = (
        arrays[f"{part}/model/{key}"] for key in ("mean", "pcaBasis", "pcaVariance")
    )
    try:
        return mean_vertices(mean), scaled_basis(components, np.sqrt(variances), 1.0)
    except ValueError as error:
        raise ValueError(f"{path}: {part}/model: {error}") from error


def _named_points(stored: np.ndarray) -> dict[str, np.ndarray]:
    """The named points of a Scalismo file, mm, from JSON: a list of {id, coordinates}."""
    text = stored.item() if stored.dtype == object else stored.tobytes()
    text = text.decode() if isinstance(text, bytes) else text
    points = json.loads(text.rstrip("\0"))
    named = {point["id"]: np.float64(point["coordinates"]) for point in points}
    if wrong := [name for name, place in named.items() if place.shape != (3,)]:
        raise ValueError(f"{H5_POINTS}: {wrong[0]} must have three coordinates")
    return named


def _estimate_landmarks(mean: np.ndarray, named: dict[str, np.ndarray]) -> np.ndarray | None:
    """(68,) vertices of ``mean`` (N, 3); None if fewer than 8 points of ``IBUG_OF_NAME`` exist."""
    names = [name for name in IBUG_OF_NAME if name in named]
    if len(names) < 8:
        return None
    target = np.stack([named[name] for name in names])
    source = MorphableModel.open_face().landmarks(with_offsets=False)
    known = [IBUG_OF_NAME[name] for name in names]
    moved = apply_similarity(*similarity_alignment(source[known], target), source)
    warp = RBFInterpolator(moved[known], target, kernel="thin_plate_spline")
    return cKDTree(mean).query(warp(moved))[1]
