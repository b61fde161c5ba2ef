"""This repository's rules that ruff and import-linter cannot check, on its source."""

import ast
import configparser
import functools
import importlib.metadata
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "keras_scnn"
COMMANDS = {"ablate", "compare", "convert", "evaluate", "prepare", "reconstruct", "serve", "train"}
OTHER_ROOT_MODULES = {"__init__", "__main__"} | {
    "io", "morphable_model", "parameters", "settings", "shape_distance", "storage",
}  # fmt: skip
TENSORFLOW_HOMES = {"data", "export"}
FRAMEWORKS = {"tensorflow", "jax", "torch"}
WITHOUT_KERAS = {
    "storage", "geometry", "parameters", "morphable_model", "face_models", "fitting",
    "shape_distance", "settings", "io", "photos", "evaluation",
}  # fmt: skip
MAX_FUNCTION_LINES, MEDIAN_FUNCTION_LINES, MAX_FILE_LINES, MAX_COMMAND_LINES = 40, 10, 450, 120

SOURCES = sorted(
    path
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "export").rglob("*.py")]
    if path != PACKAGE / "export" / "__init__.py"  # which only sets __path__, and has its own test
)
OTHER_CODE = sorted(
    path
    for folder in ("tests", "tools", "benchmarks", "notebooks")
    for path in (ROOT / folder).rglob("*.py")
)


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a source."""
    return ast.parse(path.read_text(), str(path))


def room(path: Path) -> str:
    """The top-level module or package of a source: 'geometry', 'io'; '' for the root."""
    if path.is_relative_to(ROOT / "export"):
        return "export"
    first = path.relative_to(PACKAGE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def walk(node: ast.AST, at_import: bool) -> Iterator[ast.AST]:
    """All nodes; ``at_import`` leaves out functions, and imports for type checkers."""
    if not at_import:
        yield from ast.walk(node)
        return
    yield node
    for child in ast.iter_child_nodes(node):
        is_later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or (
            isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        )
        if not is_later:
            yield from walk(child, at_import)


@functools.cache
def imports(tree: ast.AST, at_import: bool = False) -> list[tuple[str, int]]:
    """(dotted name, line) of all that is imported, ``from a import b`` counting as ``a.b``."""
    result = []
    for node in walk(tree, at_import):
        if isinstance(node, ast.Import):
            result += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            result += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return result


def rooms_imported(tree: ast.AST, at_import: bool = False) -> set[str]:
    """Top-level modules and packages of keras_scnn that a tree imports, see ``room``."""
    dotted = [name.split(".") for name, _ in imports(tree, at_import)]
    return {parts[1] for parts in dotted if parts[0] == "keras_scnn" and len(parts) > 1}


def functions(tree: ast.AST) -> list[ast.FunctionDef]:
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def body_lines(function: ast.FunctionDef) -> int:
    """Lines of a function from its first statement on, the docstring left out."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return function.end_lineno - body[0].lineno + 1 if body else 0


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """The names on cycles or that lead to one: those without imports are removed repeatedly."""
    graph = dict(graph)
    while free := [name for name, targets in graph.items() if not targets & graph.keys()]:
        for name in free:
            del graph[name]
    return sorted(graph)


def test_the_helpers_of_this_file():
    tree = ast.parse(
        "import a.b\nfrom c import d\nclass K:\n    import e\nif TYPE_CHECKING:\n    import g\n"
        "def f():\n    'doc'\n    import g\n    x = 1\n    return x\n"
    )
    assert sorted(name for name, _ in imports(tree)) == ["a.b", "c.d", "e", "g", "g"]
    assert [name for name, _ in imports(tree, at_import=True)] == ["a.b", "c.d", "e"]
    assert [body_lines(f) for f in functions(tree)] == [3]
    assert cycle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert cycle({"a": {"b"}, "b": {"a"}, "c": {"a"}, "d": set()}) == ["a", "b", "c"]


