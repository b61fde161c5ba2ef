"""Conversion between tensors of the v2 protocol, as JSON or raw bytes, and arrays."""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_scnn.serving.bodies import parsing
from keras_scnn.serving.predictor import Outputs

DATATYPES = {"float32": "FP32", "int32": "INT32"}
# Outputs that only photos without boxes have.
FOUND_FACE_TYPES = [
    {"name": "photo_index", "datatype": "INT32", "shape": [-1]},
    {"name": "box", "datatype": "FP32", "shape": [-1, 4]},
    {"name": "score", "datatype": "FP32", "shape": [-1]},
]
LENGTH, SIZE = "inference-header-content-length", "binary_data_size"
# By the kind of a datatype: types that JSON's values may have, and what errors call them. NumPy
# alone would truncate fractions, parse numbers from text, and give each value the longest text's
# size.
KINDS: dict[str, tuple[set[type], str]] = {
    "u": ({int}, "whole numbers"), "i": ({int}, "whole numbers"), "f": ({int, float}, "numbers")
}  # fmt: skip
# The most items or characters of a request's members, without the data: pydantic has up to four
# errors for each wrong item.
LENGTHS = {"id": 1000, "name": 1000, "datatype": 1000, "parameters": 64, "shape": 8, "outputs": 64}
MAX_INPUTS = 8


