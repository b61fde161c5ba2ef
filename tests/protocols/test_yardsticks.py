import json
import os

from keras_scnn.protocols.yardsticks import Yardstick, write_yardstick


def test_a_name_with_nan_in_it_stays_and_numbers_that_are_none_are_null(tmp_path):
    values = {"error": float("nan"), "ratio": float("inf"), "share": 0.5}
    left_out = ("NaNcy/1.png: no face found",)
    result = Yardstick(values, (), {"share": (float("-inf"), 1.0)}, left_out=left_out)
    write_yardstick(result, tmp_path, "NaN")
    odd = []
    written = json.loads((tmp_path / "NaN.json").read_text(), parse_constant=odd.append)
    assert odd == []
    assert written["values"] == {"error": None, "ratio": None, "share": 0.5}
    assert written["intervals"] == {"share": [None, 1.0]}
    assert written["left_out"] == list(left_out)


def test_a_name_that_is_no_utf8_may_be_in_the_table(tmp_path):
    """As of a pairs file, after which the rows are called."""
    stem = os.fsdecode(b"na\xefve")
    write_yardstick(Yardstick({stem: 0.5}, ((stem, stem, ""),)), tmp_path, "mobile-pairs")
    assert (tmp_path / "mobile-pairs.txt").read_bytes().startswith(b"na\xefve  ")
