"""Corrections of MakeHuman's head: eyeballs and teeth of human size, and lids that just close.

Sizes are changed by sparse linear maps, so that the mean and its variation change together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from open_face_mesh import LEFT_EYE, RIGHT_EYE, SKIN, TEETH, FaceMesh

EYE_RADIUS_MM = 12.0  # Bekerman et al., "Variations in eyeball diameters" (2014): 24.2 mm
TUCK_MM = 2.5  # depth of the lids' insides below the eyeball's surface, which is not quite a sphere
TUCKED_SHARE = 0.6  # motion of the lids' tucked ends in an expression, as a share of the lids'
TEETH_SHARE = 0.9  # MakeHuman's dental arch is 71 mm wide at this scale; real ones are 60 to 65 mm
COLUMN_MM = 3.0  # width of a lid's column that moves as one
REACH_MM = 7.0  # distance over which the correction at a closed lid's edge fades out


@dataclass(frozen=True)
class Lids:
    """One eye's opening.

    Attributes:
        upper, lower: the lids' edges from the inner to the outer corner, both corners included.
        first, second: rings of vertices on the insides of the lids, counted from the edges.
    """

    upper: np.ndarray
    lower: np.ndarray
    first: np.ndarray
    second: np.ndarray


def find_lids(mesh: FaceMesh, mean: np.ndarray, eye: int) -> Lids:
    """The lids around the eyeball of region ``eye``; mean (n, 3) mm."""
    ball = mean[mesh.region == eye].mean(axis=0)
    near = np.linalg.norm(mean - ball, axis=1) < 30
    inside = mesh.hidden & (mesh.region == SKIN) & near
    ring = np.setdiff1d(mesh.triangles[inside[mesh.triangles].any(axis=1)], np.flatnonzero(inside))
    at_edge = np.isin(mesh.triangles, ring).any(axis=1)
    first = np.intersect1d(mesh.triangles[at_edge], np.flatnonzero(inside))
    second = np.setdiff1d(np.flatnonzero(inside), first)
    loop = _loop(mesh.triangles, ring)
    side = np.sign(ball[0])
    loop = np.roll(loop, -int((side * mean[loop, 0]).argmin()))
    outer = int((side * mean[loop, 0]).argmax())
    halves = loop[: outer + 1], np.append(loop[outer:], loop[0])[::-1]
    upper, lower = sorted(halves, key=lambda half: -mean[half, 1].mean())
    return Lids(upper, lower, first, second)


def _loop(triangles: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """The ring's vertices in order."""
    edges = triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    edges = edges[np.isin(edges, ring).all(axis=1)]
    edges, count = np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)
    edges = edges[count == 2]  # edges of the opening have a triangle on both sides
    partner: dict[int, list[int]] = {int(v): [] for v in ring}
    for a, b in edges.tolist():
        partner[a].append(b)
        partner[b].append(a)
    if any(len(result) != 2 for result in partner.values()):
        raise ValueError("the lids' edge is not a simple loop")
    order = [int(ring[0]), partner[int(ring[0])][0]]
    while len(order) < len(ring):
        a, b = partner[order[-1]]
        order.append(a if b == order[-2] else b)
    return np.array(order)


