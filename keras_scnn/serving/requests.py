"""Requests of TensorFlow Serving's REST API and of the v2 protocol: parsing, limits and answers.

Errors are ``ValueError``s whose text is meant for the client.
"""

from __future__ import annotations

import base64
import binascii
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_scnn.geometry.crops import check_crop_box
from keras_scnn.photos.cropping import FaceBox
from keras_scnn.serving.predictor import MAX_FACES, Outputs, Predictor
from keras_scnn.storage.images import decode_image, image_size

SIGNATURES = ("serving_default", "reconstruct", "reconstruct_batch", "reconstruct_jpeg")
# The form of a body, for errors: of TensorFlow Serving's API and of the v2 protocol.
BODY = (
    "the body must be a JSON object, with Content-Type: application/json, or a photo, with one "
    "such as image/jpeg"
)
V2_BODY = "inputs are 'image', of numbers, or 'photo' and 'box'; a photo is base64 text"
# The limits of one request, checked before anything is decoded.
MAX_INSTANCES, MAX_PIXELS, MAX_SIDE = 256, 50_000_000, 32_766
SMALLEST_BOX = 4  # px; faces are found from 40 px
GROUP_PIXELS = 8_000_000  # photos with boxes are processed in groups of about this size
FOUND_FACE = ("photo_index", "box", "score")  # outputs for photos whose faces are to be found
# Requests of more pixels are large; the server processes few of those at the same time.
LARGE_PIXELS = 4_000_000


