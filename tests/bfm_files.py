"""A small Basel Face Model 2009 in its published files."""

import numpy as np
import scipy.io

SIDE = 9


def write_bfm(folder, identities: int, expressions: int, seed: int = 0):
    """Write the three files, of a dome in micrometers.

    Returns:
        their paths (model, expression, model_info), the arrays of the first two, and the (68,)
        vertices of the landmarks.
    """
    rng, count = np.random.default_rng(seed), SIDE * SIDE
    steps = np.arange(float(SIDE)) - SIDE // 2
    x, y = (grid.ravel() * 2e4 for grid in np.meshgrid(steps, steps))
    mean = np.stack([x, y, 9e4 - 8e-6 * (x**2 + y**2)], axis=1)
    corner = (np.arange(SIDE - 1)[:, None] * SIDE + np.arange(SIDE - 1)).ravel()
    triangles = np.stack([corner, corner + 1, corner + SIDE + 1], axis=1)
    model = {
        "shapeMU": mean.reshape(-1, 1),
        "shapePC": rng.normal(0, 0.01, (3 * count, identities)),
        "shapeEV": rng.uniform(1e5, 9e5, (identities, 1)),
        "tl": triangles + 1.0,
    }
    expression = {
        "mu_exp": rng.normal(0, 100, (3 * count, 1)),
        "w_exp": rng.normal(0, 1e4, (3 * count, expressions)),
        "sigma_exp": rng.uniform(0.5, 2, (expressions, 1)),
    }
    landmarks = rng.permutation(count)[:68]
    info = {
        "trimIndex": np.arange(count)[:, None] + 1.0,
        "tri": triangles.T + 1.0,
        "keypoints": landmarks[None] + 1.0,
    }
    paths = [folder / name for name in ("01_MorphableModel.mat", "expression.mat", "info.mat")]
    for path, arrays in zip(paths, (model, expression, info), strict=True):
        scipy.io.savemat(path, arrays)
    return paths, model, expression, landmarks
