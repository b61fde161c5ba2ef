import json
from pathlib import Path

import pytest

from keras_scnn.evaluate import main, parse
from keras_scnn.protocols.result_names import names_of, replaceable_result
from keras_scnn.protocols.yardsticks import Yardstick

DATA = "there/cfp"
FILES = ("a/pairs.csv", "b/pairs.csv", "pairs/fp.csv", "ages.csv", "x/truth.npz", "LM.mat")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Data in two folders of one name, and files of one name, too."""
    monkeypatch.chdir(tmp_path)
    for folder in (DATA, "elsewhere/cfp", "runs/a", "other/a"):
        Path(folder).mkdir(parents=True)
    for file in FILES:
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).touch()


def command(words: str, preset: str = "mobile", data: str = DATA) -> list[str]:
    return [preset, "--data", data, "--out", "out", *words.split()]


def result_of(words: str, measure: str = "", **names: str) -> tuple[str, dict]:
    return replaceable_result(parse(command(words, **names)), measure)


def test_a_url_and_a_file_are_named_by_their_last_part(tmp_path):
    url = f"https://host/presets/mobile/#sha256={64 * '0'}"
    assert names_of(url, tmp_path / "pairs" / "fp.csv") == ("mobile", "fp")
    assert names_of(tmp_path / "a.b", tmp_path) == ("a.b", tmp_path.name)


@pytest.mark.parametrize(
    ("words", "measure", "stem"),
    [
        ("", "", ""),
        ("--people --resamples 9 --seed 3", "", ""),
        ("--photos a", "", ""),
        ("--convention field", "", "-field"),
        ("--annotation LM.mat --annotation-first-pixel 0", "", "-LM"),
        ("--bfm LM.mat --bfm-expression e.mat --bfm-info i.mat", "", "-LM"),
        ("--pairs a/pairs.csv", "pairs", "-pairs-pairs"),
        ("--pairs a/pairs.csv,pairs/fp.csv", "pairs", "-pairs-pairs-fp"),
        ("--pairs pairs/fp.csv --groups ages.csv", "pairs", "-pairs-fp-ages"),
        ("--shape-truth x/truth.npz", "shape_truth", "-shape-truth-truth"),
        ("--shape-truth new.npz --fit-truth --last 2", "shape_truth", "-shape-truth-new-last-2"),
        ("--openings pairs/fp.csv", "openings", "-openings-fp"),
        ("--points x/truth.npz --last 50", "points", "-points-truth-last-50"),
        ("--gaze", "gaze", "-gaze"),
    ],
)
def test_the_name_has_all_inputs(words, measure, stem):
    assert result_of(words, measure)[0] == f"mobile-cfp{stem}"


def test_a_name_of_many_files_fits_the_file_system():
    files = ",".join(f"a/{i:02d}_{'x' * 20}.csv" for i in range(20))
    one, other = (result_of(f"--pairs {given}", "pairs")[0] for given in (files, files[:-9]))
    assert one != other
    assert len(f"{one}-curves.png") < 255


def write(stem: str, inputs: dict) -> None:
    Path("out").mkdir(exist_ok=True)
    note = {"photos": [inputs["data"]], "inputs": inputs, "files": [f"{stem}.txt", f"{stem}.png"]}
    Path("out", f"{stem}.json").write_text(json.dumps(note))
    for file in note["files"]:
        Path("out", file).touch()


@pytest.mark.parametrize(
    ("words", "names", "key"),
    [
        ("--pairs a/pairs.csv", {"data": "elsewhere/cfp"}, "data"),
        ("--pairs b/pairs.csv", {}, "pairs"),
        ("--pairs a/pairs.csv", {"preset": "other/a"}, "preset"),
    ],
)
def test_results_of_the_same_inputs_may_be_replaced_and_others_not(words, names, key):
    names = {"preset": "runs/a", "data": DATA} | names
    stem, inputs = result_of("--pairs a/pairs.csv", "pairs", preset="runs/a")
    assert inputs["pairs"] == [str(Path("a/pairs.csv").absolute())]
    write(stem, inputs)
    again = result_of(
        "--pairs ./a/pairs.csv --seed 2", "pairs", preset="./runs/a/", data=f"{DATA}/"
    )
    assert again == (stem, inputs)
    with pytest.raises(ValueError, match=rf"out/{stem}.json: has other inputs \({key}\)"):
        result_of(words, "pairs", **names)


@pytest.mark.parametrize(
    ("one", "other", "key"),
    [
        ({"kind": "people"}, {"kind": "AFLW2000-3D"}, "kind"),
        (
            {"preset": f"https://host/mobile#sha256={64 * '0'}"},
            {"preset": f"https://host/mobile#sha256={64 * '1'}"},
            "preset",
        ),
    ],
)
def test_another_protocol_or_digest_is_another_input(one, other, key):
    def result(preset="mobile", kind=""):
        return replaceable_result(parse(command("", preset)), "", kind)

    write(*result(**one))
    assert result(**one)
    with pytest.raises(ValueError, match=rf"out/mobile-cfp.json: has other inputs \({key}\)"):
        result(**other)


def test_a_measure_replaces_no_pictures():
    Path("out").mkdir()
    Path("out", "mobile-cfp-gaze.png").touch()
    assert result_of("--gaze", "gaze")[0] == "mobile-cfp-gaze"


def test_no_other_file_is_replaced():
    """Such as the bars of data named 'cfp-curves'."""
    stem, inputs = result_of("")
    write(stem, inputs)
    Path("out", f"{stem}-curves.png").touch()
    with pytest.raises(ValueError, match="out/mobile-cfp-curves.png: is another file, and the res"):
        result_of("")


def test_two_files_of_pairs_have_two_results_and_a_third_is_refused_before_the_work(
    monkeypatch, capsys
):
    result = Yardstick({}, (), {}, ())
    monkeypatch.setattr("keras_scnn.protocols.choices.measure_yardstick", lambda *_: result)
    for _ in range(2):
        assert main(command("--pairs a/pairs.csv")) == 0
        assert main(command("--pairs pairs/fp.csv")) == 0
    assert {path.stem for path in Path("out").iterdir()} == {
        "mobile-cfp-pairs-pairs", "mobile-cfp-pairs-fp"
    }  # fmt: skip
    monkeypatch.setattr(
        "keras_scnn.protocols.choices.measure_yardstick", lambda *_: pytest.fail("late")
    )
    capsys.readouterr()
    assert main(command("--pairs b/pairs.csv")) == 2
    assert "has other inputs (pairs), and the results would replace it" in capsys.readouterr().err
