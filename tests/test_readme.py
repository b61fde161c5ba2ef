"""Statements in the README, and in the pages that it links to, are true."""

import ast
import functools
import importlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOSE_TIP = (227, 125)  # px, of skimage's astronaut, read off the photo
FIRST = (ROOT / "README.md").read_text()
PAGES = ("photos", "results", "train", "measure", "export", "face_models")
README = "\n".join(
    path.read_text()
    for path in (ROOT / "README.md", *(ROOT / "docs" / f"{page}.md" for page in PAGES))
)
CARDS = [ROOT / "README.md", *(ROOT / "keras_scnn" / "assets").rglob("CARD.md")]
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)
SHELL = [
    command.strip()
    for block in re.findall(r"^```sh\n(.*?)^```", README, re.M | re.S)
    for command in re.split(r"\n|&&", block)
    if command.strip()
]
MODULES = sorted({m for c in SHELL for m in re.findall(r"python -m (keras_scnn[\w.]*)", c)})


# One process for all commands: some import TensorFlow, which takes seconds.
HELP = """
import contextlib, io, json, runpy, sys
pages = {}
for module in sys.argv[1:]:
    sys.argv, page = [module, "--help"], io.StringIO()
    with contextlib.redirect_stdout(page), contextlib.suppress(SystemExit):
        runpy.run_module(module, run_name="__main__")
    pages[module] = page.getvalue()
print(json.dumps(pages))
"""


