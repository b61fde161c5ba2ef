import ast
import contextlib
import importlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from keras_scnn import __version__
from keras_scnn.__main__ import COMMANDS, main
from keras_scnn.distributed import ray
from keras_scnn.models.presets import FOLDER, list_presets, load_preset
from keras_scnn.settings import command

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {
    "keras", "tensorflow", "jax", "torch", "scipy", "cv2", "numba", "matplotlib", "trimesh",
    "h5py", "PIL", "ai_edge_litert", "kserve", "dlib",
}  # fmt: skip
FRAMEWORKS = {"keras", "tensorflow", "jax", "torch"}
# One wrong call of each command, and a part of the message.
TYPING_ERRORS = {
    "reconstruct": (["a.jpg", "--output", "x"], "unknown option --output (did you mean '--out'?)"),
    "compare": (["a.jpg", "b.jpg", "--prest", "x"], "did you mean '--preset'?"),
    "convert": (
        ["a.json", "--to", "x", "--oot", "y"],
        "unknown option --oot (did you mean '--out'?)",
    ),
    "train": (["--learning-rat", "1"], "did you mean '--learning-rate'?"),
    "evaluate": (["mobile", "--data", "x", "--convention", "feild"], "did you mean 'field'?"),
    "prepare": (["people_", "x", "--out", "x"], "did you mean 'people'?"),
    "ablate": (["--seed-s", "1"], "did you mean '--seeds'?"),
    "release": (["plan.yaml", "--wrok", "x"], "unknown option --wrok (did you mean '--work'?)"),
    "export": (["mobile", "--to", "tflit", "--out", "x"], "did you mean 'tflite'?"),
    "serve": (["--prot", "1"], "did you mean '--port'?"),
    "demo": (["--quantize", "float61"], "did you mean 'float16'?"),
    "presets": (["--all"], "unknown option --all"),
}
WRONG_SETTINGS = {
    "reconstruct": (["a.jpg", "--out", "x", "--format", "stl"], "'stl' is not one of obj, ply"),
    "train": (["--encoder", "resnet51"], "encoder is 'resnet51' (did you mean 'resnet50'?)"),
    "evaluate": (["mobile", "--data", "nowhere"], "nowhere: no such folder or file"),
    "prepare": (["pts", "x", "--out", "x", "--crop-size", "4"], "it must be 16 or more"),
    "ablate": (["--variants", "bothe"], "did you mean 'both'?"),
    "export": (["mobil", "--to", "tflite", "--out", "x"], "did you mean 'mobile'?"),
    "serve": (["--threads", "0"], "must be above 0"),
    "demo": (["mobil"], "no preset 'mobil' (did you mean 'mobile'?)"),
    "compare": (["no.jpg", "no.jpg"], "no.jpg: no such"),
    "convert": (["no.json", "--to", "x", "--out", "x"], "no.json: no such file or folder"),
}


