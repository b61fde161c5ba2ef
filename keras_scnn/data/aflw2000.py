"""Reader of AFLW2000-3D: a folder of .jpg and .mat pairs, and optionally the benchmark's boxes.

Zhu et al., "Face Alignment Across Large Poses: A 3D Solution", 2016. The files count pixels from
1; what this module returns counts from 0.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.io

PROTOCOL = "protocol.csv"
COLUMNS = ("name", "yaw_degrees", "crop_x0", "crop_y0", "crop_x1", "crop_y1")


@dataclass(frozen=True, eq=False)
class AnnotatedFace:
    """One photo of AFLW2000-3D and what is known of it.

    Attributes:
        name: file name without suffix.
        image_path: the photo.
        landmarks: (68, 3) float64: x, y in px of the photo, pixel centers at integers from 0, y
            down; depth in px, larger nearer to the viewer.
        euler: (3,) float64: pitch, yaw, roll in radians, for ``rotation_from_euler``.
        yaw_degrees: the yaw by which the benchmark sorts the face into a bin.
        box: (4,) float64 half-open pixel box of the benchmark's crop, or None where the folder
            has no protocol.csv.
    """

    name: str
    image_path: Path
    landmarks: np.ndarray
    euler: np.ndarray
    yaw_degrees: float
    box: np.ndarray | None


def read_aflw2000(folder: str | os.PathLike) -> list[AnnotatedFace]:
    """Read all annotations of a folder, in the order of protocol.csv, else by name.

    Raises:
        FileNotFoundError: the folder, or a file that protocol.csv names, is missing.
        ValueError: the folder has no .mat file, or a file is damaged or of another kind.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected .jpg and .mat pairs")
    if (folder / PROTOCOL).is_file():
        rows = _read_protocol(folder / PROTOCOL)
        return [_read_face(folder / f"{name}.mat", yaw, box) for name, yaw, box in rows]
    files = sorted(folder.glob("*.mat"))
    if not files:
        raise ValueError(f"{folder}: no .mat files; expected AFLW2000-3D's .jpg and .mat pairs")
    return [_read_face(path, None, None) for path in files]


def _read_protocol(path: Path) -> list[tuple[str, float, np.ndarray]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        return [
            (row["name"], float(row["yaw_degrees"]), np.array([float(row[c]) for c in COLUMNS[2:]]))
            for row in rows
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: the columns must be {', '.join(COLUMNS)} ({error!r})") from error


def _read_face(path: Path, yaw_degrees: float | None, box: np.ndarray | None) -> AnnotatedFace:
    image = path.with_suffix(".jpg")
    for file in (path, image):
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such file; photos and .mat files come in pairs")
    points, pose = _read_mat(path)
    landmarks = points.T.astype(np.float64)
    landmarks[:, :2] -= 1  # MATLAB counts pixels from 1
    euler = pose[0, :3].astype(np.float64)
    yaw = float(np.rad2deg(euler[1])) if yaw_degrees is None else yaw_degrees
    return AnnotatedFace(path.stem, image, landmarks, euler, yaw, box)


def _read_mat(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """pt3d_68 (3, 68) and Pose_Para (1, 7)."""
    try:
        arrays = scipy.io.loadmat(path, variable_names=["pt3d_68", "Pose_Para"])
    except Exception as error:  # scipy raises a different kind for each way to be damaged
        raise ValueError(f"{path}: not a readable .mat file ({error})") from error
    for name, shape in (("pt3d_68", (3, 68)), ("Pose_Para", (1, 7))):
        found = arrays[name].shape if name in arrays else "missing"
        if found != shape:
            raise ValueError(f"{path}: {name} is {found}; AFLW2000-3D has {shape}")
    return arrays["pt3d_68"], arrays["Pose_Para"]
