"""The browser page, in a real browser where there is one."""

import csv
import json
import os
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh

from keras_scnn.export import demo
from keras_scnn.export.lite import LiteReconstructor
from keras_scnn.io import read_image, write_image
from keras_scnn.models import load_preset
from keras_scnn.reconstruction.comparison import compare_photos
from keras_scnn.reconstruction.reconstructor import Reconstructor
from keras_scnn.settings import DEFAULT_PRESET
from keras_scnn.texturing.atlas import Atlas

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
BROWSE = Path(__file__).with_name("browse.mjs")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and shutil.which("npm")),
    reason="needs Node.js with npm, and Chromium (or its path in CHROMIUM)",
)
MAX_MM = 0.1


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    demo.write_model(folder, load_preset(DEFAULT_PRESET), DEFAULT_PRESET)
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page's folder, built."""
    asked = subprocess.run(["npm", "view", "vite", "version"], capture_output=True, timeout=60)
    if asked.returncode:
        pytest.skip("npm's registry cannot be reached")
    return demo.build_page(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def served(networks, tmp_path):
    """Address of a page without a build: a text in each of its homes."""
    for place in ("dist/index.html", "secret.txt", str(demo.WASM / "litert.wasm")):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(place)
    with demo.make_server(tmp_path, networks, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_what_the_page_loads_fits_together(networks):
    outputs = json.loads((networks / "model.json").read_text())
    lite = LiteReconstructor(networks / "scnn.tflite")
    count = lite.metadata["face_model"]["vertices"]
    assert len(outputs["triangles"]) == 3 * lite.metadata["face_model"]["triangles"]
    assert min(outputs["triangles"]) >= 0 and max(outputs["triangles"]) == count - 1
    assert len(outputs["uv"]) == 2 * count and 0 <= min(outputs["uv"]) <= max(outputs["uv"]) <= 1
    assert len(outputs["regions"]) == len(outputs["place"]) == count
    size, maps = outputs["texture"]["size"], outputs["texture"]["maps"]
    assert (networks / "maps.bin").stat().st_size == 2 * len(maps) * size**2
    assert outputs["crop"] == lite.metadata["crop"]
    for name in ("blazeface.tflite", "facemesh.tflite"):
        assert (networks / name).read_bytes()[4:8] == b"TFL3"


def test_distances_of_the_page_are_those_of_the_neutral_meshes(networks):
    outputs = json.loads((networks / "model.json").read_text())
    model = load_preset(DEFAULT_PRESET).face_model
    identity = np.random.default_rng(0).normal(size=(2, model.n_identity))
    shapes = model.vertices(identity)
    expected = np.sqrt(np.square(shapes[0] - shapes[1]).sum(axis=1).mean())
    page = np.linalg.norm((identity[0] - identity[1]) @ np.array(outputs["coordinates"]))
    assert page == pytest.approx(expected, rel=1e-4)


def test_the_server_gives_each_part_with_its_type_and_isolation(served):
    for place, kind in (
        ("/", "text/html"),
        ("/wasm/litert.wasm", "application/wasm"),
        ("/model/model.json", "application/json"),
    ):
        with urllib.request.urlopen(served + place) as answer:
            assert answer.headers["Content-Type"] == kind
            assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"


@pytest.mark.parametrize("place", ["/secret.txt", "/../secret.txt", "/wasm/..%2fsecret.txt", "/x"])
def test_the_server_gives_nothing_else(served, place):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(served + place)


def test_without_node_it_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert demo.main(["--no-open", "--cache", str(tmp_path / "cache")]) == 2
    assert "npm is not installed" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_a_build_that_fails_leaves_nothing_and_says_why(tmp_path, monkeypatch, capsys):
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text("#!/bin/sh\necho no such registry >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}:{os.environ['PATH']}")
    assert demo.main(["--no-open", "--cache", str(tmp_path / "cache")]) == 2
    assert "no such registry" in capsys.readouterr().err
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_unknown_preset_is_one_clear_line(tmp_path, capsys):
    assert demo.main(["nobody", "--no-open", "--cache", str(tmp_path)]) == 2
    assert "no preset 'nobody'" in capsys.readouterr().err


def browse(page: Path, networks: Path, folder: Path, *words: str):
    """What ``browse.mjs`` prints of photos in ``folder``."""
    with demo.make_server(page, networks, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        done = subprocess.run(
            ["node", BROWSE, page, address, *words],
            cwd=folder,
            env={**os.environ, "CHROMIUM": CHROMIUM},
            capture_output=True,
            text=True,
            timeout=240,
        )
        server.shutdown()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.integration
@needs_browser
def test_a_photo_goes_in_and_pythons_mesh_comes_out(networks, page, tmp_path):
    photo = pytest.importorskip("skimage.data").astronaut()
    for name, image in (("photo.png", photo), ("other.png", photo[:, ::-1])):
        cv2.imwrite(str(tmp_path / name), image[..., ::-1])
    outputs = browse(page, networks, tmp_path, "photo.png", "other.png", "page")
    face = Reconstructor.from_preset().largest(photo)
    vertices = np.reshape(outputs["vertices"], (-1, 3))
    assert np.linalg.norm(vertices - face.vertices, axis=1).max() < MAX_MM
    apart = np.abs(np.reshape(outputs["landmarks"], (-1, 3)) - face.landmarks).max(axis=0)
    assert apart[:2].max() < 0.2
    # Depth has no origin in the photo and follows the camera's third row, of which the page's own
    # resampling of the crop changes 0.5 %.
    assert apart[2] < 0.4
    mesh = trimesh.load(BytesIO(bytes(outputs["glb"])), file_type="glb", force="mesh")
    assert len(mesh.faces) == len(face.model.triangles)
    np.testing.assert_allclose(mesh.extents, np.ptp(vertices, axis=0) / 1000, rtol=1e-3)  # m
    # three.js keeps v upwards in glTF, whose v points down: the picture stands on its head.
    texture = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB"))[::-1]
    apart = color_differences(texture, face.texture(photo))[Atlas.of(face.model, 512).mask]
    assert np.median(apart) < 1 and np.quantile(apart, 0.9) < 3
    assert "mm apart, one person with 100 % (by shape and features)" in outputs["verdict"]
    assert "notes.txt is no picture" in outputs["refusal"]
    assert outputs["foreign"] == []  # nothing came from elsewhere
    assert not outputs["overflow"]  # the page fits a phone
    assert [text for text in outputs["problems"] if not text.startswith(("INFO", "WARNING"))] == []
    for name in ("page-desktop.png", "page-phone.png"):
        assert read_image(tmp_path / name).std() > 20


def color_differences(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(S, S): of two textures (S, S, 3) uint8, in CIE L*a*b*."""
    lab = [cv2.cvtColor(np.float32(each) / 255, cv2.COLOR_RGB2LAB) for each in (first, second)]
    return np.linalg.norm(lab[0] - lab[1], axis=-1)


@pytest.mark.integration
@needs_browser
def test_the_page_and_the_command_give_one_answer_to_pairs_of_photos(
    networks, page, tmp_path, shared_data
):
    with (shared_data / "pairs" / "celeba.csv").open() as file:
        rows = list(csv.DictReader(file))[::97][:8]
    pairs = [[read_image(shared_data / row[side]) for side in ("first", "second")] for row in rows]
    answers = answers_of_both(page, networks, tmp_path, pairs)
    assert max(answer["probability"] for answer in answers) > 0.9
    assert min(answer["probability"] for answer in answers) < 0.1


@pytest.mark.integration
@needs_browser
def test_the_page_finds_the_faces_of_the_command(networks, page, tmp_path):
    """One whose collar looks like a second face, on its side, upside down, and not quite clear."""
    photo = pytest.importorskip("skimage.data").astronaut()
    code = cv2.imencode(".jpg", photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    collar = np.ascontiguousarray(cv2.imdecode(code, cv2.IMREAD_COLOR)[..., ::-1])
    turned = [np.ascontiguousarray(np.rot90(photo, quarters)) for quarters in (1, 2)]
    blurred = cv2.GaussianBlur(photo, (0, 0), 3)
    pairs = [[collar, turned[0]], [photo, turned[1]], [blurred, photo]]
    # A turned head is found through a first, wrong box, which a gray level moves by a pixel.
    answers = answers_of_both(page, networks, tmp_path, pairs, within=0.1)
    assert min(answer["probability"] for answer in answers[:2]) > 0.9


def answers_of_both(
    page: Path, networks: Path, folder: Path, pairs: list, within: float = 0.01
) -> list[dict]:
    """The page's answers to pairs of photos, which have to be the command's."""
    names = [f"{i}.png" for i in range(2 * len(pairs))]
    for name, photo in zip(names, (photo for pair in pairs for photo in pair), strict=True):
        write_image(folder / name, photo)  # decoded alike by everybody
    answers, reconstructor = browse(page, networks, folder, *names), Reconstructor.from_preset()
    for answer, pair in zip(answers, pairs, strict=True):
        expected = compare_photos(reconstructor, tuple(pair)).to_json()
        assert answer["distance_mm"] == pytest.approx(expected["distance_mm"], abs=within)
        assert answer["cosine"] == pytest.approx(expected["cosine"], abs=within)
        assert answer["probability"] == pytest.approx(expected["probability"], abs=0.01)
        assert answer["probability_by"] == expected["probability_by"] == "shape and features"
        assert set(answer["probabilities"]) == set(expected["probabilities"])
    return answers


@pytest.mark.integration
@needs_browser
def test_the_units_of_the_page_pass_and_golden_crops_and_comparisons(page):
    golden = Path(__file__).parents[1] / "golden"
    for name in ("crops.test.ts", "crops.json", "comparisons.test.ts", "comparisons.json"):
        shutil.copy(golden / name, page / "src" / name)
    done = subprocess.run(["npm", "test"], cwd=page, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
