"""Random geometry for the property tests."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays


def floats(shape, least: float, most: float) -> st.SearchStrategy[np.ndarray]:
    """Float64 arrays with values in [least, most]."""
    return arrays(np.float64, shape, elements=st.floats(least, most, allow_subnormal=False))


def eulers(lead: tuple[int, ...] = ()) -> st.SearchStrategy[np.ndarray]:
    """Pitch, yaw and roll away from gimbal lock, radians."""
    limits = np.array([np.pi, np.pi / 2, np.pi]) * 0.999
    return floats((*lead, 3), -1, 1).map(lambda unit: unit * limits)


def scattered_points(dimensions: int, count: int = 12) -> st.SearchStrategy[np.ndarray]:
    """Points with spread in every direction: no alignment of them is degenerate."""
    seeds = st.integers(0, 2**32 - 1)
    return seeds.map(lambda seed: np.random.default_rng(seed).normal(0, 30, (count, dimensions)))


@st.composite
def similarities(draw, dimensions: int) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale, rotation and translation."""
    seed = draw(st.integers(0, 2**32 - 1))
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(dimensions, dimensions)))
    rotation[:, 0] *= np.linalg.det(rotation)
    return draw(st.floats(0.1, 10)), rotation, draw(floats(dimensions, -100, 100))