def read_tensor(tensor: Any) -> np.ndarray:
    """The array of a ``kserve`` input tensor, whose data in JSON may be flat or nested.

    Raises:
        ValueError: the data does not match the tensor's datatype and shape.
    """
    from kserve.utils.numpy_codec import to_np_dtype

    name = f"input {tensor.name}"
    if min(tensor.shape, default=0) < 0:
        raise ValueError(f"{name}: the shape is {tensor.shape}")
    if (dtype := to_np_dtype(tensor.datatype)) is None:
        known = "image is UINT8, photo BYTES and box FP32"
        raise ValueError(f"{name}: unknown datatype {tensor.datatype!r}; {known}")
    try:
        if tensor.data:  # else there are raw bytes, or nothing
            types, numbers = KINDS.get(np.dtype(dtype).kind, (set(), ""))
            if types and not _types(tensor.data) <= types:
                raise ValueError(f"{tensor.datatype} needs {numbers}")
        return tensor.as_numpy()
    except struct.error as error:
        form = "a length in 4 bytes, little-endian, and as many bytes"
        raise ValueError(f"{name}: raw BYTES are {form}; a photo is base64 text") from error
    except (OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error


def _types(data: list) -> set[type]:
    """The types of the values in nested lists."""
    types: set[type] = set()
    while data:
        types |= set(map(type, data))
        data = list(itertools.chain.from_iterable(one for one in data if type(one) is list))
    return types - {list}


def read_body(body: bytes, headers: Mapping[str, str], model: str) -> Any:
    """A ``kserve`` request from a body of JSON, or of JSON and raw bytes.

    Args:
        body: of the request.
        headers: of the request, with names in lower case.
        model: its name.

    Raises:
        InvalidInput: the body is malformed; its ``status`` is 422 if the JSON is.
    """
    from kserve.errors import InvalidInput

    kind, length = content_type(headers), headers.get(LENGTH)
    if not re.fullmatch(r"application/(.+\+)?json", kind):
        return read_binary(body, length, model)
    try:
        return read_binary(body, str(len(body)), model)
    except InvalidInput as error:
        if length is not None:
            need = "raw bytes after JSON need Content-Type: application/octet-stream"
            error.reason = f"{error.reason}; {need}"
        raise


def content_type(headers: Mapping[str, str]) -> str:
    """The content type in lower case, without parameters; "" if there is none."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def read_binary(body: bytes, length: str | None, model: str) -> Any:
    """A ``kserve`` request from a body of JSON followed by raw bytes of tensors.

    Args:
        body: of the request.
        length: of its JSON, from the header; None: there was no such header.
        model: its name.

    Raises:
        InvalidInput: there is no JSON, or its sizes do not match the body.
    """
    from kserve.errors import InvalidInput

    if length is None:
        raise InvalidInput(
            "the body must be JSON, with Content-Type: application/json, or JSON and raw bytes, "
            "with the length of that JSON in the header Inference-Header-Content-Length"
        )
    if not (length.isascii() and length.isdigit() and int(length[:16]) <= len(body)):
        size = f"the body has {len(body):,} bytes"
        raise InvalidInput(f"Inference-Header-Content-Length is {length[:16]}; {size}")
    request = _head(body[: int(length)], model)
    at = int(length)
    for tensor in (one for one in request.inputs if one.data is None):
        size, left = tensor.parameters[SIZE], len(body) - at
        if type(size) is not int or not 0 <= size <= left:
            why = f"{SIZE} is {size!r}, and {left:,} bytes are left"
            raise InvalidInput(f"input {tensor.name}: {why}")
        tensor._raw_data = body[at : at + size]
        at += size
    if at < len(body):
        raise InvalidInput(f"{len(body) - at:,} bytes come after those of the inputs")
    return request


def _head(text: bytes, model: str) -> Any:
    """The request that JSON describes; ``data`` of tensors sent as raw bytes is None."""
    import orjson
    from kserve import InferRequest
    from kserve.protocol.rest.v2_datamodels import InferenceRequest
    from pydantic import ValidationError

    try:
        with parsing(text):
            head = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _malformed(f"not JSON: {error}") from error
    _check_lengths(head)
    raw = [i for i, one in enumerate(_items(head, "inputs")) if _is_raw(one)]
    for i in raw:
        head["inputs"][i]["data"] = []  # KServe's schema requires some
    try:
        form = InferenceRequest.model_validate(head)
    except ValidationError as error:
        few = error.errors(include_url=False, include_input=False)[:3]
        places = (".".join(map(str, one["loc"])) for one in few)
        lines = zip(places, (one["msg"] for one in few), strict=True)
        raise _malformed("; ".join(": ".join(filter(None, line)) for line in lines)) from error
    request = InferRequest.from_inference_request(form, model)
    for i in raw:
        request.inputs[i].data = None
    return request


def _malformed(why: str) -> Exception:
    from kserve.errors import InvalidInput

    error = InvalidInput(why)
    error.status = 422
    return error


def _check_lengths(head: Any) -> None:
    """Limit what a request has of everything but data, before pydantic checks each item.

    Raises:
        InvalidInput: there is too much.
    """
    from kserve.errors import InvalidInput

    inputs = _items(head, "inputs")
    if len(inputs) > MAX_INPUTS:
        raise InvalidInput(f"{len(inputs):,} inputs; give 'image', or 'photo' and 'box'")
    for part in itertools.chain([head], inputs, _items(head, "outputs")):
        for name, most in LENGTHS.items():
            value = part.get(name) if isinstance(part, dict) else None
            if isinstance(value, str | list | dict) and len(value) > most:
                raise InvalidInput(f"{name} has the length {len(value):,}; at most {most:,}")


def _items(part: Any, name: str) -> list:
    items = part.get(name) if isinstance(part, dict) else None
    return items if isinstance(items, list) else []


def _is_raw(tensor: Any) -> bool:
    parameters = tensor.get("parameters") if isinstance(tensor, dict) else None
    return isinstance(parameters, dict) and "data" not in tensor and SIZE in parameters


@dataclass(frozen=True)
class Encoded:
    """The body of an answer in the v2 protocol.

    Attributes:
        body: JSON, perhaps followed by the raw bytes of outputs.
        json_size: of the JSON, if raw bytes may follow; None: the body is JSON alone.
    """

    body: bytes
    json_size: int | None


def encode_response(request: Any, outputs: Outputs, number: str, version: str) -> Encoded:
    """The answer to a request; outputs are raw bytes if it asks for that.

    It is made here, and not by KServe, which would convert each number in Python and stop the event
    loop for seconds.

    Args:
        request: of ``kserve``.
        outputs: to return, in this order.
        number: ID of the answer.
        version: of the model; "" for none.
    """
    import orjson

    wanted = {one.name: one.binary_data for one in request.request_outputs or []}
    rows, raw = [], []
    for name, value in outputs.items():
        row: dict[str, Any] = {
            "name": name,
            "shape": value.shape,
            "datatype": DATATYPES[value.dtype.name],
        }
        is_raw = wanted.get(name)
        if request.use_binary_outputs if is_raw is None else is_raw:
            raw.append(value.astype(value.dtype.newbyteorder("<")).tobytes())
            rows.append(row | {"parameters": {SIZE: len(raw[-1])}})
        else:
            rows.append(row | {"data": np.ascontiguousarray(value).ravel()})
    head = {"model_name": request.model_name, "id": number, "outputs": rows}
    head |= {"model_version": version} if version else {}
    text = orjson.dumps(head, option=orjson.OPT_SERIALIZE_NUMPY)
    return Encoded(b"".join([text, *raw]), len(text) if raw else None)
