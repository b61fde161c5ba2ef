import numpy as np
import pytest

from keras_scnn.data.sources.fold_pairs import read_fold_pairs

GOOD = """first,second,same,fold
set/ann/1.jpg,set/ann/2.jpg,1,0
set/ann/1.jpg,set/bob/1.jpg,0,0
set/eve/1.jpg,set/eve/2.jpg,1,3
set/eve/1.jpg,set/flo/1.jpg,0,3
"""


@pytest.fixture
def root(tmp_path):
    for name in ("ann/1", "ann/2", "bob/1", "eve/1", "eve/2", "flo/1"):
        path = tmp_path / "set" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def write(root, text):
    (root / "lists").mkdir(exist_ok=True)
    (root / "lists" / "pairs.csv").write_text(text)
    return root / "lists" / "pairs.csv"


def test_a_file_is_read_in_its_folds(root):
    pairs = read_fold_pairs(write(root, GOOD), root)
    photo = [path.relative_to(root).as_posix() for path in pairs.photos.paths]
    assert photo[pairs.first[1]] == "set/ann/1.jpg"
    assert photo[pairs.second[1]] == "set/bob/1.jpg"
    assert pairs.fold.tolist() == [0, 0, 3, 3]
    person = pairs.photos.person
    assert (person[pairs.first] == person[pairs.second]).tolist() == [True, False, True, False]
    assert len(np.unique(person)) == 4


def test_a_photo_has_one_name_however_its_path_is_written(root):
    other = GOOD.replace("set/ann/1.jpg,set/bob/1.jpg", "./set/ann/1.jpg,set//bob/1.jpg")
    pairs, as_before = (read_fold_pairs(write(root, text), root) for text in (other, GOOD))
    assert other != GOOD and pairs.photos.paths == as_before.photos.paths
    assert pairs.first.tolist() == as_before.first.tolist()


def test_photos_are_looked_for_beside_the_folder_of_the_file_too(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    pairs = read_fold_pairs(write(root, GOOD), elsewhere)
    assert all(path.is_file() for path in pairs.photos.paths)


def test_folders_that_a_pair_joins_are_one_person(root):
    joined = GOOD + "set/bob/1.jpg,set/ann/2.jpg,1,0\n"
    with pytest.raises(ValueError, match=r"ann/1.jpg and set/bob/1.jpg have same 0"):
        read_fold_pairs(write(root, joined), root)
    joined = joined.replace("set/ann/1.jpg,set/bob/1.jpg,0,0", "set/bob/1.jpg,set/flo/1.jpg,0,0")
    joined = joined.replace("set/flo/1.jpg,0,3", "set/ann/2.jpg,0,3")
    with pytest.raises(ValueError, match="is in the folds 0 and 3"):
        read_fold_pairs(write(root, joined), root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("fold\n", "part\n", 1), "no column fold; expected a CSV file"),
        (GOOD.splitlines()[0], "no pairs below the header"),
        ("", "no column first, fold, same, second"),
        (GOOD.replace(",1,0", ",yes,0"), "line 2: .*expected two photos, same 0 or 1"),
        (GOOD.replace(",1,0", ",1,-1"), "line 2: .*a fold's number from 0"),
        (GOOD.replace("0,3", "0"), "line 5"),
        ("\n".join(GOOD.splitlines()[i] for i in (0, 1, 3)), "2 pairs, all with same 1"),
        ("\n".join(GOOD.splitlines()[i] for i in (0, 2, 4)), "2 pairs, all with same 0"),
        (GOOD.replace(",3", ",0"), "only one fold"),
        (GOOD.replace("first", "First"), "no column first; .*its first line is 'First,second"),
        (GOOD.replace("/", "\\"), "line 2: .*write / between folders"),
        (GOOD + "set/ann/1.jpg,set/ann/1.jpg,1,0\n", "ann/1.jpg is paired with itself"),
        (GOOD + "./set/ann/1.jpg,set/ann/1.jpg,1,0\n", "ann/1.jpg is paired with itself"),
        (GOOD + GOOD.splitlines()[1], "are paired 2 times"),
        (GOOD + "{1},{0},{2},{3}".format(*GOOD.splitlines()[2].split(",")), "are paired 2 times"),
        (GOOD.replace("\n", "\n\n") + "set/ann/1.jpg,,1,0\n", "line 11: "),
        (GOOD.rsplit("\n", 2)[0], "fold 3 has the pairs of one person"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(root, text, message):
    with pytest.raises(ValueError, match=message):
        read_fold_pairs(write(root, text), root)


def test_missing_files_and_photos_are_named(root):
    with pytest.raises(FileNotFoundError, match=r"no.csv: no such pairs file"):
        read_fold_pairs(root / "no.csv", root)
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        read_fold_pairs(write(root, GOOD), root / "nowhere")
    (root / "set" / "bob" / "1.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"no photo set/bob/1.jpg; looked for"):
        read_fold_pairs(write(root, GOOD), root)
    write(root, GOOD).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a text file"):
        read_fold_pairs(root / "lists" / "pairs.csv", root)
