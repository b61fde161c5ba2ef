"""Units that animators use together, on the mean face of the open face model."""

import numpy as np
import pytest

from keras_scnn.geometry.camera import compose, project
from keras_scnn.geometry.rasterizer import rasterize

LEFT_EYE = 3  # of MorphableModel.regions
UPPER_LIP, LOWER_LIP = 62, 66  # landmarks, inside


def posed(model, **weights) -> np.ndarray:
    """(N, 3) mm: the mean face with units by name."""
    expression = [weights.get(name, 0.0) for name in model.expression_names]
    assert set(weights) <= set(model.expression_names)
    return model.vertices(None, np.array(expression))


def eyeball_seen(model, vertices: np.ndarray) -> int:
    """Pixels of the left eyeball from the front, 4 px a mm."""
    image = project(compose(np.eye(3), 4.0, np.array([400.0, 560, 0])), vertices)
    seen = rasterize(image, model.triangles, 1000, 800)
    region = model.regions[model.triangles].min(axis=1)
    return int((region[seen.triangle[seen.mask]] == LEFT_EYE).sum())


COMPANIONS = "mouthSmileLeft", "cheekSquintLeft", "eyeSquintLeft", "eyeLookDownLeft", "browDownLeft"


@pytest.mark.parametrize("beside", COMPANIONS)
def test_a_shut_eye_stays_shut_with_related_units(open_face, beside):
    opened = eyeball_seen(open_face, posed(open_face))
    assert opened > 200
    both = posed(open_face, eyeBlinkLeft=1, **{beside: 1})
    assert eyeball_seen(open_face, both) < 0.02 * opened


def test_half_a_blink_is_half_open(open_face):
    opened, half = (eyeball_seen(open_face, posed(open_face, eyeBlinkLeft=w)) for w in (0, 0.5))
    assert 0.25 < half / opened < 0.6


@pytest.mark.parametrize("weight", [0.3, 0.7, 1.0])
def test_mouth_close_closes_what_jaw_open_opens(open_face, weight):
    """As ARKit defines it: 'closure of the lips independent of jaw position'."""
    rest, opened, closed = (
        posed(open_face, **weights)[open_face.landmark_indices]
        for weights in ({}, {"jawOpen": weight}, {"jawOpen": weight, "mouthClose": weight})
    )
    gaps = [lips[UPPER_LIP, 1] - lips[LOWER_LIP, 1] for lips in (rest, opened, closed)]
    assert gaps[1] > gaps[0] + 30 * weight
    assert gaps[2] == pytest.approx(gaps[0], abs=0.5)
