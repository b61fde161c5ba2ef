import numpy as np
import pytest

from keras_scnn.reconstruction.quality import certainty, photo_quality


def test_quality_falls_with_yaw_and_rises_with_size_and_score():
    assert photo_quality(0, 0.9, 1e6) == pytest.approx(1)
    assert photo_quality(55, 0.9, 1e6) == pytest.approx(0.5) == photo_quality(-55, 0.9, 1e6)
    assert photo_quality(0, 0.8, 50) / photo_quality(0, 0.9, 50) == pytest.approx(np.exp(-0.6))
    assert photo_quality(0, 0.9, 25) == pytest.approx(0.5)
    assert photo_quality(0, 0.9, 12.5) == pytest.approx(1 / (1 + 2**3))  # a cube


def test_certainty_is_whole_for_clear_faces_and_falls_with_either():
    assert certainty(1.0, 1.7) == certainty(1.7, 1.0) == certainty(1.8, 1.2) == 1
    assert certainty(1.0, 0.5) == certainty(0.5, 1.4) == pytest.approx(0.5**0.4)
    assert certainty(0.5, 0.25) == pytest.approx(certainty(0.5, 1) * certainty(0.25, 1))
