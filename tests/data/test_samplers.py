import numpy as np
import pytest

from keras_scnn.data.samplers import (
    WHOLE,
    GroupSampler,
    JoinedSampler,
    PairSampler,
    PeopleIndex,
    Shard,
)

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


def test_the_shards_of_all_ranks_are_the_whole_batch():
    rows = [Shard(rank, 3).rows(12) for rank in range(3)]
    assert [i for one in rows for i in range(12)[one]] == list(range(12))
    assert WHOLE.rows(7) == slice(0, 7)


@pytest.mark.parametrize(
    ("shard", "message"),
    [((2, 2), "rank is 2"), ((-1, 2), "rank is -1"), ((0, 5), "12 rows .* among 5 processes")],
)
def test_impossible_shards_are_refused(shard, message):
    with pytest.raises(ValueError, match=message):
        Shard(*shard).rows(12)


def test_only_photos_of_the_given_part_are_drawn():
    among = np.flatnonzero(np.isin(IDENTITY, [6, 5]))[::2]
    first, second, same = stream(PairSampler(IDENTITY, among=among))
    assert set(first) | set(second) == set(among)
    np.testing.assert_array_equal(IDENTITY[first] == IDENTITY[second], same)


# Ten people; 0 and 1, 2 and 3 ... are each other's mirror images.
TWINS = np.repeat(np.arange(10), 3)


def test_a_person_and_its_mirror_image_make_no_pair():
    mirror = TWINS ^ 1
    first, second, same = stream(PairSampler(TWINS, mirror=mirror))
    assert (TWINS[second[~same]] != mirror[first[~same]]).all()
    assert (TWINS[second[~same]] != TWINS[first[~same]]).all()
    # All others are drawn, nearly alike.
    seen = np.zeros((10, 10))
    np.add.at(seen, (TWINS[first[~same]], TWINS[second[~same]]), 1)
    allowed = seen[~np.kron(np.eye(5, dtype=bool), np.ones((2, 2), bool))]
    assert allowed.min() > 0.4 * allowed.mean()


@pytest.mark.parametrize("person", [0, 2, 5, 9])
def test_all_but_the_mirror_image_are_equally_likely(person):
    """Also the person after the mirror image; 4 to 9 are of a second data set, 9 has no twin."""
    mirror = np.array([1, 0, 3, 2, 6, 8, 4, -1, 5, -1])
    index = PeopleIndex(np.arange(10), mirror=mirror, source=np.repeat([0, 1], [4, 6]))
    drawn = index.draw_others(np.random.default_rng(0), np.full(60000, person))
    home = range(4) if person < 4 else range(4, 10)
    others = [p for p in home if p not in (person, mirror[person])]
    share = np.bincount(drawn, minlength=10) / 60000
    expected = [1 / len(others) if p in others else 0 for p in range(10)]
    np.testing.assert_allclose(share, expected, atol=0.01)


@pytest.mark.parametrize("silent", [0, 1])
def test_a_mirror_image_may_be_named_by_only_one_of_the_two(silent):
    both = TWINS ^ 1
    mirror = np.where(silent == TWINS % 2, -1, both)
    first, second, same = stream(PairSampler(TWINS, mirror=mirror))
    assert (TWINS[second[~same]] != both[first[~same]]).all()
    batches = groups(GroupSampler(TWINS, 5, 2, mirror=mirror), 50)
    assert all(not np.isin(b.person ^ 1, b.person).any() for b in batches)
    assert len(np.unique(np.concatenate([b.person for b in batches]))) == 10  # nobody is lost


def test_people_without_a_mirror_image_are_paired_as_if_none_existed():
    mirror = np.array([1, 0, *[-1] * 8])
    people = np.random.default_rng(1).integers(0, 10, 1000)
    one, other = (
        PeopleIndex(np.arange(10), mirror=m).draw_others(np.random.default_rng(0), people)
        for m in (mirror, None)
    )
    np.testing.assert_array_equal(one[people > 1], other[people > 1])
    steps = np.random.default_rng(0).integers(1, np.full(1000, 10))
    np.testing.assert_array_equal(other, (people + steps) % 10)


