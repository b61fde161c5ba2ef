import json
import os
from pathlib import Path

import pytest

from keras_scnn.protocols.yardsticks import Yardstick, names_of, write_yardstick


def test_a_name_containing_nan_is_kept_and_nan_numbers_are_null(tmp_path):
    values = {"error": float("nan"), "ratio": float("inf"), "share": 0.5}
    left_out = ("NaNcy/1.png: no face found",)
    result = Yardstick(values, (), {"share": (float("-inf"), 1.0)}, left_out=left_out)
    write_yardstick(result, tmp_path, "NaN", "photos")
    odd = []
    written = json.loads((tmp_path / "NaN.json").read_text(), parse_constant=odd.append)
    assert odd == []
    assert written["values"] == {"error": None, "ratio": None, "share": 0.5}
    assert written["intervals"] == {"share": [None, 1.0]}
    assert written["left_out"] == list(left_out)
    assert (written["photos"], written["files"]) == ([os.path.abspath("photos")], ["NaN.txt"])


def test_a_url_and_a_file_are_named_by_their_last_part(tmp_path):
    (tmp_path / "pairs.csv").touch()
    url = f"https://host/presets/mobile/#sha256={64 * '0'}"
    assert names_of(url, tmp_path / "pairs.csv") == ("mobile", "pairs")
    assert names_of(tmp_path / "a.b", tmp_path) == ("a.b", tmp_path.name)


def test_a_name_that_is_no_utf8_may_be_in_the_table(tmp_path):
    """As with a pairs file, which names the rows."""
    stem = os.fsdecode(b"na\xefve")
    write_yardstick(Yardstick({stem: 0.5}, ((stem, stem, ""),)), tmp_path, "mobile-pairs", "a")
    assert (tmp_path / "mobile-pairs.txt").read_bytes().startswith(b"na\xefve  ")


def test_on_a_full_disk_the_earlier_results_stay_whole(tmp_path, monkeypatch):
    write_yardstick(Yardstick({"error": 1.0}, (("error", "error", ""),)), tmp_path, "a", "photos")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {"a.json", "a.txt"}

    def full(path: Path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("keras_scnn.protocols.yardsticks.open_utf8", full)
    with pytest.raises(OSError, match="No space"):
        write_yardstick(
            Yardstick({"error": 2.0}, (("error", "error", ""),)), tmp_path, "a", "photos"
        )
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
