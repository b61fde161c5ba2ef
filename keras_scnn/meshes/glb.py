"""Surfaces and faces that animate as GLB."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import keras_scnn
from keras_scnn.geometry.camera import project
from keras_scnn.geometry.mesh import sphere_center
from keras_scnn.geometry.rotations import nearest_rotation
from keras_scnn.io import encode_image
from keras_scnn.meshes.gltf import INDICES, Gltf, index_type
from keras_scnn.meshes.options import UNITS
from keras_scnn.meshes.parts import EYES
from keras_scnn.meshes.surface import Surface

METER = UNITS["m"]  # in a millimeter
AXES = "x to the viewer's right, y up, z towards the viewer: the face looks to +z"
HEAD, FACE, CAMERA = "head", "face", "photo_camera"
NEAR_MM, FAR_MM = 1.0, 2000.0  # what the photo's camera sees, the face's middle half-way


@dataclass(frozen=True, eq=False)
class Rig:
    """How a surface's vertices move.

    Attributes:
        names: L names of morph targets.
        displacements: (N, 3, L), mm, model frame, at weight 1.
        normal_changes: (N, 3, L) what is added to the normals at weight 1.
        weights: (L,) set in the file.
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
) -> bytes:
    """A GLB file: a node 'face' with the nodes 'head', 'eye_left' and 'eye_right', and a camera.

    The parts of the head are primitives of one mesh, with one set of weights, over the same
    vertices. Eyes are meshes of their own, whose nodes lie in the eyeballs' centers, so that an eye
    turns by its node's rotation; of the morph targets they have those that move them.

    Args:
        surface: in mm and the model frame; without eyes it is one node.
        rig: for morph targets.
        camera: for a camera node 'photo_camera', outside of 'face': an orthographic camera that
            sees the photo's edges. glTF has no skew, so the camera is the nearest one without.
        extras: more for ``asset.extras``, which state unit and axes.
    """
    about = {"unit": "m", "axes": AXES, **(extras or {})}
    generator = f"keras_scnn {keras_scnn.__version__}"
    file = Gltf({"generator": generator, "extras": about})
    materials = _add_materials(file, surface)
    groups = {HEAD: [name for name in surface.parts if name not in EYES]}
    groups |= {name: [name] for name in surface.parts if name in EYES}
    nodes = [
        _add_node(file, name, _only(surface, names), materials, rig)
        for name, names in groups.items()
        if names
    ]
    scene = [file.add("nodes", {"name": FACE, "children": nodes})]
    if camera is not None:
        scene.append(_add_camera(file, surface, camera))
    file.json |= {"scene": file.add("scenes", {"name": FACE, "nodes": scene})}
    return file.to_bytes()


def _only(surface: Surface, names: list[str]) -> Surface:
    return dataclasses.replace(surface, parts={name: surface.parts[name] for name in names})


def _add_materials(file: Gltf, surface: Surface) -> dict[str, int]:
    """Numbers of the parts' materials. An open surface is seen from both sides."""
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
        item["doubleSided"] = True if part == "skin" and "back" not in surface.parts else None
        known = file.json.get("materials", [])
        same = [i for i, other in enumerate(known) if other["name"] == material.name]
        numbers[part] = same[0] if same else file.add("materials", item)
    return numbers


def _add_node(
    file: Gltf,
    name: str,
    surface: Surface,
    materials: dict[str, int],
    rig: Rig | None,
) -> int:
    """A node with the mesh of all parts of a surface; an eye's lies in its center."""
    used = surface.used()
    center = sphere_center(surface.vertices[used]) if name in EYES else np.zeros(3)
    kept = surface.without_unused()
    primitives = _add_primitives(file, kept, center, materials)
    mesh: dict[str, Any] = {"name": name, "primitives": primitives}
    if rig is not None:
        mesh |= _add_targets(file, primitives, rig, used, all_of_them=name not in EYES)
    place = (center * METER).tolist() if name in EYES else None
    return file.add("nodes", {"name": name, "mesh": file.add("meshes", mesh), "translation": place})


def _add_primitives(
    file: Gltf, surface: Surface, center: np.ndarray, materials: dict[str, int]
) -> list[dict[str, Any]]:
    positions = np.float32((surface.vertices - center) * METER)
    attributes = {
        "POSITION": file.accessor(positions, bounds=True),
        "NORMAL": file.accessor(np.float32(surface.normals)),
    }
    textured = dict(attributes)
    if surface.uv is not None and any(map(surface.has_texture, surface.parts)):  # v goes down here
        textured["TEXCOORD_0"] = file.accessor(np.float32(surface.uv * [1, -1] + [0, 1]))
    kind = index_type(len(positions))
    return [
        {
            "attributes": textured if surface.has_texture(part) else attributes,
            "indices": file.accessor(triangles.ravel().astype(kind), INDICES),
            "material": materials[part],
        }
        for part, triangles in surface.parts.items()
    ]


def _add_targets(
    file: Gltf, primitives: list[dict], rig: Rig, used: np.ndarray, all_of_them: bool
) -> dict[str, Any]:
    """Give the primitives of a mesh their morph targets; what the mesh has of them."""
    moves = np.float32(rig.displacements[used] * METER)
    turns = np.float32(rig.normal_changes[used])
    rows = [i for i in range(len(rig.names)) if all_of_them or moves[..., i].any()]
    if not rows:
        return {}
    targets = [
        {"POSITION": file.sparse(moves[..., i], bounds=True), "NORMAL": file.sparse(turns[..., i])}
        for i in rows
    ]
    for primitive in primitives:
        primitive["targets"] = targets
    weights = [float(rig.weights[i]) for i in rows]
    return {"weights": weights, "extras": {"targetNames": [rig.names[i] for i in rows]}}


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
    """The rotation, scale and place of a photo's camera.

    A regressed camera's rows are not quite at right angles. The camera is the nearest rotation of
    the rows' directions, with a scale for each row, moved so that the vertices' middle is right.

    Args:
        camera: of the photo.
        vertices: (N, 3), mm, model frame, that it sees.

    Returns:
        (3, 3) model_from_camera; (2,) px per mm of x and y; (3,) the place, mm, model frame.
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