def test_a_mirror_image_that_is_not_there_changes_nothing():
    lonely = stream(PairSampler(IDENTITY, mirror=np.full(len(IDENTITY), 77)))
    for a, b in zip(lonely, stream(PairSampler(IDENTITY)), strict=True):
        np.testing.assert_array_equal(a, b)


SOURCE = np.r_[np.zeros(20, int), np.ones(60, int), np.full(15, 2)]
MIXED = np.r_[np.arange(20) // 4, 100 + np.arange(60) // 3, 200 + np.arange(15)]


def test_data_sets_are_drawn_by_weight_and_never_mixed_in_a_pair():
    sampler = PairSampler(MIXED, source=SOURCE, source_weights=[1, 1, 2])
    first, second, same = stream(sampler)
    np.testing.assert_array_equal(SOURCE[first], SOURCE[second])
    np.testing.assert_array_equal(MIXED[first] == MIXED[second], same)
    share = np.bincount(SOURCE[first[~same]]) / (~same).sum()
    np.testing.assert_allclose(share, [0.25, 0.25, 0.5], atol=0.03)
    # Nobody of the last data set has two photos: its share of these pairs goes to the others.
    share = np.bincount(SOURCE[first[same]], minlength=3) / same.sum()
    np.testing.assert_allclose(share, [0.5, 0.5, 0], atol=0.03)


def test_without_weights_data_sets_are_drawn_by_their_numbers_of_people():
    first, _, same = stream(PairSampler(MIXED, source=SOURCE))
    share = np.bincount(SOURCE[first[~same]]) / (~same).sum()
    # 5, 20 and 15 people; one standard deviation of 3,800 pairs is below 0.009.
    np.testing.assert_allclose(share, [5 / 40, 20 / 40, 15 / 40], atol=0.04)


def groups(sampler: GroupSampler, steps: int = 60):
    return [sampler.batch(step) for step in range(steps)]


def test_a_group_batch_has_k_photos_of_each_of_p_people():
    for photo, person in groups(GroupSampler(MIXED, people=6, photos=3)):
        assert len(photo) == 18
        owners = MIXED[photo].reshape(6, 3)
        assert (owners == owners[:, :1]).all()
        assert len(np.unique(owners[:, 0])) == 6 == len(np.unique(person))
        # The people have three photos or more, so none is shown twice.
        assert len(np.unique(photo)) == 18


def test_a_person_with_few_photos_shows_each_of_them():
    identity = np.repeat([0, 1, 2], 2)
    for photo, _ in groups(GroupSampler(identity, people=3, photos=5), 5):
        counts = np.bincount(photo)
        assert set(counts) == {2, 3}


def test_people_of_group_batches_are_drawn_uniformly_and_by_weight():
    drawn = np.concatenate([b.photo[::2] for b in groups(GroupSampler(MIXED, 4, 2), 2000)])
    people, counts = np.unique(MIXED[drawn], return_counts=True)
    assert len(people) == 25
    np.testing.assert_allclose(counts / counts.sum(), 1 / 25, atol=0.008)
    sampler = GroupSampler(MIXED, 1, 2, source=SOURCE, source_weights=[1, 3, 1])
    share = np.bincount([SOURCE[b.photo[0]] for b in groups(sampler, 2000)])
    np.testing.assert_allclose(share / share.sum(), [0.25, 0.75], atol=0.04)


def test_single_photos_are_drawn_of_everybody_and_by_emphasis():
    """Somebody three times as important is drawn three times as often."""
    emphasis = np.where(np.arange(40) < 20, 1.0, 3.0)
    sampler = GroupSampler(np.arange(40), people=2, photos=1, emphasis=emphasis)
    drawn = np.concatenate([b.photo for b in groups(sampler, 4000)])
    assert len(np.unique(drawn)) == 40
    # Two different people a batch: not quite 3 / 4.
    assert (drawn >= 20).mean() == pytest.approx(0.75, abs=0.015)


def test_of_the_emphasis_of_a_persons_photos_the_mean_counts():
    """3 for one photo of the first person; 0.5, 0.5, 1 and 2, on average 1, for the second's."""
    sampler = GroupSampler([7, 2, 2, 2, 2], 1, photos=1, emphasis=[3, 0.5, 0.5, 1, 2])
    person = np.concatenate([b.person for b in groups(sampler, 4000)])
    assert (person == 7).mean() == pytest.approx(0.75, abs=0.025)


def test_joined_batches_keep_their_people():
    single = GroupSampler(MIXED, people=5, photos=1, among=np.flatnonzero(SOURCE == 2))
    several = GroupSampler(MIXED, people=3, photos=2, among=np.flatnonzero(SOURCE < 2))
    photo, person = JoinedSampler([several, single]).batch(4)
    np.testing.assert_array_equal(person, MIXED[photo])
    np.testing.assert_array_equal(photo[:6], several.batch(4).photo)
    np.testing.assert_array_equal(photo[6:], single.batch(4).photo)


def test_twins_are_never_in_one_group_batch_and_both_are_drawn():
    seen = set()
    for photo, _ in groups(GroupSampler(TWINS, 5, 2, mirror=TWINS ^ 1)):
        owners = np.unique(TWINS[photo])
        assert len(np.unique(owners // 2)) == 5
        seen |= set(owners)
    assert seen == set(range(10))


def test_a_person_and_its_mirror_image_are_drawn_equally_often():
    batches = groups(GroupSampler(TWINS, 5, 2, mirror=TWINS ^ 1), 600)
    share = np.bincount(np.concatenate([b.person[::2] for b in batches])) / 600
    # 600 tosses for each of five choices: one standard deviation is 0.02.
    np.testing.assert_allclose(share, 0.5, atol=0.08)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(identity=MIXED, people=30), "25 people with 2 photos"),
        (dict(identity=TWINS, people=6, mirror=TWINS ^ 1), "5 people with 2 photos"),
        (dict(identity=MIXED, photos=0), "photos is 0; it must be 1 or more"),
    ],
)
def test_wrong_arguments_of_groups_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        GroupSampler(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(identity=TWINS[:6], mirror=TWINS[:6] ^ 1), "need 3"),
        (dict(identity=MIXED, source=SOURCE, source_weights=[1, 1]), "3 numbers above 0"),
        (dict(identity=MIXED, source=SOURCE, source_weights=[1, 0, 1]), "3 numbers above 0"),
        (dict(identity=TWINS, source=np.arange(30) % 2), "in two data sets"),
        (dict(identity=IDENTITY, p_same=1.5), "p_same"),
        (dict(identity=IDENTITY, p_same="0.4"), "p_same is '0.4' .str.; it must be a number"),
        (dict(identity=np.arange(5)), "two photos"),
        (dict(identity=np.zeros(5)), "two people"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        PairSampler(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(identity=[]), r"identity has the shape \(0,\)"),
        (dict(identity=[[1, 1], [2, 2]]), r"identity has the shape \(2, 2\)"),
        (dict(identity=[1, 1, np.nan]), "identity has the dtype float64; it must be whole numbers"),
        (dict(identity=IDENTITY, among=[]), r"among has the shape \(0,\)"),
        (dict(identity=IDENTITY, among=[0, 1000]), "among has 0 to 1000; photos are 0 to"),
        (dict(identity=IDENTITY, among=[-1, 1]), "among has -1 to 1"),
        (dict(identity=IDENTITY, among=[3, 4, 3, 5]), "among has photo 3 more than once"),
        (dict(identity=IDENTITY, among=[True, False]), "among has the dtype bool"),
        (dict(identity=IDENTITY, mirror=[1]), r"mirror has the shape \(1,\)"),
        (dict(identity=IDENTITY, source=[1]), r"source has the shape \(1,\)"),
        (dict(identity=MIXED, source=SOURCE, source_weights=[1, np.inf, 1]), "3 numbers above 0"),
    ],
)
@pytest.mark.parametrize("sampler", [PairSampler, GroupSampler])
def test_arrays_without_one_number_per_photo_are_named(sampler, arguments, message):
    with pytest.raises(ValueError, match=message):
        sampler(**arguments)


