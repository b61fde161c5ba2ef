"""A small reader of GLB for tests, written from the specification: glTF 2.0, 3.6 and 4.4."""

import json
import struct
from dataclasses import dataclass

import numpy as np

DTYPES = {5121: "<u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


@dataclass
class Glb:
    """A file's JSON and bytes."""

    json: dict
    binary: bytes

    def array(self, number: int) -> np.ndarray:
        """An accessor's rows; sparse ones are put into the array that they change."""
        accessor = self.json["accessors"][number]
        count, width = accessor["count"], WIDTHS[accessor["type"]]
        kind = DTYPES[accessor["componentType"]]
        rows = np.zeros(count * width, kind)
        if "bufferView" in accessor:
            rows = self._values(accessor["bufferView"], kind, count * width)
        rows = rows.reshape(count, width)
        if sparse := accessor.get("sparse"):
            where, what = sparse["indices"], sparse["values"]
            indices = self._values(
                where["bufferView"], DTYPES[where["componentType"]], sparse["count"]
            )
            assert (np.diff(indices.astype(int)) > 0).all()  # strictly growing
            changed = self._values(what["bufferView"], kind, sparse["count"] * width)
            rows = rows.copy()
            rows[indices] = changed.reshape(-1, width)
        return rows[:, 0] if width == 1 else rows

    def _values(self, view: int, kind: str, count: int) -> np.ndarray:
        view = self.json["bufferViews"][view]
        assert view["byteOffset"] % np.dtype(kind).itemsize == 0
        return np.frombuffer(self.binary, kind, count, view["byteOffset"])

    def node(self, name: str) -> dict:
        (found,) = [node for node in self.json["nodes"] if node["name"] == name]
        return found

    def mesh(self, name: str) -> dict:
        return self.json["meshes"][self.node(name)["mesh"]]

    def primitives(self, name: str) -> dict[str, dict]:
        """A node's primitives by their materials."""
        materials = [material["name"] for material in self.json["materials"]]
        return {materials[p["material"]]: p for p in self.mesh(name)["primitives"]}

    def posed(self, name: str, part: str, attribute: str = "POSITION", weights=None) -> np.ndarray:
        """A part's vertices with its morph targets at given weights, or at the file's."""
        primitive = self.primitives(name)[part]
        rows = np.float64(self.array(primitive["attributes"][attribute]))
        weights = self.mesh(name)["weights"] if weights is None else weights
        for weight, target in zip(weights, primitive["targets"], strict=True):
            rows = rows + weight * np.float64(self.array(target[attribute]))
        if attribute == "POSITION":
            rows = rows + np.array(self.node(name).get("translation", [0, 0, 0]))
        return rows


def read_glb(path) -> Glb:
    content = path.read_bytes()
    magic, version, length = struct.unpack("<4sII", content[:12])
    assert (magic, version, length) == (b"glTF", 2, len(content))
    size, kind = struct.unpack("<I4s", content[12:20])
    assert kind == b"JSON" and size % 4 == 0
    rest = content[20 + size :]
    binary_size, binary_kind = struct.unpack("<I4s", rest[:8])
    assert binary_kind == b"BIN\0" and len(rest) == 8 + binary_size
    return Glb(json.loads(content[20 : 20 + size]), rest[8:])
