import numpy as np
import pytest
import scipy.io

from keras_scnn.data.bfm_full import bfm2009_landmarks

VERTICES, IDENTITIES, EXPRESSIONS = 81, 5, 4


@pytest.fixture
def files(tmp_path):
    """The three files in their published layout, of a dome in micrometers, and its landmarks."""
    rng = np.random.default_rng(0)
    x, y = (grid.ravel() * 2e4 for grid in np.meshgrid(np.arange(9.0) - 4, np.arange(9.0) - 4))
    mean = np.stack([x, y, 9e4 - 8e-6 * (x**2 + y**2)], axis=1)
    corner = (np.arange(8)[:, None] * 9 + np.arange(8)).ravel()
    triangles = np.stack([corner, corner + 1, corner + 10], axis=1)
    model = {
        "shapeMU": mean.reshape(-1, 1),
        "shapePC": rng.normal(0, 0.01, (3 * VERTICES, IDENTITIES)),
        "shapeEV": rng.uniform(1e5, 9e5, (IDENTITIES, 1)),
        "tl": triangles + 1.0,
    }
    expression = {
        "mu_exp": rng.normal(0, 100, (3 * VERTICES, 1)),
        "w_exp": rng.normal(0, 1e4, (3 * VERTICES, EXPRESSIONS)),
        "sigma_exp": rng.uniform(0.5, 2, (EXPRESSIONS, 1)),
    }
    landmarks = rng.permutation(VERTICES)[:68]
    info = {
        "trimIndex": np.arange(VERTICES)[:, None] + 1.0,
        "tri": triangles.T + 1.0,
        "keypoints": landmarks[None] + 1.0,
    }
    paths = [tmp_path / name for name in ("01_MorphableModel.mat", "expression.mat", "info.mat")]
    for path, arrays in zip(paths, (model, expression, info), strict=True):
        scipy.io.savemat(path, arrays)
    return paths, model, expression, landmarks


def test_parameters_weigh_the_directions_of_the_files(files):
    """3DDFA: vertex = mu_shape + mu_exp + shapePC Shape_Para + w_exp Exp_Para, micrometers."""
    paths, model, expression, landmarks = files
    rng = np.random.default_rng(1)
    shape, weights = rng.normal(0, 3e5, IDENTITIES), rng.normal(0, 1, EXPRESSIONS)
    vertices = model["shapeMU"][:, 0] + expression["mu_exp"][:, 0]
    vertices = vertices + model["shapePC"] @ shape + expression["w_exp"] @ weights
    found = bfm2009_landmarks(*paths).points(shape, weights)
    np.testing.assert_allclose(found, vertices.reshape(-1, 3)[landmarks], atol=0.1)


def test_a_deviation_of_0_is_refused(files):
    paths, model, *_ = files
    model["shapeEV"][2] = 0
    scipy.io.savemat(paths[0], model)
    with pytest.raises(ValueError, match="shapeEV must hold standard deviations larger than 0"):
        bfm2009_landmarks(*paths)
