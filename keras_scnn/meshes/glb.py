"""Surfaces and animated faces as GLB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import keras_scnn
from keras_scnn.geometry.camera import project
from keras_scnn.geometry.mesh import sphere_center
from keras_scnn.geometry.rotations import nearest_rotation
from keras_scnn.io import encode_image
from keras_scnn.meshes.animation import METER, Motion, add_animation, add_clip_camera
from keras_scnn.meshes.gltf import INDICES, Gltf, index_type
from keras_scnn.meshes.parts import EYES, open_rims
from keras_scnn.meshes.surface import Surface

AXES = "x to the viewer's right, y up, z towards the viewer: the face looks to +z"
HEAD, FACE, CAMERA = "head", "face", "photo_camera"
OUTER = ("skin", FACE)  # the part visible from outside; FACE is a mesh without parts
NEAR_MM, FAR_MM = 1.0, 2000.0  # clipping planes of the photo's camera; the face is half-way


@dataclass(frozen=True, eq=False)
class Rig:
    """How a surface's vertices move.

    Attributes:
        names: L names of morph targets.
        displacements: (N, 3, L), mm, model frame, at weight 1.
        normal_changes: (N, 3, L) added to the normals at weight 1.
        weights: (L,) initial weights in the file.
    """

    names: Sequence[str]
    displacements: np.ndarray
    normal_changes: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True, eq=False)
class PhotoCamera:
    """The camera of a photo.

    Attributes:
        image_from_model: (3, 4), px per mm, see ``geometry.camera``.
        size: width and height of the photo, px.
    """

    image_from_model: np.ndarray
    size: tuple[int, int]


def glb_bytes(
    surface: Surface,
    rig: Rig | None = None,
    camera: PhotoCamera | None = None,
    extras: dict[str, Any] | None = None,
    motion: Motion | None = None,
) -> bytes:
    """A GLB file: a node 'face' with the nodes 'head', 'eye_left' and 'eye_right', and a camera.

    The parts of the head are primitives of one mesh with one set of weights; each primitive has
    only the vertices that it uses. Eyes are separate meshes, whose nodes lie at the centers of the
    eyeballs, so that the node's rotation turns the eye; they have only the morph targets that move
    them.

    Args:
        surface: in mm and the model frame; without eyes it is one node.
        rig: for morph targets.
        camera: for a camera node 'photo_camera', outside of 'face': an orthographic camera whose
            view ends at the photo's edges. glTF has no skew, so it is the nearest camera without.
        extras: added to ``asset.extras``, which states unit and axes.
        motion: for an animation 'clip' of the face and its weights, and a perspective camera node
            'clip_camera'.
    """
    about = {"unit": "m", "axes": AXES, **(extras or {})}
    generator = f"keras_scnn {keras_scnn.__version__}"
    file = Gltf({"generator": generator, "extras": about})
    materials = _add_materials(file, surface)
    nodes: dict[str, list[Surface]] = {}
    for name, part in surface.split().items():
        nodes.setdefault(name if name in EYES else HEAD, []).append(part)
    rows = {name: _rows(name, parts, rig) for name, parts in nodes.items()}
    children = {
        _add_node(file, name, parts, materials, rig, rows[name]): rows[name]
        for name, parts in nodes.items()
    }
    scene = [file.add("nodes", {"name": FACE, "children": list(children)})]
    if motion is not None:
        targets = {node: numbers for node, numbers in children.items() if numbers}
        add_animation(file, motion, scene[0], targets)
        scene.append(add_clip_camera(file, motion))
    if camera is not None:
        scene.append(_add_camera(file, surface, camera))
    file.json |= {"scene": file.add("scenes", {"name": FACE, "nodes": scene})}
    return file.to_bytes()


def _add_materials(file: Gltf, surface: Surface) -> dict[str, int]:
    """Indices of the parts' materials. Open surfaces are double-sided."""
    picture, numbers = None, {}
    for part in surface.parts:
        material = surface.materials[part]
        look: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": material.roughness}
        if surface.texture is not None and surface.has_texture(part):
            if picture is None:
                picture = file.picture("texture", encode_image(".png", surface.texture))
            look["baseColorTexture"] = {"index": picture}
        else:
            look["baseColorFactor"] = [*material.linear_color, 1.0]
        item: dict[str, Any] = {"name": material.name, "pbrMetallicRoughness": look}
        is_open = part in OUTER and "back" not in surface.parts and open_rims(surface.parts[part])
        item["doubleSided"] = True if is_open else None
        known = file.json.get("materials", [])
        same = [i for i, other in enumerate(known) if other["name"] == material.name]
        numbers[part] = same[0] if same else file.add("materials", item)
    return numbers