def size_maps(mesh: FaceMesh, mean: np.ndarray) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Matrices (n, n) for shapes and for expression units; mean (n, 3) in final millimeters.

    Eyeballs are scaled around their front, which stays between the lids, and the insides of the
    lids follow them; in units they rotate around their center. Teeth are scaled around their front
    edge.
    """
    shape, unit = sp.eye(len(mean), format="lil"), sp.eye(len(mean), format="lil")
    for eye in (LEFT_EYE, RIGHT_EYE):
        _shrink_eye(shape, unit, mesh, mean, eye)
    teeth = np.flatnonzero(mesh.region == TEETH)
    for jaw in np.split(teeth, [len(teeth) // 2]):  # lower and upper, by their vertex numbers
        front = jaw[mean[jaw, 2] > mean[jaw, 2].max() - 1.0]
        _scale(shape, jaw, TEETH_SHARE, front)
        _scale(unit, jaw, TEETH_SHARE, front)
    return shape.tocsr(), unit.tocsr()


def _scale(matrix: sp.lil_matrix, rows: np.ndarray, share: float, fixed: np.ndarray) -> None:
    """Set rows so that each vertex moves towards the mean of the vertices ``fixed``."""
    for row in rows:
        matrix[row] = 0
        matrix[row, row] = share
        for v in fixed:
            matrix[row, v] += (1 - share) / len(fixed)


def _shrink_eye(shape, unit, mesh: FaceMesh, mean: np.ndarray, eye: int) -> None:
    ball = np.flatnonzero(mesh.region == eye)
    middle = mean[ball].mean(axis=0)
    share = EYE_RADIUS_MM / np.linalg.norm(mean[ball] - middle, axis=1).mean()
    pole = ball[mean[ball, 2].argmax()]
    _scale(shape, ball, share, np.array([pole]))
    _scale(unit, ball, share, ball)
    center = sp.lil_matrix((1, len(mean)))  # of the smaller ball
    center[0, ball] = share / len(ball)
    center[0, pole] += 1 - share
    at = (center @ mean)[0]
    lids = find_lids(mesh, mean, eye)
    for ring, part in ((lids.first, 0.5), (lids.second, 1.0)):
        for v in ring:
            keep = (EYE_RADIUS_MM - TUCK_MM) / np.linalg.norm(mean[v] - at)
            keep = 1 - part * (1 - keep)
            shape[v] = (1 - keep) * center
            shape[v, v] += keep
    for v in lids.second:
        unit[v, v] = TUCKED_SHARE


def closing_blink(unit: np.ndarray, mean: np.ndarray, lids: Lids) -> np.ndarray:
    """A blink (n, 3) that moves the upper lid's edge exactly onto the lower lid's at weight 1.

    Each column of the upper lid moves as far as its edge may; the remaining correction at the edge
    fades out over the lid's skin.
    """
    edge = lids.upper[1:-1]
    x = np.clip(mean[:, 0], mean[edge, 0].min(), mean[edge, 0].max())
    near = np.exp(-(((x[:, None] - mean[edge, 0]) / COLUMN_MM) ** 2))
    fresh = unit
    for _ in range(3):  # the lower lid moves a little too
        wanted = _on_lower_lid(fresh, mean, lids, mean[edge, 0]) - mean[edge]
        along = (wanted * unit[edge]).sum(axis=1)
        fresh = unit * (near @ along / (near @ (unit[edge] ** 2).sum(axis=1)))[:, None]
    wanted = _on_lower_lid(fresh, mean, lids, mean[edge, 0]) - mean[edge]
    return _edge_moved(fresh, wanted, mean, lids)


def parted_lids(unit: np.ndarray, mean: np.ndarray, lids: Lids) -> np.ndarray:
    """A unit (n, 3) whose upper lid's edge stops at the lower lid's at weight 1."""
    edge = lids.upper[1:-1]
    wanted = unit[edge].copy()
    lowest = _on_lower_lid(unit, mean, lids, (mean + unit)[edge, 0]) - mean[edge]
    wanted[:, 1] = np.maximum(wanted[:, 1], lowest[:, 1])
    return _edge_moved(unit, wanted, mean, lids)


def _on_lower_lid(unit, mean, lids: Lids, x: np.ndarray) -> np.ndarray:
    """(E, 3) points on the moved lower lid's edge at coordinates x (E,)."""
    low = mean[lids.lower] + unit[lids.lower]
    low = low[low[:, 0].argsort()]
    return np.stack([x, *(np.interp(x, low[:, 0], low[:, i]) for i in (1, 2))], axis=1)


def _edge_moved(unit, wanted, mean, lids: Lids) -> np.ndarray:
    """The unit with displacements ``wanted`` at the upper lid's edge; the change fades out."""
    edge = lids.upper[1:-1]
    distance = np.linalg.norm(mean[:, None] - mean[None, edge], axis=-1)
    kernel = np.exp(-((distance / REACH_MM) ** 2))
    weights = np.linalg.solve(kernel[edge] + 1e-2 * np.eye(len(edge)), wanted - unit[edge])
    fresh = unit + (kernel * _upper_side(mean, lids)[:, None]) @ weights
    fresh[edge] = wanted
    return fresh


def _upper_side(mean: np.ndarray, lids: Lids) -> np.ndarray:
    """(n,) from 0 below the middle between the lids' edges to 1 above it."""
    x = np.sort(mean[lids.lower, 0])
    low, high = (np.interp(x, *_curve(mean, edge)) for edge in (lids.lower, lids.upper))
    return np.clip(0.5 + mean[:, 1] - np.interp(mean[:, 0], x, (low + high) / 2), 0, 1)


def _curve(mean: np.ndarray, edge: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = mean[edge, 0].argsort()
    return mean[edge[order], 0], mean[edge[order], 1]
