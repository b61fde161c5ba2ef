import numpy as np

from keras_scnn.video.tracking import Tracker


def box(x: float, y: float = 100.0, side: float = 60.0) -> list[float]:
    return [x - side / 2, y - side / 2, x + side / 2, y + side / 2]


def tracked(frames, features=None, cuts=(), rate: float = 25.0) -> list[list[int]]:
    tracker = Tracker()
    return [
        tracker.update(
            i / rate, np.array(boxes), None if features is None else features[i], i in cuts
        ).tolist()
        for i, boxes in enumerate(frames)
    ]


def directions(*rows: list[float]) -> np.ndarray:
    array = np.array(rows, float)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def test_faces_keep_their_numbers_whatever_the_order():
    frames = [[box(100 + 3 * i), box(300 - 2 * i)] for i in range(10)]
    frames[4:7] = [pair[::-1] for pair in frames[4:7]]
    assert tracked(frames) == [[0, 1]] * 4 + [[1, 0]] * 3 + [[0, 1]] * 3


def test_a_face_that_comes_gets_a_new_number_and_one_that_is_hidden_keeps_its_own():
    frames = [[box(100)], [box(100), box(300)], [box(300)], [], [box(300), box(104)]]
    assert tracked(frames) == [[0], [0, 1], [1], [], [1, 0]]


def test_a_face_that_was_away_for_long_is_new():
    """Of 25 frames a second: the last one of each shows it 1, 1.04 and 1.24 s after the first."""
    for missing, number in ((24, 0), (25, 1), (30, 1)):
        assert tracked([[box(100)]] + [[]] * missing + [[box(100)]])[-1] == [number]


def test_a_face_keeps_its_number_at_less_than_a_frame_a_second():
    assert tracked([[box(100)]] * 6, rate=0.5) == [[0]] * 6
    assert tracked([[box(100)], [], [box(100)]], rate=0.5)[-1] == [1]


def test_a_hidden_face_may_be_farther_away_the_longer_it_was_hidden():
    """A side and a fifth: too far from one frame to the next, not after 0.8 s."""
    assert tracked([[box(100)], [box(172)]])[-1] == [1]
    assert tracked([[box(100)], *[[]] * 19, [box(172)]])[-1] == [0]
    assert tracked([[box(100)], *[[]] * 19, [box(220)]])[-1] == [1]


def test_all_tracks_end_with_a_cut():
    assert tracked([[box(100)]] * 4, cuts=(2,)) == [[0], [0], [1], [1]]


def test_two_people_who_cross_are_distinguished_by_their_features():
    """They stop where they meet, one behind the other, and go on, or turn back."""
    a, b = directions([1, 0.2, 0], [0.1, 1, 0.3])
    for turns_back in (False, True):
        frames, features, truth = [], [], []
        for i in range(60):
            t = np.clip((i - 10) / 15, 0, 1) + (0 if i < 40 else (i - 40) / 15)
            t = min(t, 2)
            if turns_back and t > 1:
                t = 2 - t
            left, right = box(100 + 100 * t), box(300 - 100 * t)
            hidden = abs(t - 1) < 0.15
            frames.append([left] if hidden else [right, left])
            features.append(np.stack([a]) if hidden else np.stack([b, a]))
            truth.append([0] if hidden else [1, 0])
        found = tracked(frames, features)
        names = {found[0][1]: 0, found[0][0]: 1}
        assert [[names[n] for n in row] for row in found] == truth, turns_back


def test_a_face_elsewhere_or_of_another_size_is_somebody_else():
    assert tracked([[box(100)], [box(300)]]) == [[0], [1]]
    assert tracked([[box(100, side=30)], [box(100, side=90)]]) == [[0], [1]]


def test_somebody_else_in_the_same_place_is_new():
    features = [directions([1, 0]), directions([0, 1])]
    assert tracked([[box(100)], [box(100)]], features) == [[0], [1]]
