"""The face region of MakeHuman's base mesh, with a smooth rim, symmetric triangles and UVs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components, dijkstra

from makehuman import BaseMesh

SKIN, MOUTH, TEETH, LEFT_EYE, RIGHT_EYE = range(5)
TONGUE = 5  # only while the mesh is built; then it is part of MOUTH
PARTS = {
    "helper-l-eye": LEFT_EYE,
    "helper-r-eye": RIGHT_EYE,
    "helper-upper-teeth": TEETH,
    "helper-lower-teeth": TEETH,
    "helper-tongue": TONGUE,
}
RIM_ROUNDS = 12
MOUTH_FRONT = 80.0  # mm, base mesh: the mouth's interior in front of this is visible
MOUTH_DEPTH = 7  # rings of the mouth's interior, counted from the lips, that keep their shape


@dataclass(frozen=True)
class FaceMesh:
    """The cropped topology; n vertices, the tongue's last.

    Attributes:
        source: (n,) vertex indices in the base mesh.
        triangles: (T, 3) counter-clockwise from outside.
        region: (n,) uint8 SKIN ... RIGHT_EYE.
        mirror: (n,).
        uv: (n, 2) in [0, 1], v up.
        rim: sparse (n, n) matrix that moves the crop's outer rim onto a smooth curve; applied to
            both positions and displacements, so that every shape gets the same smooth edge.
        throat: sparse (n, n) matrix that closes the mouth's interior behind the teeth; applied to
            the finished mean and bases.
        hidden: (n,) bool, deep in the mouth or behind the lids, irrelevant to identity.
    """

    source: np.ndarray
    triangles: np.ndarray
    region: np.ndarray
    mirror: np.ndarray
    uv: np.ndarray
    rim: sp.csr_matrix
    throat: sp.csr_matrix
    hidden: np.ndarray


def build_mesh(base: BaseMesh) -> FaceMesh:
    """Head, eyeballs, teeth and tongue of MakeHuman's base mesh, with one UV per vertex."""
    part, deep = _parts(base)
    kept = part >= 0
    hidden = np.setdiff1d(base.quads[kept], base.quads[kept & ~deep])
    kept = np.concatenate([np.flatnonzero(kept & (part != TONGUE)), np.flatnonzero(part == TONGUE)])
    quads, uv_quads, part = base.quads[kept], base.uv_quads[kept], part[kept]
    corners = _symmetric_diagonals(base, quads)
    triangles = np.take_along_axis(quads[:, None], corners.reshape(-1, 1, 6), 2).reshape(-1, 3)
    uv_triangles = np.take_along_axis(uv_quads[:, None], corners.reshape(-1, 1, 6), 2).reshape(
        -1, 3
    )
    triangle_part = np.repeat(part, 2)
    body, tongue = (np.unique(quads[(part == TONGUE) == is_tongue]) for is_tongue in (False, True))
    source = np.concatenate([body, tongue])
    triangles = find(source, triangles)
    mirror = find(source, base.mirror[source])
    if not np.array_equal(source[mirror], base.mirror[source]):
        raise ValueError("the crop is not symmetric: a vertex's mirror partner was cut off")
    region = np.zeros(len(source), np.uint8)
    np.maximum.at(region, triangles, triangle_part[:, None].astype(np.uint8))
    uv = _texture_coordinates(base, source, triangles, uv_triangles, triangle_part, region, mirror)
    rim = _rim_smoother(triangles, region)
    inner = np.setdiff1d(np.flatnonzero(region == MOUTH), triangles[triangle_part == SKIN])
    throat = _throat_closer(triangles, inner, len(source))
    region[np.unique(triangles[triangle_part == SKIN])] = SKIN  # the lips' inner edge is skin
    region[region == TONGUE] = MOUTH
    return FaceMesh(
        source, triangles, region, mirror, uv, rim, throat, hidden=np.isin(source, hidden)
    )


