"""Requests of TensorFlow Serving's REST API and of the v2 protocol, as JSON has them.

Errors are ``ValueError``s whose text is meant for the client.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image

from keras_scnn.geometry.crops import check_crop_box
from keras_scnn.io import decode_image
from keras_scnn.photos.cropping import FaceBox
from keras_scnn.serving.predictor import Outputs, Predictor

SIGNATURES = ("serving_default", "reconstruct", "reconstruct_batch", "reconstruct_jpeg")
MAX_PIXELS = 50_000_000


@dataclass(frozen=True, eq=False)
class Photo:
    """(H, W, 3) uint8 RGB, and the box of the face, or None where it is to be found."""

    image: np.ndarray
    box: FaceBox | None


def answer_instances(payload: Any, predictor: Predictor) -> dict:
    """Answer the JSON body of ``/v1/models/NAME:predict``, row format.

    Each of ``instances`` is a crop, as nested lists of whole numbers or as {"image": lists}; or an
    encoded photo: {"b64": text} or {"photo": {"b64": text}}, with "box": [x0, y0, x1, y1] where
    the face is known. Then its prediction has the outputs by name. For a photo without a box it
    is {"faces": [...]} with ``box`` and ``score`` too.

    Raises:
        ValueError: something of it is wrong; the text says which instance and why.
    """
    instances = _instances(payload)
    requested = [
        _named(f"instances[{i}]", _instance, value, predictor) for i, value in enumerate(instances)
    ]
    answers: dict[int, dict] = {}
    crops = [i for i, one in enumerate(requested) if isinstance(one, np.ndarray)]
    boxed = [i for i, one in enumerate(requested) if isinstance(one, Photo) and one.box]
    if crops:
        rows = _rows(predictor.crops(np.stack([requested[i] for i in crops])))
        answers |= dict(zip(crops, rows, strict=True))
    if boxed:
        photos = [requested[i] for i in boxed]
        outputs = predictor.boxes([p.image for p in photos], [p.box for p in photos])
        answers |= dict(zip(boxed, _rows(outputs), strict=True))
    for i in set(range(len(requested))) - set(answers):
        answers[i] = {"faces": _faces(predictor, requested[i].image)}
    return {"predictions": [answers[i] for i in range(len(requested))]}


def answer_tensors(tensors: dict[str, np.ndarray], predictor: Predictor) -> Outputs:
    """Answer the inputs of ``/v2/models/NAME/infer``.

    Args:
        tensors: ``image`` (B, S, S, 3) uint8 RGB crops; or ``photo`` (B,) base64 text of encoded
            photos, alone or with ``box`` (B, 4).
        predictor: runs the network.

    Returns:
        the outputs, one row a face. For photos without boxes also ``photo_index`` (M,) int32,
        ``box`` (M, 4) and ``score`` (M,); M may be 0.

    Raises:
        ValueError: something of it is wrong.
    """
    names = set(tensors)
    if names == {"image"}:
        return predictor.crops(_crops(tensors["image"], predictor.input_size))
    if names not in ({"photo"}, {"photo", "box"}):
        raise ValueError(
            f"inputs are {sorted(names)}; give 'image', or 'photo', or 'photo' and 'box'"
        )
    photos = tensors["photo"].ravel()
    images = [_named(f"photo[{i}]", decode_base64, text) for i, text in enumerate(photos)]
    if "box" not in names:
        return _all_faces(images, predictor)
    boxes = tensors["box"]
    if boxes.shape != (len(images), 4) or not images:
        raise ValueError(f"box has the shape {boxes.shape}; it must be ({len(images)}, 4)")
    pairs = enumerate(zip(boxes, images, strict=True))
    return predictor.boxes(images, [_named(f"box[{i}]", _box, *pair) for i, pair in pairs])


def decode_base64(text: Any) -> np.ndarray:
    """An encoded photo in base64 as (H, W, 3) uint8 RGB.

    Raises:
        ValueError: no base64, no readable photo, or one of too many pixels.
    """
    if not isinstance(text, str | bytes):
        raise ValueError(f"a photo is base64 text, not {type(text).__name__}")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"not base64 ({error})") from error
    try:
        with PIL.Image.open(io.BytesIO(data)) as file:
            width, height = file.size
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        known = not isinstance(error, PIL.UnidentifiedImageError)
        why = str(error) if known else "of no known format, or damaged"
        raise ValueError(f"not a readable image ({why})") from error
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} px; at most {MAX_PIXELS:,} pixels are read")
    try:
        return decode_image(data)
    except ValueError as error:
        raise ValueError(f"not a readable image ({error})") from error


def _instances(payload: Any) -> list:
    if not isinstance(payload, dict):
        raise ValueError("the body must be a JSON object, with Content-Type: application/json")
    unknown = set(payload) - {"instances", "signature_name"}
    if unknown or "instances" not in payload:
        raise ValueError(f'the body has {sorted(payload)}; expected "instances" (row format)')
    signature = payload.get("signature_name", SIGNATURES[0])
    if signature not in SIGNATURES:
        raise ValueError(f"signature_name is {signature!r}; known: {', '.join(SIGNATURES)}")
    instances = payload["instances"]
    if not isinstance(instances, list) or not instances:
        raise ValueError('"instances" must be a list that is not empty')
    return instances


def _instance(value: Any, predictor: Predictor) -> np.ndarray | Photo:
    if isinstance(value, list):
        return _crops(_array(value)[None], predictor.input_size)[0]
    keys = set(value) if isinstance(value, dict) else set()
    if keys == {"image"}:
        return _crops(_array(value["image"])[None], predictor.input_size)[0]
    if keys - {"box"} not in ({"b64"}, {"photo"}):
        raise ValueError(
            'a crop is nested lists or {"image": lists}, a photo {"b64": text} or '
            '{"photo": {"b64": text}}, with "box": [x0, y0, x1, y1] if the face is known'
        )
    photo = value.get("photo", value)
    image = decode_base64(photo.get("b64") if isinstance(photo, dict) else photo)
    return Photo(image, _box(value["box"], image) if "box" in value else None)


def _array(lists: Any) -> np.ndarray:
    try:
        return np.array(lists)
    except ValueError as error:
        raise ValueError("a crop's lists must be of equal lengths") from error


def _crops(array: np.ndarray, size: int) -> np.ndarray:
    """(B, S, S, 3) whole numbers of any kind as uint8."""
    if array.shape[1:] != (size, size, 3) or not len(array):
        raise ValueError(f"a crop has the shape {array.shape[1:]}; it must be ({size}, {size}, 3)")
    if array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 255:
        raise ValueError("a crop's values must be whole numbers from 0 to 255")
    return array.astype(np.uint8)


def _box(value: Any, image: np.ndarray) -> FaceBox:
    try:
        edges = np.array(value, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError("box must be four numbers: x0, y0, x1, y1") from error
    if edges.shape != (4,):
        raise ValueError(f"box has the shape {edges.shape}; it must be x0, y0, x1, y1")
    box = FaceBox(*edges.tolist())
    check_crop_box(box.as_array(), image.shape)
    return box


def _named(name: str, read, *arguments):
    try:
        return read(*arguments)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _rows(outputs: Outputs) -> list[dict]:
    count = len(next(iter(outputs.values())))
    return [{key: value[i].tolist() for key, value in outputs.items()} for i in range(count)]


def _faces(predictor: Predictor, image: np.ndarray) -> list[dict]:
    detected = predictor.faces(image)
    if detected is None:
        return []
    outputs, boxes = detected
    places = [{"box": box.as_array().tolist(), "score": box.score} for box in boxes]
    return [{**box, **row} for box, row in zip(places, _rows(outputs), strict=True)]


def _all_faces(images: Sequence[np.ndarray], predictor: Predictor) -> Outputs:
    parts = []
    for i, image in enumerate(images):
        outputs, boxes = predictor.faces(image) or (_none(predictor), ())
        edges = np.array([box.as_array() for box in boxes], np.float32).reshape(-1, 4)
        scores = np.array([box.score for box in boxes], np.float32)
        index = np.full(len(boxes), i, np.int32)
        parts.append({"photo_index": index, "box": edges, "score": scores, **outputs})
    if not parts:
        raise ValueError("photo is empty; give one photo at least")
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _none(predictor: Predictor) -> Outputs:
    return {name: np.zeros((0, *shape), np.float32) for name, shape in predictor.shapes.items()}
