import subprocess
import sys
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from keras_scnn.export.lite import LiteReconstructor, crop_photo
from keras_scnn.export.runtimes import open_artifact
from keras_scnn.export.tflite import with_metadata
from keras_scnn.geometry.camera import decompose
from keras_scnn.models.presets import FOLDER, LITE_FILE
from keras_scnn.photos.cropping import FaceBox, crop_face
from keras_scnn.reconstruction.reconstructor import Reconstructor

ROOT = Path(__file__).resolve().parents[2]
NETWORK = FOLDER / "mobile" / LITE_FILE
NEEDED = ("ai-edge-litert", "numpy", "lazy_loader", "wrapt")
# Prints the modules that an import loads, without what the interpreter loads before.
LOADED = """
import sys
before = set(sys.modules)
import keras_scnn.export.lite
print(*{name.split(".")[0] for name in sys.modules.keys() - before} - sys.stdlib_module_names)
"""
# Forbids what a device does not have, then uses the file and prints the landmarks.
ON_THE_EDGE = """
import sys

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top in {"tensorflow", "keras", "cv2", "scipy", "jax", "torch", "PIL", "trimesh"}:
            raise ImportError(f"{name} is not on the device")

sys.meta_path.insert(0, Forbidden())
import numpy as np
from keras_scnn.export.lite import LiteReconstructor

lite = LiteReconstructor(sys.argv[1])
photo = np.load(sys.argv[2], allow_pickle=False)
outputs = lite(photo, np.array([20.0, 10.0, 180.0, 170.0]))
np.save(sys.argv[3], outputs["landmarks"])
"""


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """(240, 320, 3) uint8: smooth color noise, and a pattern of single pixels."""
    import cv2

    rng = np.random.default_rng(4)
    coarse = rng.uniform(0, 255, (12, 16, 3)).astype(np.float32)
    image = cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    image[50:90, 50:90] = rng.integers(0, 256, (40, 40, 3))
    return image


@pytest.fixture(scope="module")
def lite(small) -> LiteReconstructor:
    return LiteReconstructor(small.files["float32"])


@pytest.mark.parametrize("side", [20.0, 63.5, 64.0, 100.3, 150.0, 401.7, 900.0])
def test_a_crop_is_the_librarys(photo, side):
    rng = np.random.default_rng(int(side))
    for _ in range(10):
        box = FaceBox.square(rng.uniform([0, 0], [320, 240]), side)
        crop, to_crop = crop_photo(photo, box.as_array(), 64)
        expected = crop_face(photo, box, 64)
        np.testing.assert_array_equal(to_crop, expected.crop_from_image)
        difference = np.abs(crop.astype(int) - expected.image)
        # OpenCV 4 rounds sampling positions to 1/32 px, OpenCV 5 does not.
        assert difference.mean() < 0.3
        assert difference.max() <= 1 + 256 / 32


def test_a_box_of_the_crops_size_is_copied(photo):
    crop, _ = crop_photo(photo, np.array([30, 40, 94, 104]), 64)
    np.testing.assert_array_equal(crop, photo[40:104, 30:94])


def test_a_crop_gives_the_outputs_of_keras(lite, small):
    expected = small.expected
    for i, crop in enumerate(small.crops[:4]):
        outputs = lite(crop)
        assert outputs.keys() == expected.keys()
        for name, value in outputs.items():
            atol = {"vertices": 1e-3, "landmarks": 2e-4, "euler_degrees": 1e-2}.get(name, 5e-5)
            np.testing.assert_allclose(value, expected[name][i], atol=atol, err_msg=name)


@pytest.mark.parametrize("box", [(20, 10, 180, 170), (-30.5, -20.25, 129.5, 139.75)])
def test_a_photo_gives_the_reconstruction_of_python(lite, small, photo, box):
    outputs = lite(photo, np.array(box))
    face = Reconstructor(small.preset).reconstruct_boxes(photo, [FaceBox(*box)], passes=1)[0]
    # One gray level of the crop moves this network's landmarks by up to some tenths of a pixel.
    np.testing.assert_allclose(outputs["landmarks"], face.landmarks, atol=0.6)
    np.testing.assert_allclose(outputs["vertices"], face.vertices, atol=1.0)
    rotation, scale, translation = decompose(face.parameters.pose)
    np.testing.assert_allclose(outputs["rotation"], rotation, atol=0.02)
    np.testing.assert_allclose(outputs["scale"], scale, rtol=0.01)
    np.testing.assert_allclose(outputs["translation"], translation, atol=0.6)
    np.testing.assert_allclose(outputs["euler_degrees"], face.euler_degrees, atol=0.6)
    result = outputs["parameters"][:12].reshape(3, 4)
    np.testing.assert_allclose(result, face.parameters.pose, rtol=0.02, atol=0.6)


