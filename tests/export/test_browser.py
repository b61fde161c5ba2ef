"""The browser page, in a real browser where there is one."""

import base64
import contextlib
import csv
import json
import os
import re
import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import trimesh
from firefox import FIREFOX, Firefox
from icc_profiles import gray_profile, rgb_profile
from site_server import serving

from keras_scnn.export import website
from keras_scnn.io import read_image, write_image
from keras_scnn.models import load_preset
from keras_scnn.photos.detection import LargestFaceDetector
from keras_scnn.reconstruction.comparison import compare_photos
from keras_scnn.reconstruction.reconstructor import Reconstructor
from keras_scnn.settings import DEFAULT_PRESET
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


def browse(page: Path, site: Path, folder: Path, *words: str):
    """The output of ``browse.mjs`` for photos in ``folder``."""
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
    """Bytes that servers send for each path."""
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
        "text": "notes.txt is not a picture that this browser can read",
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
def test_the_page_shows_the_colors_that_python_reads(page, site, tmp_path):
    """Of a photo in Display P3, a gray one with a profile, and ones that are partly transparent."""
    photo = pytest.importorskip("skimage.data").astronaut()
    clear, half = (np.dstack([photo, np.full(photo.shape[:2], 255, np.uint8)]) for _ in range(2))
    clear[300:, :, 3], half[:, :60, 3] = 0, 128
    gray = PIL.Image.fromarray(photo).convert("L")
    wide = PIL.Image.fromarray(photo)
    wide.save(tmp_path / "wide.png", icc_profile=rgb_profile("p3"))
    wide.save(tmp_path / "wide.jpg", icc_profile=rgb_profile("p3"), quality=95)
    gray.save(tmp_path / "gray.png", icc_profile=gray_profile(1.8))
    PIL.Image.fromarray(clear).save(tmp_path / "clear.png")
    PIL.Image.fromarray(half).save(tmp_path / "half.png")
    names = ["wide.png", "wide.jpg", "gray.png", "clear.png", "half.png"]
    for name, shown in zip(names, browse(page, site, tmp_path, "colors", *names), strict=True):
        shape = shown["height"], shown["width"], 4
        pixels = np.frombuffer(base64.b64decode(shown["rgba"]), np.uint8).reshape(shape)
        expected = read_image(tmp_path / name)
        assert (pixels[..., 3] == 255).all(), name
        apart = np.abs(pixels[..., :3] - np.float64(expected)).max(axis=-1)
        assert np.quantile(apart, 0.95) <= 3, name  # the dots of the landmarks cover 1 %
        assert np.abs(photo - np.float64(expected)).mean() > 3, name  # as stored, it is wrong


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
