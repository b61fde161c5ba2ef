"""The package, and each port, reconstruct the golden faces from their photos.

A port (``examples/``) gets a bundle and a photo, and nothing else. C++ runs LiteRT's shared
library of the wheel ai-edge-litert, JavaScript LiteRT's WebAssembly in Node.js and in Chromium,
and Kotlin its own logic, its networks by a Python process. Tolerances: gray levels as in
``test_golden_crops``, and 0.1 px.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import ai_edge_litert
import numpy as np
import PIL.Image
import pytest
from test_golden_crops import OPENCV

from keras_scnn import load_preset, read_image
from keras_scnn.export.artifacts import Subject
from keras_scnn.export.bundle import write_bundle
from keras_scnn.export.crops import Crops
from keras_scnn.export.website import make_server
from keras_scnn.models.presets import preset_digest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES, GOLDEN = ROOT / "examples", ROOT / "tests" / "golden" / "faces"
TABLE = json.loads((GOLDEN / "faces.json").read_text())
NAMES = list(TABLE["cases"])
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
MAX_PX, MAX_WEIGHT = 0.1, 0.02
LITERT = Path(ai_edge_litert.__file__).parent


def vertices_of(name: str) -> np.ndarray:
    return np.fromfile(GOLDEN / f"{name}-vertices.bin", "<f4").reshape(-1, 3)


def test_they_are_of_the_preset():
    assert TABLE["digest"] == preset_digest(TABLE["preset"]), (
        "the preset has changed: run python tests/golden/make_faces.py"
    )
    assert sum(path.stat().st_size for path in GOLDEN.iterdir()) < 1e6


@pytest.mark.integration
def test_they_are_what_their_script_makes():
    pytest.importorskip("skimage")
    path = GOLDEN.with_name("make_faces.py")
    spec = importlib.util.spec_from_file_location("make_faces", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    made = script.cases()
    assert list(made) == NAMES
    for name, (photo, case, crops, vertices) in made.items():
        expected = TABLE["cases"][name]
        np.testing.assert_array_equal(photo, read_image(GOLDEN / f"{name}.png"))
        for crop, which in zip(crops, ("first", "second"), strict=True):
            golden = read_image(GOLDEN / f"{name}-{which}.png")
            assert np.abs(crop.astype(int) - golden).max() <= OPENCV
        for box, golden in zip(case["boxes"], expected["boxes"], strict=True):
            assert box == pytest.approx(golden, abs=MAX_PX)
        check(case | {"vertices": vertices}, name)


def check(face: dict, name: str) -> None:
    """Landmarks and mesh within 0.1 px of the photo, blendshapes by name, and vertices in mm."""
    expected = TABLE["cases"][name]
    apart = np.abs(np.array(face["landmarks"]) - expected["landmarks"])
    assert apart.shape == (68, 3) and apart.max() < MAX_PX
    poses = np.array(face["pose"]), np.array(expected["pose"])
    meshes = np.asarray(face["vertices"]), vertices_of(name)
    projected = [
        mesh @ pose[:, :3].T + pose[:, 3] for mesh, pose in zip(meshes, poses, strict=True)
    ]
    assert np.abs(projected[0] - projected[1]).max() < MAX_PX
    assert np.abs(meshes[0] - meshes[1]).max() < MAX_PX
    assert face["blendshapes"] == pytest.approx(expected["blendshapes"], abs=MAX_WEIGHT)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """The preset's bundle in float32."""
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    crops = Crops(np.zeros((2, 120, 120, 3), np.uint8), None, "none")
    name = TABLE["preset"]
    write_bundle(folder, Subject(load_preset(name), name, crops, crops), "float32")
    return folder


def run_port(command: list, bundle: Path, name: str, folder: Path, more: tuple = ()) -> None:
    """Run a port on a golden photo and compare what it prints, and its OBJ."""
    PIL.Image.open(GOLDEN / f"{name}.png").save(folder / "photo.ppm")
    words = [*map(str, command), str(bundle), str(folder / "photo.ppm"), str(folder / "face.obj")]
    done = subprocess.run([*words, *more], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in (folder / "face.obj").read_text().splitlines()]
    vertices = np.array([line[1:] for line in lines if line[0] == "v"], float)
    faces = np.array([line[1:] for line in lines if line[0] == "f"], int)
    triangles = np.fromfile(bundle / "triangles.bin", "<u4").reshape(-1, 3)
    np.testing.assert_array_equal(faces - 1, triangles)
    check(json.loads(done.stdout) | {"vertices": vertices}, name)