@dataclass(frozen=True, eq=False)
class Photo:
    """An encoded photo of known size, and the face's box if it is known.

    Attributes:
        name: in messages.
        data: the file.
        pixels: width times height.
        box: as sent; None if the faces are to be found.
    """

    name: str
    data: bytes
    pixels: int
    box: FaceBox | None

    def decode(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB.

        Raises:
            ValueError: it cannot be decoded, or its box cannot be cropped or lies outside of it.
        """
        try:
            image = decode_image(self.data)
        except ValueError as error:
            raise ValueError(f"{self.name}: not a readable image ({error})") from error
        if self.box is not None:
            _named(self.name, _check_box, self.box, image.shape)
        return image


@dataclass(frozen=True, eq=False)
class Request:
    """The content of a request: (S, S, 3) uint8 RGB crops and photos, in the request's order."""

    instances: tuple[np.ndarray | Photo, ...]

    @property
    def pixels(self) -> int:
        """Sum over all crops and photos; the time depends on it."""
        return sum(
            one.pixels if isinstance(one, Photo) else one.shape[0] * one.shape[1]
            for one in self.instances
        )

    @property
    def is_large(self) -> bool:
        """Whether it takes much longer than a photo of one face."""
        return self.pixels > LARGE_PIXELS


def read_instances(payload: Any, size: int) -> Request:
    """Parse the JSON body of ``/v1/models/NAME:predict``, row format; no photo is decoded.

    Each of ``instances`` is a crop of ``size`` px, as nested lists of whole numbers or as
    {"image": lists}; or an encoded photo: {"b64": text} or {"photo": {"b64": text}}, with "box":
    [x0, y0, x1, y1] if the face is known.

    Raises:
        ValueError: it is malformed, or exceeds the limits of a request.
    """
    instances = _instances(payload)
    read = (_named(f"instances[{i}]", _instance, f"instances[{i}]", value, size)
            for i, value in enumerate(instances))  # fmt: skip
    return _within_budget(read)


def read_photo(data: bytes) -> Request:
    """Check a body that is an encoded photo, whose faces are to be found; it is not decoded.

    Raises:
        ValueError: it is not a photo, or has too many pixels.
    """
    return Request((_named("the body", _encoded, "the body", data, None),))


def _within_budget(instances: Iterable[np.ndarray | Photo]) -> Request:
    """The request of some instances, read only up to the first that exceeds the limit."""
    kept: list[np.ndarray | Photo] = []
    pixels = 0
    for one in instances:
        kept.append(one)
        pixels += one.pixels if isinstance(one, Photo) else 0
        if pixels > MAX_PIXELS:
            raise ValueError(f"the photos have more than {MAX_PIXELS:,} pixels together")
    return Request(tuple(kept))


def predictions(request: Request, predictor: Predictor) -> dict:
    """The answer to ``read_instances``: each prediction has the outputs by name.

    For a photo without a box it is {"faces": [...]}, each with ``box`` and ``score`` too.

    Raises:
        ValueError: a photo cannot be decoded, a box lies outside of its photo, or there are too
            many faces.
        FloatingPointError: an output is not finite. JSON has no such numbers, and a mesh neither.
    """
    answers: dict[int, dict] = {}
    crops = {i: one for i, one in enumerate(request.instances) if isinstance(one, np.ndarray)}
    if crops:
        rows = _rows(predictor.crops(np.stack(list(crops.values()))))
        answers |= dict(zip(crops, rows, strict=True))
    photos = {i: one for i, one in enumerate(request.instances) if isinstance(one, Photo)}
    boxed = {i: photo for i, photo in photos.items() if photo.box is not None}
    for group in _groups(boxed):
        outputs = _boxed(list(group.values()), predictor)
        answers |= dict(zip(group, _rows(outputs), strict=True))
    faces = 0
    for i in sorted(set(photos) - set(boxed)):
        rows = _faces(predictor, photos[i])
        answers[i] = {"faces": rows}
        faces = _counted(faces + len(rows))
    return {"predictions": [answers[i] for i in range(len(request.instances))]}


def _groups(photos: dict[int, Photo]) -> Iterator[dict[int, Photo]]:
    group: dict[int, Photo] = {}
    for i, photo in photos.items():
        group[i] = photo
        if sum(one.pixels for one in group.values()) >= GROUP_PIXELS:
            yield group
            group = {}
    if group:
        yield group


def _boxed(photos: list[Photo], predictor: Predictor) -> Outputs:
    boxes = [photo.box for photo in photos if photo.box is not None]
    return predictor.boxes([photo.decode() for photo in photos], boxes)


def _counted(faces: int) -> int:
    if faces > MAX_FACES:
        raise ValueError(f"more than {MAX_FACES} faces in the photos; send fewer at once")
    return faces


def read_inputs(tensors: dict[str, np.ndarray], size: int) -> Request:
    """Parse the inputs of ``/v2/models/NAME/infer``; no photo is decoded.

    Args:
        tensors: ``image`` (B, S, S, 3) uint8 RGB crops; or ``photo`` (B,) base64 text of encoded
            photos, alone or with ``box`` (B, 4).
        size: of a crop, px.

    Raises:
        ValueError: they are malformed, or exceed the limits of a request.
    """
    names = set(tensors)
    if names == {"image"}:
        return Request(tuple(_crops(tensors["image"], size)))
    if names not in ({"photo"}, {"photo", "box"}):
        raise ValueError(
            f"inputs are {sorted(names)}; give 'image', or 'photo', or 'photo' and 'box'"
        )
    photos = tensors["photo"].ravel()
    if not len(photos):
        raise ValueError("photo is empty; give at least one photo")
    _check_count(len(photos))
    boxes: Any = tensors.get("box", [None] * len(photos))
    if "box" in names and boxes.shape != (len(photos), 4):
        raise ValueError(f"box has the shape {boxes.shape}; it must be ({len(photos)}, 4)")
    return _within_budget(
        _named(f"photo[{i}]", _photo, f"photo[{i}]", text, boxes[i])
        for i, text in enumerate(photos)
    )


def output_names(request: Request, predictor: Predictor) -> tuple[str, ...]:
    """Names of the arrays that ``outputs`` returns, without computing them."""
    return (*(FOUND_FACE if _has_faces_to_find(request) else ()), *predictor.shapes)


def _has_faces_to_find(request: Request) -> bool:
    first = request.instances[0]
    return isinstance(first, Photo) and first.box is None


def outputs(request: Request, predictor: Predictor) -> Outputs:
    """The answer to ``read_inputs``, one row per face.

    For photos without boxes also ``photo_index`` (M,) int32, ``box`` (M, 4) and ``score`` (M,); M
    may be 0. Errors as ``predictions``.
    """
    return _finite(_outputs(request, predictor))


def _outputs(request: Request, predictor: Predictor) -> Outputs:
    crops = [one for one in request.instances if isinstance(one, np.ndarray)]
    if crops:
        return predictor.crops(np.stack(crops))
    photos = {i: one for i, one in enumerate(request.instances) if isinstance(one, Photo)}
    if _has_faces_to_find(request):
        return _all_faces(photos.values(), predictor)
    parts = [_boxed(list(group.values()), predictor) for group in _groups(photos)]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _photo(name: str, text: Any, box: Any) -> Photo:
    """A photo from the base64 text of its file.

    Raises:
        ValueError: it is not base64, not a photo, or has too many pixels.
    """
    if not isinstance(text, str | bytes):
        raise ValueError(f"a photo is base64 text, not {type(text).__name__}")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"not base64 ({error}); a photo is base64 text") from error
    return _encoded(name, data, box)