def find(source: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Index of each base vertex in ``source``; arbitrary if it is not in ``source``."""
    order = source.argsort()
    place = np.searchsorted(source, numbers, sorter=order)
    return order[np.minimum(place, len(source) - 1)]


def _parts(base: BaseMesh) -> tuple[np.ndarray, np.ndarray]:
    """(Q,) part of each quad, -1 if it is cut off; and (Q,) bool, whether it lies deep inside."""
    corner_uv = base.uv[base.uv_quads]
    center_uv, center = corner_uv.mean(axis=1), base.vertices[base.quads].mean(axis=1)
    body = (base.group == "body") & (base.vertices[base.quads][:, :, 1].mean(axis=1) > 600)
    inside = _inside(base.vertices)[base.quads].all(axis=1)
    cavity = center_uv[:, 1] < 0.2
    socket, lid = _eye_sockets(base.quads, body, center_uv)
    skin = body & ~cavity & inside & ~socket & (center_uv[:, 0] >= 0.6)
    mouth = body & cavity & (center[:, 1] < 702) & (abs(center[:, 0]) < 45) & (center[:, 2] > 45)
    part = np.full(len(base.quads), -1)
    part[_largest_piece(base.quads, skin | mouth)] = 0
    part[mouth & (part == 0)] = MOUTH
    for name, number in PARTS.items():
        part[base.group == name] = number
    return part, lid | (mouth & (center[:, 2] <= MOUTH_FRONT)) | (part == TONGUE)


def _inside(points: np.ndarray) -> np.ndarray:
    """The face region: ears to nose, chin to hairline, with slanted cuts under jaw and above."""
    _, y, z = points.T
    inside = (z > 33) & (y > 607) & (y < 826)
    inside &= (y >= 652) | (z >= 33 + 0.9 * (652 - y))
    return inside & ((y <= 775) | (z >= 33 + 0.95 * (y - 775)))


def _eye_sockets(quads, body, center_uv) -> tuple[np.ndarray, np.ndarray]:
    """Quads behind the lids, and quads on the insides of the lids.

    The former are a UV island of their own and the first ring of the face island around it; the
    latter are the next two rings, which close the gap to the eyeballs.
    """
    socket = body & (center_uv[:, 0] < 0.2) & (center_uv[:, 1] >= 0.2)
    rest = body & (center_uv[:, 0] > 0.6) & (center_uv[:, 1] >= 0.2)
    rings, taken = [], socket
    for _ in range(3):
        rings.append(rest & ~taken & np.isin(quads, np.unique(quads[taken])).any(axis=1))
        taken = taken | rings[-1]
    return socket | rings[0], rings[1] | rings[2]


def _largest_piece(quads, chosen) -> np.ndarray:
    index = np.flatnonzero(chosen)
    a, b = quads[index].ravel(), np.roll(quads[index], 1, axis=1).ravel()
    n = quads.max() + 1
    graph = sp.coo_matrix((np.ones(len(a)), (a, b)), shape=(n, n))
    label = connected_components(graph, directed=False)[1][quads[index, 0]]
    return index[label == np.bincount(label).argmax()]


def _symmetric_diagonals(base: BaseMesh, quads: np.ndarray) -> np.ndarray:
    """(Q, 6) corner numbers of each quad's two triangles, split symmetrically.

    A quad is split at its shorter diagonal, or at the first one for ties; of a mirror pair, the
    first quad determines the split of the second.
    """
    p = base.vertices[quads]
    first = np.linalg.norm(p[:, 0] - p[:, 2], axis=1)
    second = np.linalg.norm(p[:, 1] - p[:, 3], axis=1)
    number = {tuple(sorted(quad)): i for i, quad in enumerate(quads)}
    split = np.array([[0, 1, 2, 0, 2, 3], [0, 1, 3, 1, 2, 3]])
    choice = (first > second + 1e-3).astype(int)
    for i, quad in enumerate(quads):
        partner = number.get(tuple(sorted(base.mirror[quad])))
        if partner is not None and partner < i:
            ends = quads[partner][[0, 2] if choice[partner] == 0 else [1, 3]]
            choice[i] = 0 if set(base.mirror[ends]) == set(quad[[0, 2]]) else 1
    return split[choice]


def _rim_smoother(triangles: np.ndarray, region: np.ndarray) -> sp.csr_matrix:
    """Matrix that repeatedly averages the longest boundary loop's vertices with their neighbors."""
    n = len(region)
    edges = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    border = unique[(count == 1) & (region[unique] <= MOUTH).all(axis=1)]
    graph = sp.coo_matrix((np.ones(len(border)), border.T), shape=(n, n))
    graph = (graph + graph.T).tocsr()
    label = connected_components(graph, directed=False)[1]
    loop = label == np.bincount(label[border[:, 0]]).argmax()
    half = sp.diags(np.where(loop, 0.5, 1.0))
    degree = np.maximum(np.asarray(graph.sum(axis=1)).ravel(), 1)
    step = half + sp.diags(np.where(loop, 0.5 / degree, 0.0)) @ graph
    return (step**RIM_ROUNDS).tocsr()


def _throat_closer(triangles: np.ndarray, inner: np.ndarray, n: int) -> sp.csr_matrix:
    """Matrix that flattens the end of the mouth's interior, which hangs down the throat.

    The vertices more than MOUTH_DEPTH edges behind the lips become the harmonic surface spanned
    by those at that depth.
    """
    in_mouth = triangles[np.isin(triangles, inner).any(axis=1)]
    a, b = in_mouth[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2).T
    graph = sp.coo_matrix((np.ones(len(a)), (a, b)), shape=(n, n)).tocsr()
    graph = ((graph + graph.T) > 0).astype(float)
    lips = np.setdiff1d(in_mouth, inner)
    depth = dijkstra(graph, unweighted=True, indices=lips, min_only=True)
    free = np.isfinite(depth) & (depth > MOUTH_DEPTH)
    laplacian = (sp.diags(np.asarray(graph.sum(axis=1)).ravel()) - graph).tocsr()
    spread = -sp.linalg.inv(laplacian[free][:, free].tocsc()) @ laplacian[free][:, ~free]
    closer = sp.eye(n, format="lil")
    closer[np.flatnonzero(free)] = 0
    closer[np.ix_(free, ~free)] = spread
    return closer.tocsr()


def _texture_coordinates(base, source, triangles, uv_triangles, part, region, mirror) -> np.ndarray:
    """MakeHuman's face island, upright with its middle enlarged; eyes, teeth, tongue in corners."""
    uv = np.zeros((len(source), 2))
    for chosen in (part != SKIN, part == SKIN):  # where two islands meet, the skin's UV wins
        uv[triangles[chosen]] = base.uv[uv_triangles[chosen]]
    skin = np.zeros(len(source), bool)
    skin[triangles[part == SKIN]] = True
    position = base.vertices[source]
    upright = np.stack([uv[:, 1], -uv[:, 0]], axis=1)
    upright[:, 0] *= np.sign(np.corrcoef(upright[skin, 0], position[skin, 0])[0, 1])
    upright[:, 0] -= upright[skin, 0].mean()
    upright = (upright + upright[mirror] * [-1, 1]) / 2
    low, high = upright[skin].min(axis=0), upright[skin].max(axis=0)
    unit = (upright - (low + high) / 2) / ((high - low).max() / 2)  # the face island in [-1, 1]
    unit[~skin & (region == MOUTH)] = _mouth_coordinates(unit, triangles, region, skin, position)
    enlarged = np.sign(unit) * np.abs(unit) ** 0.8
    uv = 0.5 + 0.48 * enlarged
    for eye, center in ((LEFT_EYE, (0.92, 0.08)), (RIGHT_EYE, (0.08, 0.08))):
        uv[region == eye] = center + 0.07 * _azimuthal(position[region == eye])
    teeth = position[region == TEETH][:, :2]
    extent = np.ptp(teeth, axis=0).max()
    uv[region == TEETH] = [0.08, 0.92] + 0.13 * (teeth - teeth.mean(axis=0)) / extent
    tongue = position[region == TONGUE][:, [0, 2]]  # seen from above
    extent = np.ptp(tongue, axis=0).max()
    uv[region == TONGUE] = [0.92, 0.92] + 0.13 * (tongue - tongue.mean(axis=0)) / extent
    return uv


def _mouth_coordinates(unit, triangles, region, skin, position) -> np.ndarray:
    """A harmonic map of the mouth's interior into the hole between the lips."""
    inner = np.flatnonzero(~skin & (region == MOUTH))
    rim = np.flatnonzero(skin & (region == MOUTH))
    n = len(region)
    edges = triangles[(region[triangles] == MOUTH).all(axis=1)][:, [[0, 1], [1, 2], [2, 0]]]
    a, b = edges.reshape(-1, 2).T
    graph = sp.coo_matrix((np.ones(len(a)), (a, b)), shape=(n, n)).tocsr()
    graph = ((graph + graph.T) > 0).astype(float)
    laplacian = sp.diags(np.asarray(graph.sum(axis=1)).ravel()) - graph
    back = position[inner, 2] < 105
    free, pinned = inner[~back], inner[back]
    known = np.concatenate([rim, pinned])
    middle = unit[rim].mean(axis=0) + position[pinned][:, :1] * [1e-4, 0]
    right = -laplacian[free][:, known] @ np.concatenate([unit[rim], middle])
    result = np.zeros((n, 2))
    result[pinned] = middle
    result[free] = sp.linalg.spsolve(laplacian[free][:, free].tocsc(), right)
    return result[inner]


def _azimuthal(ball: np.ndarray) -> np.ndarray:
    """Azimuthal equidistant map of an eyeball around its viewing axis, within the unit disk."""
    offset = ball - ball.mean(axis=0)
    angle = np.arccos(np.clip(offset[:, 2] / np.linalg.norm(offset, axis=1), -1, 1))
    direction = offset[:, :2] / (np.linalg.norm(offset[:, :2], axis=1, keepdims=True) + 1e-9)
    return direction * (angle / np.pi)[:, None]
