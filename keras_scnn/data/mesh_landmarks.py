"""The 68 landmarks of a face from FaceMesh's 468 points."""

from __future__ import annotations

import numpy as np

from keras_scnn.geometry.alignment import similarity_alignment
from keras_scnn.geometry.camera import FLIP
from keras_scnn.morphable_model import MorphableModel

# For each landmark the FaceMesh point nearest by and where the landmark is from there, in mm of the
# head's frame (x, y, z as in the model frame). Learned by ``tools/learn_mesh_sites.py`` from
# 1,574 crops of AFLW turned by less than 40 degrees, with hand-made points at the sites of BFM that
# this library's presets have; mirror symmetric. Inside of the face they are 2.9 mm long on
# average; the jaw's are longer, since FaceMesh ends short of it.
SITES = np.array([
    (127, 0.9, -0.5, -15.0), (234, 1.7, -5.5, -9.0), (93, 4.4, -8.9, -7.4),
    (132, 5.8, -9.9, -6.6), (172, -0.2, 0.2, -13.3), (150, -7.8, 2.5, -19.1),
    (149, -4.8, -1.0, -9.2), (176, 1.1, -4.5, -0.6), (152, 0.0, -5.0, -1.6),
    (400, -1.1, -4.5, -0.6), (378, 4.8, -1.0, -9.2), (379, 7.8, 2.5, -19.1),
    (397, 0.2, 0.2, -13.3), (361, -5.8, -9.9, -6.6), (323, -4.4, -8.9, -7.4),
    (454, -1.7, -5.5, -9.0), (356, -0.9, -0.5, -15.0), (70, 3.0, 0.0, -1.4),
    (63, 4.5, 0.7, 1.6), (105, 5.0, -0.7, 2.3), (66, 2.2, -1.4, 0.5),
    (107, -3.5, -2.3, -0.9), (336, 3.5, -2.3, -0.9), (296, -2.2, -1.4, 0.5),
    (334, -5.0, -0.7, 2.3), (293, -4.5, 0.7, 1.6), (300, -3.0, 0.0, -1.4),
    (168, 0.0, -5.4, 1.8), (197, 0.0, -3.0, 0.6), (5, 0.0, -2.1, -1.2),
    (4, 0.0, -4.0, -2.6), (75, 1.3, -2.5, -4.2), (97, 0.8, 0.0, -2.1),
    (2, 0.0, -1.3, -1.8), (326, -0.8, 0.0, -2.1), (305, -1.3, -2.5, -4.2),
    (33, 4.0, 0.1, 1.7), (160, 3.4, 0.6, 3.8), (158, 1.3, -0.2, 2.0),
    (133, -1.1, 1.0, -0.1), (153, 0.3, 0.8, 1.7), (144, 1.8, 0.5, 1.5),
    (362, 1.1, 1.0, -0.1), (385, -1.3, -0.2, 2.0), (387, -3.4, 0.6, 3.8),
    (263, -4.0, 0.1, 1.7), (373, -1.8, 0.5, 1.5), (380, -0.3, 0.8, 1.7),
    (61, 0.8, -0.6, -1.2), (39, -1.2, -2.0, -3.5), (37, 1.9, -0.2, -1.3),
    (0, 0.0, -0.4, -2.1), (267, -1.9, -0.2, -1.3), (269, 1.2, -2.0, -3.5),
    (291, -0.8, -0.6, -1.2), (405, 1.3, 2.2, -2.1), (314, 0.4, 0.9, -0.1),
    (17, 0.0, 0.8, -0.2), (84, -0.4, 0.9, -0.1), (181, -1.3, 2.2, -2.1),
    (78, -0.9, -0.8, -1.5), (82, -1.7, 0.5, -0.3), (13, 0.0, 0.9, 0.2),
    (312, 1.7, 0.5, -0.3), (308, 0.9, -0.8, -1.5), (317, 1.0, -0.2, -0.5),
    (14, 0.0, -0.6, -0.7), (87, -1.0, -0.2, -0.5),
])  # fmt: skip
POINTS, OFFSETS_MM = SITES[:, 0].astype(int), SITES[:, 1:]
for _array in (SITES, POINTS, OFFSETS_MM):
    _array.setflags(write=False)


def landmarks_from_mesh(mesh: np.ndarray, model: MorphableModel) -> np.ndarray:
    """The 68 landmarks at the sites of this library's presets.

    Args:
        mesh: (..., 468, 3) px and depth, image frame: ``FaceMeshPoints.points``.
        model: a face model with ``mediapipe_indices``; its mean face says how the head is turned.

    Returns:
        (..., 68, 3) float64 px and depth, image frame. Good to about 45 degrees of yaw.

    Raises:
        ValueError: wrong shape, or the model does not know FaceMesh's points.
    """
    mesh = np.asarray(mesh, np.float64)
    if mesh.shape[-2:] != (468, 3):
        raise ValueError(f"mesh has the shape {mesh.shape}; expected (..., 468, 3)")
    return mesh[..., POINTS, :] + OFFSETS_MM @ np.swapaxes(image_from_head(mesh, model), -1, -2)


def image_from_head(mesh: np.ndarray, model: MorphableModel) -> np.ndarray:
    """(..., 3, 3) px per mm: the scaled rotation from the model frame to the image of a mesh.

    Args and errors as ``landmarks_from_mesh``.
    """
    if model.mediapipe_indices is None:
        raise ValueError(f"face model '{model.name}' has no mediapipe_indices")
    mean = model.mean[model.mediapipe_indices]
    scale, rotation, _ = similarity_alignment(mean, mesh @ FLIP)
    return scale[..., None, None] * (FLIP @ rotation)
