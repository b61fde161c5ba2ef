import dataclasses

import numpy as np
import pytest

from keras_scnn.data.synthesis.fresh_people import EachPhotoOnce, fresh_photos
from keras_scnn.data.synthesis.rendered_people import SyntheticConfig, render_person

CONFIG = SyntheticConfig(people=3, photos=2, size=32, first_person=10)
EVERY = np.arange(6)  # photos of a step


def test_no_person_is_in_two_steps():
    people = [fresh_photos(CONFIG, step, EVERY)[0].identity for step in range(3)]
    np.testing.assert_array_equal(np.concatenate(people), np.repeat(np.arange(10, 19), 2))


def test_a_steps_photos_are_those_of_its_people():
    records, (every,) = fresh_photos(CONFIG, 2, EVERY)
    np.testing.assert_array_equal(every, EVERY)
    images, parameters, landmarks = render_person(CONFIG, 17)
    np.testing.assert_array_equal(records.images[2:4], images)
    np.testing.assert_array_equal(records.parameters[2:4], parameters)
    np.testing.assert_array_equal(records.landmarks[2:4], landmarks)
    other, _ = fresh_photos(dataclasses.replace(CONFIG, seed=1), 2, EVERY)
    assert not np.array_equal(records.images, other.images)


@pytest.mark.parametrize("p_same", [0.0, 0.4, 0.9, 1.0])
@pytest.mark.parametrize("size", [2, 3, 32])
def test_each_photo_is_in_one_pair(p_same, size):
    person = np.repeat(np.arange(size), 2)
    for step in range(20):
        pairs = EachPhotoOnce(p_same).batch(step, size)
        both = np.concatenate([pairs.first, pairs.second])
        np.testing.assert_array_equal(np.sort(both), np.arange(2 * size))
        np.testing.assert_array_equal(person[pairs.first] == person[pairs.second], pairs.same)


def test_the_share_of_pairs_of_one_person_is_p_same():
    same = np.concatenate([EachPhotoOnce(0.4).batch(step, 100).same for step in range(100)])
    assert abs(same.mean() - 0.4) < 4 * np.sqrt(0.4 * 0.6 / len(same))  # four standard errors


@pytest.mark.parametrize("p_same", [0.0, 0.4, 0.8, 1.0])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_small_batches_keep_the_share_for_every_pair(p_same, size):
    same = np.stack([EachPhotoOnce(p_same).batch(step, size).same for step in range(4000)])
    margin = 4 * np.sqrt(p_same * (1 - p_same) / len(same))  # four standard errors
    np.testing.assert_allclose(same.mean(axis=0), p_same, atol=margin)


def test_only_draws_of_a_single_different_pair_are_changed():
    lone = 0
    for step in range(200):
        drawn = np.random.default_rng([0, step]).random(4) < 0.6
        pairs = EachPhotoOnce(0.6).batch(step, 4)
        if drawn.sum() == 3:
            lone += 1
            assert pairs.same.sum() in (2, 4)
        else:
            np.testing.assert_array_equal(pairs.same, drawn)
    assert lone > 20


def test_a_single_person_makes_a_pair_with_itself():
    assert EachPhotoOnce(0.0).batch(0, 1).same.all()


def test_the_pairs_depend_only_on_seed_and_step():
    one, again, other = (EachPhotoOnce(0.5, seed).batch(3, 16) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.second, again.second)
    assert not np.array_equal(one.second, other.second)
    assert not np.array_equal(one.second, EachPhotoOnce(0.5).batch(4, 16).second)


def test_an_impossible_share_is_refused():
    with pytest.raises(ValueError, match="p_same is 1.5"):
        EachPhotoOnce(1.5)