def test_imports_point_one_way():
    """The layers are contracts of import-linter, in setup.cfg."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_root_has_only_commands_and_the_listed_modules():
    modules = {path.stem for path in PACKAGE.glob("*.py")}
    assert modules <= COMMANDS | OTHER_ROOT_MODULES
    for path in PACKAGE.glob("*.py"):
        lines = len(path.read_text().splitlines())
        assert path.stem not in COMMANDS or lines <= MAX_COMMAND_LINES, path.name


def test_there_are_no_import_cycles_of_packages():
    graph: dict[str, set[str]] = {}
    inner: dict[str, set[str]] = {}
    for path in SOURCES:
        if room(path):
            graph.setdefault(room(path), set()).update(rooms_imported(parsed(path)) - {room(path)})
        if room(path) == "data":
            own = path.relative_to(PACKAGE / "data").parts[0].removesuffix(".py")
            dotted = [name.split(".") for name, _ in imports(parsed(path))]
            inner.setdefault(own, set()).update(
                d[2] for d in dotted if d[:2] == ["keras_scnn", "data"] and d[2] != own
            )
    assert cycle(graph) == []
    assert cycle(inner) == []


def test_export_is_imported_by_commands_only_and_lazily():
    for path in SOURCES:
        if room(path) == "export":
            continue
        assert "export" not in rooms_imported(parsed(path), at_import=True), path
        may = COMMANDS | {"__main__"}
        assert room(path) in may or "export" not in rooms_imported(parsed(path)), path


def test_frameworks_are_imported_only_where_allowed():
    for path in SOURCES:
        everywhere = {name.split(".")[0] for name, _ in imports(parsed(path))}
        allowed = {"tensorflow"} if room(path) in TENSORFLOW_HOMES else set()
        if path.is_relative_to(PACKAGE / "training" / "matching"):
            allowed = {"jax"}  # the accelerator's loop
        if path == PACKAGE / "training" / "distribution.py":
            allowed = {"jax"}  # processes and devices, which Keras has no functions for
        assert not everywhere & FRAMEWORKS - allowed, f"{path}: use keras.ops"
        is_matching = path.is_relative_to(PACKAGE / "training" / "matching")
        allowed = {"jax"} if is_matching else set()  # a run imports it when it asks for matching
        names = [name for name, _ in imports(parsed(path), at_import=True)]
        at_import = {name.split(".")[0] for name in names}
        assert not at_import & FRAMEWORKS - allowed, f"{path}: import it in the function"
        matching = "keras_scnn.training.matching"
        loaded = any(name.startswith(matching) for name in names)
        assert is_matching or not loaded, f"{path}: import {matching} in the function"
        assert room(path) not in WITHOUT_KERAS or "keras" not in everywhere, path


def test_export_is_imported_only_as_part_of_keras_scnn():
    for path in SOURCES + OTHER_CODE:
        tops = {name.split(".")[0] for name, _ in imports(parsed(path))}
        assert "export" not in tops, f"{path}: write 'from keras_scnn.export import ...'"


def test_nothing_unpickles_what_it_reads():
    """In addition to ruff's S301: with ``allow_pickle``, NumPy unpickles too."""
    for path in SOURCES + OTHER_CODE:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call):
                options = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert options.get("allow_pickle", "False") == "False", f"{path}:{node.lineno}"
                is_load = ast.unparse(node.func) in ("np.load", "numpy.load")
                assert not is_load or "allow_pickle" in options, f"{path}:{node.lineno}"


def test_files_and_functions_are_short():
    for path in SOURCES:
        assert len(path.read_text().splitlines()) <= MAX_FILE_LINES, path
        long = {f.name: body_lines(f) for f in functions(parsed(path))}
        assert not {k: n for k, n in long.items() if n > MAX_FUNCTION_LINES}, path


def test_the_median_function_fits_on_ten_lines():
    lengths = [body_lines(f) for path in SOURCES for f in functions(parsed(path))]
    assert statistics.median(lengths) <= MEDIAN_FUNCTION_LINES