def in_a_new_process(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


def answers(calls: dict[str, list[str]], modules: set[str]) -> dict[str, tuple]:
    """Status, stdout, stderr and which of the modules were imported, command by command."""
    code = f"""
import contextlib, io, sys
from keras_scnn.__main__ import main
answers = {{}}
for name, words in {calls!r}.items():
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            status = main([name, *words])
        except SystemExit as stop:
            status = stop.code
    imported = sorted({modules!r} & set(sys.modules))
    answers[name] = status or 0, out.getvalue(), error.getvalue(), imported
print(repr(answers))
"""
    return eval(in_a_new_process(code))


@pytest.fixture(scope="module")
def asked_for_help() -> dict[str, tuple]:
    return answers({name: ["--help"] for name in COMMANDS}, HEAVY)


def test_help_of_every_command_imports_nothing_heavy(asked_for_help):
    for name, (status, out, error, imported) in asked_for_help.items():
        assert (status, error, imported) == (0, "", []), name
        assert out.startswith(f"usage: keras-scnn {name}"), name


def test_typing_errors_are_understood_before_anything_heavy_is_imported():
    given = answers({name: words for name, (words, _) in TYPING_ERRORS.items()}, HEAVY)
    assert set(given) == set(COMMANDS)
    for name, (status, out, error, imported) in given.items():
        assert (status, out, imported) == (2, "", []), name
        assert TYPING_ERRORS[name][1] in error
        assert len(error.splitlines()) == 1, error


def test_wrong_settings_are_named_before_a_framework_is_imported():
    given = answers({name: words for name, (words, _) in WRONG_SETTINGS.items()}, FRAMEWORKS)
    for name, (status, _, error, imported) in given.items():
        assert (status, imported) == (2, []), name
        assert WRONG_SETTINGS[name][1] in error
        assert len(error.splitlines()) == 1, error


@pytest.mark.parametrize(
    "words, option",
    [
        (["compare", "https://host/a.jpg", "b.jpg"], "PHOTO"),
        (["convert", "http://host/a.json", "--to", "open_face", "--out", "x"], "JSON"),
        (["evaluate", "mobile", "--data", "s3://bucket/people"], "--data"),
        (["prepare", "people", "hf://owner/photos", "--out", "x"], "DIR"),
        (["export", "mobile", "--to", "tflite", "--crops", "s3://bucket/crops", "--out", "x"],
         "--crops"),
        (["release", "https://host/plan.yaml"], "FILE.yaml"),
    ],
)  # fmt: skip
def test_a_url_where_a_path_is_needed_is_named_as_it_was_given(capsys, words, option):
    (url,) = [word for word in words if "://" in word]
    with pytest.raises(SystemExit) as stop:
        main(words)
    expected = f"error: argument {option}: {url} is a URL; give a local path; see keras-"
    assert (stop.value.code, capsys.readouterr().err.startswith(expected)) == (2, True)


def test_the_url_of_a_local_file_is_its_path(capsys, tmp_path):
    assert main(["release", f"{tmp_path.as_uri()}/plan.yaml"]) == 2
    assert f"error: {tmp_path}/plan.yaml: no such file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["release", "s3://"])
    assert "argument FILE.yaml: s3://: names no bucket or folder" in capsys.readouterr().err


def run(*words: str) -> tuple[int, str, str]:
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        status = main(list(words))
    return status, out.getvalue(), error.getvalue()


def test_an_unknown_command_suggests_one():
    status, out, error = run("recontsruct", "a.jpg")
    assert (status, out) == (2, "")
    assert "no command 'recontsruct' (did you mean 'reconstruct'?); choose from" in error


def test_without_a_command_all_are_listed():
    for words in ((), ("--help",), ("-h",)):
        status, out, _ = run(*words)
        assert status == 0
        assert all(f"  {name} " in out for name in COMMANDS)
    assert run("--version")[1] == f"{__version__}\n"


def test_presets_are_listed_with_size_accuracy_and_license():
    code = (
        "import sys; from keras_scnn.__main__ import main; main(['presets']);"
        f"print({FRAMEWORKS} & set(sys.modules))"
    )
    out = in_a_new_process(code)
    assert out.splitlines()[-1] == "set()"
    blocks = re.split(r"^(?=\S)", out, flags=re.MULTILINE)
    for name in list_presets():
        (block,) = [" ".join(b.split()) for b in blocks if b.startswith(f"{name}: ")]
        size = sum(path.stat().st_size for path in (FOLDER / name).iterdir()) / 1e6
        assert f"{size:.1f} MB" in block
        assert "landmarks: " in block
        settings = json.loads((FOLDER / name / "preset.json").read_text())
        (count,) = re.findall(r"([\d.]+) million parameters", block)
        if "base" in settings:
            others = [settings["base"]["preset"], *settings["packaged_recognizers"]]
            assert f"beside the weights of {', '.join(others)}" in block
        else:
            assert float(count) == round(load_preset(name).branch.count_params() / 1e6, 2)
            assert "beside" not in block
        assert f"license: {settings['metadata']['license']}" in block


def test_the_numbers_of_a_preset_are_those_of_its_card():
    for name in list_presets():
        card = (FOLDER / name / "CARD.md").read_text()
        metadata = json.loads((FOLDER / name / "preset.json").read_text())["metadata"]
        assert metadata["results"], name
        for measure, result in metadata["results"].items():
            cell = rf"\| {re.escape(str(result['value']))}(?![\d.])"  # no beginning of a number
            assert re.search(cell, card), f"{name}: {measure}"


def test_the_script_is_installed_under_its_name():
    setup = (ROOT / "setup.cfg").read_text()
    assert "keras-scnn = keras_scnn.__main__:main" in setup


def test_choices_that_commands_repeat_are_those_of_the_packages():
    from keras_scnn import evaluate
    from keras_scnn.evaluation import CONVENTIONS
    from keras_scnn.evaluation.bootstrap import RESAMPLES
    from keras_scnn.protocols import options

    assert (options.CONVENTIONS, evaluate.RESAMPLES) == (CONVENTIONS, RESAMPLES)


# Arguments of a command, and an invalid value of each numeric option.
NUMBERS = {
    "reconstruct": (["a.jpg", "--out", "x"], {"--min-score": "1", "--workers": "0"}),
    "evaluate": (
        ["mobile", "--data", "x"],
        {"--resamples": "-1", "--seed": "-1", "--last": "0", "--annotation-first-pixel": "nan"},
    ),
    "prepare": (
        ["pts", "x", "--out", "x"],
        {"--crop-size": "4", "--turned": "-1", "--count": "0", "--held-out": "-1"}
        | {"--components": "40 -1", "--workers": "0"},
    ),
    "serve": ([], {"--port": "-1", "--threads": "0", "--max-body-mb": "inf"}),
    "demo": ([], {"--port": "-1"}),
    "ray": ([], {"--cpus": "inf", "--gpus": "nan", "--restarts": "-1"}),
}
CASES = [(name, option) for name, (_, wrong) in NUMBERS.items() for option in wrong]


def numeric_options(path: Path) -> set[str]:
    """The options of a source that are declared with ``type=int`` or ``type=float``."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    types = {f"type={kind}" for kind in ("int", "float")}
    numeric = [call for call in calls if types & {ast.unparse(word) for word in call.keywords}]
    return {ast.literal_eval(call.args[0]) for call in numeric}


def test_every_option_that_is_a_number_is_tried():
    paths = [*(ROOT / "keras_scnn").rglob("*.py"), *(ROOT / "export").glob("*.py")]
    found = set().union(*map(numeric_options, paths))
    assert found == {option for _, option in CASES}


@pytest.mark.parametrize(("name", "option"), CASES)
def test_a_number_out_of_range_is_named_before_the_work(name, option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words, wrong = NUMBERS[name]
    given = [*words, option, *wrong[option].split()]
    command = ray.main if name == "ray" else partial(main_of, name)
    with contextlib.redirect_stderr(io.StringIO()) as error:
        try:
            status = command(given)
        except SystemExit as stop:
            status = stop.code
    assert status == 2
    assert error.getvalue().startswith(f"error: {option} is {wrong[option].split()[-1]}; it must")
    assert len(error.getvalue().splitlines()) == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["reconstruct", ""], "an argument is empty"),
        (["reconstruct", "a.jpg", "--out", ""], "--out is empty"),
        (["reconstruct", "a.jpg", "--out="], "--out is empty"),
        (["convert", "a.json", "--to", "open_face", "--out", ""], "--out is empty"),
        (["prepare", "people", "photos", "--out", ""], "--out is empty"),
        (["prepare", "people", "", "--out", "records"], "an argument is empty"),
        (["train", "--run", ""], "--run is empty"),
        (["train", "--resume="], "--resume is empty"),
        (["export", "mobile", "--to", "tflite", "--out", ""], "--out is empty"),
        (["evaluate", "mobile", "--data", ""], "--data is empty"),
        (["train", "--cache", ""], "--cache is empty"),
    ],
)
def test_an_empty_path_is_refused_rather_than_taken_for_this_folder(
    words, what, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2 and not list(tmp_path.iterdir())
    assert capsys.readouterr().err.startswith(f"error: {what}; give a file or a folder")


@pytest.mark.parametrize(
    ("command", "option", "message"),
    [
        ("serve", "--host", ", which means all addresses; give 0.0.0.0 for those"),
        ("train", "--recipe", "; give it, or leave it out"),
        ("ablate", "--recipe", "; give it, or leave it out"),
    ],
)
def test_a_name_from_an_unset_variable_is_not_taken_for_the_default_or_for_all(
    command, option, message, capsys
):
    with pytest.raises(SystemExit) as stop:
        main([command, option, ""])
    assert stop.value.code == 2
    assert f"error: {option} is empty{message}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["-dash.png", "-1.png", "-2024-05-01.png", "-(1).png", "-é.png"])
def test_a_file_whose_name_begins_with_a_dash_gets_the_way_to_write_it(capsys, name):
    with pytest.raises(SystemExit):
        main(["reconstruct", name, "--out", "x"])
    assert f"unknown option {name}; for a file of that name, give" in capsys.readouterr().err


def test_an_option_in_capitals_is_unknown_rather_than_missing(capsys):
    with pytest.raises(SystemExit):
        main(["reconstruct", "a.png", "--Out", "x"])
    assert "unknown option --Out (did you mean '--out'?)" in capsys.readouterr().err


def main_of(name: str, words: list[str]) -> int:
    return main([name, *words])


# Arguments if the folder 'locked' cannot be written, and the beginning of the message.
UNWRITABLE = {
    "evaluate --calibrate": (
        "evaluate locked --data people --calibrate", "--calibrate writes into the preset: locked"
    ),
    "evaluate --fit-truth": (
        "evaluate mobile --data people --shape-truth locked/t.npz --fit-truth",
        "--shape-truth locked",
    ),
    "export --attach": ("export locked --attach", "--attach writes into the preset: locked"),
    "train --run": ("train --start= --run locked/a", "--run locked/a"),
    "train --cache": ("train --start= --run run --cache locked/a", "--cache locked/a"),
    "release --work": ("release plan.yaml --work locked/a", "--work locked/a"),
    "release --out": ("release plan.yaml --work work --out locked/a", "--out locked/a"),
}  # fmt: skip


@pytest.mark.parametrize("what", UNWRITABLE)
def test_a_folder_that_cannot_be_written_is_named_before_the_work(what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for photo in ("people/a/1.jpg", "people/b/1.jpg"):
        Path(photo).parent.mkdir(parents=True)
        Path(photo).touch()
    Path("locked").mkdir()
    Path("locked/preset.json").touch()
    before = set(tmp_path.rglob("*"))
    monkeypatch.setattr("os.access", lambda path, mode: "locked" not in str(path))  # also for root
    words, place = UNWRITABLE[what]
    status, _, error = run(*words.split())
    assert status == 2 and len(error.splitlines()) == 1
    assert error.startswith(f"error: {place}: cannot be written, since ")
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("words", [["presets"], ["presets", "--help"], ["--help"], ["--version"]])
def test_a_command_whose_output_is_no_longer_read_ends_in_silence(words):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "keras_scnn", *words]
    environment = {name: v for name, v in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with os.fdopen(writing, "wb") as nowhere:
        streams = {"stdout": nowhere, "stderr": subprocess.PIPE}
        done = subprocess.run(command, cwd=ROOT, env=environment, **streams)
    assert (done.returncode, done.stderr) == (141, b"")


def test_ctrl_c_in_a_command_is_reported_once(monkeypatch, capsys):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # not in the background
    asks = SimpleNamespace(main=command(lambda words: signal.raise_signal(signal.SIGINT)))
    monkeypatch.setattr(importlib, "import_module", lambda name: asks)
    try:
        assert main(["train"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "stopped\n"
