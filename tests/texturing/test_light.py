import numpy as np
import pytest
from rendered_skin import side_light

from keras_scnn.texturing.light import LEAST, MOST, estimate_light, even_light, shading


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def front(rng, count: int = 3000) -> np.ndarray:
    """(count, 3) normals of the half that a viewer sees."""
    normals = rng.normal(size=(count, 3))
    normals[:, 2] = np.abs(normals[:, 2])
    return normals / np.linalg.norm(normals, axis=1, keepdims=True)


def lambert(normals: np.ndarray) -> np.ndarray:
    """The light of ``side_light`` by hand: 0.75 from everywhere and a lobe of degree 1."""
    c1 = 0.488603  # Ramamoorthi and Hanrahan, 2001
    x, y, z = normals.T
    lobe = c1 * (0.3 * y + 0.35 * z + 0.75 * x)
    return 0.75 + lobe[:, None] * np.array([1.05, 1.0, 0.93])


def test_shading_is_that_of_the_formula(rng):
    normals = front(rng)
    expected = np.clip(lambert(normals), LEAST, MOST)
    np.testing.assert_allclose(shading(side_light(), normals), expected, atol=1e-4)


@pytest.mark.parametrize("outliers", [0.0, 0.25])
def test_a_light_is_found_among_outliers(rng, outliers):
    """Up to its brightness: a dark skin in bright light is a bright one in dark light."""
    normals = front(rng)
    color = np.array([0.5, 0.3, 0.2]) * lambert(normals)
    color[rng.random(len(color)) < outliers] *= 0.15  # hair
    found = shading(estimate_light(color, normals, np.ones(len(color))), normals)
    ratio = found / lambert(normals)
    assert (ratio / np.median(ratio, axis=0)).std() < 0.1
    assert np.median(found) == pytest.approx(1, abs=1e-3)  # the unit of ``estimate_light``


def test_hair_on_one_side_is_no_shadow(rng):
    """Hair is taken for shade without the robust weights: the standard deviation is 0.09 then."""
    normals = front(rng)
    is_hair = normals[:, 0] < -0.55
    albedo = np.where(is_hair, 0.15, 1) * np.exp(rng.normal(0, 0.03, len(normals)))
    color = albedo[:, None] * np.array([0.5, 0.3, 0.2]) * lambert(normals)
    light = estimate_light(color, normals, np.full(len(normals), 0.5))
    ratio = (shading(light, normals) / lambert(normals))[~is_hair]
    assert (ratio / np.median(ratio, axis=0)).std() < 0.078
    known = estimate_light(color, normals, np.where(is_hair, 0.0, 0.5))
    alone = estimate_light(color[~is_hair], normals[~is_hair], np.full((~is_hair).sum(), 0.5))
    np.testing.assert_allclose(known, alone, rtol=1e-9)


@pytest.mark.parametrize("given", [0.0, 1.0])
def test_light_is_even_without_skin_or_without_light(rng, given):
    normals = front(rng)
    light = estimate_light(np.zeros((len(normals), 3)), normals, np.full(len(normals), given))
    np.testing.assert_allclose(shading(light, normals), 1, atol=1e-6)
    np.testing.assert_array_equal(light, even_light())