def test_a_photo_and_its_crop_agree_to_the_last_digits(lite, photo):
    box = np.array([20.0, 10.0, 180.0, 170.0])
    crop, _ = crop_photo(photo, box, 64)
    inside, outside = lite(crop), lite(photo, box)
    expected = (inside["landmarks"][:, :2] + 0.5) * 160 / 64 - 0.5 + box[:2]
    np.testing.assert_allclose(outside["landmarks"][:, :2], expected, atol=1e-4)
    depth = inside["landmarks"][:, 2] * 160 / 64
    np.testing.assert_allclose(outside["landmarks"][:, 2], depth, atol=1e-4)
    np.testing.assert_allclose(outside["scale"], inside["scale"] * 160 / 64, rtol=1e-6)
    np.testing.assert_array_equal(outside["vertices"], inside["vertices"])


def test_no_framework_is_needed(lite, small, photo, tmp_path):
    np.save(tmp_path / "photo.npy", photo)
    arguments = [small.files["float32"], tmp_path / "photo.npy", tmp_path / "told.npy"]
    command = [sys.executable, "-c", ON_THE_EDGE, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = lite(photo, np.array([20.0, 10.0, 180.0, 170.0]))["landmarks"]
    np.testing.assert_array_equal(np.load(tmp_path / "told.npy", allow_pickle=False), expected)


def test_an_import_loads_only_the_documented_packages():
    done = subprocess.run([sys.executable, "-c", LOADED], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    needed = {name.replace("-", "_") for name in NEEDED} | {"packaging"}  # lazy_loader's own
    assert set(done.stdout.split()) <= needed | {"keras_scnn"}
    said = (ROOT / "docs" / "on_device.md").read_text()
    assert f"pip install {' '.join(NEEDED)} && pip install --no-deps ." in said


@pytest.mark.slow
def test_an_environment_with_nothing_but_the_runtime_is_enough(lite, small, photo, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", *NEEDED]
    if subprocess.run(pip).returncode:
        pytest.skip("no package index can be reached from here")
    np.save(tmp_path / "photo.npy", photo)
    arguments = [small.files["float32"], tmp_path / "photo.npy", tmp_path / "told.npy"]
    command = [python, "-c", ON_THE_EDGE, *arguments]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, env={})
    assert done.returncode == 0, done.stderr
    expected = lite(photo, np.array([20.0, 10.0, 180.0, 170.0]))["landmarks"]
    np.testing.assert_allclose(
        np.load(tmp_path / "told.npy", allow_pickle=False), expected, atol=1e-3
    )


@pytest.mark.parametrize(
    "image, box, message",
    [
        (np.zeros((64, 64), np.uint8), None, r"expected \(H, W, 3\) uint8"),
        (np.zeros((64, 64, 3)), None, "float64; expected"),
        ([[1]], None, "list; expected"),
        (np.zeros((0, 64, 3), np.uint8), None, "no pixel"),
        (np.zeros((32, 32, 3), np.uint8), None, r"expected \(64, 64, 3\), or give the face's box"),
        (np.zeros((99, 99, 3), np.uint8), (5, 5, 5, 50), "x1 > x0"),
        (np.zeros((99, 99, 3), np.uint8), (0, 0, np.nan, 50), "x1 > x0"),
        (np.zeros((99, 99, 3), np.uint8), (0, 0, 9e6, 9e6), "9e[+]06 px wide, the photo only 99"),
        (np.zeros((99, 99, 3), np.uint8), (0, 0, 50), "x0, y0, x1, y1"),
        (np.zeros((99, 99, 3), np.uint8), (0, 0, 50, 60), "50 x 60 px; a crop needs a square"),
    ],
)
def test_unfit_images_and_boxes_are_refused(lite, image, box, message):
    with pytest.raises(ValueError, match=message):
        lite(image, box)


def test_unfit_files_are_refused(small, tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.tflite: no such"):
        LiteReconstructor(tmp_path / "nothing.tflite")
    content = small.files["float32"].read_bytes()
    foreign = with_metadata(content, {}).replace(b"keras_scnn\0", b"other_name\0")
    for data in (b"", b"some text that is long enough", content[:5000], foreign):
        (tmp_path / "bad.tflite").write_bytes(data)
        with pytest.raises(ValueError, match="bad.tflite: "):
            LiteReconstructor(tmp_path / "bad.tflite")


@pytest.mark.parametrize("make", [LiteReconstructor, open_artifact])
@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True, None])
def test_a_wrong_number_of_threads_is_not_taken_for_a_damaged_file(make, threads):
    words = f"threads is {threads!r}; it must be a whole number, 1 or more"
    with pytest.raises(ValueError, match=words) as caught:
        make(NETWORK, threads=threads)
    assert "damaged" not in str(caught.value)


def test_threads_that_share_one_get_their_own_answers(lite):
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (8, lite.input_size, lite.input_size, 3), np.uint8)
    alone = [lite(crop)["landmarks"] for crop in crops]
    with ThreadPoolExecutor(8) as pool:
        index = [i % len(crops) for i in range(400)]
        result = list(pool.map(lambda i: lite(crops[i])["landmarks"], index))
    for i, landmarks in zip(index, result, strict=True):
        np.testing.assert_array_equal(landmarks, alone[i])


def test_a_box_about_a_line_of_pixels_is_refused(lite):
    line = np.zeros((1, 40_000, 3), np.uint8)
    with pytest.raises(ValueError, match="too long for a square crop"):
        lite(line, np.array([0.0, -320_000, 640_000, 320_000]))
