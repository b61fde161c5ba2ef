"""A small writer of glTF 2.0's binary form (GLB; Khronos, ISO/IEC 12113).

Why not a package: trimesh writes no morph targets, no sparse accessors and no cameras. pygltflib
(well maintained) represents glTF's JSON as dataclasses, and has six dependencies; views, accessors,
bounds and sparse rows, which are all that this module does, would still have to be written here.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

MAGIC, VERSION = b"glTF", 2
JSON_CHUNK, BINARY_CHUNK = b"JSON", b"BIN\0"
VERTICES, INDICES = 34962, 34963  # ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER
COMPONENTS = {"uint8": 5121, "uint16": 5123, "uint32": 5125, "float32": 5126}
KINDS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}


class Gltf:
    """A file under construction: each method adds an object and returns its index.

    Args:
        asset: entries of 'asset' besides the version, such as generator and extras.
    """

    def __init__(self, asset: dict[str, Any]):
        self.json: dict[str, Any] = {"asset": {"version": "2.0", **asset}}
        self.binary = bytearray()
        self._zeros: dict[tuple[int, bool], int] = {}

    def add(self, kind: str, item: dict[str, Any]) -> int:
        """Add an object, without its None values, to one of the file's lists, such as 'nodes'."""
        self.json.setdefault(kind, []).append({k: v for k, v in item.items() if v is not None})
        return len(self.json[kind]) - 1

    def view(self, content: bytes, target: int | None = None) -> int:
        """Add bytes, aligned to four as every component type needs."""
        self.binary.extend(bytes(-len(self.binary) % 4))
        place = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(content)}
        self.binary.extend(content)
        return self.add("bufferViews", {**place, "target": target})

    def accessor(
        self, rows: np.ndarray, target: int | None = VERTICES, bounds: bool = False
    ) -> int:
        """Add an array.

        Args:
            rows: (n,) or (n, 2 to 4), uint8, uint16, uint32 or float32.
            target: ``VERTICES`` or ``INDICES``; None for other uses.
            bounds: state the smallest and largest values, as is required for positions.
        """
        return self._accessor(rows, bounds, bufferView=self.view(_bytes(rows), target))

    def sparse(self, rows: np.ndarray, bounds: bool = False) -> int:
        """Add an (n, 3) float32 array as its nonzero rows, or densely if that is smaller.

        Arrays of zeros take no bytes, and all those of one size share an accessor.
        """
        moved = np.flatnonzero(rows.any(axis=1))
        numbers = moved.astype(index_type(len(rows)))
        if not len(moved):
            if (kind := (len(rows), bounds)) not in self._zeros:
                self._zeros[kind] = self._accessor(rows, bounds)
            return self._zeros[kind]
        if numbers.nbytes + rows[moved].nbytes >= rows.nbytes:
            return self.accessor(rows, bounds=bounds)
        where = {"bufferView": self.view(_bytes(numbers)), "componentType": _component(numbers)}
        what = {"bufferView": self.view(_bytes(rows[moved]))}
        sparse = {"count": len(moved), "indices": where, "values": what}
        return self._accessor(rows, bounds, sparse=sparse)

    def _accessor(self, rows: np.ndarray, bounds: bool, **content: Any) -> int:
        item: dict[str, Any] = {**content, "componentType": _component(rows), "count": len(rows)}
        item["type"] = KINDS[1 if rows.ndim == 1 else rows.shape[1]]
        if bounds:
            least, most = np.atleast_1d(rows.min(axis=0)), np.atleast_1d(rows.max(axis=0))
            item |= {"min": least.tolist(), "max": most.tolist()}
        return self.add("accessors", item)

    def picture(self, name: str, png: bytes) -> int:
        """Add a PNG file as a texture that does not repeat."""
        clamped = 33071
        image = {"name": name, "bufferView": self.view(png), "mimeType": "image/png"}
        sampler = {"magFilter": 9729, "minFilter": 9987, "wrapS": clamped, "wrapT": clamped}
        texture = {"source": self.add("images", image), "sampler": self.add("samplers", sampler)}
        return self.add("textures", texture)

    def to_bytes(self) -> bytes:
        """The GLB file."""
        self.binary.extend(bytes(-len(self.binary) % 4))
        self.json["buffers"] = [{"byteLength": len(self.binary)}]
        text = json.dumps(self.json, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        chunks = _chunk(JSON_CHUNK, text) + _chunk(BINARY_CHUNK, bytes(self.binary))
        return MAGIC + struct.pack("<II", VERSION, 12 + len(chunks)) + chunks


def index_type(count: int) -> type[np.unsignedinteger]:
    """The smallest type for indices of ``count`` rows; its largest value is reserved (3.7.2.1)."""
    return np.uint16 if count <= 65535 else np.uint32


def _component(array: np.ndarray) -> int:
    return COMPONENTS[array.dtype.name]


def _bytes(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack("<I4s", len(content), kind) + content