def _encoded(name: str, data: bytes, box: Any) -> Photo:
    """A photo from its file, of which only the header is read; errors as ``_photo``."""
    try:
        width, height = image_size(data)
    except ValueError as error:
        raise ValueError(f"not a readable image ({error})") from error
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise ValueError(
            f"{width} x {height} px; at most {MAX_PIXELS:,} pixels, and {MAX_SIDE:,} in a row or "
            "column, are accepted"
        )
    return Photo(name, data, width * height, None if box is None else _box(box))


def _instances(payload: Any) -> list:
    if not isinstance(payload, dict):
        raise ValueError(BODY)
    unknown = set(payload) - {"instances", "signature_name"}
    if unknown or "instances" not in payload:
        keys = [str(key)[:40] for key in sorted(payload)[:10]]
        raise ValueError(f'the body has {keys}; expected "instances" (row format)')
    signature = payload.get("signature_name", SIGNATURES[0])
    if signature not in SIGNATURES:
        raise ValueError(
            f"signature_name is {str(signature)[:40]!r}; known: {', '.join(SIGNATURES)}"
        )
    instances = payload["instances"]
    if not isinstance(instances, list) or not instances:
        raise ValueError('"instances" must be a non-empty list')
    _check_count(len(instances))
    return instances


def _check_count(count: int) -> None:
    if count > MAX_INSTANCES:
        raise ValueError(f"{count:,} instances; at most {MAX_INSTANCES} are accepted at once")


def _instance(name: str, value: Any, size: int) -> np.ndarray | Photo:
    if isinstance(value, list):
        return _crop(value, size)
    keys = set(value) if isinstance(value, dict) else set()
    if keys == {"image"}:
        return _crop(value["image"], size)
    if keys - {"box"} not in ({"b64"}, {"photo"}):
        raise ValueError(
            'a crop is nested lists or {"image": lists}, a photo {"b64": text} or '
            '{"photo": {"b64": text}}, with "box": [x0, y0, x1, y1] if the face is known'
        )
    photo = value.get("photo", value)
    text = photo.get("b64") if isinstance(photo, dict) else photo
    return _photo(name, text, value.get("box"))


def _crop(lists: Any, size: int) -> np.ndarray:
    """(S, S, 3) uint8 from nested lists, whose lengths are checked first.

    ``bytes`` accepts only whole numbers from 0 to 255, and is many times as fast as an array of
    whatever the lists contain.
    """
    pixels = _flat(_flat([lists], size), size)
    if not all(type(pixel) is list and len(pixel) == 3 for pixel in pixels):
        raise ValueError(f"a crop must be {size} lists of {size} lists of 3 numbers")
    try:
        values = bytes(itertools.chain.from_iterable(pixels))
        if bool in set(map(type, itertools.chain.from_iterable(pixels))):
            raise TypeError("true and false are no numbers")
    except (TypeError, ValueError) as error:
        raise ValueError("a crop's values must be whole numbers from 0 to 255") from error
    return np.frombuffer(values, np.uint8).reshape(size, size, 3)


