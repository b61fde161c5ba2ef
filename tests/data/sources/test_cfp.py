"""CFP: half a face is annotated, a preset supplies the other."""

import numpy as np
import pytest

from keras_scnn.data.sources.aflw import HAND_WEIGHT
from keras_scnn.data.sources.cfp import (
    HIDDEN_TRUST,
    MIDLINE,
    PREDICTED_TRUST,
    CfpPhotos,
    box_of_half,
    merge,
)


def half(points):
    """The landmarks with those of one half of the face."""
    given = np.full((68, 2), np.nan)
    rows = [*range(9), 17, 19, 21, *range(27, 34), *range(36, 42), 48, 51, 57, 62, 66]
    given[rows] = points[rows]
    return given


def test_the_box_of_a_frontal_half_is_that_of_the_whole_face():
    points = np.full((68, 2), np.nan)
    points[0], points[8] = [10, 20], [50, 100]  # the cheek, and the chin on the midline
    points[MIDLINE[1:], 0], points[MIDLINE[1:], 1] = 50, 40
    box = box_of_half(points, is_profile=False)
    assert box.width == pytest.approx(np.hypot(80, 80))  # 10 to 90, 20 to 100
    assert (box.x0 + box.x1) / 2 == pytest.approx(50.5)
    assert box_of_half(points, is_profile=True).width == pytest.approx(np.hypot(40, 80))


def test_hand_made_points_move_the_prediction_and_sites_are_taken_off():
    rng = np.random.default_rng(0)
    predicted = rng.uniform(20, 100, (60, 68, 3))
    camera = rng.normal(0, 1, (60, 2, 3))
    site = rng.normal(0, 1, (68, 3))
    hand = predicted[..., :2] + np.einsum("nij,kj->nki", camera, site)
    hand[7, 30] += [3.0, 0]
    hand = np.stack([half(points) for points in hand])
    profile = np.zeros(60, bool)
    profile[-1] = True
    merged, weight = merge(predicted, camera, hand, profile)
    moved = merged[..., :2] - predicted[..., :2]
    np.testing.assert_allclose(moved[7, 30], [HAND_WEIGHT * 3, 0], atol=0.15)
    moved[7, 30] = 0
    assert np.abs(moved).max() < 0.15
    assert np.isnan(merged[..., 2]).all()
    assert (weight[0, 30], weight[0, 16], weight[-1, 16]) == (1, PREDICTED_TRUST, HIDDEN_TRUST)


def test_bad_labels_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"labels\.npz"):
        CfpPhotos(tmp_path)
    np.savez(tmp_path / "labels.npz", name=np.array(["1/a.jpg"]), landmarks68=np.zeros((1, 5, 2)))
    with pytest.raises(ValueError, match=r"labels\.npz: landmarks68 is \(1, 5, 2\)"):
        CfpPhotos(tmp_path)
