import tracemalloc

import cv2
import numpy as np
import pytest
import scipy.io
from annotated_faces import (
    matlab_landmarks,
    random_basis,
    random_parameters,
    sent_through_a_pipe,
    write_face,
)

from keras_scnn.data.sources.bfm_landmarks import BfmLandmarks
from keras_scnn.data.sources.mat_files import read_bfm_annotation
from keras_scnn.data.sources.w300lp import W300LP, scan_300w_lp
from keras_scnn.geometry.landmarks68 import MIRROR68

NAMES = [
    "AFW/AFW_111_1_0.jpg",
    "AFW/AFW_111_1_12.jpg",
    "AFW/AFW_111_2_0.jpg",
    "AFW_Flip/AFW_111_1_0.jpg",
    "IBUG/IBUG_image_003_1_0.jpg",
    "LFPW/LFPW_image_test_0001_0.jpg",
    "LFPW/LFPW_image_train_0001_0.jpg",
]


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in NAMES:
        write_face(tmp_path / name.removesuffix(".jpg"), random_parameters(rng))
    for other in ("Code", "landmarks/AFW"):  # these are in the published archive too
        write_face(tmp_path / other / "AFW_111_1_0", random_parameters(rng))
    return tmp_path


@pytest.fixture
def source(folder):
    return W300LP(folder, random_basis())


def test_all_folders_of_photos_are_listed_and_no_other(source):
    assert source.names() == NAMES
    assert len(source.names()) == len(NAMES)


def test_copies_of_a_photo_are_one_person_and_other_faces_of_it_are_not(source):
    persons = [source.person(name) for name in NAMES]
    assert persons == [
        "AFW/111_1",
        "AFW/111_1",
        "AFW/111_2",
        "AFW_Flip/111_1",
        "IBUG/image_003_1",
        "LFPW/image_test_0001",
        "LFPW/image_train_0001",
    ]
    assert [source.load(name).person for name in NAMES] == persons


def test_the_mirror_of_a_person_is_known_both_ways(source):
    for name in NAMES:
        person = source.person(name)
        mirror = source.mirror_of(person)
        assert mirror != person
        assert source.mirror_of(mirror) == person
    assert source.mirror_of("AFW/111_1") == "AFW_Flip/111_1"


def test_annotations_in_capitals_are_read(folder):
    whole = W300LP(folder, random_basis())
    expected = [whole.load(name).landmarks for name in NAMES]
    for path in folder.rglob("*.mat"):
        path.rename(path.with_suffix(".MAT"))
    source = W300LP(folder, random_basis())
    assert source.names() == NAMES
    np.testing.assert_array_equal([source.load(name).landmarks for name in NAMES], expected)


def test_photos_in_capitals_are_read(folder):
    whole = W300LP(folder, random_basis())
    expected = [whole.load(name).read_image() for name in NAMES]
    for path in folder.rglob("*.jpg"):
        path.rename(path.with_suffix(".JPG"))
    source = W300LP(folder, random_basis())
    assert source.names() == [name.replace(".jpg", ".JPG") for name in NAMES]
    photos = [source.load(name) for name in source.names()]
    np.testing.assert_array_equal([photo.read_image() for photo in photos], expected)
    assert [photo.person for photo in photos] == [whole.person(name) for name in NAMES]


def test_a_photo_of_another_size_than_the_parameters_is_refused(folder):
    """They are in px of 450 x 450: in a photo of half the size, landmarks lay beside the face."""
    photo = W300LP(folder, random_basis()).load(NAMES[0])
    small = cv2.resize(cv2.imread(str(photo.image)), (225, 225))
    cv2.imwrite(str(photo.image), small)
    with pytest.raises(ValueError, match=rf"{NAMES[0]}: 225 x 225 px; .* of 450 x 450 px"):
        photo.read_image()


def test_labels_are_decoded_to_pixels_from_0(folder, source):
    photo = source.load(NAMES[1])
    arrays = scipy.io.loadmat(folder / "AFW" / "AFW_111_1_12.mat")
    expected = matlab_landmarks(random_basis(), arrays).T - [1, 1, 0]
    np.testing.assert_allclose(photo.landmarks, expected, atol=1e-6)
    np.testing.assert_array_equal(photo.weight, np.ones(68))
    assert photo.parameters is None
    assert photo.read_image().shape == (450, 450, 3)


def test_landmarks_in_the_file_come_first_and_need_no_basis(tmp_path):
    arrays = random_parameters(np.random.default_rng(1))
    points = np.random.default_rng(2).uniform(100, 300, (3, 68))
    write_face(tmp_path / "HELEN" / "HELEN_5_1_0", {**arrays, "pt3d_68": points})
    for basis in (None, random_basis()):
        photo = W300LP(tmp_path, basis).load("HELEN/HELEN_5_1_0.jpg")
        np.testing.assert_allclose(photo.landmarks, points.T - [1, 1, 0])


