"""Small ICC profiles (ICC.1:2010, version 4), written from their definition."""

import struct

import numpy as np

# Chromaticities of red, green and blue; the white is D65.
PRIMARIES = {
    "srgb": [(0.64, 0.33), (0.30, 0.60), (0.15, 0.06)],  # IEC 61966-2-1
    "p3": [(0.680, 0.320), (0.265, 0.690), (0.150, 0.060)],  # SMPTE EG 432-1, Display P3
}
D65, D50 = np.array([0.3127, 0.3290]), np.array([0.9642, 1.0, 0.8249])
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def xyz(chromaticity) -> np.ndarray:
    x, y = chromaticity
    return np.array([x / y, 1, (1 - x - y) / y])


def xyz_of(name: str) -> np.ndarray:
    """(3, 3) XYZ under D65 from linear RGB (Lindbloom's derivation)."""
    columns = np.stack([xyz(each) for each in PRIMARIES[name]], axis=1)
    return columns * np.linalg.solve(columns, xyz(D65))


def rgb_profile(name: str) -> bytes:
    """A profile of primaries with sRGB's curve; colors are adapted to D50 by Bradford's matrix."""
    adapted = np.linalg.solve(
        BRADFORD, np.diag(BRADFORD @ D50 / (BRADFORD @ xyz(D65))) @ BRADFORD @ xyz_of(name)
    )
    tags = {f"{c}XYZ": _xyz_tag(adapted[:, i]) for i, c in enumerate("rgb")}
    return _profile(b"RGB ", b"XYZ ", tags | dict.fromkeys(("rTRC", "gTRC", "bTRC"), _curve(3)))


def gray_profile(gamma: float) -> bytes:
    """Gray whose light is a power of its number."""
    return _profile(b"GRAY", b"XYZ ", {"kTRC": _curve(0, gamma)})


def cmyk_profile(lightness: float) -> bytes:
    """White paper, and neutral black ink of that L*; the other inks have no color."""
    corners = [lightness if corner & 1 else 100 for corner in range(16)]  # black is the last one
    table = b"".join(bytes([round(value * 2.55), 128, 128]) for value in corners)
    ramp = bytes(range(256))
    head = struct.pack(">4s4x4B9i", b"mft1", 4, 3, 2, 0, *(65536 * np.eye(3, dtype=int)).ravel())
    return _profile(b"CMYK", b"Lab ", {"A2B0": head + 4 * ramp + table + 3 * ramp}, b"prtr")


def _xyz_tag(values) -> bytes:
    return struct.pack(">4s4x3i", b"XYZ ", *(round(value * 65536) for value in values))


def _curve(kind: int, *values: float) -> bytes:
    values = values or SRGB_CURVE
    return struct.pack(
        f">4s4xHxx{len(values)}i", b"para", kind, *(round(v * 65536) for v in values)
    )


def _profile(space: bytes, between: bytes, tags: dict[str, bytes], kind: bytes = b"mntr") -> bytes:
    tags = {"wtpt": _xyz_tag(D50), **tags}
    at, table, content = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, tag in tags.items():
        table += struct.pack(">4sII", name.encode(), at + len(content), len(tag))
        content += tag + bytes(-len(tag) % 4)
    white = struct.pack(">3i", *(round(value * 65536) for value in D50))
    head = struct.pack(
        ">I4xI4s4s4s12x4s28x12s48x",
        at + len(content), 0x04300000, kind, space, between, b"acsp", white,
    )  # fmt: skip
    return head + table + content