def public_definitions(tree: ast.Module) -> list[ast.AST]:
    """Public functions and classes of a module, and public methods of its public classes."""
    kinds = ast.FunctionDef | ast.ClassDef
    result = [n for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_")]
    classes = [n for n in result if isinstance(n, ast.ClassDef)]
    methods = [m for c in classes for m in c.body if isinstance(m, ast.FunctionDef)]
    return result + [m for m in methods if not m.name.startswith("_")]


def test_public_functions_have_type_hints():
    for path in SOURCES:
        if room(path) in ("losses", "models"):
            continue  # a tensor's type is the backend's
        for node in public_definitions(parsed(path)):
            if isinstance(node, ast.FunctionDef) and not _typed_elsewhere(node):
                given = [*node.args.args, *node.args.kwonlyargs]
                typed = {a.arg for a in given if a.annotation} | _defaulted(node) | {"self", "cls"}
                assert not {a.arg for a in given} - typed, f"{path}: {node.name}"


def _typed_elsewhere(node: ast.FunctionDef) -> bool:
    keras_methods = ("call", "build", "compute_output_shape", "compute_output_spec", "get_config")
    compiled = any("jit" in ast.unparse(d) for d in node.decorator_list)  # numba finds the types
    return compiled or node.name in keras_methods or node.name.startswith("on_")


def _defaulted(node: ast.FunctionDef) -> set[str]:
    """Arguments whose default shows the type: ``clip=False``."""
    positional = node.args.args[len(node.args.args) - len(node.args.defaults) :]
    keyword = [a for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if d]
    return {a.arg for a in positional + keyword}


def test_each_name_of_the_root_can_be_imported():
    import keras_scnn

    assert not rooms_imported(parsed(PACKAGE / "__init__.py"))
    missing = [name for name in keras_scnn.__all__ if not hasattr(keras_scnn, name)]
    assert not missing
    with pytest.raises(AttributeError, match="nonsense"):
        _ = keras_scnn.nonsense


def test_a_face_model_is_read_without_starting_a_framework():
    code = (
        "import sys, keras_scnn; model = keras_scnn.MorphableModel.open_face();"
        "started = {'tensorflow', 'keras', 'jax', 'torch'} & set(sys.modules);"
        "print(model.n_vertices, sorted(started))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    count, started = done.stdout.split(" ", 1)
    assert int(count) > 1000
    assert started.strip() == "[]"


def test_keras_scnn_export_is_the_top_level_folder_in_three_lines_of_code():
    import keras_scnn.export

    assert [Path(p).resolve() for p in keras_scnn.export.__path__] == [ROOT / "export"]
    tree = ast.parse((PACKAGE / "export" / "__init__.py").read_text())
    assert len(tree.body) == 3  # the docstring, an import and __path__
    assert sorted(p.name for p in (PACKAGE / "export").glob("*.py")) == ["__init__.py"]


def test_the_export_package_has_a_docstring_and_nothing_else():
    tree = parsed(ROOT / "export" / "__init__.py")
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1


def test_setup_cfg_lists_every_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    there = {".".join(p.parent.relative_to(ROOT).parts) for p in PACKAGE.rglob("__init__.py")}
    assert listed == there
    assert "keras_scnn.export = export" in config["options"]["package_dir"]


def _named(requirements: str) -> set[str]:
    names = (re.split(r"[<>=!\[]", need)[0] for need in requirements.split())
    return {name.lower().replace("_", "-") for name in names}


def test_setup_cfg_lists_every_package_that_is_imported():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = config["options.extras_require"]
    brought = {name for e in set(extras) - {"test", "notebooks"} for name in _named(extras[e])}
    listed = _named(config["options"]["install_requires"])
    homes = importlib.metadata.packages_distributions()
    for path in SOURCES:
        always, ever = (
            {name.split(".")[0] for name, _ in imports(parsed(path), at_import)}
            - sys.stdlib_module_names - {"keras_scnn"}
            for at_import in (True, False)
        )  # fmt: skip
        for top in ever:
            in_matching = path.is_relative_to(PACKAGE / "training" / "matching")
            known = listed if top in always and not in_matching else listed | brought
            packages = {d.lower().replace("_", "-") for d in homes.get(top, [top])}
            assert packages & known, f"{path.name} imports {top}, which setup.cfg does not list"
    # Keras imports it only when the callback writes, and TensorFlow 2.21 does not bring it.
    logs = any("callbacks.TensorBoard" in path.read_text() for path in SOURCES)
    assert not logs or "tensorboard" in listed


def written_files() -> list[Path]:
    """Text files of the project, those that git ignores and pictures left out."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if listing.returncode:
        pytest.skip("not a git checkout, so there is no list of the project's files")
    paths = [ROOT / name for name in listing.stdout.splitlines()]
    text = {".py", ".md", ".cfg", ".toml", ".txt", ".ipynb", ".json", ".yaml", ".yml", ".sh", ""}
    return [p for p in paths if p.is_file() and p.suffix in text]


def test_no_two_test_files_have_one_name():
    # pytest imports them by their names alone, for the folders are no packages.
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert [name for name in set(names) if names.count(name) > 1] == []


def test_no_file_names_a_path_of_somebodys_machine():
    place = re.compile(r"(?<![\w.~}])/(?:home|Users|root|work|tmp|mnt|media|scratch)/\w+")
    result = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in written_files()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if place.search(line)
    ]
    assert not result


def test_no_research_photo_or_large_file_is_committed():
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout, so there is no list of the project's files")
    names = [name for name in listing.stdout.split("\0") if name]
    assert not [n for n in names if Path(n).suffix in (".mat", ".pts", ".h5", ".keras", ".pkl")]
    sizes = {n: (ROOT / n).stat().st_size for n in names if (ROOT / n).is_file()}
    assert not {n: size for n, size in sizes.items() if size > 10e6}


@pytest.mark.parametrize("path", [*SOURCES, *OTHER_CODE], ids=lambda p: str(p.relative_to(ROOT)))
def test_progress_is_also_shown_in_notebooks_and_logs(path):
    """``tqdm(disable=None)`` shows nothing where stderr is no terminal."""
    hidden = [
        call.lineno
        for call in ast.walk(parsed(path))
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "tqdm"
        for option in call.keywords
        if option.arg == "disable" and ast.unparse(option.value) == "None"
    ]
    assert not hidden, f"{path}: lines {hidden}"