def test_missing_landmarks_and_basis_are_reported_at_once(folder):
    (folder / "AFW" / "AFW_111_1_0.mat").write_bytes(b"damaged")  # the next file is checked instead
    with pytest.raises(ValueError, match=r"AFW_111_1_12\.mat: no pt3d_68; give the landmark basis"):
        W300LP(folder)


def test_missing_and_damaged_files_are_listed_and_named_when_loaded(folder):
    (folder / "AFW" / "AFW_111_1_0.jpg").unlink()
    (folder / "AFW" / "AFW_111_1_12.mat").unlink()
    (folder / "AFW" / "AFW_111_2_0.mat").write_bytes(b"damaged")
    scipy.io.savemat(folder / "AFW_Flip" / "AFW_111_1_0.mat", {"Pose_Para": np.zeros((1, 7))})
    broken = {**random_parameters(np.random.default_rng(3)), "Exp_Para": np.full((29, 1), np.nan)}
    scipy.io.savemat(folder / "IBUG" / "IBUG_image_003_1_0.mat", broken)
    source = W300LP(folder, random_basis())
    assert source.names() == NAMES
    for number, kind, message in (
        (0, FileNotFoundError, r"AFW_111_1_0\.jpg: no such photo"),
        (1, FileNotFoundError, r"AFW_111_1_12\.mat: no such file"),
        (2, ValueError, r"AFW_111_2_0\.mat: not a readable \.mat file"),
        (3, ValueError, r"Shape_Para is missing; 300W-LP has \(199, 1\)"),
        (4, ValueError, "Exp_Para must hold finite numbers"),
    ):
        with pytest.raises(kind, match=message):
            source.load(NAMES[number])


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="none of the folders of 300W-LP is there"):
        scan_300w_lp(tmp_path / "nowhere")
    (tmp_path / "AFW").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no \.jpg and \.mat pairs in AFW"):
        scan_300w_lp(tmp_path)


def test_a_source_travels_to_worker_processes(source):
    again = sent_through_a_pipe(source)
    np.testing.assert_array_equal(again.load(NAMES[0]).landmarks, source.load(NAMES[0]).landmarks)


def test_listing_needs_little_memory(tmp_path):
    (tmp_path / "HELEN").mkdir()
    count = 3000
    for i in range(count):
        (tmp_path / "HELEN" / f"HELEN_{i:010d}_1_0.jpg").touch()
    tracemalloc.start()
    names = scan_300w_lp(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(names) == count
    assert peak / count < 1000  # bytes a photo: 122,450 photos within 122 MB


def test_real_files_have_landmarks_near_the_hand_made_ones(shared_data):
    """pt2d is hand-made: 2D, its jaw and copies from before the rotation; so compare inner points
    of copy 0. In mirrored folders pt2d keeps its old order."""
    folder = shared_data / "300w-lp-fixture"
    source = W300LP(folder, BfmLandmarks.load(folder / "bfm_landmarks68.npz"))
    assert len(source.names()) == 10
    assert len({source.person(name) for name in source.names()}) == 6
    for name in source.names():
        if not name.endswith("_0.jpg"):
            continue
        photo = source.load(name)
        assert photo.read_image().shape == (450, 450, 3)
        hand = scipy.io.loadmat(photo.image.with_suffix(".mat"))["pt2d"].T - 1
        hand = hand[MIRROR68] if "_Flip" in name else hand
        distance = np.linalg.norm(photo.landmarks[17:, :2] - hand[17:], axis=1)
        assert np.median(distance) < 5


def test_real_copies_share_their_shape_and_mirrors_do_not(shared_data):
    first, second, mirror = (
        read_bfm_annotation(shared_data / "300w-lp-fixture" / f"{name}.mat").shape
        for name in ("HELEN/HELEN_232194_1_0", "HELEN/HELEN_232194_1_1")
        + ("HELEN_Flip/HELEN_232194_1_0",)
    )
    np.testing.assert_array_equal(first, second)
    assert np.linalg.norm(first - mirror) > 0.1 * np.linalg.norm(first)


def test_real_mirrored_labels_are_the_labels_of_the_mirrored_photo(shared_data):
    """x = 449 - x of pixels that count from 0, so the shift of MATLAB's pixels is taken off."""
    folder = shared_data / "300w-lp-fixture"
    source = W300LP(folder, BfmLandmarks.load(folder / "bfm_landmarks68.npz"))
    names = [name for name in source.names() if "_Flip" in name]
    assert names
    for name in names:
        mirrored, original = source.load(name), source.load(name.replace("_Flip", ""))
        image = original.read_image()[:, ::-1].astype(int)
        assert np.abs(mirrored.read_image() - image).mean() < 3  # JPEG
        expected = original.landmarks[MIRROR68] * [-1, 1, 1] + [449, 0, 0]
        difference = (mirrored.landmarks - expected)[:, :2]
        assert np.abs(difference.mean(axis=0)).max() < 0.3
        assert np.linalg.norm(difference, axis=1).mean() < 1.5  # fitted anew
