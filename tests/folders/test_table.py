import os
import sys

import numpy as np
import pytest

from keras_scnn.folders.table import (
    joined,
    read_about,
    read_columns,
    read_part,
    vector_sizes,
    write_part,
)

pytest.importorskip("pyarrow.parquet", reason="extra 'batch' is not installed")


def test_a_part_that_cannot_be_opened_is_not_taken_for_a_damaged_one(tmp_path):
    (tmp_path / "part-00000.parquet").mkdir()
    with pytest.raises(OSError, match="part-00000"):
        read_part(tmp_path / "part-00000.parquet")
    (tmp_path / "part-00001.parquet").write_bytes(b"no Parquet")
    assert read_part(tmp_path / "part-00001.parquet") is None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are text")
def test_a_folder_whose_name_is_not_utf8_has_parts_too(tmp_path):
    folder = tmp_path / os.fsdecode(b"r\xe9sultats")
    folder.mkdir()
    path, sizes = folder / "part-00000.parquet", vector_sizes(2, 3, 0)
    table = joined([], sizes)
    row = {key: np.ones((1, sizes[key]) if key in sizes else 1) for key in table}
    table = {**row, "photo": ["a.jpg"], "face": np.array([4], np.int32)}
    write_part(path, table, sizes, {"preset": "mobile"}, [("b.jpg", "no face")])
    about, failures, rows = read_part(path)
    assert (about["preset"], failures, rows) == ("mobile", [("b.jpg", "no face")], 1)
    assert read_about(path) == about
    assert read_columns(path)["identity"].tolist() == [[1, 1]]
    assert read_columns(path, ("face", 4, 5))["photo"].tolist() == ["a.jpg"]
    assert not len(read_columns(path, ("face", 5, 6))["photo"])
    assert [one.name for one in folder.iterdir()] == ["part-00000.parquet"]
