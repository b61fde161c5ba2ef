"""The parts of a face model: skin, eyes, mouth lining, teeth, tongue, and a back."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from keras_scnn.meshes.options import PARTS, check_part_names
from keras_scnn.morphable_model import MorphableModel

REGIONS = ("skin", "mouth", "teeth", "eye_left", "eye_right")  # as in MorphableModel.regions
EYES = {"eye_left": 3, "eye_right": 4}
TONGUE_UNIT, MOUTH = "tongueOut", 1


def face_parts(model: MorphableModel, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """The triangles of a face model's parts.

    A triangle between two regions belongs to the first of them, so the lips are skin. The tongue
    is what of the mouth's inside the unit 'tongueOut' moves. The back closes the head between the
    rim's vertices, so that eyes and mouth are not seen through the open side: no vertex is added.

    Args:
        model: one without regions has the part 'skin' alone, which is all of it.
        names: of ``options.PARTS``, those wanted; None for all that the model has.

    Returns:
        by 'skin', 'mouth', 'teeth', 'tongue', 'eye_left', 'eye_right' (the subject's left),
        'back': (T, 3) integer triangles, counter-clockwise seen from outside. What the model does
        not have is left out.

    Raises:
        ValueError: the model has no part of one of the names.
    """
    if model.regions is None:
        parts = {"skin": model.triangles}
    else:
        region = model.regions[model.triangles].min(axis=1)
        parts = {name: model.triangles[region == i] for i, name in enumerate(REGIONS)}
        is_tongue = _tongue(model)[parts["mouth"]].all(axis=1)
        parts["tongue"], parts["mouth"] = parts["mouth"][is_tongue], parts["mouth"][~is_tongue]
        parts["back"] = closing(model.mean, model.triangles)
    parts = {name: triangles for name, triangles in parts.items() if len(triangles)}
    if names is None:
        return parts
    own = {"eyes" if name in EYES else name for name in parts}
    check_part_names(wanted := tuple(names), [name for name in PARTS if name in own])
    return {k: v for k, v in parts.items() if ("eyes" if k in EYES else k) in wanted}


def check_parts(model: MorphableModel, names: Iterable[str] | None) -> None:
    """Raise a ValueError where a face model has a part not, before anything is written."""
    face_parts(model, names)


def _tongue(model: MorphableModel) -> np.ndarray:
    """(N,) whether a vertex is of the tongue."""
    if TONGUE_UNIT not in model.expression_names:
        return np.zeros(model.n_vertices, bool)
    moves = model.expression_basis[..., model.expression_names.index(TONGUE_UNIT)]
    return (model.regions == MOUTH) & (np.abs(moves).max(axis=1) > 0)


def closing(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(T, 3) triangles across the longest open rim: from side to side, from its top to its bottom.

    Args:
        vertices: (N, 3), model frame.
        triangles: (T, 3); those returned are turned as they are. None where nothing is open.
    """
    rims = open_rims(triangles)
    if not rims:
        return np.zeros((0, 3), np.int64)
    rim = max(rims, key=len)
    rim = np.roll(rim, -int(np.argmax(vertices[rim, 1])))
    height = vertices[rim, 1]
    bottom = int(np.argmin(height))
    down, other = list(rim[: bottom + 1]), [rim[0], *rim[: bottom - 1 : -1]]
    result, i, j = [], 0, 0
    while i + 1 < len(down) or j + 1 < len(other):
        is_first = j + 1 == len(other) or (
            i + 1 < len(down) and vertices[down[i + 1], 1] >= vertices[other[j + 1], 1]
        )
        a, b = down[i], other[j]
        result.append((down[i + 1], a, b) if is_first else (b, other[j + 1], a))
        i, j = (i + 1, j) if is_first else (i, j + 1)
    return np.array([c for c in result if len(set(c)) == 3], np.int64)


def open_rims(triangles: np.ndarray) -> list[np.ndarray]:
    """The closed lines of edges that have a triangle on one side only, as vertex numbers in turn.

    Each is walked as its triangles walk it. A vertex where two rims touch is in one of them.
    """
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    ways = set(map(tuple, edges.tolist()))
    after = {a: b for a, b in ways if (b, a) not in ways}
    rims = []
    while after:
        start, rim = min(after), []
        while start in after:
            rim.append(start)
            start = after.pop(start)
        if start == rim[0]:
            rims.append(np.array(rim))
    return rims
