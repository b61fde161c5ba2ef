import numpy as np
import pytest

from keras_scnn.data.sources.photo_lists import is_people_folder, people_photos, read_pairs

GOOD = "2 1\nAnn 1 2\nAnn 2 Bob 1\nBob 1 3\nBob 3 Cy_D 12\n"


@pytest.fixture
def folder(tmp_path):
    for name, files in {
        "Ann": ("Ann_0001.jpg", "Ann_0002.png"),
        "Bob": ("Bob_0001.jpg", "Bob_0003.jpg", "notes.txt"),
        "empty": (),
    }.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).touch()
    (tmp_path / "cover.jpg").touch()
    return tmp_path


def test_a_people_folder_has_a_folder_for_each_person(folder):
    result = people_photos(folder)
    assert [path.name for path in result.paths] == [
        *("Ann_0001.jpg", "Ann_0002.png", "Bob_0001.jpg", "Bob_0003.jpg")
    ]
    np.testing.assert_array_equal(result.person, [0, 0, 1, 1])
    assert is_people_folder(folder)
    assert not is_people_folder(folder / "Ann")
    assert not is_people_folder(folder / "nowhere")


def test_pairs_are_read_as_lfw_publishes_them(folder):
    (folder / "pairs.txt").write_text(GOOD.replace(" ", "\t"))
    result = read_pairs(folder / "pairs.txt", folder)
    names = [path.name for path in result.photos.paths]
    pairs = [(names[i], names[j]) for i, j in zip(result.first, result.second, strict=True)]
    assert pairs == [
        ("Ann_0001.jpg", "Ann_0002.png"),
        ("Ann_0002.png", "Bob_0001.jpg"),
        ("Bob_0001.jpg", "Bob_0003.jpg"),
        ("Bob_0003.jpg", "Cy_D_0012.jpg"),  # is missing: reading it is an error
    ]
    assert result.photos.paths[0] == folder / "Ann" / "Ann_0001.jpg"
    np.testing.assert_array_equal(result.fold, [0, 0, 1, 1])
    person = result.photos.person
    np.testing.assert_array_equal(
        person[result.first] == person[result.second], [True, False, True, False]
    )


def test_a_header_of_one_number_means_one_fold(folder):
    (folder / "pairs.txt").write_text("1\nAnn 1 2\nAnn 2 Bob 1\n")
    assert read_pairs(folder / "pairs.txt", folder).fold is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "header such as '10 300'"),
        ("Ann 1 2\n", "header such as"),
        ("2 1\nAnn 1 2\n", "1 pair; its header says 2 folds"),
        ("1 1\nAnn 1 2\nAnn one Bob 1\n", "line 3: 'Ann one Bob 1'"),
        ("1 1\nAnn 1 2\nAnn 1\n", "line 3"),
        ("0 5\nAnn 1 2\n", "1 pair"),
        ("1\nAnn 1 1\nAnn 1 Bob 1\n", "line 2: 'Ann 1 1'.* two photos"),  # always one person
        ("1\nAnn 1 01\nAnn 1 Bob 1\n", "line 2: 'Ann 1 01'.* two photos"),
        ("1\nAnn 1 -2\nAnn 1 Bob 1\n", "line 2: 'Ann 1 -2'"),
        # A photo of Ann stands for somebody else's: both pairs are of one person.
        ("1\nAnn 1 2\nAnn 2 Ann 3\n", "fold 1 has 2 pairs of one person and 0 of two"),
        # All pairs of one person first, so the folds are not those that the header says.
        ("2 1\nAnn 1 2\nBob 1 2\nAnn 1 Bob 1\nAnn 1 Bob 2\n", "fold 1 has 2 pairs"),
    ],
)
def test_another_format_is_refused(folder, text, message):
    (folder / "pairs.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_pairs(folder / "pairs.txt", folder)


def test_missing_files_and_photos_are_named(folder):
    (folder / "pairs.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a text file"):
        read_pairs(folder / "pairs.txt", folder)
    with pytest.raises(FileNotFoundError, match="no such pairs file"):
        read_pairs(folder / "nothing.txt", folder)
    with pytest.raises(FileNotFoundError, match="no such folder of photos"):
        read_pairs(folder / "pairs.txt", folder / "nowhere")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        people_photos(folder / "nowhere")
    with pytest.raises(ValueError, match="0 sub-folders with photos"):
        people_photos(folder / "Ann")


def test_photos_of_pairs_may_have_suffixes_in_capitals(folder):
    (folder / "Ann" / "Ann_0001.jpg").rename(folder / "Ann" / "Ann_0001.JPG")
    (folder / "Ann" / "Ann_0002.png").rename(folder / "Ann" / "Ann_0002.Png")
    (folder / "Bob" / "Bob_0001.TIF").touch()  # .jpg comes before it
    (folder / "pairs.txt").write_text(GOOD)
    paths = read_pairs(folder / "pairs.txt", folder).photos.paths
    names = ["Ann_0001.JPG", "Ann_0002.Png", "Bob_0001.jpg", "Bob_0003.jpg", "Cy_D_0012.jpg"]
    assert [path.name for path in paths] == names
