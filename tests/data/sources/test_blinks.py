import dataclasses

import numpy as np
import pytest

from keras_scnn.data.records import FaceRecords, load_records, save_records, split_people
from keras_scnn.data.sources.blinks import ClosedEyes
from keras_scnn.data.synthesis.rendered_people import SyntheticConfig, render_person
from keras_scnn.evaluation.openings import openings
from keras_scnn.prepare import main

COUNT = 60


@pytest.fixture(scope="module")
def records():
    """Renderings of four people whose eyes are open."""
    config = SyntheticConfig(photos=4, yaw_degrees=20)
    images, parameters, landmarks = (
        np.concatenate(part)
        for part in zip(*(render_person(config, p) for p in range(4)), strict=True)
    )
    identity = np.arange(len(images), dtype=np.int32)
    weight = np.ones((len(images), 68), np.float32)
    return FaceRecords(images, parameters, landmarks, identity, "open_face", weight=weight)


def test_photos_get_less_open_eyes_and_matching_labels(records):
    source = ClosedEyes(records, COUNT)
    assert len(set(source.names())) == COUNT
    both, shut = 0, 0
    for name in source.names():
        photo, (row, _, remaining) = source.load(name), source.draw(name)
        before, after = openings(records.landmarks[row]), openings(photo.landmarks)
        shares = [after[side] / before[side] for side in ("right", "left")]
        for share in shares:
            assert min(abs(share - 1), abs(share - remaining)) < 0.02
        both += np.ptp(shares) < 0.03
        shut += remaining == 0
        assert after["mouth"] == pytest.approx(before["mouth"])
        assert (photo.read_image() != records.images[row]).any()
    assert 0.6 < both / COUNT < 0.9, "a quarter winks"
    assert 0.2 < shut / COUNT < 0.6, "two of five close all the way"


def test_a_photo_follows_from_its_number(records):
    one, again, other = (
        ClosedEyes(records, count).load(f"blink/000000{number}")
        for count, number in ((COUNT, 7), (9, 7), (COUNT, 8))
    )
    np.testing.assert_array_equal(one.read_image(), again.read_image())
    np.testing.assert_array_equal(one.landmarks, again.landmarks)
    assert (one.landmarks != other.landmarks).any()


def test_lids_that_were_not_labeled_by_hand_are_left_alone(records):
    weight = records.weight.copy()
    weight[3:, 37] = 0.5
    source = ClosedEyes(dataclasses.replace(records, weight=weight), 20)
    assert {source.draw(name)[0] for name in source.names()} <= {0, 1, 2}
    with pytest.raises(ValueError, match=r"none of 16 photos shows two open eyes .* \(aflw, pts\)"):
        ClosedEyes(dataclasses.replace(records, weight=weight * 0.5), 20)
    with pytest.raises(ValueError, match="count is 0; it must be at least 1"):
        ClosedEyes(records, 0)


def test_held_out_people_take_no_part(records):
    """Four photos each of four people; with mirror images, people are drawn at random."""
    person = np.repeat(np.arange(4, dtype=np.int32), 4)
    people = dataclasses.replace(records, identity=person)

    def seen(people: FaceRecords, held_out: int) -> set[int]:
        source = ClosedEyes(people, COUNT, held_out)
        return {int(person[source.draw(name)[0]]) for name in source.names()}

    assert seen(people, 0) == {0, 1, 2, 3}
    assert seen(people, 2) == {0, 1}
    mirrored = dataclasses.replace(people, mirror=np.array([1, 0, 3, 2], np.int32)[person])
    assert seen(mirrored, 1) == set(person[split_people(person, 1, mirrored.mirror)[0]])
    with pytest.raises(ValueError, match="held_out is 4, but the data has only 4 people"):
        ClosedEyes(people, COUNT, 4)


def test_the_command_fits_the_face_model_to_the_moved_lids(records, tmp_path, open_face):
    """eyeBlink of the fits is higher where an eye was shut than where it stayed open."""
    config = {"landmark_offsets": np.zeros((68, 3)).tolist()}
    save_records(tmp_path / "faces", dataclasses.replace(records, config=config))
    arguments = ["blinks", str(tmp_path / "faces"), "--count", "24", "--workers", "1"]
    arguments += ["--held-out", "3"]
    assert main([*arguments, "--out", str(tmp_path / "blinks")]) == 0
    made = load_records(tmp_path / "blinks")
    assert len(made) == 24
    assert (made.config["count"], made.config["held_out"]) == (24, 3)
    opening = openings(made.landmarks)["left"]
    unit = open_face.expression_names.index("eyeBlinkLeft")
    blink = made.parameters[:, 12 + 80 + unit]
    assert np.corrcoef(opening, blink)[0, 1] < -0.6
