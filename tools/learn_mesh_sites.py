"""Learn where the 68 landmarks are on FaceMesh: the table in ``data.labels.mesh_landmarks``.

    python tools/learn_mesh_sites.py AFLW
    python tools/learn_mesh_sites.py AFLW --check 300W

AFLW is the folder with labels.npz and crops/; 300W has photos and .pts files. The check compares
FaceMesh, the preset and their mean with the annotated points: each source's constant offset from
them is learned on every other photo, and the error measured on the rest.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from keras_scnn.data.labels.landmarker import Landmarker, mesh_share
from keras_scnn.data.labels.mesh_landmarks import POINTS, image_from_head, landmarks_from_mesh
from keras_scnn.data.sources.aflw import load_targets
from keras_scnn.data.sources.pts import read_pts
from keras_scnn.geometry.landmarks68 import MIRROR68
from keras_scnn.io import read_image
from keras_scnn.photos.detection import FaceDetector
from keras_scnn.photos.facemesh import FaceMesh
from keras_scnn.settings import command

CROPS, BATCH, MAX_YAW, MIN_SCORE = 2500, 64, 40.0, 0.9
DEPTH_WEIGHT = 0.3  # the labels' depth is predicted by a network, x and y are annotated
ROUNDS, TOLERANCE = 10, 0.02  # of the robust fit; as a share of the face's size


def head_offset(camera: np.ndarray, difference: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The 3D offset (3,) mm whose projections best explain (M, D) px differences (Huber, IRLS).

    Args:
        camera: (M, D, 3) px per mm.
        difference: (M, D) px.
        size: (M,) px, of the faces.
    """
    weight = np.ones(len(camera))
    for _ in range(ROUNDS):
        normal = np.einsum("m,mij,mik->jk", weight, camera, camera)
        right = np.einsum("m,mij,mi->j", weight, camera, difference)
        offset = np.linalg.solve(normal + 1e-3 * np.trace(normal) * np.eye(3), right)
        left = np.linalg.norm(difference - camera @ offset, axis=1) / size
        weight = 1 / np.maximum(1, left / TOLERANCE)
    return offset


def face_size(landmarks: np.ndarray) -> np.ndarray:
    """(M,) px: square root of the area of the landmarks' bounding box."""
    return np.sqrt(np.ptp(landmarks[..., :2], axis=1).prod(axis=-1))


def learn(meshes: np.ndarray, targets: np.ndarray, model) -> np.ndarray:
    """(68, 3) mm: mirror-symmetric offsets to add to the FaceMesh points of ``POINTS``."""
    size, scale = face_size(targets), np.array([1, 1, DEPTH_WEIGHT])
    camera = image_from_head(meshes, model) * scale[:, None]
    apart = (targets - meshes[:, POINTS]) * scale
    offsets = np.stack([head_offset(camera, apart[:, i], size) for i in range(68)])
    return (offsets + offsets[MIRROR68] * [-1, 1, 1]) / 2


def aflw_meshes(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """FaceMesh's points (M, 468, 3) and the merged labels (M, 68, 3) of training crops."""
    targets = load_targets(folder)
    is_labeled = targets.weight.any(axis=1)
    pool = np.flatnonzero(~targets.held_out & is_labeled & (targets.yaw_degrees < MAX_YAW))
    detector, mesh, rows = FaceDetector(tiles=False), FaceMesh(), []
    for i in tqdm(np.random.default_rng(0).permutation(pool)[:CROPS]):
        image = read_image(folder / "crops" / str(targets.name[i]))
        faces = detector.detect_raw(image)
        if len(faces.scores):
            result = mesh(image, faces[0])
            if result.score > MIN_SCORE:
                rows.append((result.points, targets.landmarks[i]))
    meshes, labels = (np.stack(part).astype(np.float64) for part in zip(*rows, strict=True))
    middle = labels[..., 2] - meshes[:, POINTS, 2]
    labels[..., 2] -= middle[:, 17:].mean(axis=1, keepdims=True)  # the origin of depth is arbitrary
    return meshes, labels


def check(folder: Path) -> None:
    """Print the error of FaceMesh, the preset and their mean on a folder of .pts files."""
    paths, rows = sorted(folder.glob("*.pts")), []
    if not paths:
        raise FileNotFoundError(f"--check {folder}: no .pts files")
    landmarker = Landmarker()
    for start in tqdm(range(0, len(paths), BATCH)):
        batch = paths[start : start + BATCH]
        result = landmarker([read_image(path.with_suffix(".jpg")) for path in batch])
        for path, faces in zip(batch, result, strict=True):
            points = read_pts(path)
            apart = [np.linalg.norm((f.landmarks[:, :2] - points).mean(axis=0)) for f in faces]
            if faces:
                face = faces[int(np.argmin(apart))]
                rows.append((points, face.landmarks, face.mesh, mesh_share(face.yaw_degrees)))
    hand, merged, mesh, share = (np.stack(part) for part in zip(*rows, strict=True))
    model = landmarker.face_model
    second, camera = landmarks_from_mesh(mesh, model), image_from_head(mesh, model)[:, :2]
    size = face_size(hand)
    share = share[:, None, None]
    preset = (merged - share * second) / (1 - share)
    sources = {"FaceMesh": second, "preset": preset, "mean": merged}
    for name, given in sources.items():
        apart = hand - given[..., :2]
        offsets = [head_offset(camera[::2], apart[::2, i], size[::2]) for i in range(68)]
        left = np.linalg.norm(apart - np.einsum("mij,kj->mki", camera, offsets), axis=-1)
        percent = 100 * left[1::2] / size[1::2, None]
        print(f"{name}: {percent.mean():.2f} %, without jaw {percent[:, 17:].mean():.2f} %")


@command
def main(argv: list[str] | None = None) -> None:
    """Learn the sites and print them, or compare them with 300-W."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("aflw", type=Path)
    parser.add_argument("--check", type=Path, metavar="300W", help="compare only, do not learn")
    args = parser.parse_args(argv)
    if args.check:
        check(args.check)
        return
    meshes, labels = aflw_meshes(args.aflw)
    offsets = learn(meshes, labels, Landmarker().face_model)
    length = np.linalg.norm(offsets, axis=1)
    print(
        f"{len(meshes)} crops; {length[17:].mean():.1f} mm inside, jaw {length[:17].mean():.1f} mm"
    )
    rows = [(POINTS[i], *offsets[i].round(1) + 0.0) for i in range(68)]
    for i in range(0, 68, 3):
        print("   ", *(f"({p}, {x:.1f}, {y:.1f}, {z:.1f})," for p, x, y, z in rows[i : i + 3]))


if __name__ == "__main__":
    sys.exit(main())
