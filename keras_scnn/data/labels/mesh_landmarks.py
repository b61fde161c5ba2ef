"""The 68 landmarks of a face from FaceMesh's 468 points."""

from __future__ import annotations

import numpy as np

from keras_scnn.geometry.alignment import similarity_alignment
from keras_scnn.geometry.camera import FLIP
from keras_scnn.morphable_model import MorphableModel

# For each landmark the nearest FaceMesh point, and the offset from this to the landmark, in mm of
# the head's frame (x, y, z as in the model frame). Learned by ``tools/learn_mesh_sites.py`` from
# 2,466 crops of AFLW with yaws below 40 degrees, from hand-made points moved to BFM's landmark
# sites, which this library's presets use; mirror symmetric. Within the face the offsets have a mean
# length of 2.9 mm; those of the jaw are longer, since FaceMesh's points do not reach it.
SITES = np.array([
    (127, 1.0, -0.7, -15.8), (234, 1.8, -5.8, -10.0), (93, 4.5, -9.2, -8.4),
    (132, 5.9, -10.3, -7.5), (172, 0.0, 0.0, -14.1), (150, -7.6, 2.4, -19.9),
    (149, -4.6, -1.2, -9.8), (176, 1.2, -4.6, -1.1), (152, 0.0, -5.1, -2.1),
    (400, -1.2, -4.6, -1.1), (378, 4.6, -1.2, -9.8), (379, 7.6, 2.4, -19.9),
    (397, 0.0, 0.0, -14.1), (361, -5.9, -10.3, -7.5), (323, -4.5, -9.2, -8.4),
    (454, -1.8, -5.8, -10.0), (356, -1.0, -0.7, -15.8), (70, 3.0, 0.1, -1.5),
    (63, 4.6, 0.8, 1.5), (105, 5.0, -0.5, 2.2), (66, 2.1, -1.1, 0.6),
    (107, -3.5, -2.1, -0.9), (336, 3.5, -2.1, -0.9), (296, -2.1, -1.1, 0.6),
    (334, -5.0, -0.5, 2.2), (293, -4.6, 0.8, 1.5), (300, -3.0, 0.1, -1.5),
    (168, 0.0, -5.2, 1.9), (197, 0.0, -2.7, 0.8), (5, 0.0, -1.9, -0.9),
    (4, 0.0, -3.8, -2.4), (75, 1.4, -2.6, -4.3), (97, 0.9, 0.0, -2.2),
    (2, 0.0, -1.3, -2.0), (326, -0.9, 0.0, -2.2), (305, -1.4, -2.6, -4.3),
    (33, 4.0, 0.2, 1.6), (160, 3.4, 0.6, 3.8), (158, 1.3, -0.1, 2.2),
    (133, -1.1, 1.1, -0.2), (153, 0.3, 0.9, 1.8), (144, 1.8, 0.6, 1.4),
    (362, 1.1, 1.1, -0.2), (385, -1.3, -0.1, 2.2), (387, -3.4, 0.6, 3.8),
    (263, -4.0, 0.2, 1.6), (373, -1.8, 0.6, 1.4), (380, -0.3, 0.9, 1.8),
    (61, 0.8, -0.6, -1.5), (39, -1.2, -2.1, -3.5), (37, 2.0, -0.3, -1.3),
    (0, 0.0, -0.4, -2.0), (267, -2.0, -0.3, -1.3), (269, 1.2, -2.1, -3.5),
    (291, -0.8, -0.6, -1.5), (405, 1.3, 2.1, -2.3), (314, 0.4, 0.7, -0.3),
    (17, 0.0, 0.6, -0.5), (84, -0.4, 0.7, -0.3), (181, -1.3, 2.1, -2.3),
    (78, -0.9, -0.8, -1.8), (82, -1.6, 0.4, -0.4), (13, 0.0, 0.8, 0.0),
    (312, 1.6, 0.4, -0.4), (308, 0.9, -0.8, -1.8), (317, 1.0, -0.4, -0.8),
    (14, 0.0, -0.9, -1.0), (87, -1.0, -0.4, -0.8),
])  # fmt: skip
POINTS, OFFSETS_MM = SITES[:, 0].astype(int), SITES[:, 1:]
for _array in (SITES, POINTS, OFFSETS_MM):
    _array.setflags(write=False)


def landmarks_from_mesh(mesh: np.ndarray, model: MorphableModel) -> np.ndarray:
    """The 68 landmarks at the sites of this library's presets.

    Args:
        mesh: (..., 468, 3) px and depth, image frame: ``FaceMeshPoints.points``.
        model: a face model with ``mediapipe_indices``; its mean face defines the head's rotation.

    Returns:
        (..., 68, 3) float64 px and depth, image frame; accurate up to yaws of about 45 degrees.

    Raises:
        ValueError: wrong shape, or the model has no ``mediapipe_indices``.
    """
    mesh = np.asarray(mesh, np.float64)
    if mesh.shape[-2:] != (468, 3):
        raise ValueError(f"mesh has the shape {mesh.shape}; expected (..., 468, 3)")
    return mesh[..., POINTS, :] + OFFSETS_MM @ np.swapaxes(image_from_head(mesh, model), -1, -2)


def image_from_head(mesh: np.ndarray, model: MorphableModel) -> np.ndarray:
    """(..., 3, 3) px per mm: the scaled rotation from the model frame to a mesh's image frame.

    Arguments and errors as for ``landmarks_from_mesh``.
    """
    if model.mediapipe_indices is None:
        raise ValueError(f"face model '{model.name}' has no mediapipe_indices")
    mean = model.mean[model.mediapipe_indices]
    scale, rotation, _ = similarity_alignment(mean, mesh @ FLIP)
    return scale[..., None, None] * (FLIP @ rotation)