def refuses(command: list, bundle: Path, folder: Path) -> None:
    """A photo without a face, a text, a missing photo, a truncated file: one clear error."""
    PIL.Image.new("RGB", (200, 150), (90, 120, 150)).save(folder / "sky.ppm")
    (folder / "text.ppm").write_text("hello")
    for photo, message in (
        ("sky", "no face found"),
        ("text", "text.ppm: not a binary PPM"),
        ("gone", "gone.ppm"),
    ):
        assert message in refusal([*command, bundle, folder / f"{photo}.ppm"], folder / "face.obj")
    damaged = shutil.copytree(bundle, folder / "damaged")
    for name in ("network.tflite", "triangles.bin"):
        (damaged / name).write_bytes((bundle / name).read_bytes()[:1000])
        assert name in refusal([*command, damaged, folder / "sky.ppm"], folder / "face.obj")
        shutil.copy(bundle / name, damaged)


def refusal(words: list, obj: Path) -> str:
    """The error line of a port that reconstructs no face."""
    done = subprocess.run(list(map(str, [*words, obj])), capture_output=True, text=True)
    assert done.returncode == 1 and not obj.exists()
    (line,) = [each for each in done.stderr.splitlines() if each.startswith("error: ")]
    return line


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Path:
    """face.cc, compiled; nlohmann/json is Debian's, or the copy in TensorFlow's wheel."""
    if not shutil.which("g++"):
        pytest.skip("needs g++")
    import tensorflow as tf

    headers = sorted(Path(tf.sysconfig.get_include()).rglob("nlohmann/json.hpp"))
    program = tmp_path_factory.mktemp("cpp") / "face"
    library = LITERT / "libLiteRt.so"
    command = ["g++", "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", EXAMPLES / "face.cc"]
    command += [f"-isystem{path.parents[1]}" for path in headers[:1]]
    command += [library, f"-Wl,-rpath,{LITERT}", "-o", program]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if "nlohmann/json.hpp: No such file" in done.stderr:
        pytest.skip("needs nlohmann/json.hpp: apt-get install nlohmann-json3-dev")
    assert done.returncode == 0, done.stderr
    return program


@pytest.mark.integration
@pytest.mark.parametrize("name", NAMES)
def test_cpp_finds_them(compiled, bundle, tmp_path, name):
    run_port([compiled], bundle, name, tmp_path)


@pytest.mark.integration
def test_cpp_refuses_files_that_are_not_photos_of_a_face(compiled, bundle, tmp_path):
    refuses([compiled], bundle, tmp_path)


@pytest.fixture(scope="module")
def javascript(tmp_path_factory) -> Path:
    """face.mjs beside LiteRT.js, of the browser page's version."""
    if not shutil.which("npm"):
        pytest.skip("needs Node.js with npm")
    folder = tmp_path_factory.mktemp("javascript")
    shutil.copy(EXAMPLES / "face.mjs", folder)
    page = json.loads((ROOT / "export" / "web" / "package.json").read_text())
    known = page["dependencies"] | page["devDependencies"]
    packages = [f"{name}@{known[name]}" for name in ("@litertjs/core", "playwright-core")]
    words = ["npm", "install", "--no-audit", "--no-fund", *packages]
    if subprocess.run(words, cwd=folder, capture_output=True, timeout=120).returncode:
        pytest.skip("npm's registry cannot be reached")
    return folder / "face.mjs"


@pytest.mark.integration
@pytest.mark.parametrize("name", NAMES)
def test_javascript_finds_them(javascript, bundle, tmp_path, name):
    run_port(["node", javascript], bundle, name, tmp_path)


@pytest.mark.integration
def test_javascript_runs_in_a_folder_of_any_name(javascript, bundle, tmp_path):
    folder = shutil.copytree(javascript.parent, tmp_path / "my app ä")
    script = (folder / "face.mjs").rename(folder / "my face.mjs")
    run_port(["node", script], bundle, NAMES[0], tmp_path)


