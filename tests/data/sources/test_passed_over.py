"""Nothing in a data set's folder is passed over in silence, whatever the data set."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from annotated_faces import matlab_landmarks, random_basis, random_parameters, write_face, write_pts

from keras_scnn.data.photo_source import PhotoSource
from keras_scnn.data.sources.aflw import LABELS as AFLW_LABELS
from keras_scnn.data.sources.aflw import AflwCrops
from keras_scnn.data.sources.aflw2000 import Aflw2000
from keras_scnn.data.sources.cfp import CfpPhotos
from keras_scnn.data.sources.choices import SOURCES
from keras_scnn.data.sources.people import PeopleFolder
from keras_scnn.data.sources.photo_lists import read_pairs
from keras_scnn.data.sources.pts import PtsFolder
from keras_scnn.data.sources.w300lp import W300LP

WITHOUT_FOLDER = {"tfds-300w-lp", "tfds-aflw2000", "blends", "blinks"}
COUNT = 44  # crops of AFLW


def write_photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((8, 8, 3), np.uint8))


def annotated(*stems: Path) -> None:
    basis = random_basis()
    for stem in stems:
        arrays = random_parameters(np.random.default_rng(0))
        write_face(stem, arrays | {"pt3d_68": matlab_landmarks(basis, arrays)})


def make_300w_lp(folder: Path) -> PhotoSource:
    annotated(folder / "AFW" / "AFW_1_0", folder / "AFW" / "AFW_2_0", folder / "AFW" / "AFW_3_0")
    (folder / "AFW" / "AFW_2_0.mat").unlink()
    (folder / "AFW" / "AFW_3_0.jpg").unlink()
    return W300LP(folder)


def make_aflw2000(folder: Path) -> PhotoSource:
    annotated(folder / "image1", folder / "image2", folder / "image3")
    (folder / "image2.mat").unlink()
    (folder / "image3.jpg").unlink()
    return Aflw2000(folder)


def make_people(folder: Path) -> PhotoSource:
    for name in ("ann/1.jpg", "ann/more/2.png", "loose.jpg"):
        write_photo(folder / name)
    return PeopleFolder(folder)


def make_pts(folder: Path) -> PhotoSource:
    for stem in ("in/1", "in/2", "in/3"):
        write_photo(folder / f"{stem}.jpg")
        write_pts(folder / f"{stem}.pts", np.zeros((68, 2)))
    (folder / "in" / "2.pts").unlink()
    (folder / "in" / "3.jpg").unlink()
    (folder / "in" / "1.mat").touch()  # not what its labels are read from
    return PtsFolder(folder)


def make_aflw(folder: Path) -> PhotoSource:
    rng = np.random.default_rng(0)
    arrays = {key: rng.normal(50, 5, (COUNT, *rest)) for key, rest in AFLW_LABELS.items()}
    arrays["name"] = np.array([f"image{i:05d}_0.jpg" for i in range(COUNT)])
    arrays["visibility68"] = np.full((COUNT, 68), 2, np.uint8)
    np.savez(folder / "labels.npz", **arrays)
    for name in [*arrays["name"][1:], "extra.jpg"]:
        write_photo(folder / "crops" / name)
    return AflwCrops(folder)


def make_cfp(folder: Path) -> PhotoSource:
    points = np.random.default_rng(0).uniform(2, 6, (2, 68, 2))
    names = np.array(["001/frontal_01.jpg", "001/frontal_02.jpg"])
    np.savez(folder / "labels.npz", name=names, landmarks68=points)
    write_photo(folder / "001" / "extra.jpg")
    (folder / "001" / "frontal_01.jpg").write_bytes(b"\xff\xd8 no photo")
    return CfpPhotos(folder)


# The source, what it passes over, and names whose files are not complete.
MADE = {
    "300w-lp": (make_300w_lp, (), ("AFW/AFW_2_0.jpg", "AFW/AFW_3_0.jpg")),
    "aflw2000": (make_aflw2000, ("image2.jpg",), ("image3.jpg",)),
    "people": (make_people, ("loose.jpg",), ()),
    "pts": (make_pts, ("in/1.mat",), ("in/2.jpg", "in/3.pts")),
    "aflw": (make_aflw, ("crops/extra.jpg",), ("crops/image00000_0.jpg",)),
    "cfp": (make_cfp, ("001/extra.jpg",), ("001/frontal_02.jpg",)),
}


def test_every_data_set_is_tried():
    assert set(MADE) | WITHOUT_FOLDER == set(SOURCES)


@pytest.mark.parametrize("name", MADE)
def test_each_file_is_a_photo_or_labels_or_named(tmp_path, name):
    make, passed_over, incomplete = MADE[name]
    folder, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    folder.mkdir()
    source = make(folder)
    elsewhere.mkdir()
    (elsewhere / "video.mp4").touch()
    for other in ("notes.txt", "spare.heic", "bare"):
        (folder / other).touch()
    (folder / "linked").symlink_to(elsewhere)
    (folder / "around").symlink_to(folder)
    (folder / "records").mkdir()
    (folder / "records" / "manifest.json").touch()
    expected = {"notes.txt", "bare", "linked/video.mp4", "around/", "spare.heic", *passed_over}
    if name == "pts":  # a photo without labels is among the names
        source, expected = PtsFolder(folder), expected - {"spare.heic"}
    assert set(source.passed_over(folder / "records")) == expected
    assert not expected & set(source.names())
    for lonely in incomplete:
        assert lonely in source.names()
        with pytest.raises(FileNotFoundError, match=Path(lonely).stem):
            source.load(lonely)


def test_held_out_crops_are_not_passed_over(tmp_path):
    make_aflw(tmp_path)
    source = AflwCrops(tmp_path, "train")
    assert len(source.names()) < COUNT
    assert source.passed_over() == ("crops/extra.jpg",)


def test_a_damaged_photo_of_cfp_does_not_stop_the_others(tmp_path):
    source = make_cfp(tmp_path)
    assert len(source.names()) == 2
    with pytest.raises(ValueError, match=r"frontal_01\.jpg: not a readable image"):
        source.load("001/frontal_01.jpg")


def test_photos_beside_the_people_of_a_pairs_file_are_named(tmp_path):
    for name in ("ann/ann_0001.jpg", "ann/ann_0002.jpg", "bob/bob_0001.jpg", "ann_0003.jpg"):
        write_photo(tmp_path / name)
    (tmp_path / "bob" / "notes.txt").touch()
    (tmp_path / "pairs.list").write_text("1\nann 1 2\nann 1 bob 1\n")
    listed = read_pairs(tmp_path / "pairs.list", tmp_path)
    assert listed.photos.passed_over == ("ann_0003.jpg", "bob/notes.txt")
