"""The parts of a face model: skin, eyes, mouth lining, teeth, tongue, and a back."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from keras_scnn.meshes.options import PARTS, check_part_names
from keras_scnn.morphable_model import REGIONS, MorphableModel

EYES = {name: REGIONS.index(name) for name in ("eye_left", "eye_right")}
TONGUE_UNIT = "tongueOut"


def face_parts(model: MorphableModel, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """The triangles of a face model's parts.

    A triangle that spans two regions belongs to the first of them, so the lips are skin. The tongue
    is the part of the mouth interior that the expression 'tongueOut' moves. The back closes the
    head with triangles between the rim's vertices, so that eyes and mouth are not visible through
    the open side; it adds no vertices.

    Args:
        model: without regions, its only part is 'skin', with all triangles.
        names: some of ``options.PARTS``; None for all that the model has.

    Returns:
        by 'skin', 'mouth', 'teeth', 'tongue', 'eye_left', 'eye_right' (the subject's left),
        'back': (T, 3) integer triangles, counter-clockwise seen from outside. Parts that the model
        does not have are left out.

    Raises:
        ValueError: the model does not have one of the parts.
    """
    if model.regions is None:
        parts = {"skin": model.triangles}
    else:
        region = model.regions[model.triangles].min(axis=1)
        parts = {name: model.triangles[region == i] for i, name in enumerate(REGIONS)}
        is_tongue = _tongue(model)[parts["mouth"]].all(axis=1)
        parts["tongue"], parts["mouth"] = parts["mouth"][is_tongue], parts["mouth"][~is_tongue]
        parts["back"] = _back(model, model.regions)
    parts = {name: triangles for name, triangles in parts.items() if len(triangles)}
    if names is None:
        return parts
    own = {"eyes" if name in EYES else name for name in parts}
    check_part_names(wanted := tuple(names), [name for name in PARTS if name in own])
    return {k: v for k, v in parts.items() if ("eyes" if k in EYES else k) in wanted}


def check_parts(model: MorphableModel, names: Iterable[str] | None) -> None:
    """Raise a ValueError if a face model lacks one of the parts, before anything is written."""
    face_parts(model, names)


def _tongue(model: MorphableModel) -> np.ndarray:
    """(N,) bool, whether a vertex belongs to the tongue."""
    if TONGUE_UNIT not in model.expression_names:
        return np.zeros(model.n_vertices, bool)
    moves = model.expression_basis[..., model.expression_names.index(TONGUE_UNIT)]
    return (model.regions == REGIONS.index("mouth")) & (np.abs(moves).max(axis=1) > 0)


def _back(model: MorphableModel, regions: np.ndarray) -> np.ndarray:
    """(T, 3) triangles that close the longest open rim of the skin; none if it has no rim."""
    rims = [rim for rim in open_rims(model.triangles) if not regions[rim].any()]
    return cap_rim(max(rims, key=len), model.mean[:, 1]) if rims else np.zeros((0, 3), np.int64)


def cap_rim(rim: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Triangles that fill a rim with straight bridges between its two sides, from top to bottom.

    Args:
        rim: (n,) distinct vertices, in the order in which the adjacent triangles traverse them.
        height: (N,) of all vertices.

    Returns:
        (n - 2, 3) int64, with the winding of the adjacent triangles.
    """
    rim = np.roll(rim, -int(np.argmax(height[rim])))
    bottom = int(np.argmin(height[rim]))
    down, other = rim[: bottom + 1], np.append(rim[:1], rim[bottom:][::-1])
    result, i, j = [], 0, 0
    while i + 1 < len(down) or j + 1 < len(other):
        is_first = j + 1 == len(other) or (
            i + 1 < len(down) and height[down[i + 1]] >= height[other[j + 1]]
        )
        a, b = down[i], other[j]
        result.append((down[i + 1], a, b) if is_first else (b, other[j + 1], a))
        i, j = (i + 1, j) if is_first else (i, j + 1)
    return np.array([c for c in result if len(set(c)) == 3], np.int64).reshape(-1, 3)


def open_rims(triangles: np.ndarray) -> list[np.ndarray]:
    """The closed loops of edges with a triangle on only one side, as ordered vertex indices.

    Each is in the direction of its triangles. A vertex where two rims touch is in one of them.
    """
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    one = np.array([1, 1 << 32])  # encodes an edge as one number
    there, back = edges.astype(np.int64) @ one, edges.astype(np.int64) @ one[::-1]
    after = dict(edges[~np.isin(there, back)].tolist())
    rims = []
    while after:
        start, rim = min(after), []
        while start in after:
            rim.append(start)
            start = after.pop(start)
        if start == rim[0]:
            rims.append(np.array(rim))
    return rims