def _add_node(
    file: Gltf,
    name: str,
    parts: list[Surface],
    materials: dict[str, int],
    rig: Rig | None,
    rows: list[int],
) -> int:
    """A node whose mesh has a primitive for each part; an eye's node is at the eye's center."""
    used = np.concatenate([part.used() for part in parts])
    center = sphere_center(parts[0].vertices[used]) if name in EYES else np.zeros(3)
    primitives = [_add_primitive(file, part.without_unused(), center, materials) for part in parts]
    mesh: dict[str, Any] = {"name": name, "primitives": primitives}
    if rig is not None:
        for primitive, part in zip(primitives, parts, strict=True):
            primitive |= _targets(file, part.used(), rig, rows)
        if rows:
            mesh["weights"] = [float(rig.weights[i]) for i in rows]
            mesh["extras"] = {"targetNames": [rig.names[i] for i in rows]}
    place = (center * METER).tolist() if name in EYES else None
    return file.add("nodes", {"name": name, "mesh": file.add("meshes", mesh), "translation": place})


def _add_primitive(
    file: Gltf, part: Surface, center: np.ndarray, materials: dict[str, int]
) -> dict[str, Any]:
    (name,) = part.parts
    positions = np.float32((part.vertices - center) * METER)
    attributes = {
        "POSITION": file.accessor(positions, bounds=True),
        "NORMAL": file.accessor(np.float32(part.normals)),
    }
    if part.uv is not None and part.has_texture(name):  # v goes down in glTF
        attributes["TEXCOORD_0"] = file.accessor(np.float32(part.uv * [1, -1] + [0, 1]))
    indices = part.parts[name].ravel().astype(index_type(len(positions)))
    return {
        "attributes": attributes,
        "indices": file.accessor(indices, INDICES),
        "material": materials[name],
    }


def _rows(name: str, parts: list[Surface], rig: Rig | None) -> list[int]:
    """Indices of a node's morph targets: all for the head, for an eye those that move it."""
    if rig is None:
        return []
    used = np.concatenate([part.used() for part in parts])
    moves = rig.displacements[used].any(axis=(0, 1))
    return [i for i in range(len(rig.names)) if name == HEAD or moves[i]]


def _targets(file: Gltf, vertices: np.ndarray, rig: Rig, rows: list[int]) -> dict[str, Any]:
    """A primitive's morph targets, all with normals: readers expect the same attributes in each."""
    moves = np.float32(rig.displacements[vertices] * METER)
    turns = np.float32(rig.normal_changes[vertices])
    targets = [
        {"POSITION": file.sparse(moves[..., i], bounds=True), "NORMAL": file.sparse(turns[..., i])}
        for i in rows
    ]
    return {"targets": targets} if targets else {}


def _add_camera(file: Gltf, surface: Surface, camera: PhotoCamera) -> int:
    """The node of an orthographic camera; it looks along its -z, its x right and its y up."""
    rotation, scales, position = gltf_camera(camera, surface.vertices)
    half = np.array(camera.size) / 2 / scales * METER
    lens = {"xmag": half[0], "ymag": half[1], "znear": NEAR_MM * METER, "zfar": FAR_MM * METER}
    view = {"name": CAMERA, "type": "orthographic", "orthographic": lens}
    view["extras"] = {"photo_size": list(map(int, camera.size))}
    node = {
        "name": CAMERA,
        "camera": file.add("cameras", view),
        "rotation": _quaternion(rotation),
        "translation": (position * METER).tolist(),
    }
    return file.add("nodes", node)


def gltf_camera(
    camera: PhotoCamera, vertices: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rotation, scale and position of a photo's camera.

    The rows of a regressed camera are not quite orthogonal. This camera is the rotation nearest to
    the rows' directions, with a scale for each row, moved so that the vertices' mean projects to
    the same point.

    Args:
        camera: of the photo.
        vertices: (N, 3), mm, model frame, that it sees.

    Returns:
        (3, 3) model_from_camera; (2,) px per mm of x and y; (3,) position, mm, model frame.
    """
    rows = camera.image_from_model[:2, :3] * [[1], [-1]]  # y up
    scales = np.linalg.norm(rows, axis=1)
    right, up = rows / scales[:, None]
    camera_from_model = nearest_rotation(np.stack([right, up, np.cross(right, up)]))
    middle = vertices.mean(axis=0)
    seen = project(camera.image_from_model, middle[None])[0, :2]
    offset = (seen - (np.array(camera.size) - 1) / 2) / scales * [1, -1]
    from_middle = np.array([-offset[0], -offset[1], (NEAR_MM + FAR_MM) / 2])
    return camera_from_model.T, scales, middle + camera_from_model.T @ from_middle


def _quaternion(rotation: np.ndarray) -> list[float]:
    """x, y, z, w."""
    from scipy.spatial.transform import Rotation  # slow to import

    return Rotation.from_matrix(rotation).as_quat().tolist()
