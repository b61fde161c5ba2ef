"""The package as users get it: built, installed in a fresh environment, run elsewhere."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from keras_scnn.models.presets import list_presets

ROOT = Path(__file__).resolve().parents[1]
NEEDED = (
    "setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "keras_scnn", "export",
    "tests",
)  # fmt: skip
pytestmark = pytest.mark.integration
JUNK = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.partial*", "*.nbi", "*.nbc")


def run(*command, cwd: Path) -> str:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "KERAS_SCNN"))}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=kept, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> tuple[Path, Path]:
    """A source archive, and the wheel that is built from it and nothing else."""
    folder = tmp_path_factory.mktemp("build")
    for name in NEEDED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name, **({"ignore": JUNK} if copy is shutil.copytree else {}))
    build = "from setuptools import build_meta; build_meta.build_sdist('dist')"
    run(sys.executable, "-c", build, cwd=folder)
    (source,) = (folder / "dist").glob("*.tar.gz")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", "dist", source, cwd=folder)
    (wheel,) = (folder / "dist").glob("*.whl")
    return source, wheel


@pytest.fixture(scope="module")
def python(archives, tmp_path_factory) -> Path:
    """A fresh environment with the wheel; it looks up the dependencies in the one of the tests."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder / "venv", symlinks=True)
    executable = folder / "venv" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", executable)
    run(*pip, "install", "--no-deps", "--no-index", archives[1], cwd=folder)
    paths = {key: sysconfig.get_path(key) for key in ("purelib", "platlib")}
    theirs = run(executable, "-c", "import site; print(site.getsitepackages()[0])", cwd=folder)
    Path(theirs.strip(), "dependencies.pth").write_text("\n".join(sorted(set(paths.values()))))
    return executable


def test_the_wheel_has_every_module_and_asset_and_nothing_else(archives):
    with zipfile.ZipFile(archives[1]) as wheel:
        packed = {n for n in wheel.namelist() if n.startswith("keras_scnn/")}
        tops = {name.split("/")[0].split("-")[0] for name in wheel.namelist()}
        assert (
            wheel.read("keras_scnn/export/__init__.py")
            == (ROOT / "export" / "__init__.py").read_bytes()
        )  # not the checkout's, which only sets __path__
    modules = {p for p in (ROOT / "keras_scnn").rglob("*.py") if p.parent.name != "export"}
    assets = {p for p in (ROOT / "keras_scnn" / "assets").rglob("*") if p.is_file()}
    presets = ROOT / "keras_scnn" / "assets" / "presets"
    assets -= {path for path in presets.glob("*/network.tflite") if path.parent.name != "mobile"}
    assets |= set((ROOT / "keras_scnn" / "recipes").glob("*.yaml"))
    assets |= {
        ROOT / "keras_scnn" / name for name in ("__init__.pyi", "models/__init__.pyi", "py.typed")
    }
    files = {p for p in modules | assets if "__pycache__" not in p.parts}
    expected = {p.relative_to(ROOT).as_posix() for p in files}
    expected |= {f"keras_scnn/export/{p.name}" for p in (ROOT / "export").glob("*.py")}
    web = ROOT / "export" / "web"
    # node_modules and dist are not packaged.
    folders = (web, web / "src", web / "public", web / "public" / "about")
    page = [path for folder in folders for path in folder.glob("*.*")]
    expected |= {f"keras_scnn/{p.relative_to(ROOT).as_posix()}" for p in page if p.is_file()}
    assert packed == expected
    assert archives[1].stat().st_size < 20e6
    assert tops == {"keras_scnn"}


def test_the_source_archive_has_the_export_folder_once(archives):
    with tarfile.open(archives[0]) as source:
        names = {name.split("/", 1)[-1] for name in source.getnames()}
    assert {"setup.cfg", "pyproject.toml", "LICENSE", "export/__init__.py"} <= names
    assert "keras_scnn/export/__init__.py" not in names
    assert not [name for name in names if name.startswith("tests")]  # they need the whole checkout


def test_the_installed_package_is_the_one_that_is_imported(python, tmp_path):
    code = (
        "import keras_scnn, keras_scnn.export as e; from keras_scnn import load_face_model;"
        "m = load_face_model('open_face');"
        "print(keras_scnn.__file__, list(e.__path__)[0], m.n_identity, m.n_expression, sep='\\n')"
    )
    module, export, n_identity, n_expression = run(python, "-c", code, cwd=tmp_path).split()
    environment = python.parents[1]
    assert Path(module).is_relative_to(environment)
    assert Path(export).is_relative_to(environment)
    assert (n_identity, n_expression) == ("80", "52")  # 80 components, 52 ARKit expressions


def test_the_metadata_matches_the_package(python, tmp_path):
    code = (
        "import importlib.metadata as m, keras_scnn;"
        "needs = m.metadata('keras_scnn')['Requires-Python'];"
        "print(m.version('keras_scnn'), keras_scnn.__version__, needs)"
    )
    version, in_code, needs = run(python, "-c", code, cwd=tmp_path).split()
    assert version == in_code
    assert needs == ">=3.10"


@pytest.mark.parametrize("command", ["train", "evaluate", "reconstruct"])
def test_the_installed_commands_explain_themselves(python, tmp_path, command):
    outputs = run(python, "-m", f"keras_scnn.{command}", "--help", cwd=tmp_path)
    assert f"keras-scnn {command}" in outputs


def test_the_installed_command_turns_a_photo_into_a_mesh(python, tmp_path):
    data = pytest.importorskip("skimage.data")
    import trimesh

    from keras_scnn.io import write_image

    assert list_presets(), "the package carries no preset"
    write_image(tmp_path / "astronaut.png", data.astronaut())
    run(
        python, "-m", "keras_scnn.reconstruct", "astronaut.png", "--out", "faces",
        "--format", "ply", cwd=tmp_path,
    )  # fmt: skip
    mesh = trimesh.load(tmp_path / "faces" / "astronaut.ply", process=False)
    assert len(mesh.vertices) > 3000
    assert 0.12 < mesh.extents[2] < 0.35  # m, z up: the height of a head's front