@pytest.mark.parametrize("emphasis", [[1.0], np.full(len(IDENTITY), -1.0), [np.nan]])
def test_wrong_emphasis_is_refused(emphasis):
    with pytest.raises(ValueError, match="emphasis: .* numbers above 0 are needed, one per photo"):
        GroupSampler(IDENTITY, people=2, photos=2, emphasis=emphasis)


def test_a_mask_of_photos_is_the_same_as_their_positions():
    mask = np.isin(IDENTITY, [6, 5])
    by_mask = PairSampler(IDENTITY, among=mask).batch(0, 50)
    by_position = PairSampler(IDENTITY, among=np.flatnonzero(mask)).batch(0, 50)
    for one, other in zip(by_mask, by_position, strict=True):
        np.testing.assert_array_equal(one, other)


def test_of_twins_with_a_photo_each_both_are_drawn_about_equally_often():
    """One of three people a batch, of whom two are twins and one choice: a quarter each."""
    sampler = GroupSampler([0, 1, 2], people=1, photos=1, mirror=[1, 0, -1])
    drawn = np.concatenate([b.photo for b in groups(sampler, 2000)])
    share = np.bincount(drawn, minlength=3) / 2000
    # Four standard errors of a share of a half are 0.045.
    np.testing.assert_allclose(share, [0.25, 0.25, 0.5], atol=0.045)