@pytest.mark.integration
def test_javascript_refuses_files_that_are_not_photos_of_a_face(javascript, bundle, tmp_path):
    refuses(["node", javascript], bundle, tmp_path)


@pytest.fixture(scope="module")
def in_browser(javascript, bundle) -> dict[str, dict]:
    """Results of the browser code in examples/README.md for the golden photos."""
    if not CHROMIUM:
        pytest.skip("needs Chromium (or its path in CHROMIUM)")
    site = javascript.parent
    (site / "bundle").symlink_to(bundle)
    (site / "wasm").symlink_to(site / "node_modules" / "@litertjs" / "core" / "wasm")
    for name in NAMES:
        shutil.copy(GOLDEN / f"{name}.png", site)
    (script,) = re.findall(r"^```js\n(.*?)^```", (EXAMPLES / "README.md").read_text(), re.M | re.S)
    page = GOLDEN.with_name("browser.html").read_text().replace("  SCRIPT\n", script)
    (site / "index.html").write_text(page)
    with make_server(site, 0) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        words = ["node", GOLDEN.with_name("browse.mjs"), *(f"{address}?{name}" for name in NAMES)]
        environment = {**os.environ, "CHROMIUM": CHROMIUM}
        done = subprocess.run(
            words, cwd=site, env=environment, capture_output=True, text=True, timeout=120
        )
        server.shutdown()
    assert done.returncode == 0, done.stderr
    return dict(zip(NAMES, json.loads(done.stdout), strict=True))


@pytest.mark.integration
@pytest.mark.parametrize("name", NAMES)
def test_javascript_finds_them_in_a_browser(in_browser, name):
    check(in_browser[name], name)


ORG_JSON = Path("/usr/share/java/json-android.jar")  # of Debian's libandroid-json-org-java
KOTLIN = "kotlin-compiler@2.4.20"  # of npm, 90 MB


@pytest.fixture(scope="module")
def kotlin(tmp_path_factory) -> list:
    """The command of Face.kt, compiled; FaceAndroid.kt needs an Android SDK and is not."""
    if not (ORG_JSON.is_file() and shutil.which("java") and shutil.which("npm")):
        pytest.skip("needs java, npm, and Debian's libandroid-json-org-java")
    folder = tmp_path_factory.mktemp("kotlin")
    words = ["npm", "install", "--no-audit", "--no-fund", KOTLIN]
    if subprocess.run(words, cwd=folder, capture_output=True, timeout=200).returncode:
        pytest.skip("npm's registry cannot be reached")
    home, beside = folder / "node_modules" / "kotlin-compiler", GOLDEN.with_name("kotlin")
    sources = EXAMPLES / "Face.kt", beside / "Main.kt"
    command = ["bash", home / "bin" / "kotlinc", *sources, "-cp", ORG_JSON, "-d", folder / "f.jar"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    jars = folder / "f.jar", ORG_JSON, home / "lib" / "kotlin-stdlib.jar"
    return ["java", "-cp", ":".join(map(str, jars)), "MainKt", sys.executable, beside]


@pytest.mark.integration
@pytest.mark.parametrize("name", NAMES)
def test_kotlin_finds_them(kotlin, bundle, tmp_path, name):
    *command, python, beside = kotlin
    runtime = python, str(beside / "run_networks.py")
    run_port(command, bundle, name, tmp_path, runtime)


@pytest.mark.parametrize("name", ["FaceAndroid.kt", "Face.swift"])
def test_code_that_is_not_compiled_says_so(name):
    assert (EXAMPLES / name).read_text().startswith("// NOT COMPILED by the tests")


@pytest.mark.parametrize("name", ["face.cc", "face.mjs", "Face.kt", "Face.swift"])
def test_ports_have_no_numbers_of_the_package(name):
    """All come from the JSON: no score, size, factor or angle stands in a port."""
    text = re.sub(r"//.*|/\*.*?\*/", "", (EXAMPLES / name).read_text())
    numbers = set(re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])", text))
    rules = {"0.055", "1.336", "0.3", "0.4", "0.6", "0.7", "0.8", "0.85", "0.15", "0.05", "0.64"}
    assert not numbers & (rules | {"127.5", "128", "120", "192", "1.5", "80", "896"})
