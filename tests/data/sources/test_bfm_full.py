import numpy as np
import pytest
import scipy.io
from bfm_files import write_bfm

from keras_scnn.data.sources.bfm_full import FullBfm
from keras_scnn.data.sources.mat_files import BfmAnnotation
from keras_scnn.geometry.camera import project

IDENTITIES, EXPRESSIONS = 5, 4


@pytest.fixture
def files(tmp_path):
    """The three files in their published layout, and what is in them."""
    return write_bfm(tmp_path, IDENTITIES, EXPRESSIONS)


def test_parameters_weigh_the_directions_of_the_files(files):
    """3DDFA: vertex = mu_shape + mu_exp + shapePC Shape_Para + w_exp Exp_Para, micrometers."""
    paths, model, expression, landmarks = files
    rng = np.random.default_rng(1)
    shape, weights = rng.normal(0, 3e5, IDENTITIES), rng.normal(0, 1, EXPRESSIONS)
    vertices = model["shapeMU"][:, 0] + expression["mu_exp"][:, 0]
    vertices = vertices + model["shapePC"] @ shape + expression["w_exp"] @ weights
    result = FullBfm.read(*paths).landmarks().points(shape, weights)
    np.testing.assert_allclose(result, vertices.reshape(-1, 3)[landmarks], atol=0.1)


def test_a_deviation_of_0_is_refused(files):
    paths, model, *_ = files
    model["shapeEV"][2] = 0
    scipy.io.savemat(paths[0], model)
    with pytest.raises(ValueError, match="shapeEV must hold standard deviations larger than 0"):
        FullBfm.read(*paths)


def test_annotated_parameters_are_taken_over(files):
    """Decoded by the face model they are the landmarks that the annotation's own formula gives."""
    bfm = FullBfm.read(*files[0])
    rng = np.random.default_rng(2)
    shape, weights = rng.normal(0, 3e5, IDENTITIES), rng.normal(0, 1, EXPRESSIONS)
    pose = np.array([0.2, -0.6, 0.1, 230, 190, -70, 1.1e-3])
    outputs = bfm.parameters(BfmAnnotation(shape, weights, pose), IDENTITIES, EXPRESSIONS)
    points = project(outputs.pose, bfm.model.landmarks(outputs.identity, outputs.expression))
    np.testing.assert_allclose(points, bfm.landmarks().decode(shape, weights, pose), atol=1e-3)
    kept = bfm.parameters(BfmAnnotation(shape, weights, pose), 3, 2)
    np.testing.assert_array_equal(kept.identity, outputs.identity[:3])
    assert kept.expression.shape == (2,)


def test_an_annotation_of_another_model_is_refused(files):
    annotation = BfmAnnotation(np.zeros(199), np.zeros(EXPRESSIONS), np.zeros(7))
    with pytest.raises(ValueError, match="Shape_Para has 199 numbers; the model 5"):
        FullBfm.read(*files[0]).parameters(annotation, 2, 2)


def test_a_missing_file_is_asked_for(files):
    with pytest.raises(ValueError, match="--bfm-info"):
        FullBfm.read(files[0][0], files[0][1], None)
