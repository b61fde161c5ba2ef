"""The public interface of ``keras_scnn``: names, types, cost of importing, and old names."""

import ast
import importlib
import subprocess
import sys
import warnings
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

import keras_scnn

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {
    "__main__", "ablate", "compare", "convert", "demo", "evaluate", "prepare", "presets",
    "reconstruct", "release", "serve", "train",
}  # fmt: skip
HEAVY = {"keras", "tensorflow", "jax", "torch", "numpy", "scipy", "cv2", "PIL", "numba", "h5py"}


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package and of export, by its path below the checkout."""
    paths = [*(ROOT / "keras_scnn").rglob("*.py"), *(ROOT / "export").glob("*.py")]
    return {str(p.relative_to(ROOT)): ast.parse(p.read_text()) for p in paths}


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_no_two_public_things_have_one_name():
    homes = defaultdict(list)
    for path, tree in modules().items():
        if Path(path).stem not in COMMANDS:
            kinds = ast.FunctionDef | ast.ClassDef
            for name in (n.name for n in tree.body if isinstance(n, kinds)):
                homes[name].append(path)
    doubles = {k: v for k, v in homes.items() if len(v) > 1 and not k.startswith("_")}
    assert not doubles


def test_no_public_name_is_that_of_a_module():
    stems = {Path(p).parent.name if p.endswith("__init__.py") else Path(p).stem for p in modules()}
    assert not stems & set(keras_scnn.__all__)


def test_importing_the_package_imports_nothing_heavy():
    code = f"import sys, keras_scnn; print(sorted(set(sys.modules) & {HEAVY}))"
    assert python(code) == "[]"


def test_old_modules_are_the_new_ones_with_a_warning():
    moved = keras_scnn._MOVED_MODULES
    for old, new in moved.items():
        sys.modules.pop(f"keras_scnn.{old}", None)
        with pytest.warns(DeprecationWarning, match=f"keras_scnn.{old} is now keras_scnn.{new}"):
            module = importlib.import_module(f"keras_scnn.{old}")
        assert module is importlib.import_module(f"keras_scnn.{new}")
        assert module.__name__ == module.__spec__.name == f"keras_scnn.{new}"


def test_old_names_of_modules_are_the_new_things_with_a_warning():
    for old, names in keras_scnn._MOVED_NAMES.items():
        module = importlib.import_module(f"keras_scnn.{old}" if old else "keras_scnn")
        for name, new in names.items():
            home, _, attribute = new.rpartition(".")
            expected = getattr(importlib.import_module(f"keras_scnn.{home}"), attribute)
            if name not in vars(module):
                with pytest.warns(DeprecationWarning, match=f"{name} is now keras_scnn.{new}"):
                    getattr(module, name)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert getattr(module, name) is expected
        with pytest.raises(AttributeError, match="nonsense"):
            _ = module.nonsense


def test_a_warning_of_an_old_name_is_about_the_line_that_uses_it():
    with pytest.warns(DeprecationWarning) as record:
        sys.modules.pop("keras_scnn.texture", None)
        importlib.import_module("keras_scnn.texture")
        from keras_scnn import fit_person  # noqa: F401
    assert record[-1].filename == __file__


TYPES = """
import numpy as np
import keras_scnn
from keras_scnn import MorphableModel, Reconstructor, load_preset, read_image
reveal_type(read_image("a.jpg"))
reveal_type(MorphableModel.open_face().n_vertices)
reveal_type(load_preset("mobile"))
reveal_type(Reconstructor.from_preset("mobile")(read_image("a.jpg")))
reveal_type(keras_scnn.ContrastiveLoss(1.0))
keras_scnn.no_such_name
"""


@pytest.mark.integration
def test_type_checkers_see_the_real_types(tmp_path):
    api = pytest.importorskip("mypy.api", reason="pip install keras_scnn[test]")
    (tmp_path / "snippet.py").write_text(TYPES)
    # The cache is that of mypy on the checkout, which .ci/run and pre-commit have filled.
    options = ["--config-file", str(ROOT / "setup.cfg"), "--cache-dir", str(ROOT / ".mypy_cache")]
    result, _, _ = api.run([*options, str(tmp_path / "snippet.py")])
    revealed = [line.split('"')[1] for line in result.splitlines() if "Revealed type" in line]
    assert revealed == [
        "numpy.ndarray[tuple[Any, ...], numpy.dtype[Any]]",
        "int",
        "keras_scnn.models.preset_network.Preset",
        "list[keras_scnn.reconstruction.faces.Reconstruction]",
        "keras_scnn.losses.contrastive.ContrastiveLoss",
    ], result
    assert 'Module has no attribute "no_such_name"' in result
