import base64
import io

import numpy as np
import PIL.Image
import pytest

from keras_scnn.photos.cropping import FaceBox
from keras_scnn.serving import requests
from keras_scnn.serving.requests import (
    outputs,
    predictions,
    read_inputs,
    read_instances,
    read_photo,
)


def encoded(width: int = 20, height: int = 10, value: int = 9) -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (width, height), (value,) * 3).save(file, "PNG")
    return file.getvalue()


def photo(**options) -> dict:
    return {"b64": base64.b64encode(encoded(**options)).decode()}


def texts(*photos: dict) -> np.ndarray:
    return np.array([one["b64"] for one in photos], object)


class Counting:
    """Finds as many faces as a photo's gray level says; remembers how many photos came at once."""

    input_size = 4
    shapes = {"parameters": (1,)}

    def __init__(self):
        self.groups = []

    def crops(self, crops):
        return {"parameters": np.float32(crops)[:, 0, 0, :1]}

    def boxes(self, images, boxes):
        self.groups.append(len(images))
        return {"parameters": np.float32([[box.x0] for box in boxes])}

    def faces(self, image):
        count = int(image[0, 0, 0])
        found = tuple(FaceBox(i, 0, i + 5, 5, 0.5) for i in range(count))
        return ({"parameters": np.ones((count, 1), np.float32)}, found) if count else None


def test_the_total_number_of_pixels_is_limited(monkeypatch):
    monkeypatch.setattr(requests, "MAX_PIXELS", 500)
    two, three = [photo()] * 2, [photo()] * 3
    assert read_instances({"instances": two}, 4).pixels == 400
    assert read_inputs({"photo": texts(*two)}, 4).pixels == 400
    for read in (
        lambda: read_instances({"instances": three}, 4),
        lambda: read_inputs({"photo": texts(*three)}, 4),
    ):
        with pytest.raises(ValueError, match="more than 500 pixels together"):
            read()
    with pytest.raises(ValueError, match="100 x 10 px; at most 500 pixels"):
        read_photo(encoded(100))


def test_the_side_of_a_photo_is_limited(monkeypatch):
    monkeypatch.setattr(requests, "MAX_SIDE", 30)
    assert read_photo(encoded(30, 1)).pixels == 30
    for size in ((31, 1), (1, 31)):
        with pytest.raises(ValueError, match=f"{size[0]} x {size[1]} px.* and 30 in a row"):
            read_photo(encoded(*size))


def test_the_number_of_instances_is_limited(monkeypatch):
    monkeypatch.setattr(requests, "MAX_INSTANCES", 2)
    crop = np.zeros((4, 4, 3), int).tolist()
    for read in (
        lambda count: read_instances({"instances": [crop] * count}, 4),
        lambda count: read_inputs({"image": np.zeros((count, 4, 4, 3), np.uint8)}, 4),
        lambda count: read_inputs({"photo": texts(*[photo()] * count)}, 4),
    ):
        assert len(read(2).instances) == 2
        with pytest.raises(ValueError, match="3 instances; at most 2"):
            read(3)


def test_the_total_number_of_faces_is_limited(monkeypatch):
    monkeypatch.setattr(requests, "MAX_FACES", 5)
    few, many = [photo(value=2), photo(value=3)], [photo(value=2), photo(value=4)]
    (first, second) = predictions(read_instances({"instances": few}, 4), Counting())["predictions"]
    assert (len(first["faces"]), len(second["faces"])) == (2, 3)
    assert len(outputs(read_inputs({"photo": texts(*few)}, 4), Counting())["score"]) == 5
    with pytest.raises(ValueError, match="more than 5 faces"):
        predictions(read_instances({"instances": many}, 4), Counting())
    with pytest.raises(ValueError, match="more than 5 faces"):
        outputs(read_inputs({"photo": texts(*many)}, 4), Counting())


def test_photos_with_boxes_are_decoded_a_few_at_a_time_and_keep_their_order(monkeypatch):
    monkeypatch.setattr(requests, "GROUP_PIXELS", 400)
    boxes = [[i, 0, i + 5, 5] for i in range(5)]
    instances = [{**photo(), "box": box} for box in boxes]
    mixed = [*instances[:3], photo(value=1), *instances[3:]]
    predictor = Counting()
    rows = predictions(read_instances({"instances": mixed}, 4), predictor)["predictions"]
    assert predictor.groups == [2, 2, 1]
    assert [row["parameters"] for row in rows if "faces" not in row] == [[i] for i in range(5)]
    assert [face["box"] for face in rows[3]["faces"]] == [[0, 0, 5, 5]]
    tensors = {"photo": texts(*instances), "box": np.float32(boxes)}
    predictor = Counting()
    assert outputs(read_inputs(tensors, 4), predictor)["parameters"].ravel().tolist() == [*range(5)]
    assert predictor.groups == [2, 2, 1]


