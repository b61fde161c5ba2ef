"""Every cropper cuts the crops of ``golden/crops.json``, and refuses what the table refuses.

There must be one for each runtime. Tolerances, in gray levels: NumPy and TensorFlow compute in
float32, so a value that is a half in float64 may be rounded to the other side: 1. OpenCV 5 samples
in float32 too; OpenCV 4 rounds places to 1/32 of a pixel, so up to 256 / 32 more. TypeScript's
are compared in ``export/test_browser.py``, in the page's own environment.
"""

import base64
import importlib.util
import io
import json
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from keras_scnn.export.lite import crop_photo
from keras_scnn.photos.cropping import FaceBox, crop_face, crop_rotated

GOLDEN = Path(__file__).with_name("golden")
TABLE = json.loads((GOLDEN / "crops.json").read_text())
SIZE = TABLE["size"]
CUT = {case["name"]: case for case in TABLE["cases"]}
REFUSED = {case["name"]: case for case in TABLE["refused"]}
OPENCV = 1 if int(cv2.__version__.split(".")[0]) >= 5 else 1 + 256 / 32


def _script():
    spec = importlib.util.spec_from_file_location("make_crops", GOLDEN / "make_crops.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_crops = _script()


def opencv(image: np.ndarray, case: dict) -> np.ndarray:
    if "box" in case:
        return crop_face(image, FaceBox(*map(float, case["box"])), SIZE).image
    center, side = [float(x) for x in case["center"]], float(case["side"])
    return crop_rotated(image, center, side, np.deg2rad(case["degrees"]), SIZE).image


def numpy(image: np.ndarray, case: dict) -> np.ndarray:
    return crop_photo(image, np.array(case["box"], float), SIZE)[0]


def tensorflow(image: np.ndarray, case: dict) -> np.ndarray:
    tf = pytest.importorskip("tensorflow")
    from keras_scnn.export.tf_cropping import crop_bytes

    stream = io.BytesIO()
    PIL.Image.fromarray(image).save(stream, "PNG")
    try:
        box = tf.constant([float(x) for x in case["box"]])
        return crop_bytes(tf.constant(stream.getvalue()), box, SIZE).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise ValueError("refused") from error


CROPPERS = {"opencv": (opencv, OPENCV), "numpy": (numpy, 1), "tensorflow": (tensorflow, 1)}


def applies(cropper: str, case: dict) -> bool:
    """Turned squares are OpenCV's and the browser's alone."""
    return "box" in case or cropper == "opencv"


@pytest.mark.parametrize(
    ("cropper", "name"), [(c, n) for c in CROPPERS for n in CUT if applies(c, CUT[n])]
)
def test_every_cropper_cuts_the_golden_crops(cropper, name):
    cut, tolerance = CROPPERS[cropper]
    case = CUT[name]
    expected = np.frombuffer(base64.b64decode(case["crop"]), np.uint8).reshape(SIZE, SIZE, 3)
    crop = cut(make_crops.photo(*case["photo"]), case)
    assert crop.dtype == np.uint8
    assert np.abs(crop.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize(
    ("cropper", "name"), [(c, n) for c in CROPPERS for n in REFUSED if applies(c, REFUSED[n])]
)
def test_every_cropper_refuses_the_same(cropper, name):
    with pytest.raises(ValueError):
        CROPPERS[cropper][0](make_crops.photo(*REFUSED[name]["photo"]), REFUSED[name])


def test_the_table_is_what_its_script_makes():
    assert json.loads(json.dumps(make_crops.table())) == TABLE


def test_tensorflows_bound_holds_inside_of_a_graph():
    tf = pytest.importorskip("tensorflow")
    cut = tf.function(make_graph_cropper())
    case = CUT["enlarged"]
    expected = np.frombuffer(base64.b64decode(case["crop"]), np.uint8).reshape(SIZE, SIZE, 3)
    found = cut(*arguments_of(tf, case)).numpy()
    assert np.abs(found.astype(int) - expected).max() <= 1
    with pytest.raises(tf.errors.InvalidArgumentError):
        cut(*arguments_of(tf, REFUSED["a photo of one column"]))


def make_graph_cropper():
    from keras_scnn.export.tf_cropping import crop_bytes

    return lambda photo, box: crop_bytes(photo, box, SIZE)


def arguments_of(tf, case: dict):
    stream = io.BytesIO()
    PIL.Image.fromarray(make_crops.photo(*case["photo"])).save(stream, "PNG")
    return tf.constant(stream.getvalue()), tf.constant([float(x) for x in case["box"]])
