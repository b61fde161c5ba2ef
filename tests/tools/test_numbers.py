"""Numbers of the command line that are out of range, and files that cannot be written."""

import importlib
import sys

import numpy as np
import pytest

from keras_scnn.io import write_image


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("draw_blind_sheet", "people out.png --people 1", "--people must be 2 to 26"),
        ("draw_blind_sheet", "people out.png --photos 0", "--photos 1 or more"),
        ("draw_blind_sheet", "people out.png --last -1", "--last and --seed 0 or more"),
        ("draw_blind_sheet", "people out.png --seed -1", "--last and --seed 0 or more"),
        ("draw_blind_sheet", "people out.xyz", "out.xyz: unknown kind of picture; give a name"),
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


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("draw_blind_sheet", "people {file}/out.png", "out: {file}: is a file; the results need"),
        ("build_open_face_model", "--out {file}/a.npz", "--out {file}: is a file; the results"),
        ("learn_gaze", "open out --renderings 4 --labels {file}/a.npz", "--labels: {file}: is a"),
        ("learn_mesh_sites", "aflw --check {folder}", "--check {folder}: no .pts files"),
        ("draw_profiling", "{photo} --out {folder}/out.png", "{folder}/out.png is not drawn: no"),
    ],
)
def test_what_the_work_would_end_with_is_found_before(
    tools, refused, tmp_path, monkeypatch, script, words, message
):
    monkeypatch.chdir(tmp_path)  # in which 'out' would be written
    places = {name: tmp_path / name for name in ("file", "folder", "photo.png")}
    places["file"].write_text("mine")
    places["folder"].mkdir()
    write_image(places["photo.png"], np.zeros((80, 80, 3), np.uint8))
    named = places | {"photo": places["photo.png"]}
    error = refused(importlib.import_module(script), *words.format(**named).split())
    assert message.format(**named) in error
    assert not list(places["folder"].iterdir()) and not (tmp_path / "out").exists()
