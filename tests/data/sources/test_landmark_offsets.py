import numpy as np
from annotated_faces import random_basis
from scipy.spatial import procrustes

from keras_scnn.data.sources.bfm_landmarks import with_annotated_mean


def test_the_mean_face_has_the_annotations_landmarks(tiny_face_model):
    """Up to a similarity: SciPy's Procrustes analysis finds no disparity."""
    basis = random_basis(3)
    model = with_annotated_mean(tiny_face_model, basis)
    _, _, disparity = procrustes(basis.mean, model.landmarks())
    assert disparity < 1e-9
    size = [np.linalg.norm(p - p.mean(axis=0)) for p in (model.landmarks(), basis.mean / 1000)]
    assert 0 < size[0] <= size[1]  # brought to the model's size as far as the two are alike


def test_a_model_that_agrees_is_left_alone(tiny_face_model):
    basis = random_basis(3)
    once = with_annotated_mean(tiny_face_model, basis)
    again = with_annotated_mean(once, basis)
    np.testing.assert_allclose(again.landmark_offsets, once.landmark_offsets, atol=1e-4)
