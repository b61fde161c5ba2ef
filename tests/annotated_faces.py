"""Small files in the layout of 300W-LP, AFLW2000-3D and 300-W, written by the published formula."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import scipy.io

from keras_scnn.data.sources.bfm_landmarks import BfmLandmarks


def random_basis(seed: int = 0) -> BfmLandmarks:
    """A face-sized mean (micrometers) with random bases of the published sizes."""
    rng = np.random.default_rng(seed)
    mean = rng.normal(0, 5e4, (68, 3))
    identity = rng.normal(0, 1e-2, (68, 3, 199))
    return BfmLandmarks(mean, identity, rng.normal(0, 1e4, (68, 3, 29)))


def random_parameters(rng) -> dict[str, np.ndarray]:
    """Arrays of a .mat file, with the sizes and ranges that the published ones have."""
    pose = [*rng.uniform(-0.5, 0.5, 3), *rng.uniform(180, 270, 2), -80, rng.uniform(9e-4, 1.5e-3)]
    return {
        "Shape_Para": rng.normal(0, 3e5, (199, 1)),
        "Exp_Para": rng.normal(0, 1, (29, 1)),
        "Pose_Para": np.array([pose], np.float32),
    }


def matlab_landmarks(basis: BfmLandmarks, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """pt3d_68 (3, 68) by the formula, with the elementary rotations written out."""
    pitch, yaw, roll, *shift, scale = arrays["Pose_Para"][0].astype(float)
    x = [[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]]
    y = [[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]]
    z = [[np.cos(roll), np.sin(roll), 0], [-np.sin(roll), np.cos(roll), 0], [0, 0, 1]]
    rotation = np.array(x) @ y @ z
    points = np.empty((3, 68))
    for i in range(68):
        vertex = basis.mean[i] + basis.identity_basis[i] @ arrays["Shape_Para"][:, 0]
        vertex = vertex + basis.expression_basis[i] @ arrays["Exp_Para"][:, 0]
        points[:, i] = scale * rotation @ vertex + shift
    points[1] = 451 - points[1]
    return points


def write_face(stem, arrays: dict[str, np.ndarray], size: int = 450) -> None:
    """``stem``.mat and ``stem``.jpg."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(f"{stem}.mat", arrays)
    cv2.imwrite(f"{stem}.jpg", np.zeros((size, size, 3), np.uint8))


def write_pts(path, landmarks: np.ndarray) -> None:
    """A file of 300-W from points (n, 2 or 3), px, the first pixel's center at 0."""
    lines = [f"{x:.6f} {y:.6f}" for x, y in landmarks[:, :2] + 1]
    header = ["version: 1", f"n_points: {len(landmarks)}"]
    path.write_text("\n".join([*header, "{", *lines, "}", ""]))


def sent_through_a_pipe(thing):
    """The copy of ``thing`` that a worker process receives."""
    near, far = multiprocessing.Pipe()
    with ThreadPoolExecutor() as pool:  # an object larger than the pipe's buffer blocks the sender
        sending = pool.submit(near.send, thing)
        received = far.recv()
        sending.result()
    return received
