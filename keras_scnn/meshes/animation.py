"""The motion of a face as a glTF animation: weights, and rotation and translation of the head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_scnn.geometry.camera import decompose
from keras_scnn.meshes.gltf import Gltf
from keras_scnn.meshes.options import UNITS

METER = UNITS["m"]  # in a millimeter
CLIP_CAMERA = "clip_camera"
FOCAL_SHARE = 1.0  # focal length / longer side of the frame: 53 degrees, as in phones and webcams
NEAR_M, FAR_M = 0.01, 100.0
HOLD_SECONDS = 1e-3  # a lost face keeps its pose until this long before it reappears


@dataclass(frozen=True, eq=False)
class Motion:
    """A face at n moments, in front of a perspective camera.

    Attributes:
        seconds: (n,) ascending.
        weights: (n, L) of the rig's morph targets.
        rotations: (n, 3, 3) world_from_model.
        places: (n, 3) positions of the model's origin, mm; the world axes are those of the model
            frame.
        camera_mm: z of the camera, which is on the z axis and looks along -z.
        focal_px: its focal length.
        size: width and height of its image, px.
    """

    seconds: np.ndarray
    weights: np.ndarray
    rotations: np.ndarray
    places: np.ndarray
    camera_mm: float
    focal_px: float
    size: tuple[int, int]


def motion_of(
    seconds: np.ndarray,
    pose: np.ndarray,
    weights: np.ndarray,
    tracklets: np.ndarray,
    size: tuple[int, int],
) -> Motion:
    """The perspective-camera motion that looks like a given scaled orthographic one.

    The focal length is unknown and assumed to be ``FOCAL_SHARE`` of the frame's longer side. A face
    twice as large is at half the distance; a face off the camera's axis is also rotated by the
    angle of its viewing ray. Between tracklets the face keeps its last pose.

    Args:
        seconds: (n,) ascending.
        pose: (n, 3, 4) image_from_model, px per mm.
        weights: (n, L).
        tracklets: (n,) numbers that change where one continuous motion ends.
        size: width and height of the frames, px.
    """
    rotation, scale, shift = decompose(np.float64(pose))
    focal = FOCAL_SHARE * max(size)
    distance = focal / scale
    aside = (shift[:, :2] - (np.array(size) - 1) / 2) / scale[:, None] * [1, -1]
    rays = np.c_[aside, -distance]
    middle = float(np.median(distance))
    places = rays + [0, 0, middle]
    ends = np.flatnonzero(np.diff(tracklets)) + 1
    columns = np.float64(seconds), weights, turn_to(rays) @ rotation, places
    times, weights, turns, places = (np.insert(c, ends, c[ends - 1], axis=0) for c in columns)
    held = ends + np.arange(len(ends))
    # The file's times are float32 and must ascend; after hours their spacing exceeds HOLD_SECONDS,
    # and the frames of high-speed cameras are closer together than that.
    step = 2 * np.float64(np.spacing(np.float32(times[held + 1])))
    latest = times[held + 1] - np.maximum(HOLD_SECONDS, step)
    times[held] = np.maximum(latest, (times[held] + times[held + 1]) / 2)
    return Motion(times, weights, turns, places, middle, focal, size)


def turn_to(rays: np.ndarray) -> np.ndarray:
    """(n, 3, 3) smallest rotations of the direction -z onto rays (n, 3) with z below 0."""
    x, y, z = (rays / np.linalg.norm(rays, axis=1, keepdims=True)).T
    share = 1 / (1 - z)  # Rodrigues' formula, from one unit vector to another
    rows = [
        [1 - x * x * share, -x * y * share, -x],
        [-x * y * share, 1 - y * y * share, -y],
        [x, y, -z],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def add_animation(
    file: Gltf, motion: Motion, face: int, targets: Mapping[int, Sequence[int]]
) -> None:
    """Add an animation 'clip' to a file.

    Args:
        file: which already has the nodes.
        motion: of the face.
        face: the node that moves.
        targets: for each node with morph targets, the indices of their weights in the motion.
    """
    from scipy.spatial.transform import Rotation  # slow to import

    turns = Rotation.from_matrix(motion.rotations).as_quat()
    flips = np.cumprod(np.where((turns[1:] * turns[:-1]).sum(axis=1) < 0, -1.0, 1.0))
    turns[1:] *= flips[:, None]  # so that interpolation takes the shorter way
    times = file.accessor(np.float32(motion.seconds), target=None, bounds=True)
    samplers: list[dict[str, Any]] = []
    channels: list[dict[str, Any]] = []

    def add(node: int, path: str, rows: np.ndarray) -> None:
        output = file.accessor(np.float32(rows), target=None)
        samplers.append({"input": times, "output": output, "interpolation": "LINEAR"})
        target = {"node": node, "path": path}
        channels.append({"sampler": len(samplers) - 1, "target": target})

    add(face, "rotation", turns)
    add(face, "translation", motion.places * METER)
    for node, numbers in targets.items():
        add(node, "weights", motion.weights[:, numbers].ravel())
    file.add("animations", {"name": "clip", "samplers": samplers, "channels": channels})


def add_clip_camera(file: Gltf, motion: Motion) -> int:
    """Add the camera that sees the face where it is in the clip; return the index of its node."""
    width, height = motion.size
    lens = {
        "yfov": 2 * float(np.arctan(height / 2 / motion.focal_px)),
        "aspectRatio": width / height,
        "znear": NEAR_M,
        "zfar": FAR_M,
    }
    view = {"name": CLIP_CAMERA, "type": "perspective", "perspective": lens}
    view["extras"] = {"clip_size": [int(width), int(height)]}
    place = [0.0, 0.0, motion.camera_mm * METER]
    node = {"name": CLIP_CAMERA, "camera": file.add("cameras", view), "translation": place}
    return file.add("nodes", node)