def test_a_twin_with_too_few_photos_is_not_drawn_for_the_other():
    identity = np.array([0, 0, 1])
    sampler = GroupSampler(identity, people=1, photos=2, mirror=np.array([1, 1, 0]))
    assert {int(p) for b in groups(sampler, 50) for p in b.photo} == {0, 1}


def test_two_people_are_paired_though_another_data_set_has_twins():
    """The second data set is of one person, the mirror image, and somebody else."""
    identity, mirror = np.array([0, 1, 2, 3, 4]), np.array([-1, -1, 3, 2, -1])
    source = np.array([0, 0, 1, 1, 1])
    pairs = PairSampler(identity, 0.0, mirror=mirror, source=source).batch(0, 1000)
    np.testing.assert_array_equal(source[pairs.first], source[pairs.second])
    assert set(source[pairs.first]) == {0, 1}
    assert (identity[pairs.first] != identity[pairs.second]).all()
    assert (mirror[pairs.first] != identity[pairs.second]).all()


@pytest.mark.parametrize("value", [2.5, 2.0, "2", True, None, np.float64(2)])
@pytest.mark.parametrize("name", ["people", "photos", "seed"])
def test_numbers_of_samplers_that_are_not_whole_are_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name} is "):
        GroupSampler(IDENTITY, **{"people": 2, "photos": 2, "seed": 0, name: value})
    if name == "seed":
        with pytest.raises(ValueError, match="^seed is "):
            PairSampler(IDENTITY, seed=value)


def test_whole_numbers_of_numpy_are_the_same_batches():
    ours, theirs = (
        GroupSampler(IDENTITY, kind(2), kind(2), seed=kind(3)).batch(5).photo
        for kind in (int, np.int32)
    )
    np.testing.assert_array_equal(ours, theirs)


def test_samplers_that_join_are_some_and_over_the_same_photos():
    with pytest.raises(ValueError, match="samplers have no photos; give some"):
        JoinedSampler([])
    parts = GroupSampler(IDENTITY, 2, 2), GroupSampler(IDENTITY[1:], 2, 2)
    with pytest.raises(ValueError, match=r"samplers have \d+ and \d+ photos; give some over the"):
        JoinedSampler(parts)
