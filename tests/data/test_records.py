import json

import numpy as np
import pytest

from keras_scnn.data.records import (
    IMAGES,
    LABELS,
    MANIFEST,
    FaceRecords,
    is_records,
    load_records,
    save_records,
    split_people,
)


@pytest.fixture
def records():
    rng = np.random.default_rng(0)
    return FaceRecords(
        rng.integers(0, 256, (6, 8, 8, 3), np.uint8),
        rng.normal(size=(6, 14)).astype(np.float32),
        rng.normal(size=(6, 68, 3)).astype(np.float32),
        np.array([0, 0, 1, 1, 2, 2], np.int32),
        "open_face",
        {"seed": 5},
    )


@pytest.fixture
def folder(tmp_path, records):
    save_records(tmp_path / "records", records)
    return tmp_path / "records"


def test_records_come_back_as_they_were(folder, records):
    again = load_records(folder)
    for name in ("images", "parameters", "landmarks", "identity"):
        np.testing.assert_array_equal(getattr(again, name), getattr(records, name))
    assert (again.face_model, again.config, len(again)) == ("open_face", {"seed": 5}, 6)
    assert isinstance(again.images, np.memmap)
    assert sorted(p.name for p in folder.iterdir()) == sorted([IMAGES, LABELS, MANIFEST])


def test_a_folder_without_a_manifest_is_not_complete(folder):
    (folder / MANIFEST).unlink()
    assert not is_records(folder)
    with pytest.raises(FileNotFoundError, match="no complete face records"):
        load_records(folder)


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_a_changed_byte_is_noticed(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: missing or damaged"):
        load_records(folder)


def test_a_missing_file_is_noticed(folder):
    (folder / LABELS).unlink()
    with pytest.raises(ValueError, match="labels.npz: missing or damaged"):
        load_records(folder)


@pytest.mark.parametrize("change", [{"version": 9}, {"format": "other"}])
def test_another_version_is_refused(folder, change):
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, **change}))
    with pytest.raises(ValueError, match="expected keras_scnn.face_records 1"):
        load_records(folder)


def test_a_broken_manifest_is_refused(folder):
    (folder / MANIFEST).write_text("{")
    with pytest.raises(ValueError, match="not a manifest"):
        load_records(folder)


def test_parts_of_different_length_are_refused(records):
    with pytest.raises(ValueError, match="differ in length"):
        FaceRecords(
            records.images[:5],
            *(getattr(records, n) for n in ("parameters", "landmarks", "identity")),
            "open_face",
        )


def test_people_are_split_whole(records):
    seen, unseen = split_people(records.identity, held_out=1)
    np.testing.assert_array_equal(seen, [0, 1, 2, 3])
    np.testing.assert_array_equal(unseen, [4, 5])
    with pytest.raises(ValueError, match="only 3 people"):
        split_people(records.identity, held_out=3)
