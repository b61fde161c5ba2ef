import dataclasses

import numpy as np
import pytest

from keras_scnn.data.records import FaceRecords
from keras_scnn.evaluation import draw_pairs
from keras_scnn.protocols.records import without_mirror_pairs
from keras_scnn.training.run import check_held_out


@pytest.fixture
def mirrored() -> FaceRecords:
    """Three photos each of two people, 0 and 1, and of their mirror images, 2 and 3."""
    person = np.repeat(np.arange(4, dtype=np.int32), 3)
    zeros = (np.zeros((12, *shape), np.float32) for shape in ((8, 8, 3), (14,), (68, 3)))
    return FaceRecords(*zeros, person, "open_face", mirror=(person + 2) % 4)


def test_a_person_and_the_mirror_image_make_no_measured_pair(mirrored):
    pairs = draw_pairs(mirrored.identity, 60)
    person, mirror = mirrored.identity, mirrored.mirror
    twins = mirror[pairs.first] == person[pairs.second]
    assert twins.any()
    kept = without_mirror_pairs(pairs, mirrored)
    assert len(kept.first) == len(pairs.first) - twins.sum()
    assert not (mirror[kept.first] == person[kept.second]).any()
    np.testing.assert_array_equal(kept.same, person[kept.first] == person[kept.second])


def test_two_held_out_people_must_not_be_each_others_mirror_image(mirrored):
    check_held_out(mirrored, 4)
    arrays = {name: getattr(mirrored, name) for name in mirrored.arrays()}
    rows = np.isin(mirrored.identity, [0, 2])
    pair = dataclasses.replace(mirrored, **{name: part[rows] for name, part in arrays.items()})
    with pytest.raises(ValueError, match="two are needed, mirror images not counted"):
        check_held_out(pair, 2)
    with pytest.raises(ValueError, match="all pairs of two people are of mirror images"):
        without_mirror_pairs(draw_pairs(pair.identity, 6), pair)
