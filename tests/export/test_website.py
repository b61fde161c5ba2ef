"""The page's site: its networks, its files, and their server."""

import json
import os
import shutil
import ssl
import urllib.error
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest
from site_server import serving

from keras_scnn.export import website
from keras_scnn.export.lite import LiteReconstructor
from keras_scnn.export.tflite import write_tflite
from keras_scnn.models import load_preset
from keras_scnn.settings import DEFAULT_PRESET
from keras_scnn.storage.atomic import partial_name


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


def test_without_openssl_it_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="openssl is not installed"):
        website.make_certificate(tmp_path, "192.168.1.20")


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


def test_a_page_is_built_again_if_a_source_changes(tmp_path, monkeypatch):
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
