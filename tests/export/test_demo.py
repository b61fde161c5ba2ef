"""The browser page, in a real browser where there is one."""

import base64
import contextlib
import csv
import json
import os
import re
import shutil
import socket
import ssl
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
from firefox import FIREFOX, Firefox

from keras_scnn.export import demo, website
from keras_scnn.export.lite import LiteReconstructor
from keras_scnn.export.tflite import write_tflite
from keras_scnn.io import read_image, write_image
from keras_scnn.models import load_preset
from keras_scnn.photos.detection import LargestFaceDetector
from keras_scnn.reconstruction.comparison import compare_photos
from keras_scnn.reconstruction.reconstructor import Reconstructor
from keras_scnn.settings import DEFAULT_PRESET
from keras_scnn.storage.atomic import partial_name
from keras_scnn.texturing.atlas import Atlas
from keras_scnn.texturing.texture import person_texture

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
BROWSE = Path(__file__).with_name("browse.mjs")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and shutil.which("npm")),
    reason="needs Node.js with npm, and Chromium (or its path in CHROMIUM)",
)
MAX_MM = 0.1
# Wait for the page, take the sample picture, and give its landmarks; or what the page says instead.
SAMPLE = """
const find = (id) => document.getElementById(id);
const wait = async (isDone) => {
  while (!isDone()) {
    if (find("found").classList.contains("error")) throw find("found").textContent;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
};
await wait(() => document.body.dataset.ready);
find("sample").click();
await wait(() => /texture/.test(find("speed").textContent));
return Array.from(window.scnn.face.landmarks);
"""


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    website.write_model(folder, load_preset(DEFAULT_PRESET), DEFAULT_PRESET, "float16")
    return folder


