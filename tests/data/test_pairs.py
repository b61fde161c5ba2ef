import numpy as np
import pytest

from keras_scnn.data.pairs import PairSampler

IDENTITY = np.repeat([4, 8, 2, 6, 5], [1, 2, 30, 5, 12])


def stream(sampler: PairSampler, steps: int = 100, size: int = 64) -> list[np.ndarray]:
    batches = [sampler.batch(step, size) for step in range(steps)]
    return [np.concatenate(part) for part in zip(*batches, strict=True)]


def test_same_means_one_person_and_never_one_photo_twice():
    first, second, same = stream(PairSampler(IDENTITY))
    np.testing.assert_array_equal(IDENTITY[first] == IDENTITY[second], same)
    assert (first != second).all()


def test_the_share_of_pairs_of_one_person_is_p_same():
    for p_same in (0.0, 0.4, 1.0):
        same = stream(PairSampler(IDENTITY, p_same))[2]
        # 6400 draws: one standard deviation is 0.006.
        assert same.mean() == pytest.approx(p_same, abs=0.03)


def test_people_are_drawn_uniformly_however_many_photos_they_have():
    first, second, same = stream(PairSampler(IDENTITY))
    for side in (first, second):
        people, counts = np.unique(IDENTITY[side[~same]], return_counts=True)
        assert len(people) == 5
        np.testing.assert_allclose(counts / counts.sum(), 1 / 5, atol=0.03)
    people, counts = np.unique(IDENTITY[first[same]], return_counts=True)
    assert set(people) == {8, 2, 6, 5}  # the one with a single photo makes no pair of one person
    np.testing.assert_allclose(counts / counts.sum(), 1 / 4, atol=0.04)


def test_photos_of_a_person_are_drawn_uniformly():
    _, second, same = stream(PairSampler(IDENTITY, p_same=1.0))
    chosen = second[same & (IDENTITY[second] == 6)]
    counts = np.unique(chosen, return_counts=True)[1]
    np.testing.assert_allclose(counts / counts.sum(), 1 / 5, atol=0.04)


def test_the_same_seed_gives_the_same_stream_at_any_step():
    one, two = PairSampler(IDENTITY, seed=3), PairSampler(IDENTITY, seed=3)
    one.batch(0, 16)
    for a, b in zip(one.batch(9, 16), two.batch(9, 16), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (PairSampler(IDENTITY, seed=4).batch(9, 16).first != two.batch(9, 16).first).any()
    assert (two.batch(8, 16).first != two.batch(9, 16).first).any()


def test_the_ranks_share_one_global_batch():
    whole = PairSampler(IDENTITY).batch(5, 12)
    parts = [PairSampler(IDENTITY, rank=rank, world_size=3).batch(5, 4) for rank in range(3)]
    for k in range(3):
        together = np.stack([part[k] for part in parts], axis=1).ravel()
        np.testing.assert_array_equal(together, whole[k])


def test_only_photos_of_the_given_part_are_drawn():
    among = np.flatnonzero(np.isin(IDENTITY, [6, 5]))[::2]
    first, second, same = stream(PairSampler(IDENTITY, among=among))
    assert set(first) | set(second) == set(among)
    np.testing.assert_array_equal(IDENTITY[first] == IDENTITY[second], same)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(identity=IDENTITY, p_same=1.5), "p_same"),
        (dict(identity=IDENTITY, rank=2, world_size=2), "rank"),
        (dict(identity=np.arange(5)), "two photos"),
        (dict(identity=np.zeros(5)), "two people"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        PairSampler(**arguments)
