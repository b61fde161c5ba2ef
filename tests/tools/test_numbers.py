"""Numbers of the command line that are out of range."""

import importlib
import sys

import pytest


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("draw_blind_sheet", "people out.png --people 1", "--people must be 2 to 26"),
        ("draw_blind_sheet", "people out.png --photos 0", "--photos 1 or more"),
        ("draw_blind_sheet", "people out.png --last -1", "--last and --seed 0 or more"),
        ("draw_blind_sheet", "people out.png --seed -1", "--last and --seed 0 or more"),
        ("draw_profiling", "a.jpg --out out.png --size 0", "--size is 0; it must be 1 or more"),
        ("round_weights", "mobile out --steps nan", "--steps is nan; it must be above 0"),
        ("round_weights", "mobile out --steps inf", "--steps is inf; it must be above 0, and"),
    ],
)
def test_a_number_out_of_range_is_named_before_the_work(
    tools, monkeypatch, capsys, script, words, message
):
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *words.split()])
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module(script).main()
    assert message in capsys.readouterr().err
