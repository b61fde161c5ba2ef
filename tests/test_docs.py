"""The pages of docs/: their code runs, their commands exist, their links lead somewhere."""

import contextlib
import dataclasses
import importlib
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_scnn.__main__ import COMMANDS
from keras_scnn.data.records import OPTIONAL, REQUIRED
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import FaceParameters
from keras_scnn.photos.cropping import FaceBox
from keras_scnn.reconstruction.comparison import Comparison
from keras_scnn.reconstruction.faces import Reconstruction

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
MORE = [ROOT / "examples" / "README.md", ROOT / "CONTRIBUTING.md"]
COMMAND = re.compile(r"(?:keras-scnn |python -m keras_scnn\.)([a-z.]+)([^\n|&;>]*)")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)
# Blocks that cannot run here, and the tests that run them.
NOT_RUN = {
    "artists.md": "a reconstructed face, or Blender (tests/meshes)",
    "batch.md": "results of a folder (tests/folders)",
    "face_models.md": "files that only their users have (tests/face_models, tests/test_convert.py)",
    "on_device.md": "an exported file (tests/export)",
    "photos.md": "photos (tests/test_readme.py)",
    "scale.md": "photos, and a cluster (tests/folders)",
    "video.md": "Blender",
}


def blocks(page: Path, language: str) -> list[str]:
    return [code for kind, code in BLOCK.findall(page.read_text()) if kind == language]


RUN = [page for page in PAGES if blocks(page, "python") and page.name not in NOT_RUN]


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_its_python_runs(page):
    for code in blocks(page, "python"):
        exec(compile(code, page.name, "exec"), {})


@pytest.mark.parametrize("page", [p for p in PAGES if p.name in NOT_RUN], ids=lambda p: p.name)
def test_its_python_that_is_not_run_is_python(page):
    for code in blocks(page, "python"):
        compile(code, page.name, "exec")


def test_modules_and_tools_of_their_commands_exist():
    for page in PAGES:
        for code in blocks(page, "sh"):
            for module in re.findall(r"python -m (keras_scnn[\w.]*)", code):
                assert importlib.util.find_spec(module), f"{page.name}: {module}"
            for word in shlex.split(code.replace("\\\n", " "), comments=True):
                if word.endswith(".py") and word.startswith(("tools/", "benchmarks/", "tests/")):
                    assert (ROOT / word).is_file(), f"{page.name}: {word}"


@pytest.mark.parametrize("page", [*PAGES, *MORE], ids=lambda page: page.name)
def test_options_of_its_commands_exist(page, capsys):
    for code in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.M | re.S):
        for name, rest in COMMAND.findall(code.replace("\\\n", " ")):
            words = shlex.split(rest, comments=True)
            given = {word.partition("=")[0] for word in words if re.match("--[a-z]", word)}
            module = COMMANDS[name][0] if name in COMMANDS else f"keras_scnn.{name}"
            with contextlib.suppress(SystemExit):
                importlib.import_module(module).main(["--help"])
            known = set(re.findall(r"--[a-z][\w-]*", capsys.readouterr().out))
            assert given <= known, f"{name}: {given - known}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_its_links_lead_to_files(page):
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)[^)]*\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_each_cell_of_the_comparison_has_its_source():
    text = (ROOT / "docs" / "comparison.md").read_text()
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    head, *rows = [[cell.strip() for cell in row] for row in rows]
    assert len(rows) == 10
    for name, *cells in rows:
        for who, cell in zip(head[1:], cells, strict=True):
            sources = re.findall(r"(?<!\])\[(\d[\d, ]*)\]", cell)
            assert sources or who == head[1] and "](" in cell, f"{name}, {who}: {cell!r}"
            for number in re.findall(r"\d+", ",".join(sources)):
                assert f"\n{number}. " in text


def section(title: str) -> set[str]:
    """The words in backticks of a section of formats.md."""
    text = (ROOT / "docs" / "formats.md").read_text().split(f"\n## {title}\n")[1]
    return set(re.findall(r"`(\w+)`", text.split("\n## ")[0]))


def test_files_have_the_documented_content(open_face):
    parameters = FaceParameters(np.eye(3, 4), np.zeros(80), np.zeros(52))
    face = Reconstruction(open_face, parameters, FaceBox(0, 0, 9, 9))
    written, compared = face.to_json(), Comparison((face, face), 0.0, 0.0, None, {}).to_json()
    names = {*written, *written["pose"], *written["pose"]["euler_degrees"], *compared}
    assert names <= section("A face of a photo")
    assert {"images", *section("Face records")} >= {*REQUIRED, *OPTIONAL}
    settings = json.loads((ROOT / "keras_scnn/assets/presets/mobile/preset.json").read_text())
    assert set(settings) <= section("A preset")
    fields = {field.name for field in dataclasses.fields(MorphableModel)}
    assert fields <= section("A face model")


@pytest.mark.integration
def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    reference = (tmp_path / "reference.html").read_text()
    for name in ("Reconstructor", "contrastive", "MorphableModel", "image_from_model"):
        assert name in reference
    front = (tmp_path / "index.html").read_text()
    assert "cards/mobile.html" in front and "tutorials/02_train.html" in front
    tutorial = (tmp_path / "tutorials" / "01_reconstruct.html").read_text()
    assert "mouthSmile" in tutorial and "data:image/png;base64," in tutorial
