import cv2
import numpy as np
import pytest
from annotated_faces import sent_through_a_pipe, write_pts
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from keras_scnn.data.sources.pts import PtsFolder, read_pts
from keras_scnn.geometry.landmarks68 import JAW

POINTS = "\n".join(f"{1 + i}.5 {101 + i}.25" for i in range(68))
PUBLISHED = f"version: 1\nn_points:  68\n{{\n{POINTS}\n}}\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "helen").mkdir()
    for stem in ("a.1", "helen/b"):
        cv2.imwrite(f"{tmp_path / stem}.png", np.zeros((6, 5, 3), np.uint8))
        (tmp_path / f"{stem}.pts").write_text(PUBLISHED)
    return tmp_path


def test_the_first_pixel_has_the_number_1_in_the_file_and_0_here(tmp_path):
    path = tmp_path / "face.pts"
    path.write_text(PUBLISHED)
    expected = np.column_stack([np.arange(68) + 0.5, np.arange(68) + 100.25])
    np.testing.assert_array_equal(read_pts(path), expected)


@given(arrays(float, st.tuples(st.integers(1, 70), st.sampled_from([2, 3])),
              elements=st.floats(-1e4, 1e4)))  # fmt: skip
def test_a_written_file_is_read_back(tmp_path_factory, points):
    path = tmp_path_factory.mktemp("pts") / "face.pts"
    write_pts(path, points)
    np.testing.assert_allclose(read_pts(path), points[:, :2], atol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a .pts file"),
        (PUBLISHED.replace("version: 1", "version: 2"), "not a .pts file"),
        (PUBLISHED.replace("}", ""), "not a .pts file"),
        (PUBLISHED.replace("68\n{", "67\n{"), "136 numbers; 67 points have 2 finite ones each"),
        (PUBLISHED.replace("1.5 101.25", "nan 101.25"), "136 numbers; 68 points"),
        (PUBLISHED.replace("1.5 101.25", "x 101.25"), "could not convert"),
        ("\x89PNG\r\n", "not a .pts file"),
    ],
)
def test_damaged_files_are_refused(tmp_path, text, message):
    path = tmp_path / "face.pts"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=rf"face\.pts: .*{message}"):
        read_pts(path)


def test_each_photo_of_a_folder_is_a_person_of_its_own(folder):
    source = sent_through_a_pipe(PtsFolder(folder))
    assert source.names() == ["a.1.png", "helen/b.png"]
    photo = source.load("helen/b.png")
    assert photo.person == source.person("helen/b.png") != source.person("a.1.png")
    np.testing.assert_array_equal(photo.landmarks[:, :2], read_pts(folder / "helen" / "b.pts"))
    assert np.isnan(photo.landmarks[:, 2]).all()
    assert set(photo.weight[JAW]) == {0.5}
    assert set(photo.weight[17:]) == {1.0}
    assert photo.read_image().shape == (6, 5, 3)


def test_photos_and_files_without_a_partner_are_named_when_loaded(folder):
    (folder / "a.1.png").unlink()
    (folder / "helen" / "b.pts").unlink()
    source = PtsFolder(folder)
    assert source.names() == ["a.1.pts", "helen/b.png"]
    with pytest.raises(FileNotFoundError, match=r"a\.1\.pts: no photo"):
        source.load("a.1.pts")
    with pytest.raises(FileNotFoundError, match=r"b\.pts: no such file"):
        source.load("helen/b.png")


def test_files_of_other_markups_and_folders_without_points_are_refused(folder, tmp_path):
    write_pts(folder / "a.1.pts", np.zeros((5, 2)))
    with pytest.raises(ValueError, match=r"a\.1\.pts: 5 points; expected 68"):
        PtsFolder(folder).load("a.1.png")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        PtsFolder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no \.pts files"):
        PtsFolder(tmp_path / "empty")


def test_the_real_folder_is_read(shared_data):
    source = PtsFolder(shared_data / "300w")
    assert len(source.names()) == 1537
    for name in source.names()[::50]:
        photo = source.load(name)
        height, width = photo.read_image().shape[:2]
        inside = (photo.landmarks[:, :2] > -0.5) & (photo.landmarks[:, :2] < [width, height])
        assert inside.mean() > 0.95


def test_suffixes_may_be_in_capitals(folder):
    (folder / "a.1.png").rename(folder / "a.1.PNG")
    (folder / "helen" / "b.pts").rename(folder / "helen" / "b.PTS")
    (folder / "alone.PTS").write_text(PUBLISHED)
    source = PtsFolder(folder)
    assert source.names() == ["a.1.PNG", "alone.PTS", "helen/b.png"]
    for name, file in (("a.1.PNG", "a.1.pts"), ("helen/b.png", "helen/b.PTS")):
        np.testing.assert_array_equal(source.load(name).landmarks[:, :2], read_pts(folder / file))
        assert folder / file in source.inputs([name])
    with pytest.raises(FileNotFoundError, match=r"alone\.PTS: no photo"):
        source.load("alone.PTS")
    assert source.passed_over() == ()
