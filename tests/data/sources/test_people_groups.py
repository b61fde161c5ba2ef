from pathlib import Path

import pytest

from keras_scnn.data.sources.people_groups import groups_of_photos, read_groups


def test_groups_are_read_by_the_folder_of_a_person(tmp_path):
    file = tmp_path / "groups.csv"
    file.write_text("\ufeffperson, sex,age\nset/a,woman,under 40\nset/b/, man,\n\nc,,over 40\n")
    groups = read_groups(file)
    assert groups == {
        "sex": {"set/a": "woman", "set/b": "man"},
        "age": {"set/a": "under 40", "c": "over 40"},
    }
    paths = [Path("/data/set/a/1.jpg"), Path("/data/set/b/2.jpg"), Path("/x/c/3.jpg"), Path("a/1")]
    assert {name: of.tolist() for name, of in groups_of_photos(groups, paths).items()} == {
        "sex": ["woman", "man", "", ""],
        "age": ["under 40", "", "over 40", ""],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the columns are none; expected a CSV file"),
        ("name,sex\na,man\n", "the columns are name, sex; expected"),
        ("person\na\n", "the columns are person; expected"),
        ("person,sex,sex\na,man,man\n", "the columns are person, sex, sex"),
        ("person,sex\n\na,man\n\na,man\n", "line 5: a is listed twice"),
        ("person,sex\n,man\n", "line 2: no person"),
        ("person,sex\na\n", "line 2: 1 cell for 2 columns"),
        ("person,age\n" + "".join(f"p{i},{i}\n" for i in range(21)), "age has 21 groups; 20"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, text, message):
    file = tmp_path / "groups.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_groups(file)
    assert "groups.csv" in str(error.value)


def test_a_missing_file_and_one_that_is_no_text_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="groups.csv: no such file of groups"):
        read_groups(tmp_path / "groups.csv")
    (tmp_path / "groups.csv").write_bytes(b"\xff\xfe\x00\x01" * 9)
    with pytest.raises(ValueError, match="groups.csv"):
        read_groups(tmp_path / "groups.csv")
