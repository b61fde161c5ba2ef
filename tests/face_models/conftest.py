"""A small face whose numbers are known, from which the tests write each published layout."""

from dataclasses import dataclass

import numpy as np
import pytest


@dataclass(frozen=True)
class SmallFace:
    """A dome of 72 vertices bulging towards the viewer, in mm and the model frame."""

    mean: np.ndarray  # (72, 3)
    directions: np.ndarray  # (216, 4) orthonormal columns
    deviations: np.ndarray  # (4,) mm
    expression_mean: np.ndarray  # (72, 3)
    expression_directions: np.ndarray  # (216, 3) orthonormal columns
    expression_deviations: np.ndarray  # (3,) mm
    triangles: np.ndarray  # (112, 3) counter-clockwise seen from the viewer
    landmarks: np.ndarray  # (68,)

    def expected(self, identity, expression) -> np.ndarray:
        """Vertices (72, 3), by a loop over the components."""
        vertices = self.mean + self.expression_mean
        for k, weight in enumerate(identity):
            vertices = vertices + weight * self.deviations[k] * self.directions[:, k].reshape(-1, 3)
        for k, weight in enumerate(expression):
            step = weight * self.expression_deviations[k]
            vertices = vertices + step * self.expression_directions[:, k].reshape(-1, 3)
        return vertices


@pytest.fixture(scope="session")
def small_face() -> SmallFace:
    rng = np.random.default_rng(5)
    columns, rows = np.meshgrid(np.arange(8), np.arange(9))
    x, y = (columns.ravel() - 3.5) * 20.0, (rows.ravel() - 4.0) * 25.0
    mean = np.stack([x, y, 90 - 0.008 * (x**2 + y**2)], axis=1)
    corner = (np.arange(8)[:, None] * 8 + np.arange(7)).ravel()
    lower = np.stack([corner, corner + 1, corner + 9], axis=1)
    upper = np.stack([corner, corner + 9, corner + 8], axis=1)
    return SmallFace(
        mean=mean,
        directions=np.linalg.qr(rng.normal(size=(216, 4)))[0],
        deviations=np.array([40.0, 25.0, 12.0, 6.0]),
        expression_mean=rng.normal(0, 0.5, (72, 3)),
        expression_directions=np.linalg.qr(rng.normal(size=(216, 3)))[0],
        expression_deviations=np.array([30.0, 20.0, 10.0]),
        triangles=np.concatenate([lower, upper]),
        landmarks=rng.permutation(72)[:68],
    )


@pytest.fixture
def check_same_face(small_face):
    """Asserts that a model makes the small face's vertices, and that its surface faces outward."""

    def check(model, with_expressions=True, tolerance_mm=1e-3):
        identity = [1.5, -0.5, 2.0, -1.0]
        expression = [0.7, -1.2, 0.4] if with_expressions else None
        expected = small_face.expected(identity, expression or [])
        if not with_expressions:
            expected = expected - small_face.expression_mean
        result = model.vertices(identity, expression)
        np.testing.assert_allclose(result, expected, atol=tolerance_mm)
        # A dome towards the viewer: every normal has z > 0 in the model frame.
        assert (model.normals(model.mean)[:, 2] > 0).all()

    return check


LFS_POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)


@pytest.fixture
def lfs_pointer() -> str:
    """The text that a checkout without Git LFS holds in a file's place (git-lfs's spec, v1)."""
    return LFS_POINTER