def test_a_request_of_many_pixels_is_a_large_one(monkeypatch):
    monkeypatch.setattr(requests, "LARGE_PIXELS", 200)
    assert not read_instances({"instances": [photo()]}, 4).is_large
    assert read_instances({"instances": [photo(), photo()]}, 4).is_large


@pytest.mark.parametrize("value", [-1, 256])
def test_crops_of_any_whole_numbers_are_within_bytes(value):
    crops = np.zeros((1, 4, 4, 3), np.int64)
    crops[0, 1, 2, 0] = value
    with pytest.raises(ValueError, match="whole numbers from 0 to 255"):
        read_inputs({"image": crops}, 4)
    (crop,) = read_inputs({"image": np.abs(crops) % 256}, 4).instances
    assert crop.dtype == np.uint8 and crop[1, 2, 0] == abs(value) % 256


@pytest.mark.parametrize(
    "box", [[20, 0, 25, 5], [-5, 0, 0, 5], [0, 10, 5, 15], [0, -5, 5, 0]], ids=str
)
def test_a_box_outside_the_photo_is_refused(box):
    request = read_instances({"instances": [{**photo(), "box": box}]}, 4)
    with pytest.raises(ValueError, match=r"instances\[0\]: box .* outside the photo of 20 x 10 px"):
        predictions(request, Counting())


@pytest.mark.parametrize("side", [1e-9, 0.001, 3.99])
def test_a_box_that_shows_no_face_is_refused(side):
    """Before anything is decoded."""
    content = {"instances": [{**photo(), "box": [2, 2, 2 + side, 2 + side]}]}
    with pytest.raises(
        ValueError, match=r"instances\[0\]: box is .* px wide; it must be 4 or wider"
    ):
        read_instances(content, 4)
    tensors = {"photo": np.array([photo()["b64"]]), "box": np.array([[2, 2, 2 + side, 2 + side]])}
    with pytest.raises(ValueError, match=r"photo\[0\]: box is .* px wide; it must be 4 or wider"):
        read_inputs(tensors, 4)


@pytest.mark.parametrize(
    ("instance", "message"),
    [
        ({**photo(), "box": [True, 0, 5, 5]}, "four numbers"),
        ({**photo(), "box": ["0", 0, 5, 5]}, "four numbers"),
        ({**photo(), "box": [0, 0, 5]}, "four numbers"),
        ({**photo(), "box": [0, 0, 10**400, 10**400]}, "within the range of floats"),
        ({**photo(), "more": 1}, "a crop is nested lists"),
        ({"image": [], "box": [0, 0, 1, 1]}, "a crop is nested lists"),
        ({"image": 4 * [[[0, 0], 4 * [0], 3 * [0], 3 * [0]]]}, "4 lists of 4 lists of 3 numbers"),
        (4 * [4 * [[0, 1, True]]], "whole numbers from 0 to 255"),
        ({"image": 4 * [4 * [[False, 1, 2]]]}, "whole numbers from 0 to 255"),
    ],
)
def test_a_wrong_instance_is_named(instance, message):
    with pytest.raises(ValueError, match=rf"instances\[1\]: .*{message}"):
        read_instances({"instances": [photo(), instance]}, 4)


def test_pixels_of_crops_and_photos_count():
    crop = np.zeros((4, 4, 3), int).tolist()
    assert read_instances({"instances": [crop, photo(), crop]}, 4).pixels == 16 + 20 * 10 + 16


@pytest.mark.parametrize("shape", [(4,), (1, 3), (2, 4)])
def test_boxes_have_a_row_for_each_photo(shape):
    with pytest.raises(ValueError, match=r"box has the shape .*; it must be \(1, 4\)"):
        read_inputs({"photo": texts(photo()), "box": np.zeros(shape)}, 4)


def test_unknown_keys_of_a_body_are_refused():
    with pytest.raises(ValueError, match='the body has .*more.*; expected "instances"'):
        read_instances({"instances": [photo()], "more": 1}, 4)