def _flat(lists: list, length: int) -> list:
    if not all(type(one) is list and len(one) == length for one in lists):
        raise ValueError(f"a crop must be {length} lists of {length} lists of 3 numbers")
    return list(itertools.chain.from_iterable(lists))


def _crops(array: np.ndarray, size: int) -> np.ndarray:
    """(B, S, S, 3) whole numbers of any integer dtype as uint8."""
    if array.shape[1:] != (size, size, 3) or not len(array):
        shape = f"(B, {size}, {size}, 3), B above 0"
        raise ValueError(f"image has the shape {array.shape}; it must be {shape}")
    _check_count(len(array))
    if array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 255:
        raise ValueError("a crop's values must be whole numbers from 0 to 255")
    return array.astype(np.uint8)


def _box(value: Any) -> FaceBox:
    edges = value.tolist() if isinstance(value, np.ndarray) else value
    is_box = isinstance(edges, list) and len(edges) == 4
    if not is_box or not all(type(edge) in (int, float) for edge in edges):
        raise ValueError("box must be four numbers: x0, y0, x1, y1")
    try:
        box = FaceBox(*(float(edge) for edge in edges))
    except OverflowError as error:
        raise ValueError("box must be four numbers within the range of floats") from error
    if 0 < box.width < SMALLEST_BOX:  # the crop of a few pixels shows no face
        raise ValueError(f"box is {box.width:g} px wide; it must be {SMALLEST_BOX} or wider")
    return box


def _check_box(box: FaceBox, photo_shape: tuple[int, ...]) -> None:
    """Reject a box that cannot be cropped, or whose crop shows nothing of the photo."""
    check_crop_box(box.as_array(), photo_shape)
    height, width = photo_shape[:2]
    if box.x0 >= width or box.y0 >= height or box.x1 <= 0 or box.y1 <= 0:
        raise ValueError(f"box {box.as_array()} lies outside the photo of {width} x {height} px")


def _named(name: str, read, *arguments):
    try:
        return read(*arguments)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _finite(outputs: Outputs) -> Outputs:
    """The outputs; FloatingPointError if one of them is not finite."""
    for name, value in outputs.items():
        if not np.isfinite(value).all():
            raise FloatingPointError(f"the network's output '{name}' is not finite")
    return outputs


def _rows(outputs: Outputs) -> list[dict]:
    outputs = _finite(outputs)
    count = len(next(iter(outputs.values())))
    return [{key: value[i].tolist() for key, value in outputs.items()} for i in range(count)]


def _faces(predictor: Predictor, photo: Photo) -> list[dict]:
    detected = predictor.faces(photo.decode())
    if detected is None:
        return []
    outputs, boxes = detected
    places = [{"box": box.as_array().tolist(), "score": box.score} for box in boxes]
    return [{**box, **row} for box, row in zip(places, _rows(outputs), strict=True)]


def _all_faces(photos: Iterable[Photo], predictor: Predictor) -> Outputs:
    parts, faces = [], 0
    for i, photo in enumerate(photos):
        outputs, boxes = predictor.faces(photo.decode()) or (_none(predictor), ())
        faces = _counted(faces + len(boxes))
        edges = np.array([box.as_array() for box in boxes], np.float32).reshape(-1, 4)
        scores = np.array([box.score for box in boxes], np.float32)
        index = np.full(len(boxes), i, np.int32)
        parts.append({**dict(zip(FOUND_FACE, (index, edges, scores), strict=True)), **outputs})
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _none(predictor: Predictor) -> Outputs:
    return {name: np.zeros((0, *shape), np.float32) for name, shape in predictor.shapes.items()}