@functools.cache
def help_pages() -> dict[str, str]:
    """The output of each command for --help."""
    done = subprocess.run(
        [sys.executable, "-c", HELP, *MODULES], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def options_of(module: str) -> set[str]:
    return set(re.findall(r"--[a-z][\w-]*", help_pages()[module]))


def test_it_shows_the_commands_that_a_newcomer_needs():
    assert "pip install . && python -m keras_scnn.train" in FIRST
    assert "pip install -e '.[test]' && python -m pytest" in FIRST
    assert {"keras_scnn.train", "keras_scnn.evaluate", "keras_scnn.reconstruct"} <= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_its_commands_and_their_options_exist(module):
    known = options_of(module)
    assert "--help" in known
    for command in SHELL:
        if f"python -m {module} " in f"{command} ":
            used = {word for word in shlex.split(command) if word.startswith("--")}
            assert used <= known


def test_its_options_in_the_text_exist():
    named = set(re.findall(r"`(--[a-z][\w-]*)", README)) - {"--no-deps"}
    known = set().union(*map(options_of, MODULES))
    assert named <= known


def test_its_tools_exist():
    tools = {word for c in SHELL for word in shlex.split(c) if word.endswith(".py")}
    assert tools
    assert [tool for tool in tools if not (ROOT / tool).is_file()] == []


def test_its_extras_exist():
    import configparser

    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    named = set(re.findall(r"\.\[([\w-]+)\]", README))
    assert named
    assert named <= set(config["options.extras_require"])


@pytest.mark.parametrize("card", CARDS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(card):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", card.read_text())
    local = [link for link in links if not re.match(r"https?://", link)]
    assert [link for link in local if not (card.parent / link).exists()] == []


def test_names_of_the_library_in_the_text_exist():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    text = "\n".join(path.read_text() for path in pages)
    named = set(re.findall(r"`(keras_scnn(?:\.\w+)*)\.(\w+)`", text))
    named -= {("keras_scnn", "failures")}  # a key in the metadata of Parquet files
    assert len(named) > 10
    for module, name in named:
        home = importlib.import_module(module)
        assert hasattr(home, name) or importlib.import_module(f"{module}.{name}")


def test_its_two_lines_of_python_reconstruct_a_face(tmp_path, monkeypatch):
    data = pytest.importorskip("skimage.data")
    from keras_scnn.io import write_image

    photo = data.astronaut()
    write_image(tmp_path / "photo.jpg", photo)
    monkeypatch.chdir(tmp_path)
    snippet = next(code for code in PYTHON if "faces = Reconstructor" in code)
    assert len(ast.parse(snippet).body) == 2
    names: dict = {}
    exec(snippet, names)
    face = names["faces"][0]  # of the highest score
    nose = face.landmarks[30]
    assert abs(nose[0] - NOSE_TIP[0]) < 6
    assert abs(nose[1] - NOSE_TIP[1]) < 6
    for attribute in re.findall(r"`(\w+)`", FIRST.split("Each face has")[1].split("`keras")[0]):
        assert hasattr(face, attribute)


def test_it_has_no_placeholders():
    assert not re.search(r"\b(TODO|TBD|FIXME|XXX|lorem)\b", README, re.I)


def rows_of(text: str) -> list[str]:
    """The table of the presets' accuracy."""
    start = text.index("| same person? |")
    return text[start : text.index("\n\n", start)].splitlines()


# The rows of README's table, and how the cards name them.
ON_CARDS = {
    "CFP, two frontal photos": "same person? mm / visible / feature, cfp-frontal-frontal",
    "CFP, frontal and profile": "cfp-frontal-profile",
    "CelebA, without strangers' photos": "celeba-clean",
    "mean shape distance, same person": "one person's shapes, frontal and profile, over two",
    "variance of hand-marked profile points": "CFP, points of profiles",
    "R² against a fit": "R² against the fit",
    "spread of shapes, predicted": "spread, predicted",
    "opening of shut eyes": "opening of shut eyes",
    "opening of open eyes": "opening of open eyes",
    "horizontal gaze, correlation": "gaze: correlation with the irises'",
}


COLUMNS = "mobile 0.1", "mobile", "accurate", "identity", "open", "open-identity"


def cells_of(row: str) -> list[str]:
    """A table row's cells, without spaces around them."""
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


def numbers_of(cell: str) -> list[str]:
    """The numbers that a cell begins with: one, or several with slashes between."""
    leading = re.match(r"-?[\d.]+(?: / -?[\d.]+)*", cell)
    return leading[0].split(" / ") if leading else []


def card_cell(name: str, start: str) -> str:
    """The preset's cell of the one row of its card whose title starts so.

    The cards of `mobile` and `accurate` have a column of version 0.1 before it.
    """
    name, _, version = name.partition(" ")
    card = (ROOT / "keras_scnn" / "assets" / "presets" / name / "CARD.md").read_text()
    rows = [row for row in card.splitlines() if row.startswith(f"| {start}")]
    (cells,) = map(cells_of, rows)
    return cells[2 if name in ("mobile", "accurate") and not version else 1]


def assert_rounded(number: str, exact: str) -> None:
    """See that two decimal numbers can be roundings of one value."""
    half = sum(0.5 * 10.0 ** -len(part.partition(".")[2]) for part in (number, exact))
    assert abs(float(number) - float(exact)) <= half + 1e-9, (number, exact)


def test_its_numbers_are_those_of_the_results_and_of_the_cards():
    rows = rows_of(FIRST)
    assert rows == rows_of((ROOT / "docs" / "results.md").read_text())
    assert len(rows[2:]) == len(ON_CARDS)
    for row, (title, start) in zip(rows[2:], ON_CARDS.items(), strict=True):
        first, *cells = cells_of(row)
        assert first.startswith(title)
        for name, cell in zip(COLUMNS, cells, strict=True):
            if name == "mobile 0.1" and cell == "–":  # not measured then
                continue
            exact = numbers_of(card_cell(name, start))
            assert exact, (name, title)
            for number, other in zip(numbers_of(cell), exact, strict=True):
                assert_rounded(number, other)


def test_a_number_that_is_not_the_cards_is_noticed():
    assert numbers_of("83.6 / 85.0 / 93.5 %") == ["83.6", "85.0", "93.5"]
    assert numbers_of("-0.17 [-0.36, -0.04]") == ["-0.17"]
    assert numbers_of("missed") == []
    assert_rounded("0.29", "0.289")
    with pytest.raises(AssertionError):
        assert_rounded("0.30", "0.289")
