import json
import os
from pathlib import Path

import pytest

from keras_scnn.protocols.yardsticks import Yardstick, write_yardstick

DATA = {"data": "/photos"}


def test_a_name_containing_nan_is_kept_and_nan_numbers_are_null(tmp_path):
    values = {"error": float("nan"), "ratio": float("inf"), "share": 0.5}
    left_out = ("NaNcy/1.png: no face found",)
    result = Yardstick(values, (), {"share": (float("-inf"), 1.0)}, left_out=left_out)
    inputs = {"preset": "mobile", "data": "/photos", "last": 3}
    write_yardstick(result, tmp_path, "NaN", inputs)
    odd = []
    written = json.loads((tmp_path / "NaN.json").read_text(), parse_constant=odd.append)
    assert odd == []
    assert written["values"] == {"error": None, "ratio": None, "share": 0.5}
    assert written["intervals"] == {"share": [None, 1.0]}
    assert written["left_out"] == list(left_out)
    assert (written["photos"], written["files"]) == (["/photos"], ["NaN.txt"])
    assert written["inputs"] == inputs


@pytest.mark.parametrize("name", ["notes", "intervals", "left_out", "values"])
def test_a_value_may_have_any_name(tmp_path, name):
    """As with a pairs file of that name."""
    result = Yardstick(
        {name: {"auc": 0.75}}, ((f"{name}.auc", "AUC", ""),), {f"{name}.auc": (0.5, 0.875)}, ("A",)
    )
    lines = write_yardstick(result, tmp_path, "a", DATA).splitlines()
    assert [line.split() for line in lines] == [["A"], ["AUC", "0.750", "[0.500,", "0.875]"]]


def test_a_name_that_is_no_utf8_may_be_in_the_table(tmp_path):
    """As with a pairs file, which names the rows."""
    stem = os.fsdecode(b"na\xefve")
    write_yardstick(
        Yardstick({stem: 0.5}, ((stem, stem, ""),)), tmp_path, "mobile-pairs", {"data": "a"}
    )
    assert (tmp_path / "mobile-pairs.txt").read_bytes().startswith(b"na\xefve  ")


def test_on_a_full_disk_the_earlier_results_stay_whole(tmp_path, monkeypatch):
    write_yardstick(Yardstick({"error": 1.0}, (("error", "error", ""),)), tmp_path, "a", DATA)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {"a.json", "a.txt"}

    def full(path: Path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("keras_scnn.protocols.yardsticks.open_utf8", full)
    with pytest.raises(OSError, match="No space"):
        write_yardstick(Yardstick({"error": 2.0}, (("error", "error", ""),)), tmp_path, "a", DATA)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
