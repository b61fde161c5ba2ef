"""Scripts that write a preset check the folder for it before their work."""

import importlib
import re
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
SCRIPTS = {
    "calibrate_eyes": "mobile {out} --aflw FOLDER",
    "follow_base": "identity mobile {out} --labels LABELS",
    "learn_gaze": "mobile {out} --data FOLDER",
    "make_identity_preset": "PACK mobile {out}",
    "make_open_identity_preset": "{out}",
    "map_identity": "PACK mobile {out}",
    "refine_feature": "mobile {out} --data DATA",
    "refine_identity": "mobile {out} --data DATA",
    "refine_shapes": "mobile {out} --data DATA",
    "round_weights": "mobile {out}",
    "solve_identity": "PACK mobile {out}",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_file_in_the_place_of_the_folder_is_refused(tools, refused, tmp_path, name):
    (out := tmp_path / "out").write_text("mine")
    script = importlib.import_module(name)
    assert f"{out}: is a file; the results need a folder" in refused(
        script, *SCRIPTS[name].format(out=out).split()
    )
    assert out.read_text() == "mine"


def test_every_script_that_writes_a_preset_is_listed():
    texts = {path.stem: path.read_text() for path in TOOLS.glob("*.py")}
    writes = re.compile(r"save_(preset|refined)\(args\.out")
    assert {name for name, text in texts.items() if writes.search(text)} == set(SCRIPTS)