@pytest.fixture(scope="module")
def site(page, networks, tmp_path_factory):
    """A site of ``networks``, which are not converted again: that takes twelve seconds."""
    folder, preset = tmp_path_factory.mktemp("home") / "site", load_preset(DEFAULT_PRESET)

    def copied(model: Path, *subject):
        assert subject == (preset, DEFAULT_PRESET, "float16")
        shutil.copytree(networks, model, dirs_exist_ok=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(website, "write_model", copied)
        website.write_site(folder, page, preset, DEFAULT_PRESET, "float16", website.QUICK)
    return folder


@contextlib.contextmanager
def serving(site: Path, **options):
    """Address of a server of a site."""
    with website.make_server(site, 0, **options) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def served(tmp_path):
    """Address of a site of three files, one with compressed copies, beside a secret."""
    site = tmp_path / "site"
    (site / "model").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret")
    for name in ("index.html", "a.wasm", "a.wasm.br", "a.wasm.gz", "model/model.json"):
        (site / name).write_text(name)
    with serving(site) as address:
        yield f"http://{address}"


@pytest.mark.parametrize("path", ["/%00", "/model/a%00.json"])
def test_a_name_that_no_file_has_is_not_found(served, path):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{served}{path}", timeout=10)


@pytest.mark.integration
def test_the_site_of_a_preset_folder_has_its_name_and_no_path(small, tmp_path):
    website.write_model(tmp_path, small.preset, str(small.folder), "float32")
    written = LiteReconstructor(tmp_path / "scnn.tflite").metadata
    assert written["preset"] == small.folder.name
    assert str(small.folder.parent) not in (tmp_path / "model.json").read_text()
    terms = (tmp_path / "terms.txt").read_text("utf-8-sig")
    assert terms.startswith(f"The network '{small.folder.name}': ")


@pytest.mark.integration
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


@pytest.mark.integration
def test_distances_of_the_page_are_those_of_the_neutral_meshes(networks):
    outputs = json.loads((networks / "model.json").read_text())
    model = load_preset(DEFAULT_PRESET).face_model
    identity = np.random.default_rng(0).normal(size=(2, model.n_identity))
    shapes = model.vertices(identity)
    expected = np.sqrt(np.square(shapes[0] - shapes[1]).sum(axis=1).mean())
    page = np.linalg.norm((identity[0] - identity[1]) @ np.array(outputs["coordinates"]))
    assert page == pytest.approx(expected, rel=1e-4)


@pytest.mark.integration
def test_half_precision_weights_lose_bits_and_nothing_else(networks):
    content = (networks / "scnn.tflite").read_bytes()
    assert website.round_float16_weights(content) == content  # they are rounded already
    fewer = website.round_float16_weights(content, 8)
    changed = np.flatnonzero(np.frombuffer(content, np.uint8) != np.frombuffer(fewer, np.uint8))
    assert len(fewer) == len(content) and len(changed) > 1e6
    values = np.frombuffer(content, np.uint8), np.frombuffer(fewer, np.uint8)
    at = changed[0] // 2 * 2  # a weight, as NumPy reads and rounds it
    before, after = (float(v[at : at + 2].view(np.float16)[0]) for v in values)
    step = 2.0 ** (np.floor(np.log2(abs(before))) - 2)
    assert after == pytest.approx(step * np.round(before / step), rel=1e-9)


@pytest.mark.integration
def test_rounded_weights_move_landmarks_by_hundredths_of_a_pixel(networks, tmp_path):
    preset = load_preset(DEFAULT_PRESET)
    write_tflite(tmp_path / "exact.tflite", preset, "float32", vertices=True)
    photo = pytest.importorskip("skimage.data").astronaut()
    crops = [cv2.resize(photo[20:220, x : x + 200], (120, 120)) for x in (110, 120, 130)]
    files = tmp_path / "exact.tflite", networks / "scnn.tflite"
    exact, short = ([LiteReconstructor(file)(crop) for crop in crops] for file in files)
    for one, other in zip(exact, short, strict=True):
        assert np.abs(one["landmarks"] - other["landmarks"]).mean() < 0.05
        assert np.abs(one["vertices"] - other["vertices"]).mean() < 0.02


def test_a_site_lists_its_files(tmp_path):
    (tmp_path / "wasm-1").mkdir()
    (tmp_path / "a.txt").write_bytes(b"12345")
    (tmp_path / "a.txt.br").write_bytes(b"123")
    listed = website.list_files(tmp_path)
    assert listed["files"] == {"a.txt": {"bytes": 5, "sent": 3}} and listed["runtime"] == "wasm-1"
    (tmp_path / "a.txt").write_bytes(b"12346")
    assert website.list_files(tmp_path)["version"] != listed["version"]


def test_the_license_is_the_projects():
    text = Path(website.SOURCES, "public", "about", "license.txt").read_text()
    assert text == Path(__file__).parents[2].joinpath("LICENSE").read_text()


@pytest.mark.parametrize("name", ["mobile", "open"])
def test_the_page_shows_the_terms_of_its_network(name):
    preset = load_preset(name)
    text = website.describe_terms(preset, name, "# The card")
    license = preset.metadata["license"]
    assert text == f"The network '{name}': {license}\n\n# The card"
    about = Path(website.SOURCES, "public", "about", "index.html").read_text()
    assert 'href="../model/terms.txt"' in about and "its network are" not in about


@pytest.mark.parametrize(
    "accepted, sent", [("gzip, deflate, br", "br"), ("gzip", "gz"), ("identity", None)]
)
def test_the_server_sends_the_smallest_copy_that_is_accepted(served, accepted, sent):
    request = urllib.request.Request(f"{served}/a.wasm?1", headers={"Accept-Encoding": accepted})
    with urllib.request.urlopen(request) as answer:
        assert answer.read().decode() == ("a.wasm" if sent is None else f"a.wasm.{sent}")
        assert answer.headers["Content-Encoding"] == {"br": "br", "gz": "gzip", None: None}[sent]
        assert answer.headers["Content-Type"] == "application/wasm"
        assert answer.headers["Vary"] == "Accept-Encoding"


def test_the_server_gives_types_and_isolation(served):
    for place, kind in (("/", "text/html"), ("/model/model.json", "application/json")):
        with urllib.request.urlopen(served + place) as answer:
            assert answer.headers["Content-Type"] == kind
            assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"


@pytest.mark.parametrize(
    "place", ["/secret.txt", "/../secret.txt", "/model/..%2f..%2fsecret.txt", "/model/", "/x"]
)
def test_the_server_gives_nothing_else(served, place):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(served + place)


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs the command openssl")
def test_a_self_made_certificate_is_of_the_address(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("hello")
    certificate = website.make_certificate(tmp_path, "127.0.0.1")
    trusting = ssl.create_default_context(cafile=certificate)
    with serving(tmp_path / "site", certificate=certificate) as address:
        with urllib.request.urlopen(f"https://{address}/", context=trusting) as answer:
            assert answer.read() == b"hello"
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            urllib.request.urlopen(f"https://{address}/", context=ssl.create_default_context())


@pytest.mark.parametrize("host", ["0.0.0.0", "example.org", "192.168.1", ""])
def test_a_host_that_is_no_address_of_a_machine_is_refused(host, tmp_path, capsys):
    assert demo.main(["--host", host, "--cache", str(tmp_path / "cache")]) == 2
    assert "--host is" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "words, said",
    [
        (["--host", "203.0.113.9"], "--host 203.0.113.9 --port 8000: "),  # of documents, RFC 5737
        (["--port", "70000"], "--port is 70000; it must be from 0 to 65535"),
        (["--build", "site", "--host", "127.0.0.1"], "leave out --host"),
        (["--build", "site", "--port", "8080"], "leave out --port"),
        (["--build", "site", "--no-open"], "leave out --no-open"),
        (["--build", "s3://bucket/site"], "a URL"),
        (["--build", f"{__file__}/site"], "cannot be written"),
    ],
)
def test_an_address_that_cannot_be_served_is_refused_at_once(words, said, tmp_path, capsys):
    assert demo.main([*words, "--cache", str(tmp_path / "cache")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_a_port_that_is_taken_is_refused_at_once(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert demo.main(["--port", port, "--cache", str(tmp_path / "cache")]) == 2
    assert f"--port {port}: Address already in use" in capsys.readouterr().err


def test_without_the_quantizer_the_network_is_float32(monkeypatch, capsys):
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    assert demo.choose_precision(None) == "float32"
    assert "pip install '.[quantize]'" in capsys.readouterr().out
    monkeypatch.undo()
    assert demo.choose_precision(None) == "float16"
    assert demo.choose_precision("dynamic") == "dynamic"


def test_the_page_is_kept_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert demo.parse([]).cache == tmp_path / "keras_scnn"


def test_without_openssl_it_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="openssl is not installed"):
        website.make_certificate(tmp_path, "192.168.1.20")


def test_a_folder_with_something_in_it_is_not_built_into(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert demo.main(["--build", str(tmp_path), "--cache", str(tmp_path / "cache")]) == 2
    assert "needs a new or an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("kind", ["new", "empty", "current", "link", "leftover"])
def test_a_site_is_built_into_a_new_or_an_empty_folder(tmp_path, monkeypatch, kind):
    def network(folder, *_):
        (folder / "scnn.tflite").write_bytes(b"abcd")

    monkeypatch.setattr(website, "write_model", network)
    page, site, there = tmp_path / "page", tmp_path / "site", tmp_path / "there"
    (page / "dist" / "wasm-1").mkdir(parents=True)
    (page / "dist" / "index.html").write_text("page")
    if kind == "link":
        there.mkdir()
        site.symlink_to(there)
    elif kind != "new":
        site.mkdir()
    if kind == "leftover":  # of a killed run
        shutil.copytree(page, site / partial_name("x").replace(f"-{os.getpid()}-", "-999999999-"))
    identity = site.stat().st_ino if kind != "new" else None
    if kind == "current":
        monkeypatch.chdir(site)
    folder = Path() if kind == "current" else site
    moved, replace = [], os.replace
    monkeypatch.setattr(
        os, "replace", lambda source, to: (moved.append(Path(to).name), replace(source, to))
    )
    website.write_site(folder, page, None, "mobile", "float16", None)
    assert moved[-1] == ("site" if kind == "new" else "index.html")
    assert sorted(os.listdir(site)) == ["files.json", "index.html", "model", "wasm-1"]
    assert os.listdir(site / "model") == ["scnn.bin"]
    assert identity in (None, site.stat().st_ino)  # a volume, or a shell's folder, stays what it is
    others = ["page", "site", "there"] if kind == "link" else ["page", "site"]
    assert sorted(os.listdir(tmp_path)) == others


def test_a_page_is_built_anew_where_a_source_is_another(tmp_path, monkeypatch):
    monkeypatch.setattr(website, "SOURCES", tmp_path)
    file, other = tmp_path / "a.ts", tmp_path / "b.ts"
    file.write_text("1")
    prints = [website._fingerprint()]
    file.write_text("2")
    prints.append(website._fingerprint())
    file.rename(other)
    prints.append(website._fingerprint())
    assert len(set(prints)) == 3
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "c.ts").write_text("3")
    assert website._fingerprint() == prints[2]


def test_a_browser_is_never_told_that_its_older_file_is_the_same(served):
    request = urllib.request.Request(f"{served}/index.html")
    request.add_header("If-Modified-Since", "Fri, 01 Jan 2100 00:00:00 GMT")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200 and answer.read() == b"index.html"


def test_openssl_is_looked_for_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(demo.socket.socket, "bind", lambda *_: None)
    with pytest.raises(RuntimeError, match="openssl is not installed"):
        demo.check_address("192.168.1.20", 8000)
    assert demo.check_address("127.0.0.1", 8000)


def test_without_node_it_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert demo.main(["--no-open", "--port", "0", "--cache", str(tmp_path / "cache")]) == 2
    assert "npm is not installed" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_a_build_that_fails_leaves_nothing_and_says_why(tmp_path, monkeypatch, capsys):
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text("#!/bin/sh\necho no such registry >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}:{os.environ['PATH']}")
    assert demo.main(["--no-open", "--port", "0", "--cache", str(tmp_path / "cache")]) == 2
    assert "no such registry" in capsys.readouterr().err
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_unknown_preset_is_one_clear_line(tmp_path, capsys):
    assert demo.main(["nobody", "--no-open", "--port", "0", "--cache", str(tmp_path)]) == 2
    assert "no preset 'nobody'" in capsys.readouterr().err


def browse(page: Path, site: Path, folder: Path, *words: str):
    """What ``browse.mjs`` prints of photos in ``folder``."""
    with serving(site) as address:
        done = subprocess.run(
            ["node", BROWSE, page, f"http://{address}", *words],
            cwd=folder,
            env={**os.environ, "CHROMIUM": CHROMIUM},
            capture_output=True,
            text=True,
            timeout=280,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def sent(monkeypatch) -> dict[str, int]:
    """Bytes that servers send of each path."""
    counts: dict[str, int] = {}

    def copyfile(self, source, outputfile):
        content = source.read()
        name = self.path.partition("?")[0].lstrip("/")
        counts[name] = counts.get(name, 0) + len(content)
        outputfile.write(content)

    monkeypatch.setattr(website.PageHandler, "copyfile", copyfile)
    return counts


@pytest.fixture
def tour(page, site, tmp_path, sent):
    """Scikit-image's astronaut, and what the page made of her."""
    photo = pytest.importorskip("skimage.data").astronaut()
    small = cv2.resize(photo, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    two = np.hstack([photo[:300, 100:400], small[:300, 80:330]])
    photos = {"photo.png": photo, "other.png": photo[:, ::-1], "two.png": two}
    for name, image in photos.items():
        cv2.imwrite(str(tmp_path / name), image[..., ::-1])
    frames = [cv2.imencode(".jpg", image)[1].tobytes() for image in (photo[..., ::-1], 0 * photo)]
    (tmp_path / "camera.mjpeg").write_bytes(60 * frames[0] + 60 * frames[1])
    return photo, browse(page, site, tmp_path, "tour", *photos)


@pytest.mark.integration
@needs_browser
def test_a_photo_goes_in_and_pythons_mesh_comes_out(tour, site, sent, tmp_path):
    photo, outputs = tour
    face = Reconstructor.from_preset().largest(photo)
    check_mesh(outputs, face, photo)
    assert "mm apart, one person with 100 % (by shape and features)" in outputs["verdict"]
    np.testing.assert_allclose(outputs["expression"], face.parameters.expression, atol=0.02)
    assert outputs["bars"]["mouthSmileLeft"] > 0.3 > outputs["bars"]["eyeBlinkLeft"]
    assert outputs["faces"]["sides"][0] == pytest.approx(
        outputs["faces"]["sides"][1] / 0.8, rel=0.1
    )
    assert outputs["faces"]["isSecond"] and outputs["faces"]["pressed"] == 1
    assert outputs["pasted"] != outputs["dropped"]  # a mirrored photo, and the first one again
    assert outputs["refusal"] == {
        "text": "notes.txt is no picture that this browser can read",
        "hidden": True,
        "live": "polite",
    }
    check_looks(outputs, tmp_path)
    assert outputs["camera"]["isCleared"] and outputs["camera"]["pressed"] == "false"
    apart = np.reshape(outputs["camera"]["landmarks"], (-1, 3)) - face.landmarks
    assert np.abs(apart[:, :2]).max() < 3  # video, and one look at each frame
    check_network(outputs, face, json.loads((site / "files.json").read_text())["files"], sent)


@pytest.mark.integration
@needs_browser
def test_a_file_that_does_not_come_is_named(page, site, tmp_path):
    shutil.copytree(site, tmp_path / "site", ignore=shutil.ignore_patterns("scnn.bin*"))
    found = browse(page, tmp_path / "site", tmp_path, "broken")
    assert found["said"].startswith("cannot start: Error: model/scnn.bin: 404")
    assert not found["hasBar"]


def check_mesh(outputs: dict, face, photo: np.ndarray) -> None:
    """Vertices, landmarks, GLB and its texture are those of the command."""
    vertices = np.reshape(outputs["vertices"], (-1, 3))
    assert np.linalg.norm(vertices - face.vertices, axis=1).max() < MAX_MM
    apart = np.abs(np.reshape(outputs["landmarks"], (-1, 3)) - face.landmarks).max(axis=0)
    assert apart[:2].max() < 0.2
    # Depth has no origin in the photo and follows the camera's third row, of which the page's own
    # resampling of the crop changes 0.5 %.
    assert apart[2] < 0.4
    mesh = trimesh.load(BytesIO(base64.b64decode(outputs["glb"])), file_type="glb", force="mesh")
    assert len(mesh.faces) == len(face.model.triangles)
    np.testing.assert_allclose(mesh.extents, np.ptp(vertices, axis=0) / 1000, rtol=1e-3)  # m
    # three.js keeps v upwards in glTF, whose v points down: the picture stands on its head.
    texture = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB"))[::-1]
    apart, atlas = color_differences(texture, face.texture(photo)), Atlas.of(face.model, 512)
    for part in (atlas.mask, atlas.teeth):
        assert np.median(apart[part]) < 1 and np.quantile(apart[part], 0.9) < 3
    plain = person_texture(face.model, [])  # her smile shows teeth, which are not those
    assert np.median(color_differences(texture, plain)[atlas.teeth]) > 3


def check_looks(outputs: dict, folder: Path) -> None:
    """At 1280 and 390 px, light and dark, the page fits, and its parts have names."""
    assert [look["overflow"] for look in outputs["looks"]] == 4 * [False]
    assert max(look["comparisonEnds"] for look in outputs["looks"]) < 1  # seen without scrolling
    assert [look["nameless"] for look in outputs["looks"]] == 4 * [0]
    assert outputs["keys"]["turned"]
    assert outputs["keys"]["still"] == 0  # nothing is drawn while nothing moves
    assert outputs["keys"]["reached"] == ["photo", "camera", "other", "download", "view"]
    for name in ("desktop", "phone"):
        light, dark = (read_image(folder / f"{name}-{look}.png") for look in ("light", "dark"))
        assert min(light.std(), dark.std()) > 20 and light.mean() > dark.mean() + 50


def check_network(outputs: dict, face, files: dict, sent: dict[str, int]) -> None:
    """Each file came once, compressed, from here; none without a network; no errors."""
    done, total = re.fullmatch(r"loading (\S+) of (\S+) MB", outputs["progress"]).groups()
    assert done == total and 5 < float(total) < 8
    assert outputs["problems"] == [] and outputs["foreign"] == []
    for name in ("scnn.bin", "maps.bin", "model.json", "blazeface.tflite", "facemesh.tflite"):
        assert sent[f"model/{name}"] == files[f"model/{name}"]["sent"]
    for landmarks in (outputs["offline"], outputs["webgpu"]["landmarks"]):
        apart = np.reshape(landmarks, (-1, 3)) - face.landmarks
        assert np.abs(apart[:, :2]).max() < 0.7  # the sample is a JPEG
    assert outputs["accelerator"] == "wasm" and outputs["webgpu"]["accelerator"] == "webgpu"


@pytest.mark.integration
@pytest.mark.skipif(not (FIREFOX and shutil.which("npm")), reason="needs Firefox, and npm")
def test_firefox_shows_the_same_face_here_and_over_https(site, tmp_path):
    (tmp_path / "profile").mkdir()
    certificate = website.make_certificate(tmp_path, "127.0.0.1")
    with (
        contextlib.closing(Firefox(tmp_path / "profile")) as firefox,
        serving(site) as here,
        serving(site, certificate=certificate) as secure,
    ):
        landmarks = []
        for address in (f"http://{here}/", f"https://{secure}/"):
            firefox("WebDriver:Navigate", url=address)
            landmarks.append(firefox.run(SAMPLE))
        assert firefox.screenshot()[1:4] == b"PNG"
    face = Reconstructor.from_preset().largest(read_image(site / "astronaut.jpg"))
    for found in landmarks:
        assert isinstance(found, list), found
        apart = np.reshape(found, (-1, 3)) - face.landmarks
        assert np.abs(apart[:, :2]).max() < 0.7  # browsers decode a JPEG in their own ways


@pytest.mark.slow
@pytest.mark.timeout(900)
@needs_browser
def test_a_first_face_takes_no_more_than_6_megabytes(page, tmp_path):
    preset = load_preset(DEFAULT_PRESET)
    website.write_site(tmp_path / "site", page, preset, DEFAULT_PRESET, "float16")
    files = json.loads((tmp_path / "site" / "files.json").read_text())["files"]
    others = ("about/", "model/facemesh")
    runtimes = [name for name in files if "compat" in name or "jspi" in name]
    needed = [name for name in files if not name.startswith(others) and name not in runtimes]
    assert sum(files[name]["sent"] for name in needed) < 6e6


def color_differences(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(S, S): of two textures (S, S, 3) uint8, in CIE L*a*b*."""
    lab = [cv2.cvtColor(np.float32(each) / 255, cv2.COLOR_RGB2LAB) for each in (first, second)]
    return np.linalg.norm(lab[0] - lab[1], axis=-1)


@pytest.mark.integration
@needs_browser
def test_the_page_and_the_command_give_one_answer_to_pairs_of_photos(
    page, site, tmp_path, shared_data
):
    with (shared_data / "pairs" / "celeba.csv").open() as file:
        rows = list(csv.DictReader(file))[::97][:8]
    pairs = [[read_image(shared_data / row[side]) for side in ("first", "second")] for row in rows]
    answers = answers_of_both(page, site, tmp_path, pairs)
    assert max(answer["probability"] for answer in answers) > 0.9
    assert min(answer["probability"] for answer in answers) < 0.1


@pytest.mark.integration
@needs_browser
def test_the_page_finds_the_faces_of_the_command(page, site, tmp_path):
    """One whose collar looks like a second face, on its side, upside down, unclear, and large."""
    photo = pytest.importorskip("skimage.data").astronaut()
    code = cv2.imencode(".jpg", photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    collar = np.ascontiguousarray(cv2.imdecode(code, cv2.IMREAD_COLOR)[..., ::-1])
    turned = [np.ascontiguousarray(np.rot90(photo, quarters)) for quarters in (1, 2)]
    blurred = cv2.GaussianBlur(photo, (0, 0), 3)
    noise = np.random.default_rng(0).normal(0, 25, (1100, 1100, 3))
    grown = cv2.resize(photo, noise.shape[:2], interpolation=cv2.INTER_CUBIC)
    large = np.uint8(np.clip(grown + noise, 0, 255))  # not halved first, it scores 0.03 less
    pairs = [[collar, turned[0]], [photo, turned[1]], [blurred, photo], [large, photo]]
    # A turned head is found through a first, wrong box, which a gray level moves by a pixel.
    answers = answers_of_both(page, site, tmp_path, pairs, within=0.1)
    assert min(answer["probability"] for answer in answers[:2]) > 0.9


def answers_of_both(
    page: Path, site: Path, folder: Path, pairs: list, within: float = 0.01
) -> list[dict]:
    """The page's answers to pairs of photos, which have to be the command's."""
    names = [f"{i}.png" for i in range(2 * len(pairs))]
    for name, photo in zip(names, (photo for pair in pairs for photo in pair), strict=True):
        write_image(folder / name, photo)  # decoded alike by everybody
    answers, reconstructor = browse(page, site, folder, *names), Reconstructor.from_preset()
    detector = LargestFaceDetector()
    for answer, pair in zip(answers, pairs, strict=True):
        assert answer["score"] == pytest.approx(detector(pair[0]).score, abs=0.003)
        expected = compare_photos(reconstructor, tuple(pair)).to_json()
        assert answer["distance_mm"] == pytest.approx(expected["distance_mm"], abs=within)
        assert answer["cosine"] == pytest.approx(expected["cosine"], abs=within)
        assert answer["probability"] == pytest.approx(expected["probability"], abs=0.01)
        assert answer["probability_by"] == expected["probability_by"] == "shape and features"
        assert set(answer["probabilities"]) == set(expected["probabilities"])
    return answers


@pytest.mark.integration
@needs_browser
def test_the_units_of_the_page_pass_and_golden_crops_and_comparisons(page_sources):
    golden = Path(__file__).parents[1] / "golden"
    for name in ("crops.test.ts", "crops.json", "comparisons.test.ts", "comparisons.json"):
        shutil.copy(golden / name, page_sources / "src" / name)
    done = subprocess.run(
        ["npm", "test"], cwd=page_sources, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
