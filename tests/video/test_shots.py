import numpy as np
from skimage import data

from keras_scnn.video.shots import change, find_cuts, may_be_cut, thumbnail


def changes(images: list[np.ndarray]) -> np.ndarray:
    small = [thumbnail(image) for image in images]
    return np.array([0.0, *(change(*pair) for pair in zip(small, small[1:], strict=False))])


def test_cuts_between_photos_are_found_but_noise_and_moves_are_not_cuts():
    rng = np.random.default_rng(0)
    one, other = data.astronaut()[:200, :300], data.chelsea()[:200, :300]
    shot = [np.roll(one, 3 * i, axis=1) for i in range(12)]
    images = shot + [np.roll(other, -4 * i, axis=0) for i in range(12)] + shot[:6]
    noisy = [np.uint8(np.clip(i + rng.normal(0, 10, i.shape), 0, 255)) for i in images]
    assert np.flatnonzero(find_cuts(changes(noisy))).tolist() == [12, 24]


def test_a_whip_pan_is_no_cut():
    wide = np.concatenate([data.astronaut()] * 3, axis=1)
    images = [wide[:200, 40 * i : 40 * i + 300] for i in range(25)]
    assert changes(images).max() > 15
    assert not find_cuts(changes(images)).any()


def test_a_cut_beside_another_is_found():
    levels = [0] * 6 + [200] + [100] * 6
    images = [np.full((60, 80, 3), level, np.uint8) for level in levels]
    assert np.flatnonzero(find_cuts(changes(images))).tolist() == [6, 7]


def test_clips_of_no_and_of_one_frame_have_no_cut():
    assert find_cuts(np.zeros(0)).tolist() == []
    assert find_cuts(np.zeros(1)).tolist() == [False]


def test_possible_cuts_are_found_without_later_frames():
    assert may_be_cut([0, 1, 2, 60]) and may_be_cut([60])
    assert not may_be_cut([0, 1, 2, 8]) and not may_be_cut([20, 22, 25, 21, 30])
